/* Backward-weights with unit stride into few output channels, as of LeNet's first layer.
 *
 * Vectors along a few output channels would be mostly empty; here they run along the pixels. x lies
 * as planes [c][height][width] with halo, dy as planes [k][oh][width] whose rows end in zeros, so
 * that an output row and what it reads lie `width` apart in both:
 *
 *   dw[r, s, c, k] = sum over p of dy[k][p] * x[c][p + r * width + s],  p = 0..oh * width
 *
 * A task takes some samples. Its sums stay vectors, one for each weight, until the samples are
 * done; the tasks' results are added in a fixed order.
 */
#include "conv_planes.h"
#include "conv_sum.h"

/* Sums in registers at a time: output channels x weights of each. */
#if FNN_VBYTES == 64
enum { TILE_K = 6, TILE_TAPS = 4 };
#else
enum { TILE_K = 4, TILE_TAPS = 3 };
#endif

enum { MOST_PLANE_BYTES = 1 << 18 };

typedef struct {
    conv_shape a;
    const T *x, *dy;
    T *dw, *dbias, *work;
    int64_t height, width; /* of a plane of x */
    int64_t pixels;        /* of a plane of dy, in whole vectors */
    int64_t taps, chunks;
    size_t x_bytes, dy_bytes, sums_bytes, offset_bytes;
    int failed;
} plan;

int FNN_SYM(conv_weight_is_planar)(const fnn_conv_bwd_weight_args *a) {
    if (!conv_is_planar(a->k, a->stride_h, a->stride_w, a->groups)) return 0;
    double height = (double)a->oh + (double)(a->kh - 1) * (double)a->dilation_h;
    double width = (double)a->ow + (double)(a->kw - 1) * (double)a->dilation_w;
    return a->kh * a->kw > 1 &&
           (double)(a->c + a->k) * height * width * sizeof(T) <= MOST_PLANE_BYTES;
}

static double make_plan(plan *p, const fnn_conv_bwd_weight_args *args) {
    conv_shape *a = &p->a;
    *a = CONV_SHAPE(args);
    p->height = a->oh + (a->kh - 1) * a->dilation_h;
    p->width = a->ow + (a->kw - 1) * a->dilation_w;
    p->pixels = round_up(a->oh * p->width, VL);
    p->taps = a->kh * a->kw * a->c;
    /* The last vectors read on behind the last plane of x. */
    p->x_bytes = conv_align((size_t)(a->c * p->height * p->width + p->width + 2 * VL) * sizeof(T));
    p->dy_bytes = conv_align((size_t)(a->k * p->pixels) * sizeof(T));
    p->sums_bytes = (size_t)((p->taps + 1) * a->k * VL) * sizeof(T);
    p->offset_bytes = (size_t)(p->taps + TILE_TAPS) * sizeof(int64_t);
    double flop = 2.0 * (double)(p->taps * a->k) * (double)p->pixels;
    double moved = (double)(a->c * p->height * p->width + a->k * p->pixels);
    double cost = (double)a->n * (flop / CONV_FLOP_PER_NS + moved * 0.2);
    p->chunks = most(1, least(least(CONV_TASKS, a->n), 1 + (int64_t)(cost / CONV_TASK_NS)));
    return cost;
}

/* sums[tap][k] += the products of one sample, for TILE_TAPS weights of `rows` output channels. */
FNN_INLINE void add_products(int rows, const T *dy, int64_t pixels, const T *x,
                             const int64_t *offsets, V *sums, int64_t k, int64_t taps) {
    const T *from[TILE_TAPS];
    V acc[TILE_K][TILE_TAPS];
    for (int t = 0; t < TILE_TAPS; t++) from[t] = x + offsets[t];
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int t = 0; t < TILE_TAPS; t++) acc[i][t] = (V){0};
    for (int64_t p = 0; p < pixels; p += VL) {
        V window[TILE_TAPS];
#pragma GCC unroll 4
        for (int t = 0; t < TILE_TAPS; t++) window[t] = v_load(from[t] + p);
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) {
            V grad = v_load(dy + i * pixels + p);
#pragma GCC unroll 4
            for (int t = 0; t < TILE_TAPS; t++) acc[i][t] += grad * window[t];
        }
    }
    for (int64_t t = 0; t < taps; t++)
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) sums[t * k + i] += acc[i][t];
}

#define ROWS(n)                                                                                    \
    static __attribute__((noinline)) void add_products_##n(const T *dy, int64_t pixels,            \
                                                           const T *x, const int64_t *offsets,     \
                                                           V *sums, int64_t k, int64_t taps) {     \
        add_products(n, dy, pixels, x, offsets, sums, k, taps);                                    \
    }
ROWS(1)
ROWS(2)
ROWS(3)
ROWS(4)
#if FNN_VBYTES == 64
ROWS(5)
ROWS(6)
#endif

