/* The tile of every convolution: up to MR rows of accumulators, nv vectors wide.
 *
 *   y[yoff[p] + j] = epilogue(sum over segments s, i < len of
 *                             x[s.x + xoff[p] + i * xstep] * w[s.w + i * wstep + j])
 *
 * Forward and backward-data: a row is an output pixel, a segment a tap, i its channels. Backward-
 * weights: a row is one element of a patch, a segment one row of output pixels, i the pixels in it.
 * Offsets instead of strides let the rows of a tile be any pixels, so small images fill it too.
 */
#ifndef FNN_CONV_TILE_H
#define FNN_CONV_TILE_H

#include "epilogue.h"
#include "vec.h"

enum { MR = FNN_MR, NV = FNN_NV, NR = FNN_NV * VL };

typedef struct {
    int64_t x, w; /* in elements */
} conv_segment;

typedef struct {
    const T *x, *w;
    const conv_segment *segments;
    int64_t segment_count, len, xstep, wstep;
    const T *bias, *residual,
        *saved; /* null where unused; residual and saved are laid out like y */
    T *y;
    int64_t cols; /* valid columns: more than (nv - 1) * VL */
    int act;
} conv_tile;

/* rows <= mr of them are written; xoff has mr entries. */
typedef void (*conv_tile_fn)(const conv_tile *tile, const int64_t *xoff, const int64_t *yoff,
                             int64_t rows);

/* The epilogue of what does not stay in registers: narrow panels and the costly activations. */
static __attribute__((noinline, unused)) void
conv_store_slow(const conv_tile *t, const T *sums, int64_t ld, const int64_t *yoff, int64_t rows) {
    for (int64_t p = 0; p < rows; p++)
        for (int64_t j = 0; j < t->cols; j += VL) {
            int64_t at = yoff[p] + j, n = t->cols - j;
            V v = v_load(sums + p * ld + j);
            if (n >= VL) {
                if (t->residual) v += v_load(t->residual + at);
                V saved = t->saved ? v_load(t->saved + at) : (V){0};
                v_store(t->y + at, epilogue(t->act, v, saved));
            } else {
                if (t->residual) v += v_load_n(t->residual + at, n);
                V saved = t->saved ? v_load_n(t->saved + at, n) : (V){0};
                v_store_n(t->y + at, epilogue(t->act, v, saved), n);
            }
        }
}

FNN_INLINE void conv_store(V acc[MR][NV], const int mr, const int nv, const conv_tile *t,
                           const int64_t *yoff, int64_t rows) {
    int act = t->act;
    if (t->cols < nv * VL || (act != FNN_ACT_NONE && act != FNN_ACT_RELU && act != FNN_GRAD_RELU)) {
        V sums[MR][NV];
#pragma GCC unroll 16
        for (int p = 0; p < mr; p++)
#pragma GCC unroll 4
            for (int j = 0; j < nv; j++) sums[p][j] = acc[p][j];
        conv_store_slow(t, (const T *)sums, NR, yoff, rows);
        return;
    }
    if (t->residual) {
#pragma GCC unroll 16
        for (int p = 0; p < mr; p++)
            if (p < rows)
#pragma GCC unroll 4
                for (int j = 0; j < nv; j++) acc[p][j] += v_load(t->residual + yoff[p] + j * VL);
    }
    if (act == FNN_ACT_RELU) {
#pragma GCC unroll 16
        for (int p = 0; p < mr; p++)
#pragma GCC unroll 4
            for (int j = 0; j < nv; j++) acc[p][j] = v_relu(acc[p][j]);
    } else if (act == FNN_GRAD_RELU) {
#pragma GCC unroll 16
        for (int p = 0; p < mr; p++)
            if (p < rows)
#pragma GCC unroll 4
                for (int j = 0; j < nv; j++)
                    acc[p][j] =
                        v_select(v_load(t->saved + yoff[p] + j * VL) > 0, acc[p][j], (V){0});
    }
#pragma GCC unroll 16
    for (int p = 0; p < mr; p++)
        if (p < rows)
#pragma GCC unroll 4
            for (int j = 0; j < nv; j++) v_store(t->y + yoff[p] + j * VL, acc[p][j]);
}

/* dense: the rows' elements are neighbours (xoff[p] = xoff[0] + p). */
FNN_INLINE void conv_tile_run(const int mr, const int nv, const int dense, const int64_t xstep,
                              const int64_t wstep, const conv_tile *t, const int64_t *xoff,
                              const int64_t *yoff, int64_t rows) {
    V acc[MR][NV], start[NV];
    int64_t at[MR];
#pragma GCC unroll 4
    for (int j = 0; j < nv; j++) {
        int64_t n = t->cols - j * VL;
        start[j] = !t->bias  ? (V){0}
                   : n >= VL ? v_load(t->bias + j * VL)
                             : v_load_n(t->bias + j * VL, n);
    }
#pragma GCC unroll 16
    for (int p = 0; p < mr; p++) {
        at[p] = dense ? p : xoff[p];
#pragma GCC unroll 4
        for (int j = 0; j < nv; j++) acc[p][j] = start[j];
    }
    for (int64_t s = 0; s < t->segment_count; s++) {
        const T *x = t->x + t->segments[s].x + (dense ? xoff[0] : 0), *w = t->w + t->segments[s].w;
        for (int64_t i = 0; i < t->len; i++, x += xstep, w += wstep) {
            /* Opaque, or the compiler makes one moving pointer of each row and spills them all. */
            if (!dense) __asm__("" : "+r"(x));
            V b[NV];
#pragma GCC unroll 4
            for (int j = 0; j < nv; j++) b[j] = v_load(w + j * VL);
#pragma GCC unroll 16
            for (int p = 0; p < mr; p++) {
                V a = v_set1(x[at[p]]);
#pragma GCC unroll 4
                for (int j = 0; j < nv; j++) acc[p][j] += a * b[j];
            }
        }
    }
    conv_store(acc, mr, nv, t, yoff, rows);
}

/* CONV_EACH_TILE(X) is X(mr, nv) for every tile there is: even mr up to MR, nv up to NV. */
#if FNN_MR == 14
#define CONV_EACH_MR(X, nv) X(2, nv) X(4, nv) X(6, nv) X(8, nv) X(10, nv) X(12, nv) X(14, nv)
#elif FNN_MR == 8
#define CONV_EACH_MR(X, nv) X(2, nv) X(4, nv) X(6, nv) X(8, nv)
#elif FNN_MR == 6
#define CONV_EACH_MR(X, nv) X(2, nv) X(4, nv) X(6, nv)
#elif FNN_MR == 4
#define CONV_EACH_MR(X, nv) X(2, nv) X(4, nv)
#endif
#if FNN_NV == 3
#define CONV_EACH_TILE(X) CONV_EACH_MR(X, 1) CONV_EACH_MR(X, 2) CONV_EACH_MR(X, 3)
#else
#define CONV_EACH_TILE(X) CONV_EACH_MR(X, 1) CONV_EACH_MR(X, 2)
#endif

/* The even tile height that cuts `rows` into equal tiles of at most MR. */
FNN_INLINE int64_t conv_tile_height(int64_t rows) {
    int64_t tiles = (rows + MR - 1) / MR;
    return ((rows + tiles - 1) / tiles + 1) & ~(int64_t)1;
}

#endif
