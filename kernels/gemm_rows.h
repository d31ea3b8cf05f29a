/* A few rows times a matrix whose rows are contiguous, or such a matrix, transposed, times a few
 * columns: the matrix is read once, in runs of several cache lines, and there are as many sums as
 * registers, which hide the latency of a multiply-add.
 */
#ifndef FNN_GEMM_ROWS_H
#define FNN_GEMM_ROWS_H

#include "gemm_output.h"

enum { FEW_ROWS = 4, RUN = 8 };

/* The vectors of a run: each row's sums, and the run itself where several rows share it, stay in
 * registers. */
FNN_INLINE int64_t run_vectors(int64_t rows) {
    return rows == 1 ? RUN : least(RUN, (FNN_MR + 1) * FNN_NV / (rows + 1));
}

/* Takes rows x cols sums, `ld` apart, to their place from `col`, or as columns to that from row
 * `col`. */
FNN_INLINE void finish_runs(const output *o, int64_t rows, int64_t col, int64_t cols, const T *sums,
                            int64_t ld, int columns) {
    if (!columns) {
        finish(o, 0, col, rows, cols, sums, ld);
        return;
    }
    T turned[RUN * VL * FEW_ROWS];
    for (int64_t j = 0; j < cols; j++)
        for (int64_t i = 0; i < rows; i++) turned[j * rows + i] = sums[i * ld + j];
    finish(o, col, 0, cols, rows, turned, rows);
}

/* `vectors` of the rows' sums from column `col`; the last one may have fewer than VL columns. */
FNN_INLINE void run_sums(int rows, int vectors, matrix a, matrix b, int64_t k, const output *o,
                         int64_t col, int64_t cols, int columns) {
    V sums[FEW_ROWS][RUN], run[RUN];
    const T *from = b.at + col;
    const int64_t last = cols - (vectors - 1) * VL;
#pragma GCC unroll 4
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 8
        for (int j = 0; j < vectors; j++) sums[i][j] = (V){0};
    for (int64_t p = 0; p < k; p++, from += b.rs) {
#pragma GCC unroll 8
        for (int j = 0; j < vectors - 1; j++) run[j] = v_load(from + j * VL);
        run[vectors - 1] = v_load_upto(from + (vectors - 1) * VL, last);
#pragma GCC unroll 4
        for (int i = 0; i < rows; i++) {
            V x = v_set1(a.at[i * a.rs + p * a.cs]);
#pragma GCC unroll 8
            for (int j = 0; j < vectors; j++) sums[i][j] += x * run[j];
        }
    }
    T out[FEW_ROWS * RUN * VL] __attribute__((aligned(FNN_VBYTES)));
#pragma GCC unroll 4
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 8
        for (int j = 0; j < vectors; j++) v_store(out + (i * vectors + j) * VL, sums[i][j]);
    finish_runs(o, rows, col, cols, out, vectors * VL, columns);
}

FNN_INLINE void runs(int rows, matrix a, matrix b, int64_t n, int64_t k, const output *o,
                     int columns) {
    const int64_t width = run_vectors(rows) * VL;
#define RUN_SUMS(vectors)                                                                          \
    case vectors:                                                                                  \
        if (vectors * VL <= width) run_sums(rows, vectors, a, b, k, o, col, cols, columns);        \
        break;
    for (int64_t col = 0; col < n; col += width) {
        int64_t cols = least(n - col, width);
        switch (ceil_div(cols, VL)) {
            RUN_SUMS(1)
            RUN_SUMS(2)
            RUN_SUMS(3)
            RUN_SUMS(4)
            RUN_SUMS(5)
            RUN_SUMS(6)
            RUN_SUMS(7)
            RUN_SUMS(8)
        }
    }
#undef RUN_SUMS
}

/* All sums of a few rows (of c, or its columns). */
FNN_INLINE void few_runs(matrix a, matrix b, int64_t rows, int64_t n, int64_t k, const output *o,
                         int columns) {
    switch (rows) {
    case 1:
        runs(1, a, b, n, k, o, columns);
        break;
    case 2:
        runs(2, a, b, n, k, o, columns);
        break;
    case 3:
        runs(3, a, b, n, k, o, columns);
        break;
    case 4:
        runs(4, a, b, n, k, o, columns);
        break;
    }
}

FNN_INLINE int has_row_runs(matrix b, int64_t m, int64_t n) {
    return m <= FEW_ROWS && b.cs == 1 && n > (m > 1 ? FNN_NV : 1) * VL;
}

static void row_runs(matrix a, matrix b, int64_t m, int64_t n, int64_t k, const output *o) {
    few_runs(a, b, m, n, k, o, 0);
}

FNN_INLINE int has_column_runs(matrix a, int64_t m, int64_t n, int64_t k) {
    return n <= FEW_ROWS && n < m && a.rs == 1 && k >= VL;
}

static void column_runs(matrix a, matrix b, int64_t m, int64_t n, int64_t k, const output *o) {
    few_runs((matrix){b.at, b.cs, b.rs}, (matrix){a.at, a.cs, a.rs}, n, m, k, o, 1);
}

#endif
