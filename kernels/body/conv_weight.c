/* Convolution backward-weights: dw[m, k] = sum over output pixels of patch[pixel, m] * dy[pixel,
 * k].
 *
 * m counts (r, s, c), the rows of a tile; the inner loop runs over pixels. The output rows of the
 * whole batch are cut into chunks with a partial dw each, summed in a fixed order at the end; a
 * chunk is walked in blocks whose dy panel stays in L1. With enough channels a tile's rows belong
 * to one kernel position, whose valid pixels are known, so x is read in place. With few channels a
 * tile takes rows of all positions, over a window of x with halo.
 */
#include "conv_sum.h"

enum { BLOCK_PIXELS = 192, FEW_CHANNELS = 8, DIRECT_ROWS = 64, SMALL_DW = 65536 };

typedef struct {
    conv_shape a;
    const T *x, *dy;
    T *dw, *dbias, *work;
    int64_t group_c, group_k, panels; /* of one group */
    int64_t rows, m;                  /* output rows of the batch; rows of dw */
    int64_t chunks, panel_parts;
    int64_t block_rows;    /* output rows of a block */
    int few, halo;         /* few channels; a window is copied */
    int64_t width, height; /* of the window */
    size_t window_bytes, panel_bytes, table_bytes;
    int failed;
} plan;

#define CONV_TILE(mr, nv)                                                                          \
    static __attribute__((noinline)) void tile_##mr##x##nv(                                        \
        const conv_tile *t, const int64_t *xoff, const int64_t *yoff, int64_t rows) {              \
        conv_tile_run(mr, nv, 0, t->xstep, t->wstep, t, xoff, yoff, rows);                         \
    }                                                                                              \
    static __attribute__((noinline)) void dense_##mr##x##nv(                                       \
        const conv_tile *t, const int64_t *xoff, const int64_t *yoff, int64_t rows) {              \
        conv_tile_run(mr, nv, 1, t->xstep, t->wstep, t, xoff, yoff, rows);                         \
    }
CONV_EACH_TILE(CONV_TILE)

#define CONV_TILE_ENTRY(mr, nv) [nv - 1][mr / 2 - 1] = {tile_##mr##x##nv, dense_##mr##x##nv},
const conv_tile_fn FNN_SYM(conv_weight_tiles)[NV][MR / 2][2] = {CONV_EACH_TILE(CONV_TILE_ENTRY)};

/* A block of output rows first..last of one panel. */
typedef struct {
    const plan *p;
    T *window, *packed;
    int64_t *xoff, *yoff;
    conv_segment *segments;
    T *dw, *dbias;                   /* this chunk's, at the panel's first column */
    int64_t group, column, cols, nv; /* column: of dy */
    int64_t first, last;
    const T *dy; /* the block's, packed or in place */
    int64_t dy_step;
} block;

/* dy's columns of this panel: in place where they are whole vectors that few tiles read. */
static void take_dy(block *b) {
    const plan *p = b->p;
    int64_t pixels = (b->last - b->first) * p->a.ow, width = b->nv * VL;
    const T *from = p->dy + b->first * p->a.ow * p->a.k + b->column;
    if (b->cols == width && p->m <= DIRECT_ROWS) {
        b->dy = from;
        b->dy_step = p->a.k;
        return;
    }
    b->dy = b->packed;
    b->dy_step = width;
    for (int64_t i = 0; i < pixels; i++, from += p->a.k)
        for (int64_t j = 0; j < b->nv; j++) {
            int64_t n = b->cols - j * VL;
            v_store(b->packed + i * width + j * VL,
                    n >= VL ? v_load(from + j * VL) : v_load_n(from + j * VL, n));
        }
}

static void add_dbias(const block *b) {
    int64_t pixels = (b->last - b->first) * b->p->a.ow;
    for (int64_t j = 0; j < b->nv; j++) {
        const T *dy = b->dy + j * VL;
        V sum[4] = {{0}};
        int64_t i = 0, n = b->cols - j * VL;
        for (; i + 4 <= pixels; i += 4)
            for (int u = 0; u < 4; u++) sum[u] += v_load(dy + (i + u) * b->dy_step);
        for (; i < pixels; i++) sum[0] += v_load(dy + i * b->dy_step);
        V all = (sum[0] + sum[1]) + (sum[2] + sum[3]);
        T *out = b->dbias + j * VL;
        if (n >= VL)
            v_store(out, v_load(out) + all);
        else
            v_store_n(out, v_load_n(out, n) + all, n);
    }
}

