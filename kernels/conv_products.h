/* Backward-weights along pixels: the register tile, sums of products of dy's and x's planes. */
#ifndef FNN_CONV_PRODUCTS_H
#define FNN_CONV_PRODUCTS_H

#include "conv.h"

/* Sums in registers at a time: output channels x weights of each. */
#if FNN_VBYTES == 64
enum { TILE_K = 6, TILE_TAPS = 4 };
#else
enum { TILE_K = 4, TILE_TAPS = 3 };
#endif

/* Some output rows: of x the pixel that the first of them reads, of dy the first channel. */
typedef struct {
    const T *x, *dy;
    int64_t lines, line, pitch; /* pitch: of x, from line to line */
    int64_t plane;              /* of dy */
    int fresh;                  /* sums hold nothing yet */
} block;

/* sums[tap][k] += the products of a block, for TILE_TAPS weights of `rows` output channels. */
FNN_INLINE void add_products(int rows, const block *b, int64_t first, const int64_t *offsets,
                             V *sums, int64_t k, int64_t taps) {
    const T *dy = b->dy + first * b->plane, *x = b->x;
    int64_t plane = b->plane, line = b->line, left = b->lines;
    V acc[TILE_K][TILE_TAPS];
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int t = 0; t < TILE_TAPS; t++) acc[i][t] = (V){0};
    do {
        const T *from[TILE_TAPS];
        for (int t = 0; t < TILE_TAPS; t++) from[t] = x + offsets[t];
        int64_t p = 0;
        do {
            V window[TILE_TAPS];
#pragma GCC unroll 4
            for (int t = 0; t < TILE_TAPS; t++) window[t] = v_load(from[t] + p);
#pragma GCC unroll 8
            for (int i = 0; i < rows; i++) {
                V grad = v_load(dy + i * plane + p);
#pragma GCC unroll 4
                for (int t = 0; t < TILE_TAPS; t++) acc[i][t] += grad * window[t];
            }
            p += VL;
        } while (p < line);
        x += b->pitch;
        dy += line;
    } while (--left > 0);
    sums += first;
#pragma GCC unroll 4
    for (int t = 0; t < TILE_TAPS; t++, sums += k) {
        if (t >= taps) break;
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) sums[i] = b->fresh ? acc[i][t] : sums[i] + acc[i][t];
    }
}

#define ROWS(n)                                                                                    \
    static __attribute__((noinline)) void add_products_##n(                                        \
        const block *b, int64_t first, const int64_t *offsets, V *sums, int64_t k, int64_t taps) { \
        add_products(n, b, first, offsets, sums, k, taps);                                         \
    }
ROWS(1)
ROWS(2)
ROWS(3)
ROWS(4)
#if FNN_VBYTES == 64
ROWS(5)
ROWS(6)
#endif

static void add_rows(int64_t rows, const block *b, int64_t first, const int64_t *offsets, V *sums,
                     int64_t k, int64_t taps) {
    switch (rows) {
#define CASE(n)                                                                                    \
    case n:                                                                                        \
        add_products_##n(b, first, offsets, sums, k, taps);                                        \
        break;
        CASE(1)
        CASE(2)
        CASE(3)
        CASE(4)
#if FNN_VBYTES == 64
        CASE(5)
        CASE(6)
#endif
#undef CASE
    }
}

#endif
