/* Few rows of a times columns of b, or rows of a times few columns of b, which are contiguous along
 * k (a dense layer's weight and one sample): each element is a sum along k, VL of them at a time,
 * and the larger matrix is read once, where it lies.
 */
#ifndef FNN_GEMM_DOT_H
#define FNN_GEMM_DOT_H

#include "gemm_output.h"
#include "transpose.h"

enum { FEW_LINES = 8, DOT_HEIGHT = VL < 4 ? VL : 4 };

/* Vectors along k, `stride` elements apart. */
typedef struct {
    const T *at;
    int64_t stride, count;
} lines;

/* The pointers to `n` lines; beyond the end the last one is taken once more. */
FNN_INLINE void line_pointers(const T **to, int n, lines from, int64_t first) {
#pragma GCC unroll 4
    for (int i = 0; i < n; i++) to[i] = from.at + least(first + i, from.count - 1) * from.stride;
}

/* height x width sums, each of `steps` vectors that take turns. */
FNN_INLINE void dot_sums(int height, int width, int steps, const T **x, const T **y, int64_t k,
                         V *sums) {
    const int size = height * width;
#pragma GCC unroll 16
    for (int i = 0; i < size * steps; i++) sums[i] = (V){0};
    int64_t p = 0;
    for (; p + steps * VL <= k; p += steps * VL)
#pragma GCC unroll 4
        for (int s = 0; s < steps; s++) {
            V row[DOT_HEIGHT];
#pragma GCC unroll 4
            for (int i = 0; i < height; i++) row[i] = v_load(x[i] + p + s * VL);
#pragma GCC unroll 4
            for (int j = 0; j < width; j++) {
                V col = v_load(y[j] + p + s * VL);
#pragma GCC unroll 4
                for (int i = 0; i < height; i++) sums[s * size + i * width + j] += row[i] * col;
            }
        }
    for (; p < k; p += VL)
#pragma GCC unroll 4
        for (int i = 0; i < height; i++) {
            V row = v_load_upto(x[i] + p, k - p);
#pragma GCC unroll 4
            for (int j = 0; j < width; j++)
                sums[i * width + j] += row * v_load_upto(y[j] + p, k - p);
        }
#pragma GCC unroll 16
    for (int i = size; i < size * steps; i++) sums[i % size] += sums[i];
}

/* height x (VL / height) sums of few and many lines, a few of the many at a time, as they may lie
 * in the same sets of a cache. Line by line of few, or where they are `columns`, of many. */
FNN_INLINE V dot_tile(int height, lines few, int64_t row, lines many, int64_t col, int64_t k,
                      int columns) {
    const int cols = VL / height, width = cols < DOT_HEIGHT ? cols : DOT_HEIGHT;
    const T *x[DOT_HEIGHT], *y[DOT_HEIGHT];
    line_pointers(x, height, few, row);
    V found[VL];
    for (int from = 0; from < cols; from += width) {
        V sums[VL];
        line_pointers(y, width, many, col + from);
        dot_sums(height, width, VL / (height * width), x, y, k, sums);
#pragma GCC unroll 4
        for (int i = 0; i < height; i++)
#pragma GCC unroll 4
            for (int j = 0; j < width; j++)
                found[columns ? (from + j) * height + i : i * cols + from + j] =
                    sums[i * width + j];
    }
    return v_sums(found);
}

FNN_INLINE void dot_tiles(int height, lines few, lines many, int64_t k, const output *o,
                          int columns) {
    const int cols = VL / height;
    for (int64_t col = 0; col < many.count; col += cols)
        for (int64_t row = 0; row < few.count; row += height) {
            T sums[VL] __attribute__((aligned(FNN_VBYTES)));
            v_store(sums, dot_tile(height, few, row, many, col, k, columns));
            int64_t there = least(height, few.count - row), wide = least(cols, many.count - col);
            if (columns)
                finish(o, col, row, wide, there, sums, height);
            else
                finish(o, row, col, there, wide, sums, cols);
        }
}

/* All sums; few: rows of c, or its columns. */
FNN_INLINE void dot_block(lines few, lines many, int64_t k, const output *o, int columns) {
    if (few.count == 1)
        dot_tiles(1, few, many, k, o, columns);
    else if (few.count == 2)
        dot_tiles(2, few, many, k, o, columns);
    else
        dot_tiles(DOT_HEIGHT, few, many, k, o, columns);
}

FNN_INLINE int is_few_rows(matrix a, matrix b, int64_t m, int64_t k) {
    return m <= FEW_LINES && a.cs == 1 && b.rs == 1 && k >= VL;
}

static void few_rows(matrix a, matrix b, int64_t m, int64_t n, int64_t k, const output *o) {
    dot_block((lines){a.at, a.rs, m}, (lines){b.at, b.cs, n}, k, o, 0);
}

/* Columns of b may have to be packed, which many rows of a make up for. */
FNN_INLINE int is_few_columns(matrix a, matrix b, int64_t m, int64_t n, int64_t k) {
    return n <= FEW_LINES && n < m && a.cs == 1 && k >= VL && (b.rs == 1 || m >= 4 * VL);
}

static void few_columns(matrix a, matrix b, int64_t m, int64_t n, int64_t k, const output *o) {
    dot_block((lines){b.at, b.cs, n}, (lines){a.at, a.rs, m}, k, o, 1);
}

#endif
