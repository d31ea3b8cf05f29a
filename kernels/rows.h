/* Rows of c logits, two ways: up to SMALL columns, VL rows at once, transposed so that a lane is a
 * row and nothing is summed across lanes; or one long row after another.
 */
#ifndef FNN_ROWS_H
#define FNN_ROWS_H

#include "lanes.h"
#include "transpose.h"
#include "vmath.h"

enum { FNN_SMALL = 32, FNN_ROWS_BLOCK = 1024 };

/* A block's columns: t[j] holds column j of up to VL rows. Room for whole transposes. */
typedef V fnn_columns[FNN_SMALL + 16];

/* With few columns single elements move faster than whole transposes. */
FNN_INLINE int few_columns(int64_t c) { return 4 * c <= VL; }

FNN_INLINE void load_columns(V *t, const T *x, int64_t rows, int64_t c) {
    if (few_columns(c)) {
        T *lanes = (T *)t;
        for (int64_t j = 0; j < c; j++) t[j] = (V){0};
        for (int64_t r = 0; r < rows; r++)
            for (int64_t j = 0; j < c; j++) lanes[j * VL + r] = x[r * c + j];
    } else {
        for (int64_t j = 0; j < c; j += VL)
            v_transpose_block(x + j, c, rows, (T *)(t + j), VL, c - j < VL ? c - j : VL);
    }
}

FNN_INLINE void store_columns(T *y, const V *t, int64_t rows, int64_t c) {
    if (few_columns(c)) {
        const T *lanes = (const T *)t;
        for (int64_t r = 0; r < rows; r++)
            for (int64_t j = 0; j < c; j++) y[r * c + j] = lanes[j * VL + r];
    } else {
        for (int64_t j = 0; j < c; j += VL)
            v_transpose_block((const T *)(t + j), VL, c - j < VL ? c - j : VL, y + j, c, rows);
    }
}

/* exp(x) for x <= 0. */
FNN_INLINE V exp_below(V x) { return v_exp_join(v_exp_reduce(v_at_least(x, FNN_EXP_MIN))); }

/* The largest that is a number: NaN has its effect in the sum of exp. */
FNN_INLINE V columns_max(const V *t, int64_t c) {
    V m = v_set1((T)-__builtin_inf());
    for (int64_t j = 0; j < c; j++) m = v_larger(t[j], m);
    return m;
}

/* t = exp(t - m); returns the sums. */
FNN_INLINE V columns_exp(V *t, int64_t c, V m) {
    V sum = {0};
    for (int64_t j = 0; j < c; j++) {
        t[j] = exp_below(t[j] - m);
        sum += t[j];
    }
    return sum;
}

/* --- one long row --------------------------------------------------------------------------- */

FNN_INLINE T largest_lane(V v) {
#if defined(__AVX512F__)
    return FNN_X86(reduce_max)(v);
#else
    T most = v[0];
    for (int k = 1; k < VL; k++) most = v[k] > most ? v[k] : most;
    return most;
#endif
}

/* As columns_max; c >= VL. */
static inline T row_max(const T *x, int64_t c) {
    V m[4];
    for (int k = 0; k < 4; k++) m[k] = v_set1((T)-__builtin_inf());
    int64_t j = 0;
    for (; j + 4 * VL <= c; j += 4 * VL)
#pragma GCC unroll 4
        for (int k = 0; k < 4; k++) m[k] = v_larger(v_load(x + j + k * VL), m[k]);
    for (; j + VL <= c; j += VL) m[0] = v_larger(v_load(x + j), m[0]);
    m[1] = v_larger(v_load(x + c - VL), m[1]);
    return largest_lane(v_larger(v_larger(m[0], m[1]), v_larger(m[2], m[3])));
}

/* The sum of exp(x - m), which y (null ok, may be x) receives. Summed in blocks. */
static inline T row_exp(const T *x, T *y, int64_t c, T m) {
    T total = 0;
    V shift = v_set1(m);
    for (int64_t from = 0; from < c; from += FNN_ROWS_BLOCK) {
        int64_t to = least(from + FNN_ROWS_BLOCK, c), j = from;
        V sum = {0};
        for (; j + VL <= to; j += VL) {
            V e = exp_below(v_load(x + j) - shift);
            if (y) v_store(y + j, e);
            sum += e;
        }
        if (j < to) {
            V e = exp_below(v_load_n(x + j, to - j) - shift);
            if (y) v_store_n(y + j, e, to - j);
            sum += cut_lanes(e, to - j);
        }
        total += v_sum(sum);
    }
    return total;
}

static inline T log_of(T x) { return v_log(v_set1(x))[0]; }

/* --- cutting -------------------------------------------------------------------------------- */

/* Rows of a task: some 8192 elements, whole blocks of VL rows, and at most 64 tasks. */
static inline int64_t rows_per_task(int64_t n, int64_t c) {
    int64_t rows = 8192 / (c ? c : 1), most = (n + 63) / 64;
    if (rows < most) rows = most;
    return (rows + VL - 1) / VL * VL;
}

#endif
