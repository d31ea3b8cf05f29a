/* One thread's share of a matrix product, on the tiles of gemm_tile.h.
 *
 *            n
 *        +-------+             panel: up to NR columns of b
 *      k |b| |   |             tile:  up to MR rows of a against a panel, in registers
 *        +-------+             block: all tiles; the rows of a tile stay in the L1 cache while the
 *   +--+ +-------+                    panels of b stream past them out of L2
 * m |a | |c| |   |             k is walked in steps of KC; c holds the sums in between.
 *   +--+ +-------+
 *
 * Operands are read where they lie if they can be: packing takes about half a cycle an element. It
 * pays where b is used by many tiles (a by many panels) and has its vectors further apart than the
 * prefetchers follow: with 4 KiB, each lies in a page of its own.
 */
#ifndef FNN_GEMM_BLOCK_H
#define FNN_GEMM_BLOCK_H

#include "gemm_dot.h"
#include "gemm_pack.h"
#include "gemm_rows.h"
#include "gemm_tile.h"
#include "threads.h"

enum {
    KC = 1536 / sizeof(T),
    BLOCK_COLS = 512, /* whose KC rows of b fit the L2 cache, beside their part of c */
    FAR = 2048 / sizeof(T),
    PAIR = 128 / sizeof(T), /* two cache lines */
    FEW_TILES = 6,
    PACK_DEPTH = 4 * VL,
    GROUP = 28 * MR, /* rows of a that are packed at a time where they lie side by side */
};

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

/* The size of `count` equal parts, none above `most`, in whole units. */
FNN_INLINE int64_t part(int64_t total, int64_t most, int64_t unit) {
    return round_up(ceil_div(total, ceil_div(total, most)), unit);
}

FNN_INLINE int is_far(int64_t stride) { return stride > FAR || stride < -FAR; }

static int packs_a(matrix a, int64_t n) {
    return a.cs == 1 ? is_far(2 * a.rs) && n > 8 * NR : is_far(4 * a.cs) && n > 2 * NR;
}
/* Prefetchers bring pairs of lines: a panel that needs less of them is the sooner worth packing.
 * near: the L2 cache keeps b, of which a few tiles may read the far rows without loss. */
static int packs_b(matrix b, int64_t m, int near) {
    return b.cs != 1 || (is_far(b.rs * PAIR / NR) && m > (near ? FEW_TILES : 1) * MR);
}

/* Few tiles use a panel while it is in the L1 cache; memory is read in long runs along k. */
static int64_t block_cols(matrix b, int64_t m) {
    return b.rs == 1 && m <= 4 * MR ? NR : BLOCK_COLS;
}

/* KC rows of b: its first columns are read in place, the others from panels in `packed`. */
typedef struct {
    matrix at;
    int64_t n, k, in_place;
    T *packed;
} panels;

/* Columns of n that need no packing: a ragged panel does, as tiles read whole vectors. */
static int64_t columns_in_place(int64_t n, int packs) {
    if (packs) return 0;
    return n % VL == 0 ? n : n / NR * NR;
}

/* All panels some rows at a time: memory is read in long runs. */
static void pack_panels(const panels *b) {
    for (int64_t p = 0; p < b->k; p += PACK_DEPTH) {
        int64_t depth = least(b->k - p, PACK_DEPTH);
        for (int64_t j = b->in_place; j < b->n; j += NR) {
            int64_t cols = least(b->n - j, NR), ld = round_up(cols, VL);
            pack(b->packed + (j - b->in_place) * b->k + p * ld, ld, cols, depth,
                 b->at.at + j * b->at.cs + p * b->at.rs, b->at.cs, b->at.rs);
        }
    }
}

/* `height` rows of a against all panels. */
FNN_INLINE void tile_row(int64_t height, matrix a, const panels *b, const output *o, int64_t row,
                         int64_t col) {
    for (int64_t j = 0; j < b->n; j += NR) {
        int64_t cols = least(b->n - j, NR);
        if (j < b->in_place)
            tile_at(height, cols, b->k, a.at, a.rs, a.cs, b->at.at + j, b->at.rs, o, row, col + j);
        else
            tile_at(height, cols, b->k, a.at, a.rs, a.cs, b->packed + (j - b->in_place) * b->k,
                    round_up(cols, VL), o, row, col + j);
    }
}

