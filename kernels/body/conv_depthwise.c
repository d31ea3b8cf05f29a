/* Depthwise convolution (groups == c == k), forward and backward-data: each destination pixel sums
 * its taps inside the source. Some pixels of a run (conv_runs.h) at a time share the loads of the
 * weights and, where a kernel row's taps lie side by side, those of the source.
 */
#include "conv_runs.h"
#include "fetch.h"

#ifdef __x86_64__
#define IN_REGISTER(v) __asm__("" : "+v"(v))
#else
#define IN_REGISTER(v) __asm__("" : "+w"(v))
#endif

enum { WIDE = 8 }; /* pixels at a time */

typedef struct {
    walk k;
    const T *src, *w, *bias, *residual, *saved;
    T *dst;
    int64_t act, task_rows;
    int64_t share; /* of a pixel in what the next row adds to a source beyond the caches, or 0 */
} gather;

/* Pixels of a run within one row of the destination. */
typedef struct {
    const gather *g;
    const run *cols;
    const tap *rows;
    int64_t row_count;
    const T *src;    /* the sample, as the run's pixels move on */
    int64_t dst;     /* offset of the first pixel */
    const T *coming; /* what the next row adds, as it is asked for */
} tile;

static __attribute__((noinline)) void finish_pixels(const gather *g, const V *sums, int width,
                                                    int64_t step, int64_t dst, int64_t n) {
    for (int p = 0; p < width; p++, dst += step) {
        V v = sums[p];
        if (g->residual) v += load_lanes(g->residual + dst, n);
        V saved = g->saved ? load_lanes(g->saved + dst, n) : (V){0};
        store_lanes(g->dst + dst, epilogue(g->act, v, saved), n);
    }
}

/* sums `step` apart from dst on; n: channels of each. */
FNN_INLINE void store_pixels(const gather *g, const V *acc, const int width, int64_t step,
                             int64_t dst, int64_t n) {
    if (g->residual || g->act > FNN_ACT_RELU) {
        V sums[WIDE];
#pragma GCC unroll 8
        for (int p = 0; p < width; p++) sums[p] = acc[p];
        finish_pixels(g, sums, width, step, dst, n);
        return;
    }
#pragma GCC unroll 8
    for (int p = 0; p < width; p++)
        store_lanes(g->dst + dst + p * step, g->act == FNN_ACT_RELU ? v_relu(acc[p]) : acc[p], n);
}

/* `width` pixels, n channels from c on, at most a vector. */
FNN_INLINE void gather_vector(const tile *b, const int width, int64_t c, int64_t n) {
    const gather *g = b->g;
    const tap *cols = b->cols->cols;
    int64_t step = g->k.src_step, step3 = 3 * step, step5 = 5 * step, step7 = 7 * step;
    /* Opaque, or the compiler walks from pixel to pixel. */
    __asm__("" : "+r"(step3), "+r"(step5), "+r"(step7));
    int64_t steps[WIDE] = {0, step, 2 * step, step3, 4 * step, step5, 2 * step3, step7};
    V acc[WIDE], start = g->bias ? load_lanes(g->bias + c, n) : (V){0};
#pragma GCC unroll 8
    for (int p = 0; p < width; p++) acc[p] = start;
    for (int64_t r = 0; r < b->row_count; r++) {
        const T *x = b->src + b->rows[r].x + c, *w = g->w + b->rows[r].w + c;
        for (int64_t s = 0; s < b->cols->col_count; s++) {
            const T *from = x + cols[s].x;
            V weight = load_lanes(w + cols[s].w, n);
#pragma GCC unroll 8
            for (int p = 0; p < width; p++) acc[p] += load_lanes(from + steps[p], n) * weight;
        }
    }
    store_pixels(g, acc, width, g->k.dst_step, b->dst + c, n);
}

/* The same where the kernel has three columns side by side, `stride` apart from pixel to pixel:
 * each source pixel is loaded once for all of them. */
