/* Mean and squared deviations of the channels of what a kernel has just written, while that is in
 * the L1 cache: a batch norm that reads it needs no pass of its own over memory. Of a gradient,
 * what batch norm's backward pass wants to know.
 *
 * A part is what one task wrote of the rows (pixels) of a matrix: in `moments`, per part, the
 * number of rows, then of each channel the mean, then of each the sum of squared deviations from
 * it, in double. bn_fwd joins the parts. Of a gradient g the two are the sums of g and of g * (x -
 * mean), which bn_bwd adds.
 */
#ifndef FNN_MOMENTS_H
#define FNN_MOMENTS_H

#include "lanes.h"
#include "scaled.h"

enum { MOMENT_ROWS = 16, MOMENT_COLS = FNN_NV * VL }; /* taken at once; of a panel */

/* Of one panel of a task: the mean is center + off. The center, the first row, takes away
 * what the rows have in common. */
typedef struct {
    int64_t rows;
    T center[MOMENT_COLS], off[MOMENT_COLS], m2[MOMENT_COLS];
} moments_state;

FNN_INLINE int64_t moments_part(int64_t channels) { return 1 + 2 * channels; }
FNN_INLINE int64_t moments_bytes(int64_t parts, int64_t channels) {
    return parts * moments_part(channels) * (int64_t)sizeof(double);
}

/* Joins `count` rows' vector at y[offsets[i]], n lanes of it: their own mean and deviations first,
 * then by the formula of Chan, Golub and LeVeque (norm.c). */
FNN_INLINE void moments_join(moments_state *s, int64_t j, const T *y, const int64_t *offsets,
                             const int64_t count, const int64_t n) {
    V center = v_load(s->center + j), sum = {0}, m2 = {0};
#pragma GCC unroll 16
    for (int64_t i = 0; i < count; i++) sum += load_lanes(y + offsets[i], n) - center;
    V off = sum * ((T)1 / (T)count), mean = center + off;
#pragma GCC unroll 16
    for (int64_t i = 0; i < count; i++) {
        V d = load_lanes(y + offsets[i], n) - mean;
        m2 += d * d;
    }
    T share = (T)count / (T)(s->rows + count);
    V before = v_load(s->off + j), delta = off - before;
    v_store(s->off + j, before + share * delta);
    v_store(s->m2 + j, v_load(s->m2 + j) + (m2 + share * (T)s->rows * (delta * delta)));
}

/* Joins rows y[offsets[i]..], `cols` channels of them; count <= MOMENT_ROWS. */
FNN_INLINE void moments_add(moments_state *s, const T *y, const int64_t *offsets, int64_t count,
                            int64_t cols) {
    if (s->rows == 0)
        for (int64_t j = 0; j < cols; j += VL) {
            V first = load_lanes(y + offsets[0] + j, cols - j);
            v_store(s->center + j, first);
            v_store(s->off + j, (V){0});
            v_store(s->m2 + j, (V){0});
        }
    for (int64_t j = 0; j < cols; j += VL) {
        if (count == MOMENT_ROWS && cols - j >= VL)
            moments_join(s, j, y + j, offsets, MOMENT_ROWS, VL);
        else
            moments_join(s, j, y + j, offsets, count, cols - j);
    }
    s->rows += count;
}

/* Of one panel of a task: sums of g and of g * (x - mean). */
typedef struct {
    int64_t rows;
    T first[MOMENT_COLS], second[MOMENT_COLS];
} gradient_state;

/* Adds rows g[offsets[i]..] with x's, `cols` channels of them; mean: of these channels. */
FNN_INLINE void gradients_add(gradient_state *s, const T *g, const T *x, const T *mean,
                              const int64_t *offsets, int64_t count, int64_t cols) {
    for (int64_t j = 0; j < cols; j += VL) {
        V center = load_lanes(mean + j, cols - j), first = {0}, second = {0};
        for (int64_t i = 0; i < count; i++) {
            V v = load_lanes(g + offsets[i] + j, cols - j);
            first += v;
            second += v * (load_lanes(x + offsets[i] + j, cols - j) - center);
        }
        v_store(s->first + j, v_load(s->first + j) + first);
        v_store(s->second + j, v_load(s->second + j) + second);
    }
    s->rows += count;
}

static inline void gradients_store(const gradient_state *s, double *part, int64_t channels,
                                   int64_t first, int64_t cols) {
    double *sum = part + 1 + first, *products = sum + channels;
    if (first == 0) part[0] = (double)s->rows;
    for (int64_t j = 0; j < cols; j++) {
        sum[j] = (double)s->first[j];
        products[j] = (double)s->second[j];
    }
}

/* Writes channels first..first + cols to their places in a part. */
static inline void moments_store(const moments_state *s, double *part, int64_t channels,
                                 int64_t first, int64_t cols) {
    double *mean = part + 1 + first, *m2 = mean + channels;
    if (first == 0) part[0] = (double)s->rows;
    for (int64_t j = 0; j < cols; j++) {
        mean[j] = (double)s->center[j] + (double)s->off[j];
        m2[j] = (double)s->m2[j];
    }
}

#endif
