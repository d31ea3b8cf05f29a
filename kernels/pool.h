/* The geometry of pooling windows along one axis, and lanes of int32 positions.
 *
 * Images are channels-last, so a pixel's channels are one run of c elements. With c >= VL they are
 * covered by whole vectors, the last one shifted back to end with the pixel (its lanes are computed
 * twice). With c < VL one vector covers a pixel and spills into the next, which is written later;
 * only where that would leave the task's own memory are partial loads and stores used.
 */
#ifndef FNN_POOL_H
#define FNN_POOL_H

#include "vec.h"

typedef struct {
    int64_t in, out, kernel, stride, pad, dilation, adaptive;
} pool_axis;

#define POOL_AXIS_H(a)                                                                             \
    ((pool_axis){a->ih, a->oh, a->kh, a->stride_h, a->pad_h, a->dilation_h, a->adaptive})
#define POOL_AXIS_W(a)                                                                             \
    ((pool_axis){a->iw, a->ow, a->kw, a->stride_w, a->pad_w, a->dilation_w, a->adaptive})

/* The real cells of a window: first, first + step, ..., `count` of them (perhaps none). */
typedef struct {
    int64_t first, count, step;
} pool_cells;

FNN_INLINE pool_cells pool_window(const pool_axis *a, int64_t o) {
    if (a->adaptive) {
        int64_t first = o * a->in / a->out, end = ((o + 1) * a->in + a->out - 1) / a->out;
        return (pool_cells){first, end - first, 1};
    }
    int64_t first = o * a->stride - a->pad, count = a->kernel, step = a->dilation;
    if (first < 0) {
        int64_t outside = (step - 1 - first) / step;
        first += outside * step;
        count -= outside;
    }
    if (count > 0 && first + (count - 1) * step >= a->in)
        count = first < a->in ? (a->in - 1 - first) / step + 1 : 0;
    return (pool_cells){first, count > 0 ? count : 0, step};
}

/* What this axis contributes to the divisor of an average; `count` real cells are in the window. */
FNN_INLINE int64_t pool_divisor(const pool_axis *a, int64_t o, int64_t count, int include_pad) {
    if (!include_pad || a->adaptive) return count;
    int64_t start = o * a->stride - a->pad, last = a->in + a->pad - 1;
    if (start + (a->kernel - 1) * a->dilation <= last) return a->kernel;
    return start <= last ? (last - start) / a->dilation + 1 : 0;
}

/* The outputs lo..hi whose windows may hold cell i. Moves on from the range of an earlier cell, so
 * that walking along the axis needs no division; start with {0, -1}. */
typedef struct {
    int64_t lo, hi;
} pool_range;

FNN_INLINE int64_t pool_start(const pool_axis *a, int64_t o) {
    return a->adaptive ? o * a->in / a->out : o * a->stride - a->pad;
}
FNN_INLINE int64_t pool_end(const pool_axis *a, int64_t o) {
    return a->adaptive ? ((o + 1) * a->in + a->out - 1) / a->out
                       : o * a->stride - a->pad + (a->kernel - 1) * a->dilation + 1;
}
FNN_INLINE pool_range pool_advance(const pool_axis *a, pool_range r, int64_t i) {
    while (r.hi + 1 < a->out && pool_start(a, r.hi + 1) <= i) r.hi++;
    while (r.lo < a->out && pool_end(a, r.lo) <= i) r.lo++;
    return r;
}
/* The range of cell i from scratch. */
FNN_INLINE pool_range pool_covering(const pool_axis *a, int64_t i) {
    int64_t lo;
    if (a->adaptive) {
        lo = i * a->out / a->in;
    } else {
        int64_t before = i + a->pad - (a->kernel - 1) * a->dilation;
        lo = before > 0 ? (before + a->stride - 1) / a->stride : 0;
    }
    return pool_advance(a, (pool_range){lo, lo - 1}, i);
}

/* Lanes of int32 positions, as wide as T's lanes in registers. */
typedef int32_t pool_narrow __attribute__((vector_size(VL * sizeof(int32_t))));

FNN_INLINE VI pool_position(int64_t position) { return (TI)position - (VI){0}; }

FNN_INLINE VI pool_load_idx(const int32_t *p, int64_t lanes) {
    pool_narrow v = {0};
    if (lanes == VL)
        memcpy(&v, p, sizeof v);
    else
        memcpy(&v, p, (size_t)lanes * sizeof *p);
    return __builtin_convertvector(v, VI);
}
FNN_INLINE void pool_store_idx(int32_t *p, VI idx, int64_t lanes) {
    pool_narrow v = __builtin_convertvector(idx, pool_narrow);
    if (lanes == VL)
        memcpy(p, &v, sizeof v);
    else
        memcpy(p, &v, (size_t)lanes * sizeof *p);
}
FNN_INLINE V pool_load(const T *p, int64_t lanes) {
    return lanes == VL ? v_load(p) : v_load_n(p, lanes);
}
FNN_INLINE void pool_store(T *p, V v, int64_t lanes) {
    if (lanes == VL)
        v_store(p, v);
    else
        v_store_n(p, v, lanes);
}

/* Rows of `row_bytes` to a task: some 128 KB of the larger image. */
FNN_INLINE int64_t pool_rows_per_task(int64_t rows, int64_t bytes) {
    int64_t per_task = bytes > 0 ? (int64_t)(rows * 131072.0 / (double)bytes) : rows;
    return per_task > 0 ? per_task : 1;
}

#endif
