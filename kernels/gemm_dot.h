/* Few rows times a matrix whose columns are contiguous (a dense layer's weight, one sample): each
 * element is a sum along k, VL of them at a time, and the matrix is read once, where it lies.
 */
#ifndef FNN_GEMM_DOT_H
#define FNN_GEMM_DOT_H

#include "gemm_output.h"
#include "transpose.h"

enum { DOT_ROWS = 8, DOT_HEIGHT = VL < 4 ? VL : 4 };

/* rows x (VL / rows) sums, row by row. Beyond the edges of a and b their last rows and columns are
 * taken once more. */
FNN_INLINE V dot_tile(int rows, matrix a, int64_t row, int64_t m, matrix b, int64_t col, int64_t n,
                      int64_t k) {
    const int cols = VL / rows;
    const T *from_a[DOT_HEIGHT], *from_b[VL];
    for (int i = 0; i < rows; i++) from_a[i] = a.at + least(row + i, m - 1) * a.rs;
    for (int j = 0; j < cols; j++) from_b[j] = b.at + least(col + j, n - 1) * b.cs;
    V sums[VL];
#pragma GCC unroll 16
    for (int s = 0; s < VL; s++) sums[s] = (V){0};
    for (int64_t p = 0; p < k; p += VL) {
        V x[DOT_HEIGHT];
#pragma GCC unroll 4
        for (int i = 0; i < rows; i++) x[i] = v_load_upto(from_a[i] + p, k - p);
#pragma GCC unroll 16
        for (int j = 0; j < cols; j++) {
            V y = v_load_upto(from_b[j] + p, k - p);
#pragma GCC unroll 4
            for (int i = 0; i < rows; i++) sums[i * cols + j] += x[i] * y;
        }
    }
    return v_sums(sums);
}

FNN_INLINE void dot_rows(int rows, matrix a, matrix b, int64_t m, int64_t n, int64_t k,
                         const output *o) {
    const int cols = VL / rows;
    for (int64_t col = 0; col < n; col += cols)
        for (int64_t row = 0; row < m; row += rows) {
            T sums[VL] __attribute__((aligned(FNN_VBYTES)));
            v_store(sums, dot_tile(rows, a, row, m, b, col, n, k));
            finish(o, row, col, least(rows, m - row), least(cols, n - col), sums, cols);
        }
}

FNN_INLINE int is_dot(matrix a, matrix b, int64_t m, int64_t k) {
    return m <= DOT_ROWS && a.cs == 1 && b.rs == 1 && k >= VL;
}

/* c[m, n] where is_dot. */
static void dot_block(matrix a, matrix b, int64_t m, int64_t n, int64_t k, const output *o) {
    if (m == 1)
        dot_rows(1, a, b, m, n, k, o);
    else if (m == 2)
        dot_rows(2, a, b, m, n, k, o);
    else
        dot_rows(DOT_HEIGHT, a, b, m, n, k, o);
}

#endif
