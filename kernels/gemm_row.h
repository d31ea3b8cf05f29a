/* One row times a matrix whose rows are contiguous: as many sums as hide the latency of a
 * multiply-add, and the matrix is read once, in runs of several cache lines.
 */
#ifndef FNN_GEMM_ROW_H
#define FNN_GEMM_ROW_H

#include "gemm_output.h"

enum { ROW_VECTORS = 8 };

/* `vectors` of the row's sums from column `col`; the last one may have fewer than VL columns. */
FNN_INLINE void row_sums(int vectors, matrix a, matrix b, int64_t k, const output *o, int64_t col,
                         int64_t cols) {
    V sums[ROW_VECTORS];
    const T *row = b.at + col;
    const int64_t last = cols - (vectors - 1) * VL;
#pragma GCC unroll 8
    for (int j = 0; j < vectors; j++) sums[j] = (V){0};
    for (int64_t p = 0; p < k; p++, row += b.rs) {
        V x = v_set1(a.at[p * a.cs]);
#pragma GCC unroll 8
        for (int j = 0; j < vectors - 1; j++) sums[j] += x * v_load(row + j * VL);
        sums[vectors - 1] += x * v_load_upto(row + (vectors - 1) * VL, last);
    }
    T out[ROW_VECTORS * VL] __attribute__((aligned(FNN_VBYTES)));
#pragma GCC unroll 8
    for (int j = 0; j < vectors; j++) v_store(out + j * VL, sums[j]);
    finish(o, 0, col, 1, cols, out, vectors * VL);
}

FNN_INLINE int is_row(matrix b, int64_t m, int64_t n) { return m == 1 && b.cs == 1 && n > VL; }

/* c[1, n] where is_row. */
static void row_block(matrix a, matrix b, int64_t n, int64_t k, const output *o) {
#define ROW_SUMS(vectors)                                                                          \
    case vectors:                                                                                  \
        row_sums(vectors, a, b, k, o, col, cols);                                                  \
        break;
    for (int64_t col = 0; col < n; col += ROW_VECTORS * VL) {
        int64_t cols = least(n - col, ROW_VECTORS * VL);
        switch (ceil_div(cols, VL)) {
            ROW_SUMS(1)
            ROW_SUMS(2)
            ROW_SUMS(3)
            ROW_SUMS(4)
            ROW_SUMS(5)
            ROW_SUMS(6)
            ROW_SUMS(7)
            ROW_SUMS(8)
        }
    }
#undef ROW_SUMS
}

#endif
