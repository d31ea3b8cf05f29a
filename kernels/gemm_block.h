/* One thread's share of a matrix product, on the tiles of gemm_tile.h.
 *
 *            n
 *        +-------+             panel: up to NR columns of b, packed or in place
 *      k |b| |   |             tile:  up to MR rows of a against a panel, in registers
 *        +-------+             block: all tiles of all panels; operands are read in place where
 *   +--+ +-------+                    their strides allow it
 * m |a | |c| |   |             k is walked in steps of KC; c holds the sums in between.
 *   +--+ +-------+
 */
#ifndef FNN_GEMM_BLOCK_H
#define FNN_GEMM_BLOCK_H

#include "gemm_dot.h"
#include "gemm_pack.h"
#include "gemm_tile.h"
#include "threads.h"

enum { KC = 1536 / sizeof(T) }; /* a panel of b then fits the L1 cache */

/* One tile of c at (row, col). */
FNN_INLINE void tile_at(int64_t mr, int64_t cols, int64_t k, const T *a, int64_t a_rs, int64_t a_cs,
                        const T *b, int64_t b_rs, const output *o, int64_t row, int64_t col) {
    tile_fn run = tiles[mr - 1][(cols + VL - 1) / VL - 1];
    if (is_plain(o) && cols % VL == 0) {
        run(k, a, a_rs, a_cs, b, b_rs, o->c + row * o->c_rs + col, o->c_rs, o->beta != 0);
    } else {
        T sums[MR * NR] __attribute__((aligned(FNN_VBYTES)));
        run(k, a, a_rs, a_cs, b, b_rs, sums, NR, 0);
        finish(o, row, col, mr, cols, sums, NR);
    }
}

/* One panel of b against tiles of `height` rows of a, in place. */
static void panel(matrix a, int64_t height, int64_t rows, const T *b, int64_t b_rs, int64_t cols,
                  int64_t k, const output *o, int64_t col) {
    for (int64_t r = 0; r < rows; r += height)
        tile_at(rows - r < height ? rows - r : height, cols, k, a.at + r * a.rs, a.rs, a.cs, b,
                b_rs, o, r, col);
}

/* c[m, n] by one thread; false where memory is out. */
static int block(matrix a, matrix b, int64_t m, int64_t n, int64_t k, const output *o) {
    if (is_dot(a, b, m, k)) {
        dot_block(a, b, m, n, k, o);
        return 1;
    }
    int64_t height = tile_height(m), p = 0;
    int in_place = b.cs == 1;
    T *packed = NULL;
    if (!in_place || n % VL != 0) {
        packed = fnn_scratch((size_t)(k < KC ? k : KC) * NR * sizeof(T));
        if (!packed) return 0;
    }
    do {
        int64_t depth = k - p < KC ? k - p : KC;
        output step = step_output(o, p == 0, p + depth == k);
        for (int64_t j = 0; j < n; j += NR) {
            int64_t cols = n - j < NR ? n - j : NR;
            const T *at = b.at + p * b.rs + j * b.cs;
            int64_t b_rs = b.rs;
            if (!in_place || cols % VL != 0) {
                b_rs = (cols + VL - 1) / VL * VL;
                pack(packed, b_rs, cols, depth, at, b.cs, b.rs);
                at = packed;
            }
            matrix part = {a.at + p * a.cs, a.rs, a.cs};
            panel(part, height, m, at, b_rs, cols, depth, &step, j);
        }
        p += depth;
    } while (p < k);
    return 1;
}

#endif
