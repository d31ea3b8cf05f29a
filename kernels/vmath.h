/* exp, log, expm1, log1p, tanh and sigmoid on vectors: branch-free, and right over the whole range.
 *
 * Coefficients follow from a series, 1/n! for exp, 2/(2n+1) for log (2 atanh), where no other
 * origin is given. The ranges are reduced far enough that the first term left out is below a tenth
 * of an ULP. log 2 is split in two (Cody and Waite): the high part has so few bits that its product
 * with an exponent is exact, with or without FMA. NaN propagates, overflow gives inf, underflow
 * goes through the denormals to 0.
 */
#ifndef FNN_VMATH_H
#define FNN_VMATH_H

#include "log.h"
#include "tanh.h"
#include "vbits.h"

#if FNN_BITS == 32
enum { MANTISSA_BITS = 23, EXP_BIAS = 127 };
#define FNN_LN2_HIGH 0x1.62e4p-1f
#define FNN_LN2_LOW 0x1.7f7d1cp-20f
#define FNN_LOG2E 0x1.715476p0f
#define FNN_ROUNDER 0x1.8p23f /* adding it rounds to an integer, found in the low bits */
#define FNN_EXP_MAX 89.0f     /* exp is inf from 88.73 on, */
#define FNN_EXP_MIN (-105.0f) /* and 0 below -103.98 */
#define FNN_SMALLEST_NORMAL 0x1p-126f
#define FNN_SQRT_HALF_BITS 0x3f3504f3
#else
enum { MANTISSA_BITS = 52, EXP_BIAS = 1023 };
#define FNN_LN2_HIGH 0x1.62e42feep-1
#define FNN_LN2_LOW 0x1.a39ef35793c76p-33
#define FNN_LOG2E 0x1.71547652b82fep0
#define FNN_ROUNDER 0x1.8p52
#define FNN_EXP_MAX 710.0
#define FNN_EXP_MIN (-746.0)
#define FNN_SMALLEST_NORMAL 0x1p-1022
#define FNN_SQRT_HALF_BITS 0x3fe6a09e667f3bcd
#endif

/* x = n log 2 + (r + tail) with |r| at most log(2) / 2, n a whole number; `bits` holds n in its low
 * bits. tail is what rounding r lost. */
typedef struct {
    V n, r, tail;
    VU bits;
} fnn_exp_parts;

FNN_INLINE fnn_exp_parts v_exp_reduce(V x) {
    fnn_exp_parts p;
    V shifted = x * FNN_LOG2E + FNN_ROUNDER;
    p.bits = (VU)shifted;
    p.n = shifted - FNN_ROUNDER;
    V high = x - p.n * FNN_LN2_HIGH;
    V low = p.n * FNN_LN2_LOW;
    p.r = high - low;
    p.tail = (high - p.r) - low;
    return p;
}

/* (exp(r) - 1 - r) / r^2 for |r| <= log(2) / 2: the sum of r^k / (k + 2)!, or in float32, where it
 * saves two terms, the polynomial of least error, 0.03 ULP of exp. */
FNN_INLINE V v_exp_series(V r) {
#if FNN_BITS == 32
    V q = r * 0x1.6a23c2p-10f + 0x1.123a2p-7f;
    return ((q * r + 0x1.5558f4p-5f) * r + 0x1.555492p-3f) * r + 0x1.fffffcp-2f;
#else
    V r2 = r * r, r4 = r2 * r2;
    V q01 = r * (1. / 6) + (1. / 2);
    V q23 = r * (1. / 120) + (1. / 24);
    V q45 = r * (1. / 5040) + (1. / 720);
    V q67 = r * (1. / 362880) + (1. / 40320);
    V q89 = r * (1. / 39916800) + (1. / 3628800);
    V qab = r * (1. / 6227020800) + (1. / 479001600);
    V low = q23 * r2 + q01, middle = q67 * r2 + q45, high = qab * r2 + q89;
    return (high * r4 + middle) * r4 + low;
#endif
}

/* exp(r) 2^n. */
FNN_INLINE V v_exp_join(fnn_exp_parts p) {
    V y = (v_exp_series(p.r) * p.r + (T)1) * p.r + (T)1;
#if defined(__AVX512F__)
    return FNN_X86(scalef)(y, p.n);
#else
    /* 2^n in two factors, for n beyond the exponents of normal numbers. */
    VU half = (VU)(p.n * (T)0.5 + (FNN_ROUNDER + EXP_BIAS)) << MANTISSA_BITS;
    VU rest = (p.bits << MANTISSA_BITS) - half + ((TU)2 * EXP_BIAS << MANTISSA_BITS);
    return y * (V)half * (V)rest;
#endif
}

FNN_INLINE V v_exp(V x) { return v_exp_join(v_exp_reduce(v_clamp(x, FNN_EXP_MIN, FNN_EXP_MAX))); }

/* exp(x) - 1, to full relative accuracy near 0. */
FNN_INLINE V v_expm1(V x) {
    V z = v_clamp(x, (T)-2 * MANTISSA_BITS, FNN_EXP_MAX); /* -1 from the lower bound down */
    fnn_exp_parts p = v_exp_reduce(z);
    V y = p.r * p.r * v_exp_series(p.r) + p.tail + p.r;
    V half = (V)((p.bits + (EXP_BIAS - 1)) << MANTISSA_BITS); /* 2^(n-1), finite where 2^n is not */
    V e = (half * y + (half - (T)0.5)) * (T)2;
    return v_copysign(e, x); /* keeps -0 */
}