static void run_tiles(const block *b, conv_tile *t, int64_t rows) {
    t->w = b->dy;
    t->wstep = b->dy_step;
    t->xstep = b->p->a.stride_w * b->p->a.c;
    t->segments = b->segments;
    t->residual = t->y;
    t->cols = b->cols;
    int64_t height = conv_tile_height(rows);
    for (int64_t i = 0; i < rows; i += height) {
        int64_t now = least(height, rows - i);
        int dense = !b->p->few && now % 2 == 0; /* an odd tile's last row is a double */
        FNN_SYM(conv_weight_tiles)
        [b->nv - 1][(now + 1) / 2 - 1][dense](t, b->xoff + i, b->yoff + i, now);
    }
}

/* Enough channels: one kernel position after the other, only its pixels inside the image. */
static void add_by_position(const block *b) {
    const plan *p = b->p;
    const conv_shape *a = &p->a;
    for (int64_t i = 0; i < p->group_c + MR; i++) {
        b->xoff[i] = least(i, p->group_c - 1);
        b->yoff[i] = i * a->k;
    }
    for (int64_t r = 0; r < a->kh; r++)
        for (int64_t s = 0; s < a->kw; s++) {
            int64_t lo, hi, shift = s * a->dilation_w - a->pad_w, count = 0;
            conv_valid_range(a->iw, a->ow, a->stride_w, shift, &lo, &hi);
            if (hi <= lo) continue;
            int64_t sample = b->first / a->oh, oy = b->first % a->oh;
            for (int64_t row = b->first; row < b->last; row++) {
                int64_t iy = oy * a->stride_h + r * a->dilation_h - a->pad_h;
                if (iy >= 0 && iy < a->ih) {
                    int64_t pixel = (sample * a->ih + iy) * a->iw + lo * a->stride_w + shift;
                    b->segments[count++] =
                        (conv_segment){pixel * a->c, ((row - b->first) * a->ow + lo) * b->dy_step};
                }
                if (++oy == a->oh) oy = 0, sample++;
            }
            if (count == 0) continue;
            conv_tile t = {.x = p->x + b->group * p->group_c,
                           .segment_count = count,
                           .len = hi - lo,
                           .y = b->dw + (r * a->kw + s) * p->group_c * a->k};
            run_tiles(b, &t, p->group_c);
        }
}

/* Few channels: all positions together; the block lies within one sample. */
static void add_by_patch(const block *b) {
    const plan *p = b->p;
    const conv_shape *a = &p->a;
    int64_t sample = b->first / a->oh, oy = b->first % a->oh;
    int64_t pitch = (p->halo ? p->width : a->iw) * a->c, i = 0;
    const T *x = p->x + (sample * a->ih + oy * a->stride_h) * pitch;
    if (p->halo) {
        conv_copy_window(b->window, p->x + sample * a->ih * a->iw * a->c, a->ih, a->iw, a->c,
                         oy * a->stride_h - a->pad_h, -a->pad_w, p->height, p->width);
        x = b->window;
    }
    for (int64_t r = 0; r < a->kh; r++)
        for (int64_t s = 0; s < a->kw; s++)
            for (int64_t c = 0; c < p->group_c; c++, i++)
                b->xoff[i] = r * a->dilation_h * pitch + s * a->dilation_w * a->c + c;
    for (int64_t extra = 0; extra < MR; extra++) b->xoff[i + extra] = b->xoff[i - 1];
    for (i = 0; i < p->m; i++) b->yoff[i] = i * a->k;
    for (i = 0; i < b->last - b->first; i++)
        b->segments[i] = (conv_segment){i * a->stride_h * pitch, i * a->ow * b->dy_step};
    conv_tile t = {.x = x + b->group * p->group_c, .segment_count = i, .len = a->ow, .y = b->dw};
    run_tiles(b, &t, p->m);
}

static void zero_columns(T *dw, int64_t rows, int64_t ld, int64_t cols) {
    for (int64_t i = 0; i < rows; i++) memset(dw + i * ld, 0, (size_t)cols * sizeof(T));
}

static void run_panel(const plan *p, block *b, int64_t chunk, int64_t index) {
    int64_t panel = index % p->panels, dw_size = p->m * p->a.k, part = dw_size + p->a.k;
    b->group = index / p->panels;
    b->column = b->group * p->group_k + panel * NR;
    b->cols = least(NR, p->group_k - panel * NR);
    b->nv = conv_panel_vectors(p->group_k, panel);
    b->dw = (p->chunks > 1 ? p->work + chunk * part : p->dw) + b->column;
    b->dbias = (p->chunks > 1 ? p->work + chunk * part + dw_size : p->dbias) + b->column;
    zero_columns(b->dw, p->m, p->a.k, b->cols);
    if (p->dbias) zero_columns(b->dbias, 1, 0, b->cols);
    int64_t end = p->rows * (chunk + 1) / p->chunks;
    for (int64_t row = p->rows * chunk / p->chunks; row < end; row = b->last) {
        b->first = row;
        b->last = least(end, row + p->block_rows);
        if (p->few) b->last = least(b->last, (row / p->a.oh + 1) * p->a.oh);
        take_dy(b);
        if (p->dbias) add_dbias(b);
        if (p->few)
            add_by_patch(b);
        else
            add_by_position(b);
    }
}

