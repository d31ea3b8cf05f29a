/* Backward-data into few channels, of a first layer.
 *
 * A tile whose vectors run along two or three output channels would be mostly empty. Here they run
 * along the products of a source pixel with many kernel positions, [s, out] or [r, s, out], and a
 * destination pixel gathers its own from the source pixels around it. Either the products are
 * summed over the source rows that a destination row sees, as the tile goes, or (`apart`) each
 * source row has those of all kernel rows, kept for the kh destination rows that want them.
 *
 * Destination = source * stride + position - pad.
 */
#include "conv.h"

typedef struct {
    conv_shape a;
    const T *src, *packed, *residual, *saved;
    T *dst;
    int64_t in, out, src_h, src_w, dst_h, dst_w, act;
    int apart;
    int64_t columns;  /* of the products, a multiple of VL */
    int64_t left;     /* pixels before and after a source row that are asked for: zero */
    int64_t row_size; /* of a source row's products, with those pixels */
    int64_t task_rows;
    size_t product_bytes, table_bytes, term_bytes;
    int failed;
} plan;

static int is_apart(int64_t in, int64_t out, int64_t kh, int64_t kw, int64_t dilation_h) {
    return dilation_h == 1 && in * ceil_div(kh * kw * out, VL) + 2 * kh * kw <
                                  kh * in * ceil_div(kw * out, VL) + 2 * kw;
}

int64_t FNN_SYM(conv_gather_size)(const fnn_conv_pack_args *a) {
    int apart = is_apart(a->k, a->c, a->kh, a->kw, a->dilation_h);
    int64_t rows = apart ? 1 : a->kh, columns = (apart ? a->kh : 1) * a->kw * a->c;
    return rows * a->k * conv_padded(columns) * (int64_t)sizeof(T);
}

/* Panels of NR columns, [kernel row][in][width] each, the padding zero. */
void FNN_SYM(conv_gather_pack)(const fnn_conv_pack_args *a) {
    int apart = is_apart(a->k, a->c, a->kh, a->kw, a->dilation_h);
    int64_t rows = apart ? 1 : a->kh, columns = (apart ? a->kh : 1) * a->kw * a->c;
    T *to = a->packed;
    for (int64_t first = 0; first < columns; first += NR) {
        int64_t width = least(NR, conv_padded(columns) - first);
        for (int64_t r = 0; r < rows; r++, to += a->k * width)
            for (int64_t j = 0; j < width; j++) {
                const T *from =
                    (const T *)a->w + (r * columns + least(first + j, columns - 1)) * a->k;
                for (int64_t i = 0; i < a->k; i++)
                    to[i * width + j] = first + j < columns ? from[i] : 0;
            }
    }
}

/* 0 where they are cut into panels, or where an even number of outputs would run over their end. */
int FNN_SYM(conv_gather_steps)(const conv_shape *a, conv_steps *steps) {
    int apart = is_apart(a->k, a->c, a->kh, a->kw, a->dilation_h);
    int64_t columns = (apart ? a->kh : 1) * a->kw * a->c, width = conv_padded(columns);
    *steps = (conv_steps){0, width, apart ? a->kw * a->c : a->k * width, a->c};
    return width <= NR && columns + a->c % 2 <= width;
}

/* The source row that kernel row r brings to destination row y, or -1. */
static int64_t source_row(const plan *p, int64_t y, int64_t r) {
    int64_t at = y + p->a.pad_h - r * p->a.dilation_h, row = at / p->a.stride_h;
    return at >= 0 && at == row * p->a.stride_h && row < p->src_h ? row : -1;
}

typedef struct {
    const plan *p;
    T *products; /* of kh source rows in turn, or of one destination row */
    int64_t *xoff, *yoff, *terms;
    conv_segment *segments;
} task_state;

/* A row of products: the sum over segments {source row, packed kernel row}, by index. */
static void multiply(const task_state *t, const T *sample, int64_t count, T *products) {
    const plan *p = t->p;
    int64_t height = conv_tile_height(p->src_w), kernel_rows = p->apart ? 1 : p->a.kh;
    conv_segment *segments = t->segments + p->a.kh;
    for (int64_t first = 0; first < p->columns; first += NR) {
        int64_t width = least(NR, p->columns - first);
        for (int64_t i = 0; i < count; i++)
            segments[i] = (conv_segment){t->segments[i].x * p->src_w * p->in,
                                         t->segments[i].w * p->in * width};
        conv_tile tile = {.x = sample,
                          .w = p->packed + first * kernel_rows * p->in,
                          .segments = segments,
                          .segment_count = count,
                          .len = p->in,
                          .y = products + p->left * p->columns + first,
                          .cols = width};
        for (int64_t i = 0; i < p->src_w; i += height) {
            int64_t rows = least(height, p->src_w - i);
            FNN_SYM(conv_tiles)
            [width / VL - 1][(rows + 1) / 2 - 1](&tile, t->xoff + i, t->yoff + i, rows);
        }
    }
}

/* Where the terms of a row's pixel lie, from its first source pixel on. first: the first kernel
 * column that reaches it. */
static int64_t list_terms(const plan *p, int64_t y, int64_t first, int64_t *terms) {
    int64_t count = 0, stride = p->a.stride_w;
    for (int64_t r = 0; r < (p->apart ? p->a.kh : 1); r++) {
        int64_t row = p->apart ? source_row(p, y, r) : 0;
        if (row < 0) continue;
        int64_t at = (p->apart ? row % p->a.kh * p->row_size : 0) + r * p->a.kw * p->out;
        for (int64_t s = first; s < p->a.kw; s += stride, at -= p->columns)
            terms[count++] = at + s * p->out;
    }
    return count;
}