FNN_INLINE V v_log(V x) {
#if defined(FNN_PIECES)
    return log_by_pieces(x, FNN_LN2_HIGH, FNN_LN2_LOW);
#else
    VI tiny = x < FNN_SMALLEST_NORMAL;
    V scaled = v_select(tiny, x * (T)((TU)1 << MANTISSA_BITS), x);
    /* scaled = 2^n m, with m between sqrt(1/2) and sqrt(2). */
    VU bits = (VU)scaled + (TU)(((TU)EXP_BIAS << MANTISSA_BITS) - FNN_SQRT_HALF_BITS);
    TU mantissa = ((TU)1 << MANTISSA_BITS) - 1;
    V m = (V)((bits & mantissa) + FNN_SQRT_HALF_BITS);
    T whole = (T)((TU)1 << MANTISSA_BITS); /* whole + k holds k in its low bits */
    V n = (V)((bits >> MANTISSA_BITS) + (TU)(EXP_BIAS + MANTISSA_BITS) * ((TU)1 << MANTISSA_BITS));
    n -= v_select(tiny, v_set1(whole + (EXP_BIAS + MANTISSA_BITS)), v_set1(whole + EXP_BIAS));
    /* With f = m - 1 and s = f / (2 + f): log m = 2 atanh(s) = 2s + s R, R = 2 s^2/3 + 2 s^4/5 +
     * ..; 2s = f - s f makes it f - s (f - R), whose leading term is exact. */
    V f = m - (T)1, s = f / (f + (T)2), z = s * s;
#if FNN_BITS == 32
    V series = ((z * (T)(2. / 9) + (T)(2. / 7)) * z + (T)(2. / 5)) * z + (T)(2. / 3);
#else
    V z2 = z * z, z4 = z2 * z2;
    V q01 = z * (2. / 5) + (2. / 3), q23 = z * (2. / 9) + (2. / 7);
    V q45 = z * (2. / 13) + (2. / 11), q67 = z * (2. / 17) + (2. / 15);
    V q89 = z * (2. / 21) + (2. / 19);
    V series = (q89 * z4 + (q67 * z2 + q45)) * z4 + (q23 * z2 + q01);
#endif
    V y = n * FNN_LN2_HIGH + (f - (s * (f - z * series) - n * FNN_LN2_LOW));
    T inf = (T)__builtin_inf();
    V outside = v_select(x < 0, v_set1((T)__builtin_nan("")), x); /* inf and NaN stay */
    outside = v_select(x == 0, v_set1(-inf), outside);
    return v_select((x > 0) & (x < inf), y, outside);
#endif
}

/* log(1 + x) for 0 <= x <= 1, to full relative accuracy near 0: what rounding 1 + x lost enters in
 * first order, over 1 + x taken as 1 / (1.5 - (1 + x) / 2). */
FNN_INLINE V v_log1p(V x) {
    V sum = x + (T)1;
    return v_log(sum) + (x - (sum - (T)1)) * ((T)1.5 - sum * (T)0.5);
}

/* With e = expm1(-2|x|): tanh |x| = -e / (2 + e), which never overflows. What e and the sum 2 + e
 * lost to rounding enters in first order, with 1 / sum taken as 1.5 - sum / 2, which is near
 * enough. */
FNN_INLINE V v_tanh(V x) {
#if defined(FNN_PIECES)
    return tanh_by_pieces(x);
#else
    V z = v_at_least(v_abs(x) * (T)-2, (T)-2 * MANTISSA_BITS); /* tanh is 1 from there on */
    fnn_exp_parts p = v_exp_reduce(z);
    V bend = p.r * p.r * v_exp_series(p.r) + p.tail, y = bend + p.r;
    V scale = (V)((p.bits + EXP_BIAS) << MANTISSA_BITS);
    V base = scale - (T)1, e = scale * y + base, lost = scale * y - (e - base);
    lost += scale * (bend - (y - p.r));
    V sum = e + (T)2, sum_lost = e - (sum - (T)2) + lost, quotient = e / sum;
    quotient += (lost - quotient * sum_lost) * ((T)1.5 - sum * (T)0.5);
    return v_copysign(quotient, x);
#endif
}

/* 1 / (1 + exp(-x)), as e / (1 + e) with e = exp(x) on the negative side: no overflow, and the
 * lower tail keeps its relative accuracy. The Newton step of y = 1 / (1 + e) makes good what
 * rounding 1 + e lost: 1 - y is exact. */
FNN_INLINE V v_sigmoid(V x) {
    V e = v_exp_join(v_exp_reduce(v_at_least((V)((VU)x | FNN_SIGN_BIT), FNN_EXP_MIN)));
    V y = v_reciprocal_estimate(e + (T)1);
    y += y * (((T)1 - y) - e * y);
#if defined(__AVX512F__) && FNN_BITS == 32
    __mmask16 negative = _mm512_cmplt_epi32_mask((__m512i)x, _mm512_setzero_si512());
    return (V)_mm512_mask_mul_ps((__m512)y, negative, (__m512)e, (__m512)y);
#else
    return v_select(x < 0, e * y, y);
#endif
}

#endif
