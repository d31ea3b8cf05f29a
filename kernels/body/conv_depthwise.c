/* Depthwise convolution (groups == c == k): vectors run along the channels.
 *
 * Forward and backward-data gather: each destination pixel sums its taps inside the source. Which
 * kernel columns a destination column has, and where, is listed once per task. Backward-weights
 * sums x * dy over the valid pixels of each kernel position, in chunks of output rows whose partial
 * sums are added in a fixed order.
 */
#include "conv_sum.h"

enum { WIDE = 4 }; /* vectors of channels at a time */

FNN_INLINE V load_part(const T *p, int64_t n) { return n >= VL ? v_load(p) : v_load_n(p, n); }
FNN_INLINE void store_part(T *p, V v, int64_t n) {
    if (n >= VL)
        v_store(p, v);
    else
        v_store_n(p, v, n);
}

/* --- forward and backward-data ---------------------------------------------------------------- */

typedef struct {
    int64_t x, w; /* offsets of the source pixel and of the weights */
} tap;

typedef struct {
    conv_shape a;
    const T *src, *w, *bias, *residual, *saved;
    T *dst;
    int64_t act, src_h, src_w, dst_h, dst_w, task_rows;
    int backward, failed;
} gather;

/* The source coordinate that kernel position r of destination coordinate i reads, or -1. */
static int64_t source_of(int backward, int64_t i, int64_t r, int64_t stride, int64_t pad,
                         int64_t dilation, int64_t size) {
    int64_t at = backward ? i + pad - r * dilation : i * stride - pad + r * dilation;
    if (backward) {
        if (at < 0 || at % stride != 0) return -1;
        at /= stride;
    }
    return at < 0 || at >= size ? -1 : at;
}

/* nv vectors of channels of one pixel; n: channels left (the last vector may be partial). */
FNN_INLINE void gather_channels(const gather *g, const int nv, const tap *rows, int64_t row_count,
                                const tap *cols, int64_t col_count, int64_t c, int64_t dst,
                                int64_t n) {
    V acc[WIDE];
#pragma GCC unroll 4
    for (int j = 0; j < nv; j++)
        acc[j] = g->bias ? load_part(g->bias + c + j * VL, n - j * VL) : (V){0};
    for (int64_t r = 0; r < row_count; r++)
        for (int64_t s = 0; s < col_count; s++) {
            const T *x = g->src + rows[r].x + cols[s].x + c, *w = g->w + rows[r].w + cols[s].w + c;
#pragma GCC unroll 4
            for (int j = 0; j < nv; j++)
                acc[j] += load_part(x + j * VL, n - j * VL) * load_part(w + j * VL, n - j * VL);
        }
#pragma GCC unroll 4
    for (int j = 0; j < nv; j++) {
        int64_t at = dst + c + j * VL;
        if (g->residual) acc[j] += load_part(g->residual + at, n - j * VL);
        V saved = g->saved ? load_part(g->saved + at, n - j * VL) : (V){0};
        store_part(g->dst + at, epilogue(g->act, acc[j], saved), n - j * VL);
    }
}

static void gather_pixel(const gather *g, const tap *rows, int64_t row_count, const tap *cols,
                         int64_t col_count, int64_t dst) {
    int64_t c = 0, all = g->a.c;
    for (; c + WIDE * VL <= all; c += WIDE * VL)
        gather_channels(g, WIDE, rows, row_count, cols, col_count, c, dst, WIDE * VL);
    for (; c + VL <= all; c += VL)
        gather_channels(g, 1, rows, row_count, cols, col_count, c, dst, VL);
    if (c < all) gather_channels(g, 1, rows, row_count, cols, col_count, c, dst, all - c);
}

