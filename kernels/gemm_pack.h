/* Packing for gemm: a panel of a matrix becomes dense, dst[p * ld + i] = src[i * is + p * ps].
 *
 * Of a, i runs over the rows of a tile; of b, over the columns of a panel; p always runs along k.
 */
#ifndef FNN_GEMM_PACK_H
#define FNN_GEMM_PACK_H

#include "vec.h"

/* The lanes of a and b in turn: a0 b0 a1 b1 ..., the first half and the second half. */
#if FNN_VBYTES * 8 / FNN_BITS == 2
#define INTERLEAVE_LOW(a, b) __builtin_shufflevector(a, b, 0, 2)
#define INTERLEAVE_HIGH(a, b) __builtin_shufflevector(a, b, 1, 3)
#elif FNN_VBYTES * 8 / FNN_BITS == 4
#define INTERLEAVE_LOW(a, b) __builtin_shufflevector(a, b, 0, 4, 1, 5)
#define INTERLEAVE_HIGH(a, b) __builtin_shufflevector(a, b, 2, 6, 3, 7)
#elif FNN_VBYTES * 8 / FNN_BITS == 8
#define INTERLEAVE_LOW(a, b) __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11)
#define INTERLEAVE_HIGH(a, b) __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15)
#else
#define INTERLEAVE_LOW(a, b)                                                                       \
    __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define INTERLEAVE_HIGH(a, b)                                                                      \
    __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
#endif

/* Transposes VL x VL: every round is a perfect shuffle of the rows, log2(VL) of them make it. */
FNN_INLINE void v_transpose(V t[VL]) {
#pragma GCC unroll 4
    for (int round = 1; round < VL; round *= 2) {
        V next[VL];
#pragma GCC unroll 8
        for (int i = 0; i < VL / 2; i++) {
            next[2 * i] = INTERLEAVE_LOW(t[i], t[i + VL / 2]);
            next[2 * i + 1] = INTERLEAVE_HIGH(t[i], t[i + VL / 2]);
        }
#pragma GCC unroll 16
        for (int i = 0; i < VL; i++) t[i] = next[i];
    }
}

FNN_INLINE V load_upto(const T *p, int64_t n) {
    return n >= VL ? v_load(p) : n > 0 ? v_load_n(p, n) : (V){0};
}
FNN_INLINE void store_upto(T *p, V v, int64_t n) {
    if (n >= VL)
        v_store(p, v);
    else if (n > 0)
        v_store_n(p, v, n);
}

/* Up to VL columns i, contiguous along k; `lanes` of each vector are stored. Inlined with constants
 * where it matters: then all of it stays in registers. */
FNN_INLINE void pack_transposed(T *dst, int64_t ld, int64_t lanes, int64_t width, int64_t k,
                                const T *src, int64_t is) {
    for (; k >= VL; k -= VL, src += VL) {
        V t[VL];
#pragma GCC unroll 16
        for (int i = 0; i < VL; i++) t[i] = i < width ? v_load(src + i * is) : (V){0};
        v_transpose(t);
#pragma GCC unroll 16
        for (int i = 0; i < VL; i++, dst += ld) store_upto(dst, t[i], lanes);
    }
    if (k > 0) {
        V t[VL];
        for (int i = 0; i < VL; i++) t[i] = i < width ? v_load_n(src + i * is, k) : (V){0};
        v_transpose(t);
        for (int i = 0; i < k; i++, dst += ld) store_upto(dst, t[i], lanes);
    }
}

static void pack_transposed_any(T *dst, int64_t ld, int64_t lanes, int64_t width, int64_t k,
                                const T *src, int64_t is) {
    pack_transposed(dst, ld, lanes, width, k, src, is);
}

FNN_INLINE void pack_rows(T *dst, int64_t ld, int64_t width, int64_t k, const T *src, int64_t ps) {
    for (; k > 0; k--, dst += ld, src += ps)
#pragma GCC unroll 4
        for (int64_t i = 0; i < ld; i += VL)
            store_upto(dst + i, load_upto(src + i, width - i), ld - i);
}

/* Packs `width` of the panel's `ld` columns; the rest become zero. */
static void pack(T *dst, int64_t ld, int64_t width, int64_t k, const T *src, int64_t is,
                 int64_t ps) {
    enum { REST = FNN_MR % VL };
    if (is == 1 && width == FNN_NV * VL) {
        pack_rows(dst, FNN_NV * VL, FNN_NV * VL, k, src, ps);
    } else if (is == 1 && width == FNN_MR && ld == FNN_MR) {
        pack_rows(dst, FNN_MR, FNN_MR, k, src, ps);
    } else if (is == 1) {
        pack_rows(dst, ld, width, k, src, ps);
    } else if (ps == 1) {
        for (int64_t i = 0; i < ld; i += VL) {
            const T *from = src + i * is;
            if (width - i >= VL)
                pack_transposed(dst + i, ld, VL, VL, k, from, is);
            else if (width - i == REST && ld - i == REST)
                pack_transposed(dst + i, ld, REST, REST, k, from, is);
            else
                pack_transposed_any(dst + i, ld, ld - i, width - i, k, from, is);
        }
    } else {
        for (int64_t p = 0; p < k; p++, dst += ld, src += ps)
            for (int64_t i = 0; i < ld; i++) dst[i] = i < width ? src[i * is] : 0;
    }
}

#endif
