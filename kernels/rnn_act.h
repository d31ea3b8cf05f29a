/* Sigmoid and tanh for gates: a few ULP instead of the two that vmath.h promises, at less cost,
 * which stands beside only h multiply-adds a gate. The error is that of half an ULP of the argument
 * and some of the result, also near 0 and in the tails; NaN propagates.
 */
#ifndef FNN_RNN_ACT_H
#define FNN_RNN_ACT_H

#include "vmath.h"

enum {
    SIGMOID_END = FNN_BITS == 32 ? 87 : 708, /* exp of it and of its negative are normal numbers */
    TANH_END = FNN_BITS == 32 ? 10 : 20,     /* tanh is 1 from there on */
};

/* Where tanh has no cheaper form, with e = expm1(2x): tanh x = e / (e + 2). */
#if defined(FNN_TANH_PIECES)
enum { TANH_IN_STAGES = 0 };
#else
enum { TANH_IN_STAGES = 1 };
#endif

/* The sigmoids of the first vectors and tanh of the rest, in place. All go through a stage before
 * any goes on: one vector's operations wait for each other, four keep the units busy.
 * z = -x or 2x is n log 2 + r; log 2 is taken as one number: n times its error is less than the
 * half ULP of z. */
FNN_INLINE void gate_functions(int sigmoids, int n, V *x) {
    const T rounder = FNN_ROUNDER + EXP_BIAS, log2 = (T)0.69314718055994530942;
    V r[4], scale[4], d[4];
    int m = TANH_IN_STAGES ? n : sigmoids;
#pragma GCC unroll 4
    for (int i = 0; i < m; i++) {
        T limit = i < sigmoids ? SIGMOID_END : TANH_END;
        V within = v_clamp(x[i], -limit, limit);
        V z = i < sigmoids ? -within : 2 * within;
        V shifted = z * FNN_LOG2E + rounder;
        r[i] = z - (shifted - rounder) * log2;
        scale[i] = (V)((VU)shifted << MANTISSA_BITS);
    }
#pragma GCC unroll 4
    for (int i = 0; i < m; i++) {
        V slope = v_exp_series(r[i]) * r[i] + (T)1; /* exp(r) = 1 + r slope */
        d[i] = i < sigmoids ? scale[i] * (slope * r[i] + (T)1) + (T)1
                            : scale[i] * (slope * r[i]) + (scale[i] - (T)1);
    }
#pragma GCC unroll 4
    for (int i = 0; i < m; i++)
        x[i] = i < sigmoids ? v_reciprocal(d[i]) : d[i] * v_reciprocal(d[i] + (T)2);
#pragma GCC unroll 4
    for (int i = m; i < n; i++) x[i] = v_tanh(x[i]);
}

FNN_INLINE V gate_tanh(V x) {
    gate_functions(0, 1, &x);
    return x;
}

#endif
