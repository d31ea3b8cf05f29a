/* Backward-data into few channels, of a first layer.
 *
 * A tile whose vectors run along two or three output channels would be mostly empty. Here they run
 * along all the products of one source pixel with the kernel, [kh][kw][out]: a plain product of
 * matrices, whose rows are then added to the destination where they belong. A task takes some rows
 * of a sample's destination, in scratch until they are complete.
 *
 * Destination = source * stride + position - pad.
 */
#include "conv.h"

typedef struct {
    conv_shape a;
    const T *src, *packed, *residual, *saved;
    T *dst;
    int64_t in, out, src_h, src_w, dst_h, dst_w, pad_h, pad_w, act;
    int64_t columns;              /* of the product, a multiple of VL */
    int64_t window_x, window_row; /* first destination column and elements of a window's row */
    int64_t rows, row_blocks;
    size_t window_bytes, product_bytes, table_bytes;
    int failed;
} plan;

static int64_t column_count(const fnn_conv_pack_args *a) { return a->kh * a->kw * a->c; }

int64_t FNN_SYM(conv_scatter_size)(const fnn_conv_pack_args *a) {
    return a->k * conv_padded(column_count(a)) * (int64_t)sizeof(T);
}

/* Panels of NR columns, [in][width] each, the padding zero. */
void FNN_SYM(conv_scatter_pack)(const fnn_conv_pack_args *a) {
    int64_t columns = column_count(a);
    const T *w = a->w;
    for (int64_t first = 0; first < columns; first += NR) {
        int64_t width = least(NR, conv_padded(columns) - first);
        T *panel = (T *)a->packed + first * a->k;
        for (int64_t j = 0; j < width; j++) {
            const T *from = w + (first + j) * a->k; /* w is [kh, kw, c, k] */
            for (int64_t i = 0; i < a->k; i++)
                panel[i * width + j] = first + j < columns ? from[i] : 0;
        }
    }
}

/* product[pixel, column] of one source row. */
static void multiply_row(const plan *p, const T *x, T *product, const int64_t *xoff,
                         const int64_t *yoff) {
    conv_segment whole = {0, 0};
    int64_t height = conv_tile_height(p->src_w);
    for (int64_t first = 0; first < p->columns; first += NR) {
        int64_t width = least(NR, p->columns - first);
        conv_tile t = {.x = x,
                       .w = p->packed + first * p->in,
                       .segments = &whole,
                       .segment_count = 1,
                       .len = p->in,
                       .y = product + first,
                       .cols = width};
        for (int64_t i = 0; i < p->src_w; i += height) {
            int64_t rows = least(height, p->src_w - i);
            FNN_SYM(conv_tiles)[width / VL - 1][(rows + 1) / 2 - 1](&t, xoff + i, yoff + i, rows);
        }
    }
}

/* Adds one kernel row's products to a window row. Neighbours overlap: they are taken `apart` pixels
 * from each other, or each would wait for the store before it. */
static void add_row(const plan *p, const T *product, T *window) {
    int64_t n = p->a.kw * p->out, step = p->a.stride_w * p->out;
    int64_t apart = ceil_div(conv_padded(n), step);
    for (int64_t start = 0; start < least(apart, p->src_w); start++)
        for (int64_t x = start; x < p->src_w; x += apart) {
            const T *from = product + x * p->columns;
            T *to = window + x * step;
            int64_t j = 0;
            for (; j + VL <= n; j += VL) v_store(to + j, v_load(to + j) + v_load(from + j));
            if (j < n) v_store(to + j, v_load(to + j) + v_load_n(from + j, n - j));
        }
}

static void finish_rows(const plan *p, const T *window, int64_t row, int64_t rows) {
    int64_t n = p->dst_w * p->out, at = row * n;
    for (int64_t y = 0; y < rows; y++, window += p->window_row, at += n)
        for (int64_t j = 0; j < n; j += VL) {
            int64_t left = n - j;
            V v = left >= VL ? v_load(window + j) : v_load_n(window + j, left), saved = {0};
            if (p->residual)
                v += left >= VL ? v_load(p->residual + at + j)
                                : v_load_n(p->residual + at + j, left);
            if (p->saved)
                saved = left >= VL ? v_load(p->saved + at + j) : v_load_n(p->saved + at + j, left);
            v = epilogue(p->act, v, saved);
            if (left >= VL)
                v_store(p->dst + at + j, v);
            else
                v_store_n(p->dst + at + j, v, left);
        }
}

