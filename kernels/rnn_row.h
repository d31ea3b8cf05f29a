/* The products of a single row with packed weights, for batches of one sample.
 *
 * One row times one panel has fewer independent multiply-adds than their latency wants, and rarely
 * more than the L2 cache's bandwidth allows: so ACROSS panels are read side by side. Every sum is
 * taken in the order of product(): a sample's result does not depend on the batch around it.
 */
#ifndef FNN_RNN_ROW_H
#define FNN_RNN_ROW_H

#include "rnn.h"

enum { ACROSS = 4 };

/* out[q][0, nv * VL) += a[k] b[q][k, nv * VL] for panels q that are `stride` apart. */
FNN_INLINE void row_tile(int panels, int nv, int64_t k, const T *a, const T *b, int64_t stride,
                         T *const *out) {
    V acc[ACROSS][NV];
    for (int q = 0; q < panels; q++)
        for (int v = 0; v < nv; v++) acc[q][v] = (V){0};
    for (int64_t p = 0; p < k; p++, b += nv * VL) {
        V x = v_set1(a[p]);
#pragma GCC unroll 4
        for (int q = 0; q < panels; q++)
#pragma GCC unroll 4
            for (int v = 0; v < nv; v++) acc[q][v] += x * v_load(b + q * stride + v * VL);
    }
    for (int q = 0; q < panels; q++)
        for (int v = 0; v < nv; v++) {
            T *at = out[q] + v * VL;
            v_store(at, v_load(at) + acc[q][v]);
        }
}

#define ROW_TILES(nv)                                                                              \
    case nv:                                                                                       \
        if (panels == 4)                                                                           \
            row_tile(4, nv, k, a, b, stride, out);                                                 \
        else if (panels == 3)                                                                      \
            row_tile(3, nv, k, a, b, stride, out);                                                 \
        else if (panels == 2)                                                                      \
            row_tile(2, nv, k, a, b, stride, out);                                                 \
        else                                                                                       \
            row_tile(1, nv, k, a, b, stride, out);                                                 \
        break;

static void row_tiles(int64_t panels, int64_t nv, int64_t k, const T *a, const T *b, int64_t stride,
                      T *const *out) {
    switch (nv) {
        ROW_TILES(1)
        ROW_TILES(2)
#if FNN_NV == 3
        ROW_TILES(3)
#endif
    }
}
#undef ROW_TILES

/* sums[chunk][slot][NR] += a[k] (rows first .. first + k of the panels); the gates have the slots
 * of their numbers but for gate 2, which has slot `last`. */
static void row_product(const rnn_packed *as, int64_t h, int64_t first, int64_t k, const T *a,
                        const T *packed, T *sums, int64_t last) {
    int64_t whole = h / NR * as->gates, all = ceil_div(h, NR) * as->gates;
    for (int64_t i = 0; i < all;) {
        int64_t ld = i < whole ? NR : round_up(h % NR, VL);
        int64_t panels = least(ACROSS, (i < whole ? whole : all) - i);
        const T *from = packed + as->depth * (whole * NR + (i - whole) * ld) + first * ld;
        T *out[ACROSS];
        for (int64_t q = 0; q < panels; q++) {
            int64_t chunk = (i + q) / as->gates, gate = (i + q) % as->gates;
            out[q] = sums + (chunk * as->slots + (gate == 2 ? last : gate)) * NR;
        }
        for (int64_t p = 0; p < k; p += DEPTH)
            row_tiles(panels, ld / VL, least(DEPTH, k - p), a + p, from + p * ld, as->depth * ld,
                      out);
        i += panels;
    }
}

#endif
