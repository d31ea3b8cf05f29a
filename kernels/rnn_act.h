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

FNN_INLINE V gate_clamp(V x) {
    V low = v_set1((T)-GATE_LIMIT), high = v_set1((T)GATE_LIMIT);
    x = v_select(x < low, low, x);
    return v_select(x > high, high, x);
}

FNN_INLINE V gate_sigmoid(V x) {
    fnn_exp_parts p = v_exp_reduce(gate_clamp(-x));
    V scale = (V)((p.bits + EXP_BIAS) << MANTISSA_BITS);
    V e = scale + scale * (p.r * p.r * v_exp_series(p.r) + p.r);
    return gate_reciprocal(e + (T)1);
}

/* With e = expm1(-2|x|): tanh |x| = -e / (2 + e). */
FNN_INLINE V gate_tanh(V x) {
    V z = v_abs(x) * (T)-2, least = v_set1((T)-2 * MANTISSA_BITS);
    z = v_select(z < least, least, z); /* tanh is 1 there */
    fnn_exp_parts p = v_exp_reduce(z);
    V scale = (V)((p.bits + EXP_BIAS) << MANTISSA_BITS);
    V e = scale * (p.r * p.r * v_exp_series(p.r) + p.r) + (scale - (T)1);
    return v_copysign(e * gate_reciprocal(e + (T)2), x);
}

#endif
