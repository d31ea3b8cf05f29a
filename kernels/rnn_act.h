/* Sigmoid and tanh for gates: a few ULP instead of the last bit that vmath.h cares for, at a third
 * of its cost, which stands beside only h multiply-adds a gate. Relative accuracy holds everywhere,
 * also near 0 and in the tails; NaN propagates.
 */
#ifndef FNN_RNN_ACT_H
#define FNN_RNN_ACT_H

#include "vmath.h"

/* 1 / x for normal x and 1 / x, within an ULP or two. A division of 16 lanes takes as long as 32
 * multiply-adds; an estimate of 14 bits and a Newton step a tenth of that. */
FNN_INLINE V gate_reciprocal(V x) {
#if defined(__AVX512F__) && FNN_BITS == 32
    V y = (V)_mm512_rcp14_ps((__m512)x);
    return y + y * ((T)1 - x * y);
#else
    return (T)1 / x;
#endif
}

enum { GATE_LIMIT = FNN_BITS == 32 ? 87 : 708 }; /* 2^n is a normal number up to there */

/* x within bounds; NaN stays, which the instructions take from their second operand. */
FNN_INLINE V gate_at_least(V x, T low) {
#if defined(__AVX512F__) && FNN_BITS == 32
    return (V)_mm512_max_ps((__m512)v_set1(low), (__m512)x);
#else
    return v_select(x < low, v_set1(low), x);
#endif
}
FNN_INLINE V gate_at_most(V x, T high) {
#if defined(__AVX512F__) && FNN_BITS == 32
    return (V)_mm512_min_ps((__m512)v_set1(high), (__m512)x);
#else
    return v_select(x > high, v_set1(high), x);
#endif
}

/* The sigmoids of the first vectors and tanh of the rest, in place. All go through a stage before
 * any goes on: one vector's operations wait for each other, four keep the units busy.
 * With e = expm1(-2|x|): tanh |x| = -e / (2 + e). */
FNN_INLINE void gate_functions(int sigmoids, int n, V *x) {
    V r[4], scale[4], e[4];
#pragma GCC unroll 4
    for (int i = 0; i < n; i++)
        r[i] = i < sigmoids ? -gate_at_most(gate_at_least(x[i], -GATE_LIMIT), GATE_LIMIT)
                            : gate_at_least(v_abs(x[i]) * (T)-2, -2 * MANTISSA_BITS);
#pragma GCC unroll 4
    for (int i = 0; i < n; i++) {
        fnn_exp_parts p = v_exp_reduce(r[i]);
        r[i] = p.r, scale[i] = (V)((p.bits + EXP_BIAS) << MANTISSA_BITS);
    }
#pragma GCC unroll 4
    for (int i = 0; i < n; i++) e[i] = r[i] * r[i] * v_exp_series(r[i]) + r[i];
#pragma GCC unroll 4
    for (int i = 0; i < n; i++)
        e[i] = scale[i] * e[i] + (i < sigmoids ? scale[i] : scale[i] - (T)1);
#pragma GCC unroll 4
    for (int i = 0; i < n; i++) {
        V y = gate_reciprocal(e[i] + (T)(i < sigmoids ? 1 : 2));
        x[i] = i < sigmoids ? y : v_copysign(e[i] * y, x[i]);
    }
}

FNN_INLINE V gate_tanh(V x) {
    gate_functions(0, 1, &x);
    return x;
}

#endif