/* Whole vectors are written, each over what the one before it wrote too far; not where something
 * is still to be read there, as residual and saved may be dst. */
static void gather_row(const task_state *t, int64_t row) {
    const plan *p = t->p;
    int64_t stride = p->a.stride_w, n = p->dst_w * p->out, at = row * n, y = row % p->dst_h;
    int64_t phase = p->a.pad_w % stride, most_terms = p->a.kh * p->a.kw;
    int64_t lanes = p->residual || p->saved ? p->out : VL;
    int64_t *counts = t->terms + stride * most_terms;
    for (int64_t i = 0; i < stride; i++) counts[i] = list_terms(p, y, i, t->terms + i * most_terms);
    const T *pixel = t->products + (p->left + p->a.pad_w / stride) * p->columns;
    for (int64_t j = 0; j < n; j += p->out) {
        const int64_t *terms = t->terms + phase * most_terms, count = counts[phase];
        V sum = {0}, saved = {0};
        for (int64_t i = 0; i < count; i++) sum += v_load(pixel + terms[i]);
        if (p->residual) sum += v_load_upto(p->residual + at + j, n - j);
        if (p->saved) saved = v_load_upto(p->saved + at + j, n - j);
        v_store_upto(p->dst + at + j, epilogue(p->act, sum, saved), least(lanes, n - j));
        if (++phase == stride) phase = 0, pixel += p->columns;
    }
}

static void run_rows(const task_state *t, int64_t first, int64_t end) {
    const plan *p = t->p;
    int64_t done = 0,
            sample = -1; /* apart: the sample's source rows before `done` have been made */
    for (int64_t row = first; row < end; row++) {
        int64_t y = row % p->dst_h, count = 0;
        const T *src = p->src + row / p->dst_h * p->src_h * p->src_w * p->in;
        if (row / p->dst_h != sample) sample = row / p->dst_h, done = 0;
        for (int64_t r = p->a.kh - 1; r >= 0; r--) {
            int64_t from = source_row(p, y, r);
            if (from < 0 || (p->apart && from < done)) continue;
            t->segments[count++] = (conv_segment){from, p->apart ? 0 : r};
            if (!p->apart) continue;
            multiply(t, src, count, t->products + from % p->a.kh * p->row_size);
            done = from + 1;
            count = 0;
        }
        if (!p->apart) multiply(t, src, count, t->products);
        gather_row(t, row);
    }
}

static void run_task(void *ctx, int64_t task) {
    plan *p = ctx;
    char *scratch = fnn_scratch(p->product_bytes + 2 * p->table_bytes + p->term_bytes +
                                2 * (size_t)p->a.kh * sizeof(conv_segment));
    if (!scratch) {
        __atomic_store_n(&p->failed, 1, __ATOMIC_RELAXED);
        return;
    }
    task_state t = {.p = p, .products = (T *)scratch};
    memset(scratch, 0, p->product_bytes);
    scratch += p->product_bytes;
    t.xoff = (int64_t *)scratch;
    t.yoff = (int64_t *)(scratch + p->table_bytes);
    t.terms = (int64_t *)(scratch + 2 * p->table_bytes);
    t.segments = (conv_segment *)(scratch + 2 * p->table_bytes + p->term_bytes);
    for (int64_t i = 0; i < p->src_w + MR; i++) {
        int64_t pixel = least(i, p->src_w - 1);
        t.xoff[i] = pixel * p->in;
        t.yoff[i] = pixel * p->columns;
    }
    run_rows(&t, task * p->task_rows, least(p->a.n * p->dst_h, (task + 1) * p->task_rows));
}

static int run_plan(plan *p) {
    const conv_shape *a = &p->a;
    int64_t all = a->n * p->dst_h;
    if (all * p->dst_w == 0) return FNN_OK;
    p->apart = is_apart(p->in, p->out, a->kh, a->kw, a->dilation_h);
    p->columns = conv_padded((p->apart ? a->kh : 1) * a->kw * p->out);
    p->left = most(0, ceil_div(a->kw - 1 - a->pad_w, a->stride_w));
    int64_t right = most(0, (p->dst_w - 1 + a->pad_w) / a->stride_w - (p->src_w - 1));
    p->row_size = (p->left + p->src_w + right) * p->columns;
    int64_t kept = p->apart ? a->kh : 1;
    p->product_bytes = conv_align((size_t)(kept * p->row_size + VL) * sizeof(T));
    p->table_bytes = conv_align((size_t)(p->src_w + MR) * sizeof(int64_t));
    p->term_bytes = conv_align((size_t)(a->stride_w * (a->kh * a->kw + 1)) * sizeof(int64_t));
    double flop = 2.0 * (double)(p->apart ? 1 : a->kh) * (double)(p->in * p->columns * p->src_w);
    double row_ns = flop / (double)a->stride_h / CONV_FLOP_PER_NS +
                    (double)p->dst_w * (double)(kept * a->kw + 8) * 0.3;
    /* Where products are kept, a task makes those of kh - 1 rows before its own. */
    int64_t fewest = p->apart ? 8 * a->kh * a->stride_h : 1;
    p->task_rows = least(all, most(fewest, 1 + (int64_t)(CONV_TASK_NS / row_ns)));
    fnn_parallel(ceil_div(all, p->task_rows), row_ns * (double)all, run_task, p);
    return p->failed ? FNN_NO_MEMORY : FNN_OK;
}

int FNN_SYM(conv_gather_bwd_data)(const fnn_conv_bwd_data_args *a) {
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
              .act = a->act};
    return run_plan(&p);
}