FNN_INLINE void gather_three(const tile *b, const int width, const int stride, int64_t c,
                             int64_t n) {
    const gather *g = b->g;
    const tap *left = b->cols->cols, *right = left + 2;
    if (left->x > right->x) left = right, right = b->cols->cols;
    int64_t next = right->w > left->w ? g->k.a.c : -g->k.a.c, step = g->k.a.c * (int64_t)sizeof(T);
    int64_t step3 = 3 * step, step5 = 5 * step, step7 = 7 * step, step9 = 9 * step;
    V acc[WIDE], start = g->bias ? load_lanes(g->bias + c, n) : (V){0};
#pragma GCC unroll 8
    for (int p = 0; p < width; p++) acc[p] = start;
    const T *src = b->src + left->x + c, *weights = g->w + left->w + c;
    for (const tap *row = b->rows; row < b->rows + b->row_count; row++) {
        const T *from = weights + row->w;
        const char *x = (const char *)(src + row->x);
        /* Opaque: multiples are made in the addresses, not kept or added up. */
        __asm__("" : "+r"(step), "+r"(step3), "+r"(step5), "+r"(step7), "+r"(step9));
        const char *at[10] = {x,         x + step,      x + 2 * step, x + step3,    x + 4 * step,
                              x + step5, x + 2 * step3, x + step7,    x + 8 * step, x + step9};
        V w[3] = {load_lanes(from, n), load_lanes(from + next, n), load_lanes(from + 2 * next, n)};
#pragma GCC unroll 10
        for (int i = 0; i < (width - 1) * stride + 3; i++) {
            V v = load_lanes((const T *)at[i], n);
            IN_REGISTER(v);
#pragma GCC unroll 3
            for (int t = 0; t < 3; t++)
                if (i >= t && (i - t) % stride == 0 && (i - t) / stride < width)
                    acc[(i - t) / stride] += v * w[t];
        }
    }
    store_pixels(g, acc, width, g->k.dst_step, b->dst + c, n);
}

/* One pixel, WIDE / 2 vectors of channels at a time. */
static void gather_1(const tile *b) {
    enum { VECTORS = WIDE / 2 };
    const gather *g = b->g;
    const tap *cols = b->cols->cols;
    int64_t c = 0, all = g->k.a.c;
    for (; c + VECTORS * VL <= all; c += VECTORS * VL) {
        V acc[VECTORS];
#pragma GCC unroll 4
        for (int j = 0; j < VECTORS; j++) acc[j] = g->bias ? v_load(g->bias + c + j * VL) : (V){0};
        for (int64_t r = 0; r < b->row_count; r++)
            for (int64_t s = 0; s < b->cols->col_count; s++) {
                const T *x = b->src + b->rows[r].x + cols[s].x + c;
                const T *w = g->w + b->rows[r].w + cols[s].w + c;
#pragma GCC unroll 4
                for (int j = 0; j < VECTORS; j++) acc[j] += v_load(x + j * VL) * v_load(w + j * VL);
            }
        store_pixels(g, acc, VECTORS, VL, b->dst + c, VL);
    }
    for (; c + VL <= all; c += VL) gather_vector(b, 1, c, VL);
    if (c < all) gather_vector(b, 1, c, all - c);
}

#define GATHER(name, vector, ...)                                                                  \
    static void name(const tile *b) {                                                              \
        int64_t c = 0, all = b->g->k.a.c;                                                          \
        for (; c + VL <= all; c += VL) vector(b, __VA_ARGS__, c, VL);                              \
        if (c < all) vector(b, __VA_ARGS__, c, all - c);                                           \
    }
GATHER(gather_4, gather_vector, 4)
GATHER(gather_8, gather_vector, 8)
GATHER(gather_three_4, gather_three, 4, 1)
GATHER(gather_three_8, gather_three, 8, 1)
GATHER(gather_three_strided, gather_three, 4, 2)