static void run_task(void *ctx, int64_t task) {
    plan *p = ctx;
    char *scratch = fnn_scratch(p->window_bytes + p->product_bytes + 2 * p->table_bytes);
    if (!scratch) {
        __atomic_store_n(&p->failed, 1, __ATOMIC_RELAXED);
        return;
    }
    T *window = (T *)scratch, *product = (T *)(scratch + p->window_bytes);
    int64_t *xoff = (int64_t *)(scratch + p->window_bytes + p->product_bytes);
    int64_t *yoff = xoff + p->table_bytes / sizeof(int64_t);
    for (int64_t i = 0; i < p->src_w + MR; i++) {
        int64_t pixel = least(i, p->src_w - 1);
        xoff[i] = pixel * p->in;
        yoff[i] = pixel * p->columns;
    }
    int64_t sample = task / p->row_blocks, y0 = task % p->row_blocks * p->rows;
    int64_t y1 = least(p->dst_h, y0 + p->rows);
    memset(window, 0, (size_t)((y1 - y0) * p->window_row + VL) * sizeof(T));
    int64_t reach = (p->a.kh - 1) * p->a.dilation_h, stride = p->a.stride_h;
    int64_t first = most(0, y0 + p->pad_h - reach), last = y1 - 1 + p->pad_h;
    for (int64_t i = ceil_div(first, stride); i < p->src_h && i * stride <= last; i++) {
        multiply_row(p, p->src + (sample * p->src_h + i) * p->src_w * p->in, product, xoff, yoff);
        for (int64_t r = 0; r < p->a.kh; r++) {
            int64_t y = i * stride + r * p->a.dilation_h - p->pad_h;
            if (y < y0 || y >= y1) continue;
            add_row(p, product + r * p->a.kw * p->out,
                    window + (y - y0) * p->window_row - (p->window_x + p->pad_w) * p->out);
        }
    }
    finish_rows(p, window - p->window_x * p->out, sample * p->dst_h + y0, y1 - y0);
}

static int run_plan(plan *p) {
    const conv_shape *a = &p->a;
    if (a->n * p->dst_h * p->dst_w == 0) return FNN_OK;
    p->columns = conv_padded(a->kh * a->kw * p->out);
    p->window_x = least(0, -p->pad_w);
    int64_t end = (p->src_w - 1) * a->stride_w + a->kw - p->pad_w;
    p->window_row = (most(end, p->dst_w) - p->window_x) * p->out;
    double flop = 2.0 * (double)p->in * (double)p->columns + 16.0 * (double)a->kh * VL;
    double cost = flop / CONV_FLOP_PER_NS * (double)(a->n * p->src_h) * (double)p->src_w;
    int64_t worth = 1 + (int64_t)(cost / CONV_TASK_NS / (double)a->n);
    int64_t blocks = most(1, least(worth, CONV_TASKS / a->n));
    p->rows = ceil_div(p->dst_h, blocks);
    p->row_blocks = ceil_div(p->dst_h, p->rows);
    p->window_bytes = conv_align((size_t)(p->rows * p->window_row + 2 * VL) * sizeof(T));
    p->product_bytes = conv_align((size_t)(p->src_w * p->columns) * sizeof(T));
    p->table_bytes = conv_align((size_t)(p->src_w + MR) * sizeof(int64_t));
    fnn_parallel(a->n * p->row_blocks, cost, run_task, p);
    return p->failed ? FNN_NO_MEMORY : FNN_OK;
}

int FNN_SYM(conv_scatter_bwd_data)(const fnn_conv_bwd_data_args *a) {
    plan p = {.a = CONV_SHAPE(a),
              .src = a->dy,
              .packed = a->packed,
              .residual = a->residual,
              .saved = epilogue_reads_saved(a->act) ? a->saved : NULL,
              .dst = a->dx,
              .in = a->k,
              .out = a->c,
              .src_h = a->oh,
              .src_w = a->ow,
              .dst_h = a->ih,
              .dst_w = a->iw,
              .pad_h = a->pad_h,
              .pad_w = a->pad_w,
              .act = a->act};
    return run_plan(&p);
}
