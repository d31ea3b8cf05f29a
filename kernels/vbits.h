/* Signs, bounds and reciprocals of vectors. */
#ifndef FNN_VBITS_H
#define FNN_VBITS_H

#include "vec.h"

#define FNN_SIGN_BIT ((TU)1 << (FNN_BITS - 1))
FNN_INLINE V v_abs(V x) { return (V)((VU)x & ~FNN_SIGN_BIT); }
FNN_INLINE V v_copysign(V magnitude, V sign) {
    return (V)(((VU)magnitude & ~FNN_SIGN_BIT) | ((VU)sign & FNN_SIGN_BIT));
}

#define FNN_CAT3_(a, b, c) a##_##b##_##c
#define FNN_CAT3(a, b, c) FNN_CAT3_(a, b, c)
/* One instruction of x86 for V: FNN_X86(max) is _mm512_max_ps for AVX-512 and float. */
#if defined(__x86_64__)
#if FNN_BITS == 32
#define FNN_X86_TYPE ps
#else
#define FNN_X86_TYPE pd
#endif
#if defined(__AVX512F__)
#define FNN_X86(op) FNN_CAT3(_mm512, op, FNN_X86_TYPE)
#elif defined(__AVX2__)
#define FNN_X86(op) FNN_CAT3(_mm256, op, FNN_X86_TYPE)
#else
#define FNN_X86(op) FNN_CAT3(_mm, op, FNN_X86_TYPE)
#endif
#endif

/* x within bounds; NaN and, with a bound of 0, -0 stay: x86 takes these from the second operand. */
FNN_INLINE V v_at_least(V x, T low) {
#if defined(FNN_X86)
    return FNN_X86(max)(v_set1(low), x);
#else
    return v_select(x < low, v_set1(low), x);
#endif
}
FNN_INLINE V v_at_most(V x, T high) {
#if defined(FNN_X86)
    return FNN_X86(min)(v_set1(high), x);
#else
    return v_select(x > high, v_set1(high), x);
#endif
}

FNN_INLINE V v_clamp(V x, T low, T high) { return v_at_most(v_at_least(x, low), high); }

/* 1 / x for normal x and 1 / x, to 14 bits or better, and within an ULP or two: a division of 16
 * lanes takes as long as 32 multiply-adds, an estimate and a Newton step a tenth of that. */
FNN_INLINE V v_reciprocal_estimate(V x) {
#if defined(__AVX512F__) && FNN_BITS == 32
    return (V)_mm512_rcp14_ps((__m512)x);
#else
    return (T)1 / x;
#endif
}
FNN_INLINE V v_reciprocal(V x) {
    V y = v_reciprocal_estimate(x);
#if defined(__AVX512F__) && FNN_BITS == 32
    y += y * ((T)1 - x * y);
#endif
    return y;
}

#endif