static void gather_run(tile *b) {
    const walk *k = &b->g->k;
    int64_t i = 0, count = b->cols->count, wide = 8;
    void (*run_8)(const tile *) = gather_8, (*run_4)(const tile *) = gather_4;
    if (b->cols->col_count == 3 && k->a.dilation_w == 1 && k->phases == 1) {
        if (k->src_step == k->a.c)
            run_8 = gather_three_8, run_4 = gather_three_4;
        else if (k->src_step == 2 * k->a.c)
            wide = 4, run_8 = run_4 = gather_three_strided;
    }
    for (int64_t now; i < count;
         i += now, b->src += now * k->src_step, b->dst += now * k->dst_step) {
        now = count - i >= wide ? wide : count - i >= 4 ? 4 : 1;
        b->coming = fetch_run(b->coming, now * b->g->share);
        (now == 1 ? gather_1 : now == 4 ? run_4 : run_8)(b);
    }
}

static void gather_task(void *ctx, int64_t task) {
    const gather *g = ctx;
    const walk *k = &g->k;
    int64_t end = least(k->a.n * k->dst_h, (task + 1) * g->task_rows);
    for (int64_t row = task * g->task_rows; row < end; row++) {
        int64_t sample = row / k->dst_h, y = row % k->dst_h;
        tile b = {.g = g, .rows = k->rows + y * k->a.kh, .row_count = k->row_count[y]};
        const T *image = g->src + sample * k->src_h * k->src_w * k->a.c;
        b.coming = row_behind(k, image, y);
        for (b.cols = k->runs; b.cols < k->runs + k->run_count; b.cols++) {
            b.src = image;
            b.dst = row * k->dst_w * k->a.c + b.cols->first;
            gather_run(&b);
        }
    }
}

static int run_gather(gather *g) {
    const conv_shape *a = &g->k.a;
    int64_t all = a->n * g->k.dst_h;
    if (all == 0) return FNN_OK;
    if (!list_walk(&g->k, g->k.phases > 1 ? WIDE : g->k.dst_w)) return FNN_NO_MEMORY;
    if (is_far_source(&g->k))
        g->share = (g->k.backward ? 1 : a->stride_h) * g->k.src_w * a->c / g->k.dst_w;
    /* A tap of a vector at 0.15 ns, the image at 20 GB/s. */
    double row_ns = (double)(g->k.dst_w * a->c) * ((double)(a->kh * a->kw) * 0.15 / VL + 0.4);
    g->task_rows = least(all, 1 + (int64_t)(CONV_TASK_NS / (row_ns + 1.0)));
    fnn_parallel(ceil_div(all, g->task_rows), row_ns * (double)all, gather_task, g);
    return FNN_OK;
}

int FNN_SYM(conv_depthwise_fwd)(const fnn_conv_fwd_args *a) {
    gather g = {.k = {.a = CONV_SHAPE(a),
                      .phases = 1,
                      .src_h = a->ih,
                      .src_w = a->iw,
                      .dst_h = a->oh,
                      .dst_w = a->ow},
                .src = a->x,
                .w = a->packed,
                .bias = a->bias,
                .residual = a->residual,
                .saved = epilogue_reads_saved(a->act) ? a->saved : NULL,
                .dst = a->y,
                .act = a->act};
    return run_gather(&g);
}

int FNN_SYM(conv_depthwise_bwd_data)(const fnn_conv_bwd_data_args *a) {
    gather g = {.k = {.a = CONV_SHAPE(a),
                      .backward = 1,
                      .phases = a->stride_w,
                      .src_h = a->oh,
                      .src_w = a->ow,
                      .dst_h = a->ih,
                      .dst_w = a->iw},
                .src = a->dy,
                .w = a->packed,
                .residual = a->residual,
                .saved = epilogue_reads_saved(a->act) ? a->saved : NULL,
                .dst = a->dx,
                .act = a->act};
    return run_gather(&g);
}
