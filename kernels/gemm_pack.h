/* Packing for gemm: a panel of a matrix becomes dense, dst[p * ld + i] = src[i * is + p * ps].
 *
 * Of a, i runs over the rows of a tile; of b, over the columns of a panel; p always runs along k.
 */
#ifndef FNN_GEMM_PACK_H
#define FNN_GEMM_PACK_H

#include "transpose.h"

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
        for (int i = 0; i < VL; i++, dst += ld) v_store_upto(dst, t[i], lanes);
    }
    if (k > 0) {
        V t[VL];
        for (int i = 0; i < VL; i++) t[i] = i < width ? v_load_n(src + i * is, k) : (V){0};
        v_transpose(t);
        for (int i = 0; i < k; i++, dst += ld) v_store_upto(dst, t[i], lanes);
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
            v_store_upto(dst + i, v_load_upto(src + i, width - i), ld - i);
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
