/* Convolution with unit stride and 2x2 max pooling of it, over images with samples as lanes.
 *
 * A tile's vectors are the four pixels of a window, its rows some output channels: what the
 * convolution gives stays in registers, and only maxima and their positions are written.
 *
 *   task = VL samples:  x -> planes [in][height][width][VL] with halo; for each window:
 *                       sums [out][4] -> y, idx [out][window][VL]
 */
#include "conv_lanes.h"
#include "pool.h"

/* Output channels of a tile, which has four vectors of each. */
#if FNN_VBYTES == 64
enum { TILE_OUT = 6 };
#else
enum { TILE_OUT = 2 };
#endif
enum { WINDOW = 4 };

typedef struct {
    const fnn_lanes_conv_pool_args *a;
    int64_t height, width; /* of a plane of x with halo */
    int64_t packed_out;    /* of a tap's weights */
    size_t planes_bytes;
    int failed;
} plan;

/* One window: its first pixel's first tap in the first plane, and where its maxima go. */
typedef struct {
    const T *x;
    T *y;
    int32_t *idx;
    int64_t position; /* of the first pixel in an image of the convolution's output */
} window;

/* The largest of a window's values, the first of equals, the last of several NaN: pool.c's rule. */
FNN_INLINE void put_largest(const plan *p, const int relu, const window *at, int64_t channel,
                            V v[WINDOW]) {
    const fnn_lanes_conv_pool_args *a = p->a;
    const int64_t position[WINDOW] = {at->position, at->position + 1, at->position + a->ow,
                                      at->position + a->ow + 1};
    int64_t to = channel * (a->oh / 2) * (a->ow / 2) * VL;
    if (relu)
        for (int j = 0; j < WINDOW; j++) v[j] = v_relu(v[j]);
    V best = v[0];
    VI where = pool_position(position[0]);
#pragma GCC unroll 4
    for (int j = 1; j < WINDOW; j++) {
        VI take = (v[j] > best) | (v[j] != v[j]);
        best = v_select(take, v[j], best);
        where = (VI)v_select(take, (V)pool_position(position[j]), (V)where);
    }
    v_store(at->y + to, best);
    if (at->idx) pool_store_idx(at->idx + to, where, VL);
}

/* `rows` output channels from `first` on of one window. */
FNN_INLINE void pooled_tile(const int rows, const plan *p, const window *at, int64_t first) {
    const fnn_lanes_conv_pool_args *a = p->a;
    const T *w = (const T *)a->packed + first, *bias = a->bias;
    const int64_t row = p->width * VL, step = a->dilation_w * VL;
    V acc[TILE_OUT][WINDOW];
#pragma GCC unroll 6
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int j = 0; j < WINDOW; j++) acc[i][j] = bias ? v_set1(bias[first + i]) : (V){0};
    for (int64_t c = 0; c < a->c; c++) {
        const T *line = at->x + c * p->height * row;
        for (int64_t r = 0; r < a->kh; r++, line += a->dilation_h * row) {
            const T *x = line;
            int64_t left = a->kw;
            do {
                V pixels[WINDOW] = {v_load(x), v_load(x + VL), v_load(x + row),
                                    v_load(x + row + VL)};
#pragma GCC unroll 6
                for (int i = 0; i < rows; i++) {
                    V weight = v_set1(w[i]);
#pragma GCC unroll 4
                    for (int j = 0; j < WINDOW; j++) acc[i][j] += weight * pixels[j];
                }
                x += step;
                w += p->packed_out;
            } while (--left > 0);
        }
    }
#pragma GCC unroll 6
    for (int i = 0; i < rows; i++) put_largest(p, a->act == FNN_ACT_RELU, at, first + i, acc[i]);
}

#define TILE(rows)                                                                                 \
    static __attribute__((noinline)) void pooled_tile_##rows(const plan *p, const window *at,      \
                                                             int64_t first) {                      \
        pooled_tile(rows, p, at, first);                                                           \
    }
TILE(1)
TILE(2)
#if FNN_VBYTES == 64
TILE(3)
TILE(4)
TILE(5)
TILE(6)
#endif

typedef void (*tile_fn)(const plan *p, const window *at, int64_t first);
static const tile_fn tiles[TILE_OUT] = {
    pooled_tile_1, pooled_tile_2,
#if FNN_VBYTES == 64
    pooled_tile_3, pooled_tile_4, pooled_tile_5, pooled_tile_6,
#endif
};

/* A group of VL samples; planes: theirs of x. */
static void pool_group(const plan *p, const T *planes, int64_t group) {
    const fnn_lanes_conv_pool_args *a = p->a;
    int64_t rows = a->oh / 2, cols = a->ow / 2, at = group * a->k * rows * cols * VL;
    int64_t count = ceil_div(a->k, TILE_OUT);
    for (int64_t y = 0; y < rows; y++)
        for (int64_t x = 0; x < cols; x++, at += VL) {
            window w = {.x = planes + (y * p->width + x) * 2 * VL,
                        .y = (T *)a->y + at,
                        .idx = a->idx ? (int32_t *)a->idx + at : NULL,
                        .position = (y * a->ow + x) * 2};
            for (int64_t i = 0; i < count; i++) {
                int64_t first = a->k * i / count, end = a->k * (i + 1) / count;
                tiles[end - first - 1](p, &w, first);
            }
        }
}

static void run_task(void *ctx, int64_t group) {
    plan *p = ctx;
    const fnn_lanes_conv_pool_args *a = p->a;
    const T *x = (const T *)a->x + group * a->c * a->ih * a->iw * VL;
    if (p->height == a->ih && p->width == a->iw) {
        pool_group(p, x, group);
        return;
    }
    T *planes = fnn_scratch(p->planes_bytes);
    if (!planes) {
        __atomic_store_n(&p->failed, 1, __ATOMIC_RELAXED);
        return;
    }
    memset(planes, 0, p->planes_bytes);
    surround_planes(x, a->ih, a->iw, a->c, planes + (a->pad_h * p->width + a->pad_w) * VL,
                    p->height * p->width * VL, p->width);
    pool_group(p, planes, group);
}

int FNN_SYM(lanes_conv_pool)(const fnn_lanes_conv_pool_args *a) {
    plan p = {.a = a,
              .height = a->oh + (a->kh - 1) * a->dilation_h,
              .width = a->ow + (a->kw - 1) * a->dilation_w,
              .packed_out = round_up(a->k, 2)};
    int64_t pixels = p.height * p.width, windows = (a->oh / 2) * (a->ow / 2);
    if (a->n * a->k * windows == 0) return FNN_OK;
    p.planes_bytes = (size_t)(a->c * pixels) * FNN_VBYTES;
    double flop = 2.0 * (double)(a->kh * a->kw * a->c * a->k) * (double)(WINDOW * windows);
    double cost = (double)a->n * (flop / CONV_FLOP_PER_NS + (double)(a->c * pixels) * 0.1);
    fnn_parallel(a->n / VL, cost, run_task, &p);
    return p.failed ? FNN_NO_MEMORY : FNN_OK;
}
