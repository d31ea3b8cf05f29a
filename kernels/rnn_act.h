/* Sigmoid and tanh for gates: a few ULP instead of the two that vmath.h promises, at less cost,
 * which stands beside only h multiply-adds a gate. Relative accuracy holds everywhere, also near 0
 * and in the tails; NaN propagates.
 */
#ifndef FNN_RNN_ACT_H
#define FNN_RNN_ACT_H

#include "vmath.h"

enum { GATE_LIMIT = FNN_BITS == 32 ? 87 : 708 }; /* 2^n is a normal number up to there */

/* Where tanh has no cheaper form, with e = expm1(-2|x|): tanh |x| = -e / (2 + e). */
#if defined(FNN_TANH_PIECES)
enum { TANH_IN_STAGES = 0 };
#else
enum { TANH_IN_STAGES = 1 };
#endif

/* The sigmoids of the first vectors and tanh of the rest, in place. All go through a stage before
 * any goes on: one vector's operations wait for each other, four keep the units busy. */
FNN_INLINE void gate_functions(int sigmoids, int n, V *x) {
    V r[4], scale[4], d[4];
    int m = TANH_IN_STAGES ? n : sigmoids;
#pragma GCC unroll 4
    for (int i = 0; i < m; i++)
        r[i] = i < sigmoids ? -v_at_most(v_at_least(x[i], -GATE_LIMIT), GATE_LIMIT)
                            : v_at_least(v_abs(x[i]) * (T)-2, -2 * MANTISSA_BITS);
#pragma GCC unroll 4
    for (int i = 0; i < m; i++) {
        fnn_exp_parts p = v_exp_reduce(r[i]);
        r[i] = p.r, scale[i] = (V)((p.bits + EXP_BIAS) << MANTISSA_BITS);
    }
#pragma GCC unroll 4
    for (int i = 0; i < m; i++) {
        V slope = v_exp_series(r[i]) * r[i] + (T)1; /* exp(r) = 1 + r slope */
        d[i] = i < sigmoids ? scale[i] * (slope * r[i] + (T)1) + (T)1
                            : scale[i] * (slope * r[i]) + (scale[i] - (T)1);
    }
#pragma GCC unroll 4
    for (int i = 0; i < m; i++)
        x[i] =
            i < sigmoids ? v_reciprocal(d[i]) : v_copysign(d[i] * v_reciprocal(d[i] + (T)2), x[i]);
#pragma GCC unroll 4
    for (int i = m; i < n; i++) x[i] = v_tanh(x[i]);
}

FNN_INLINE V gate_tanh(V x) {
    gate_functions(0, 1, &x);
    return x;
}

#endif
