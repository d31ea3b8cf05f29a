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

/* The larger and the smaller number in one instruction of x86; b where either is NaN. */
FNN_INLINE V v_larger(V a, V b) {
#if defined(FNN_X86)
    return FNN_X86(max)(a, b);
#else
    return v_select(a > b, a, b);
#endif
}
FNN_INLINE V v_smaller(V a, V b) {
#if defined(FNN_X86)
    return FNN_X86(min)(a, b);
#else
    return v_select(a < b, a, b);
#endif
}

/* a > b ? x : y: with AVX-512 a blend, which GCC makes two operations of. */
FNN_INLINE VI v_select_greater(V a, V b, VI x, VI y) {
#if defined(__AVX512F__) && FNN_BITS == 32
    __mmask16 greater = _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_GT_OQ);
    return (VI)_mm512_mask_mov_epi32((__m512i)y, greater, (__m512i)x);
#else
    return (VI)v_select(a > b, (V)x, (V)y);
#endif
}

/* Is any lane of a or b NaN? */
FNN_INLINE int v_any_nan(V a, V b) {
#if defined(__AVX512F__)
    return FNN_CAT3(_mm512_cmp, FNN_X86_TYPE, mask)(a, b, _CMP_UNORD_Q) != 0;
#elif defined(__AVX2__)
    return FNN_X86(movemask)(FNN_X86(cmp)(a, b, _CMP_UNORD_Q)) != 0;
#elif defined(FNN_X86)
    return FNN_X86(movemask)(FNN_X86(cmpunord)(a, b)) != 0;
#else
    VI nan = (a != a) | (b != b);
    TI any = 0;
    for (int i = 0; i < VL; i++) any |= nan[i];
    return any != 0;
#endif
}

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
