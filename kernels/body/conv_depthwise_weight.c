/* Depthwise backward-weights: the sums of some weights stay in registers along each run of pixels
 * (conv_runs.h). The output rows of the batch are cut into chunks with partial sums, which are
 * added in a fixed order.
 */
#include "conv_runs.h"
#include "conv_sum.h"
#include "fetch.h"

enum { SUMS = 9 }; /* weights at a time: all of a 3x3 kernel */

typedef struct {
    walk k;
    const T *x, *dy;
    T *dw, *dbias, *work;
    int64_t rows, chunks, dw_size;
    int fetches; /* the next row: x is beyond the caches, and it can be asked for in small parts */
} weight_plan;

/* Adds to up to SUMS weights of n channels, at most a vector, the products along a run. */
FNN_INLINE void add_products(const walk *k, int64_t pixels, const T *x, const T *dy, T *dw,
                             const tap *taps, int64_t count, int64_t n) {
    const T *from[SUMS];
    V acc[SUMS];
#pragma GCC unroll 9
    for (int t = 0; t < SUMS; t++) {
        const tap *at = taps + least(t, count - 1);
        from[t] = x + at->x;
        acc[t] = load_lanes(dw + at->w, n);
    }
    for (int64_t i = 0, p = 0; i < pixels; i++, p += k->src_step, dy += k->dst_step) {
        V grad = load_lanes(dy, n);
#pragma GCC unroll 9
        for (int t = 0; t < SUMS; t++) acc[t] += load_lanes(from[t] + p, n) * grad;
    }
#pragma GCC unroll 9
    for (int t = 0; t < SUMS; t++)
        if (t < count) store_lanes(dw + taps[t].w, acc[t], n);
}

/* Asks for a part of what the next output row adds, some at each vector of channels: in the order
 * of memory, which a walk along pixels is not. */
FNN_INLINE void fetch(const weight_plan *p, const T *x, const T *dy, int64_t c) {
    const walk *k = &p->k;
    const int64_t x_part = k->a.stride_h * k->src_w, dy_part = k->dst_w; /* of a channel */
    fetch_run(x + c * x_part, x_part * VL);
    fetch_run(dy + c * dy_part, dy_part * VL);
}

/* Output row `row`: x and dy from its first pixel, or its sample's, on. */
static void add_row(const weight_plan *p, int64_t y, const T *x, const T *dy, T *dw) {
    const walk *k = &p->k;
    int64_t all = k->a.c;
    const T *next_x = row_behind(k, x, y);
    for (const run *b = k->runs; b < k->runs + k->run_count; b++) {
        const int fetches = p->fetches && 2 * b->count > k->dst_w;
        int64_t count = k->row_count[y] * b->col_count;
        for (int64_t first = 0; first < count; first += SUMS) {
            tap taps[SUMS];
            int64_t now = least(SUMS, count - first), c = 0;
            for (int64_t t = 0; t < now; t++) {
                tap row = k->rows[y * k->a.kh + (first + t) / b->col_count];
                tap col = b->cols[(first + t) % b->col_count];
                taps[t] = (tap){row.x + col.x, row.w + col.w};
            }
            for (; c + VL <= all; c += VL) {
                if (fetches) fetch(p, next_x, dy + k->dst_w * all, c);
                add_products(k, b->count, x + c, dy + b->first + c, dw + c, taps, now, VL);
            }
            if (c < all)
                add_products(k, b->count, x + c, dy + b->first + c, dw + c, taps, now, all - c);
        }
    }
}

static void add_dbias(const weight_plan *p, const T *dy, T *dbias) {
    int64_t all = p->k.a.c;
    for (int64_t c = 0; c < all; c += VL) {
        V sum[4] = {load_lanes(dbias + c, all - c)};
        int64_t i = 0;
        for (; i + 4 <= p->k.dst_w; i += 4)
            for (int u = 0; u < 4; u++) sum[u] += load_lanes(dy + (i + u) * all + c, all - c);
        for (; i < p->k.dst_w; i++) sum[0] += load_lanes(dy + i * all + c, all - c);
        store_lanes(dbias + c, (sum[0] + sum[1]) + (sum[2] + sum[3]), all - c);
    }
}

static void weight_task(void *ctx, int64_t chunk) {
    const weight_plan *p = ctx;
    const walk *k = &p->k;
    int64_t first = p->rows * chunk / p->chunks, last = p->rows * (chunk + 1) / p->chunks;
    T *dw = p->dw, *dbias = p->dbias;
    if (p->chunks > 1) {
        dw = p->work + chunk * (p->dw_size + k->a.c);
        dbias = dw + p->dw_size;
    }
    memset(dw, 0, (size_t)p->dw_size * sizeof(T));
    if (p->dbias) memset(dbias, 0, (size_t)k->a.c * sizeof(T));
    for (int64_t row = first; row < last; row++) {
        const T *dy = p->dy + row * k->dst_w * k->a.c;
        add_row(p, row % k->dst_h, p->x + row / k->dst_h * k->src_h * k->src_w * k->a.c, dy, dw);
        if (p->dbias) add_dbias(p, dy, dbias);
    }
}

static double make_weight_plan(weight_plan *p, const fnn_conv_bwd_weight_args *a) {
    p->k = (walk){.a = CONV_SHAPE(a),
                  .phases = 1,
                  .src_h = a->ih,
                  .src_w = a->iw,
                  .dst_h = a->oh,
                  .dst_w = a->ow};
    p->rows = a->n * a->oh;
    p->dw_size = a->kh * a->kw * a->c;
    p->fetches = a->c > 2 * VL && is_far_source(&p->k);
    double pixels = (double)p->rows * (double)(a->ow * a->c);
    double cost = pixels * ((double)(a->kh * a->kw) * 0.15 / VL + 0.4);
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
    if (!list_walk(&p.k, a->ow)) return FNN_NO_MEMORY;
    fnn_parallel(p.chunks, cost, weight_task, &p);
    if (p.chunks > 1) conv_sum_chunks(p.work, p.chunks, p.dw, p.dw_size, p.dbias, a->k);
    return FNN_OK;
}