/* Rows of a for tiles, one after another, some columns at a time: memory that holds rows side by
 * side is read in long runs. */
static void pack_tiles(T *packed, matrix a, int64_t m, int64_t k) {
    for (int64_t p = 0; p < k; p += PACK_DEPTH) {
        int64_t depth = least(k - p, PACK_DEPTH);
        for (int64_t i = 0, height; i < m; i += height) {
            height = tile_height(m - i);
            pack(packed + i * k + p * height, height, height, depth, a.at + i * a.rs + p * a.cs,
                 a.rs, a.cs);
        }
    }
}

/* Rows of a that are packed at a time: a tile, which stays in the L1 cache, or many if they lie
 * side by side. */
FNN_INLINE int64_t rows_packed(matrix a, int64_t m) {
    return a.rs == 1 ? least(m, GROUP) : tile_height(m);
}

/* m rows of a against all panels; `packed`: room for rows_packed, or null to read a in place. */
static void tile_rows(matrix a, int64_t m, T *packed, const panels *b, const output *o,
                      int64_t col) {
    for (int64_t i = 0, rows; i < m; i += rows, a.at += rows * a.rs) {
        rows = rows_packed(a, m - i);
        if (packed) pack_tiles(packed, a, rows, b->k);
        for (int64_t r = 0, height; r < rows; r += height) {
            height = tile_height(rows - r);
            matrix tile = {a.at + r * a.rs, a.rs, a.cs};
            if (packed) tile = (matrix){packed + r * b->k, 1, height};
            tile_row(height, tile, b, o, i + r, col);
        }
    }
}

/* c[m, n] where is_few_columns; false where memory is out. */
static int few_columns_block(matrix a, matrix b, int64_t m, int64_t n, int64_t k, const output *o) {
    if (b.rs != 1) {
        int64_t length = round_up(k, VL);
        T *packed = fnn_scratch((size_t)(n * length) * sizeof(T));
        if (!packed) return 0;
        pack(packed, length, k, n, b.at, b.rs, b.cs);
        b = (matrix){packed, 1, length};
    }
    few_columns(a, b, m, n, k, o);
    return 1;
}

static int tiles_block(matrix a, matrix b, int64_t m, int64_t n, int64_t k, int near,
                       const output *o) {
    const int packs = packs_b(b, m, near);
    int64_t kc = k > KC ? part(k, KC, 1) : k, wide = least(n, block_cols(b, m));
    int64_t a_size = packs_a(a, n) ? round_up(kc * rows_packed(a, m), VL) : 0;
    int64_t b_size = kc * (packs ? round_up(wide, VL) : n % VL ? NR : 0);
    T *packed = NULL;
    if (a_size + b_size > 0) {
        packed = fnn_scratch((size_t)(a_size + b_size) * sizeof(T));
        if (!packed) return 0;
    }
    for (int64_t col = 0; col < n; col += wide) {
        panels part_b = {.n = least(wide, n - col), .packed = packed + a_size};
        part_b.in_place = columns_in_place(part_b.n, packs);
        int64_t p = 0;
        do {
            part_b.at = (matrix){b.at + p * b.rs + col * b.cs, b.rs, b.cs};
            part_b.k = least(kc, k - p);
            pack_panels(&part_b);
            matrix part_a = {a.at + p * a.cs, a.rs, a.cs};
            output step = step_output(o, p == 0, p + part_b.k == k);
            tile_rows(part_a, m, a_size > 0 ? packed : NULL, &part_b, &step, col);
            p += part_b.k;
        } while (p < k);
    }
    return 1;
}

/* c[m, n] by one thread; near: the matrix that b is of stays in the L2 cache. False where memory is
 * out. */
static int block(matrix a, matrix b, int64_t m, int64_t n, int64_t k, int near, const output *o) {
    if (is_few_rows(a, b, m, k))
        few_rows(a, b, m, n, k, o);
    else if (is_few_columns(a, b, m, n, k))
        return few_columns_block(a, b, m, n, k, o);
    else if (has_row_runs(b, m, n))
        row_runs(a, b, m, n, k, o);
    else if (has_column_runs(a, m, n, k))
        column_runs(a, b, m, n, k, o);
    else
        return tiles_block(a, b, m, n, k, near, o);
    return 1;
}

#endif