static void gather_task(void *ctx, int64_t task) {
    gather *g = ctx;
    const conv_shape *a = &g->a;
    size_t taps = (size_t)(g->dst_w * a->kw + a->kh);
    tap *cols = fnn_scratch(taps * sizeof(tap) + (size_t)g->dst_w * sizeof(int64_t));
    if (!cols) {
        __atomic_store_n(&g->failed, 1, __ATOMIC_RELAXED);
        return;
    }
    tap *rows = cols + g->dst_w * a->kw;
    int64_t *col_count = (int64_t *)(cols + taps);
    for (int64_t i = 0; i < g->dst_w; i++) {
        col_count[i] = 0;
        for (int64_t s = 0; s < a->kw; s++) {
            int64_t x =
                source_of(g->backward, i, s, a->stride_w, a->pad_w, a->dilation_w, g->src_w);
            if (x >= 0) cols[i * a->kw + col_count[i]++] = (tap){x * a->c, s * a->c};
        }
    }
    int64_t end = least(a->n * g->dst_h, (task + 1) * g->task_rows);
    for (int64_t row = task * g->task_rows; row < end; row++) {
        int64_t sample = row / g->dst_h, row_count = 0;
        for (int64_t r = 0; r < a->kh; r++) {
            int64_t y = source_of(g->backward, row % g->dst_h, r, a->stride_h, a->pad_h,
                                  a->dilation_h, g->src_h);
            if (y >= 0)
                rows[row_count++] =
                    (tap){(sample * g->src_h + y) * g->src_w * a->c, r * a->kw * a->c};
        }
        for (int64_t i = 0; i < g->dst_w; i++)
            gather_pixel(g, rows, row_count, cols + i * a->kw, col_count[i],
                         (row * g->dst_w + i) * a->c);
    }
}

static int run_gather(gather *g) {
    double row_ns = (double)g->dst_w * (double)g->a.c * (double)(g->a.kh * g->a.kw + 2) * 1.5 / VL;
    int64_t all = g->a.n * g->dst_h;
    if (all == 0) return FNN_OK;
    g->task_rows = least(all, 1 + (int64_t)(CONV_TASK_NS / (row_ns + 1.0)));
    fnn_parallel(ceil_div(all, g->task_rows), row_ns * (double)all, gather_task, g);
    return g->failed ? FNN_NO_MEMORY : FNN_OK;
}

int FNN_SYM(conv_depthwise_fwd)(const fnn_conv_fwd_args *a) {
    gather g = {.a = CONV_SHAPE(a),
                .src = a->x,
                .w = a->packed,
                .bias = a->bias,
                .residual = a->residual,
                .saved = epilogue_reads_saved(a->act) ? a->saved : NULL,
                .dst = a->y,
                .act = a->act,
                .src_h = a->ih,
                .src_w = a->iw,
                .dst_h = a->oh,
                .dst_w = a->ow};
    return run_gather(&g);
}

int FNN_SYM(conv_depthwise_bwd_data)(const fnn_conv_bwd_data_args *a) {
    gather g = {.a = CONV_SHAPE(a),
                .src = a->dy,
                .w = a->packed,
                .residual = a->residual,
                .saved = epilogue_reads_saved(a->act) ? a->saved : NULL,
                .dst = a->dx,
                .act = a->act,
                .src_h = a->oh,
                .src_w = a->ow,
                .dst_h = a->ih,
                .dst_w = a->iw,
                .backward = 1};
    return run_gather(&g);
}

/* --- backward-weights ------------------------------------------------------------------------- */

typedef struct {
    conv_shape a;
    const T *x, *dy;
    T *dw, *dbias, *work;
    int64_t rows, chunks, dw_size;
} weight_plan;