static void run_task(void *ctx, int64_t task) {
    plan *p = ctx;
    char *scratch = fnn_scratch(p->window_bytes + p->panel_bytes + 2 * p->table_bytes +
                                (size_t)p->block_rows * sizeof(conv_segment));
    if (!scratch) {
        __atomic_store_n(&p->failed, 1, __ATOMIC_RELAXED);
        return;
    }
    block b = {.p = p, .window = (T *)scratch};
    scratch += p->window_bytes;
    b.packed = (T *)scratch;
    scratch += p->panel_bytes;
    b.xoff = (int64_t *)scratch;
    b.yoff = (int64_t *)(scratch + p->table_bytes);
    b.segments = (conv_segment *)(scratch + 2 * p->table_bytes);
    int64_t chunk = task / p->panel_parts, part = task % p->panel_parts;
    int64_t all = p->a.groups * p->panels;
    for (int64_t i = all * part / p->panel_parts; i < all * (part + 1) / p->panel_parts; i++)
        run_panel(p, &b, chunk, i);
}

static double make_plan(plan *p, const fnn_conv_bwd_weight_args *args) {
    conv_shape *a = &p->a;
    *a = CONV_SHAPE(args);
    if (conv_is_dense(a)) *a = conv_flatten(a);
    p->group_c = a->c / a->groups;
    p->group_k = a->k / a->groups;
    p->panels = conv_panels(p->group_k);
    p->rows = a->n * a->oh;
    p->m = a->kh * a->kw * p->group_c;
    p->few = p->group_c < FEW_CHANNELS;

    double pixels = (double)p->rows * (double)a->ow;
    double cost = pixels * (2.0 * (double)p->m * (double)a->k / CONV_FLOP_PER_NS +
                            (double)(a->c + a->k) * sizeof(T) / 20.0);
    int64_t worth = 1 + (int64_t)(cost / CONV_TASK_NS), all = a->groups * p->panels;
    int64_t limit = p->m * a->k > SMALL_DW ? most(1, CONV_TASKS / all) : CONV_TASKS;
    p->chunks = most(1, least(least(limit, worth), p->rows));
    p->panel_parts = most(1, least(all, least(CONV_TASKS, worth) / p->chunks));

    p->block_rows = most(1, least(p->rows, BLOCK_PIXELS / most(1, a->ow)));
    if (p->few) p->block_rows = least(a->oh, 4 * p->block_rows);
    p->width = (a->ow - 1) * a->stride_w + (a->kw - 1) * a->dilation_w + 1;
    p->height = (p->block_rows - 1) * a->stride_h + (a->kh - 1) * a->dilation_h + 1;
    int64_t last_y = (a->oh - 1) * a->stride_h + (a->kh - 1) * a->dilation_h - a->pad_h;
    p->halo = p->few &&
              (a->pad_h != 0 || a->pad_w != 0 || last_y >= a->ih || p->width - a->pad_w > a->iw);
    p->window_bytes = p->halo ? conv_align((size_t)(p->width * p->height * a->c) * sizeof(T)) : 0;
    p->panel_bytes = conv_align((size_t)(p->block_rows * a->ow * NR) * sizeof(T));
    p->table_bytes = conv_align((size_t)((p->few ? p->m : p->group_c) + MR) * sizeof(int64_t));
    return cost;
}

int64_t FNN_SYM(conv_bwd_weight_size)(const fnn_conv_bwd_weight_args *args) {
    if (conv_is_depthwise(args->groups, args->c, args->k))
        return FNN_SYM(conv_depthwise_bwd_weight_size)(args);
    if (FNN_SYM(conv_weight_is_planar)(args)) return FNN_SYM(conv_weight_planar_size)(args);
    plan p = {0};
    make_plan(&p, args);
    return p.chunks > 1 ? p.chunks * (p.m * p.a.k + p.a.k) * (int64_t)sizeof(T) : 0;
}

int FNN_SYM(conv_bwd_weight)(const fnn_conv_bwd_weight_args *args) {
    if (conv_is_depthwise(args->groups, args->c, args->k))
        return FNN_SYM(conv_depthwise_bwd_weight)(args);
    if (FNN_SYM(conv_weight_is_planar)(args)) return FNN_SYM(conv_weight_planar)(args);
    plan p = {
        .x = args->x, .dy = args->dy, .dw = args->dw, .dbias = args->dbias, .work = args->work};
    double cost = make_plan(&p, args);
    fnn_parallel(p.chunks * p.panel_parts, cost, run_task, &p);
    if (p.failed) return FNN_NO_MEMORY;
    if (p.chunks > 1) conv_sum_chunks(p.work, p.chunks, p.dw, p.m * p.a.k, p.dbias, p.a.k);
    return FNN_OK;
}
