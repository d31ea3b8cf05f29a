/* Vectors of the ISA's width over GCC/Clang vector extensions; T is float or double by FNN_BITS.
 *
 * The body files are compiled once for each ISA (isa/NAME.h is included first, by -include) and
 * each float type (-DFNN_BITS=32 or 64). Everything here is static inline, so that wide code never
 * leaks from one object into another.
 */
#ifndef FNN_VEC_H
#define FNN_VEC_H

#include "fnn.h"
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define FNN_CAT4_(a, b, c, d) a##_##b##_##c##_##d
#define FNN_CAT4(a, b, c, d) FNN_CAT4_(a, b, c, d)
/* The symbol of a kernel in this object: fnn_gemm_avx512_32. */
#define FNN_SYM(name) FNN_CAT4(fnn, name, FNN_ISA, FNN_BITS)

#if FNN_BITS == 32
typedef float T;
typedef int32_t TI;
typedef uint32_t TU;
#else
typedef double T;
typedef int64_t TI;
typedef uint64_t TU;
#endif

enum { VL = FNN_VBYTES / sizeof(T) }; /* lanes */

typedef T V __attribute__((vector_size(FNN_VBYTES)));
typedef TI VI __attribute__((vector_size(FNN_VBYTES)));
typedef TU VU __attribute__((vector_size(FNN_VBYTES)));
typedef V V_unaligned __attribute__((aligned(sizeof(T)), may_alias));
typedef VI VI_unaligned __attribute__((aligned(sizeof(T)), may_alias));

#define FNN_INLINE static inline __attribute__((always_inline, unused))

FNN_INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
FNN_INLINE int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
FNN_INLINE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
FNN_INLINE int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

FNN_INLINE V v_load(const T *p) { return *(const V_unaligned *)p; }
FNN_INLINE void v_store(T *p, V v) { *(V_unaligned *)p = v; }
FNN_INLINE V v_set1(T x) { return x - (V){0}; } /* x - 0 keeps -0; a broadcast in every ISA */

/* The first n lanes (0 < n < VL); the others are zero, or left alone in memory. */
#if defined(__AVX512F__)
#if FNN_BITS == 32
FNN_INLINE V v_load_n(const T *p, int64_t n) {
    return (V)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
}
FNN_INLINE void v_store_n(T *p, V v, int64_t n) {
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)v);
}
#else
FNN_INLINE V v_load_n(const T *p, int64_t n) {
    return (V)_mm512_maskz_loadu_pd((__mmask8)((1u << n) - 1), p);
}
FNN_INLINE void v_store_n(T *p, V v, int64_t n) {
    _mm512_mask_storeu_pd(p, (__mmask8)((1u << n) - 1), (__m512d)v);
}
#endif
#elif defined(__AVX2__)
#if FNN_BITS == 32
FNN_INLINE VI v_first(int64_t n) { return (VI){0, 1, 2, 3, 4, 5, 6, 7} < (TI)n; }
FNN_INLINE V v_load_n(const T *p, int64_t n) {
    return (V)_mm256_maskload_ps(p, (__m256i)v_first(n));
}
/* In pieces: AMD's masked stores take a dozen cycles. */
FNN_INLINE void v_store_n(T *p, V v, int64_t n) {
    __m128 part = _mm256_castps256_ps128((__m256)v);
    if (n & 4) {
        _mm_storeu_ps(p, part);
        part = _mm256_extractf128_ps((__m256)v, 1);
        p += 4;
    }
    if (n & 2) {
        _mm_storel_pi((__m64 *)p, part);
        part = _mm_movehl_ps(part, part);
        p += 2;
    }
    if (n & 1) _mm_store_ss(p, part);
}
#else
FNN_INLINE VI v_first(int64_t n) { return (VI){0, 1, 2, 3} < (TI)n; }
FNN_INLINE V v_load_n(const T *p, int64_t n) {
    return (V)_mm256_maskload_pd(p, (__m256i)v_first(n));
}
FNN_INLINE void v_store_n(T *p, V v, int64_t n) {
    __m128d part = _mm256_castpd256_pd128((__m256d)v);
    if (n & 2) {
        _mm_storeu_pd(p, part);
        part = _mm256_extractf128_pd((__m256d)v, 1);
        p += 2;
    }
    if (n & 1) _mm_store_sd(p, part);
}
#endif
#else
FNN_INLINE V v_load_n(const T *p, int64_t n) {
    V v = {p[0]};
    for (int i = 1; i < VL - 1; i++)
        if (i < n) v[i] = p[i];
    return v;
}
FNN_INLINE void v_store_n(T *p, V v, int64_t n) {
    p[0] = v[0];
    for (int i = 1; i < VL - 1; i++)
        if (i < n) p[i] = v[i];
}
#endif

/* The first n lanes, all if n >= VL, none if n <= 0. */
FNN_INLINE V v_load_upto(const T *p, int64_t n) {
    return n >= VL ? v_load(p) : n > 0 ? v_load_n(p, n) : (V){0};
}
FNN_INLINE void v_store_upto(T *p, V v, int64_t n) {
    if (n >= VL)
        v_store(p, v);
    else if (n > 0)
        v_store_n(p, v, n);
}

/* mask ? a : b, lane by lane; mask is the all-ones / all-zeros result of a vector comparison. */
FNN_INLINE V v_select(VI mask, V a, V b) { return (V)(((VI)a & mask) | ((VI)b & ~mask)); }
/* NaN in either argument gives NaN. */
FNN_INLINE V v_max(V a, V b) { return v_select((a > b) | (a != a), a, b); }
FNN_INLINE V v_min(V a, V b) { return v_select((a < b) | (a != a), a, b); }
FNN_INLINE V v_sqrt(V x) {
    for (int i = 0; i < VL; i++)
        x[i] = FNN_BITS == 32 ? __builtin_sqrtf(x[i]) : __builtin_sqrt(x[i]);
    return x;
}
FNN_INLINE V v_relu(V x) { return v_select(x < 0, (V){0}, x); }

/* The lanes' sum in a fixed tree: lane i of one half and lane i of the other, again and again.
 * Halves are named as shorter vectors: a loop over lanes would go through memory. */
FNN_INLINE T v_sum(V v) {
#if FNN_VBYTES * 8 / FNN_BITS == 16
    typedef T half __attribute__((vector_size(FNN_VBYTES / 2)));
    half h = __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) +
             __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
#elif FNN_VBYTES * 8 / FNN_BITS == 8
    V h = v;
#endif
#if FNN_VBYTES * 8 / FNN_BITS >= 8
    typedef T quarter __attribute__((vector_size(4 * sizeof(T))));
    quarter q =
        __builtin_shufflevector(h, h, 0, 1, 2, 3) + __builtin_shufflevector(h, h, 4, 5, 6, 7);
#elif FNN_VBYTES * 8 / FNN_BITS == 4
    V q = v;
#else
    return v[0] + v[1];
#endif
#if FNN_VBYTES * 8 / FNN_BITS >= 4
    return (q[0] + q[2]) + (q[1] + q[3]);
#endif
}

#endif