/* Kernel position (r, s) of nv vectors of channels over output rows first..last. r < 0: dbias. */
FNN_INLINE void weight_channels(const weight_plan *p, const int nv, int64_t r, int64_t s, int64_t c,
                                int64_t first, int64_t last, int64_t n, T *out) {
    const conv_shape *a = &p->a;
    V acc[WIDE];
#pragma GCC unroll 4
    for (int j = 0; j < nv; j++) acc[j] = (V){0};
    int64_t lo = 0, hi = a->ow, shift = s * a->dilation_w - a->pad_w;
    if (r >= 0) conv_valid_range(a->iw, a->ow, a->stride_w, shift, &lo, &hi);
    for (int64_t row = first; row < last; row++) {
        const T *dy = p->dy + (row * a->ow + lo) * a->k + c;
        int64_t iy = row % a->oh * a->stride_h + r * a->dilation_h - a->pad_h;
        if (r < 0) {
            for (int64_t i = lo; i < hi; i++, dy += a->k)
#pragma GCC unroll 4
                for (int j = 0; j < nv; j++) acc[j] += load_part(dy + j * VL, n - j * VL);
        } else if (iy >= 0 && iy < a->ih) {
            int64_t pixel = (row / a->oh * a->ih + iy) * a->iw + lo * a->stride_w + shift;
            const T *x = p->x + pixel * a->c + c;
            for (int64_t i = lo; i < hi; i++, dy += a->k, x += a->stride_w * a->c)
#pragma GCC unroll 4
                for (int j = 0; j < nv; j++)
                    acc[j] +=
                        load_part(x + j * VL, n - j * VL) * load_part(dy + j * VL, n - j * VL);
        }
    }
#pragma GCC unroll 4
    for (int j = 0; j < nv; j++) store_part(out + c + j * VL, acc[j], n - j * VL);
}

static void weight_position(const weight_plan *p, int64_t r, int64_t s, int64_t first, int64_t last,
                            T *out) {
    int64_t c = 0, all = p->a.c;
    for (; c + WIDE * VL <= all; c += WIDE * VL)
        weight_channels(p, WIDE, r, s, c, first, last, WIDE * VL, out);
    for (; c + VL <= all; c += VL) weight_channels(p, 1, r, s, c, first, last, VL, out);
    if (c < all) weight_channels(p, 1, r, s, c, first, last, all - c, out);
}

static void weight_task(void *ctx, int64_t chunk) {
    const weight_plan *p = ctx;
    int64_t first = p->rows * chunk / p->chunks, last = p->rows * (chunk + 1) / p->chunks;
    T *dw = p->dw, *dbias = p->dbias;
    if (p->chunks > 1) {
        dw = p->work + chunk * (p->dw_size + p->a.c);
        dbias = dw + p->dw_size;
    }
    for (int64_t r = 0; r < p->a.kh; r++)
        for (int64_t s = 0; s < p->a.kw; s++)
            weight_position(p, r, s, first, last, dw + (r * p->a.kw + s) * p->a.c);
    if (p->dbias) weight_position(p, -1, 0, first, last, dbias);
}

static double make_weight_plan(weight_plan *p, const fnn_conv_bwd_weight_args *a) {
    p->a = CONV_SHAPE(a);
    p->rows = a->n * a->oh;
    p->dw_size = a->kh * a->kw * a->c;
    double cost = (double)p->rows * (double)a->ow * (double)(p->dw_size + a->c) * 1.5 / VL;
    int64_t limit = least(CONV_TASKS, p->rows);
    p->chunks = most(1, least(limit, 1 + (int64_t)(cost / CONV_TASK_NS)));
    return cost;
}

int64_t FNN_SYM(conv_depthwise_bwd_weight_size)(const fnn_conv_bwd_weight_args *a) {
    weight_plan p = {0};
    make_weight_plan(&p, a);
    return p.chunks > 1 ? p.chunks * (p.dw_size + a->c) * (int64_t)sizeof(T) : 0;
}

int FNN_SYM(conv_depthwise_bwd_weight)(const fnn_conv_bwd_weight_args *a) {
    weight_plan p = {.x = a->x, .dy = a->dy, .dw = a->dw, .dbias = a->dbias, .work = a->work};
    double cost = make_weight_plan(&p, a);
    fnn_parallel(p.chunks, cost, weight_task, &p);
    if (p.chunks > 1) conv_sum_chunks(p.work, p.chunks, p.dw, p.dw_size, p.dbias, a->k);
    return FNN_OK;
}
