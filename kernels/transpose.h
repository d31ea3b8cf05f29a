/* Transposing VL x VL elements in registers.
 *
 * Zipping rows i and i + VL/2 for all i rotates the bits of an element's index (row, column) by
 * one; after log2(VL) rounds row and column have changed places.
 */
#ifndef FNN_TRANSPOSE_H
#define FNN_TRANSPOSE_H

#include "vec.h"

#if FNN_VBYTES * 8 / FNN_BITS == 16
#define FNN_ZIP_LOW 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define FNN_ZIP_HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#define FNN_HIGH_HALF 8, 9, 10, 11, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15
#elif FNN_VBYTES * 8 / FNN_BITS == 8
#define FNN_ZIP_LOW 0, 8, 1, 9, 2, 10, 3, 11
#define FNN_ZIP_HIGH 4, 12, 5, 13, 6, 14, 7, 15
#define FNN_HIGH_HALF 4, 5, 6, 7, 4, 5, 6, 7
#elif FNN_VBYTES * 8 / FNN_BITS == 4
#define FNN_ZIP_LOW 0, 4, 1, 5
#define FNN_ZIP_HIGH 2, 6, 3, 7
#define FNN_HIGH_HALF 2, 3, 2, 3
#else
#define FNN_ZIP_LOW 0, 2
#define FNN_ZIP_HIGH 1, 3
#define FNN_HIGH_HALF 1, 1
#endif

/* The upper half of the lanes, in the lower half. */
FNN_INLINE V v_high_half(V v) { return __builtin_shufflevector(v, v, FNN_HIGH_HALF); }

FNN_INLINE void v_transpose(V t[VL]) {
    V next[VL];
#pragma GCC unroll 4
    for (int round = 1; round < VL; round *= 2) {
#pragma GCC unroll 8
        for (int i = 0; i < VL / 2; i++) {
            next[2 * i] = __builtin_shufflevector(t[i], t[i + VL / 2], FNN_ZIP_LOW);
            next[2 * i + 1] = __builtin_shufflevector(t[i], t[i + VL / 2], FNN_ZIP_HIGH);
        }
#pragma GCC unroll 16
        for (int i = 0; i < VL; i++) t[i] = next[i];
    }
}

/* The sum of each vector's lanes: lane i of the result is that of t[i]. Changes t. */
FNN_INLINE V v_sums(V t[VL]) {
#pragma GCC unroll 4
    for (int half = VL / 2; half > 0; half /= 2)
#pragma GCC unroll 8
        for (int i = 0; i < half; i++)
            t[i] = __builtin_shufflevector(t[i], t[i + half], FNN_ZIP_LOW) +
                   __builtin_shufflevector(t[i], t[i + half], FNN_ZIP_HIGH);
    return t[0];
}

/* y[j, i] = x[i, j] for i < rows and j < columns, each 1..VL; strides in elements between rows. */
FNN_INLINE void v_transpose_block(const T *x, int64_t xs, int64_t rows, T *y, int64_t ys,
                                  int64_t columns) {
    V t[VL];
    if (rows == VL && columns == VL) {
#pragma GCC unroll 16
        for (int i = 0; i < VL; i++) t[i] = v_load(x + i * xs);
        v_transpose(t);
#pragma GCC unroll 16
        for (int i = 0; i < VL; i++) v_store(y + i * ys, t[i]);
    } else {
        for (int i = 0; i < VL; i++) t[i] = i < rows ? v_load_upto(x + i * xs, columns) : (V){0};
        v_transpose(t);
        for (int i = 0; i < columns; i++) v_store_upto(y + i * ys, t[i], rows);
    }
}

#endif