static void add_rows(int64_t rows, const T *dy, int64_t pixels, const T *x, const int64_t *offsets,
                     V *sums, int64_t k, int64_t taps) {
    switch (rows) {
#define CASE(n)                                                                                    \
    case n:                                                                                        \
        add_products_##n(dy, pixels, x, offsets, sums, k, taps);                                   \
        break;
        CASE(1)
        CASE(2)
        CASE(3)
        CASE(4)
#if FNN_VBYTES == 64
        CASE(5)
        CASE(6)
#endif
#undef CASE
    }
}

static void add_sample(const plan *p, const T *x, const T *dy, const int64_t *offsets, V *sums) {
    int64_t k = p->a.k, height = ceil_div(k, ceil_div(k, TILE_K));
    for (int64_t o = 0; o < k; o += height) {
        int64_t rows = least(height, k - o);
        for (int64_t t = 0; t < p->taps; t += TILE_TAPS)
            add_rows(rows, dy + o * p->pixels, p->pixels, x, offsets + t, sums + t * k + o, k,
                     least(TILE_TAPS, p->taps - t));
    }
    if (!p->dbias) return;
    for (int64_t o = 0; o < k; o++) {
        V sum = {0};
        for (int64_t i = 0; i < p->pixels; i += VL) sum += v_load(dy + o * p->pixels + i);
        sums[p->taps * k + o] += sum;
    }
}

static void list_offsets(const plan *p, int64_t *offsets) {
    const conv_shape *a = &p->a;
    int64_t *to = offsets;
    for (int64_t r = 0; r < a->kh; r++)
        for (int64_t s = 0; s < a->kw; s++)
            for (int64_t c = 0; c < a->c; c++)
                *to++ = (c * p->height + r * a->dilation_h) * p->width + s * a->dilation_w;
    for (int64_t t = 0; t < TILE_TAPS; t++) to[t] = to[-1];
}

static void run_task(void *ctx, int64_t task) {
    plan *p = ctx;
    const conv_shape *a = &p->a;
    char *scratch = fnn_scratch(p->x_bytes + p->dy_bytes + p->sums_bytes + p->offset_bytes);
    if (!scratch) {
        __atomic_store_n(&p->failed, 1, __ATOMIC_RELAXED);
        return;
    }
    T *x = (T *)scratch, *dy = (T *)(scratch + p->x_bytes);
    V *sums = (V *)(scratch + p->x_bytes + p->dy_bytes);
    int64_t *offsets = (int64_t *)(scratch + p->x_bytes + p->dy_bytes + p->sums_bytes);
    memset(scratch, 0, p->x_bytes + p->dy_bytes + p->sums_bytes);
    list_offsets(p, offsets);
    int64_t end = a->n * (task + 1) / p->chunks;
    int64_t x_size = a->ih * a->iw * a->c, dy_size = a->oh * a->ow * a->k;
    for (int64_t sample = a->n * task / p->chunks; sample < end; sample++) {
        take_planes(p->x + sample * x_size, p->x + a->n * x_size, a->ih, a->iw, a->c, x,
                    p->height * p->width, p->height, p->width, a->pad_h, a->pad_w);
        take_planes(p->dy + sample * dy_size, p->dy + a->n * dy_size, a->oh, a->ow, a->k, dy,
                    p->pixels, a->oh, p->width, 0, 0);
        add_sample(p, x, dy, offsets, sums);
    }
    int64_t weights = p->taps * a->k, part = weights + a->k;
    T *dw = p->chunks > 1 ? p->work + task * part : p->dw;
    T *dbias = p->chunks > 1 ? dw + weights : p->dbias;
    for (int64_t i = 0; i < weights; i++) dw[i] = v_sum(sums[i]);
    for (int64_t i = 0; p->dbias && i < a->k; i++) dbias[i] = v_sum(sums[weights + i]);
}

int64_t FNN_SYM(conv_weight_planar_size)(const fnn_conv_bwd_weight_args *args) {
    plan p = {0};
    make_plan(&p, args);
    return p.chunks > 1 ? p.chunks * (p.taps + 1) * p.a.k * (int64_t)sizeof(T) : 0;
}

int FNN_SYM(conv_weight_planar)(const fnn_conv_bwd_weight_args *args) {
    plan p = {
        .x = args->x, .dy = args->dy, .dw = args->dw, .dbias = args->dbias, .work = args->work};
    double cost = make_plan(&p, args);
    fnn_parallel(p.chunks, cost, run_task, &p);
    if (p.failed) return FNN_NO_MEMORY;
    int64_t weights = p.taps * p.a.k;
    if (p.chunks > 1) conv_sum_chunks(p.work, p.chunks, p.dw, weights, p.dbias, p.a.k);
    return FNN_OK;
}
