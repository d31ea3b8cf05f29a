/* The microkernels of gemm: c[mr, nv * VL] = (add ? c : 0) + a[mr, k] b[k, nv * VL], all in
 * registers.
 *
 * One function for each height up to FNN_MR and each width up to FNN_NV vectors, so that the edges
 * of a matrix cost no more than their share. `a` has any strides (packed: a_rs = 1, a_cs = the
 * height); b and c have unit column stride and are read and written in whole vectors.
 */
#ifndef FNN_GEMM_TILE_H
#define FNN_GEMM_TILE_H

#include "vec.h"

enum { MR = FNN_MR, NV = FNN_NV, NR = FNN_NV * VL };
enum { FETCH_AHEAD = 64 }; /* the depth from which c is worth fetching before it is needed */

#define TILE_PARAMETERS                                                                            \
    int64_t k, const T *a, int64_t a_rs, int64_t a_cs, const T *b, int64_t b_rs, T *c,             \
        int64_t c_rs, int add

/* Where memory is to work beside the tiles, they fetch the line at `fetch`, and with each row of b
 * that of `pace` bytes further. */
#ifdef FNN_TILES_FETCH
#define FETCH_PARAMETERS , const char *fetch, int64_t pace
#define FETCH_ARGUMENTS , fetch, pace
#else
#define FETCH_PARAMETERS
#define FETCH_ARGUMENTS
#endif
typedef void (*tile_fn)(TILE_PARAMETERS FETCH_PARAMETERS);

/* Hides where a value came from, so that the compiler keeps it in a register of its own. */
#define OPAQUE(x) __asm__("" : "+r"(x))

FNN_INLINE T element(const char *row, int64_t bytes) { return *(const T *)(row + bytes); }

FNN_INLINE void tile(int mr, int nv, TILE_PARAMETERS FETCH_PARAMETERS) {
    /* Four rows of a share one pointer, at offsets 0, 1, 2 and 3 strides: the addressing modes
     * reach them, and all rows' pointers fit the general registers. */
    int64_t stride = a_rs * (int64_t)sizeof(T), stride3 = 3 * stride;
    const char *rows[(MR + 3) / 4];
    OPAQUE(stride3);
#pragma GCC unroll 16
    for (int g = 0; 4 * g < mr; g++) {
        rows[g] = (const char *)(a + 4 * g * a_rs);
        OPAQUE(rows[g]);
    }
    a_cs *= (int64_t)sizeof(T);
    if (k >= FETCH_AHEAD)
        for (int i = 0; i < mr; i++)
            for (int j = 0; j < nv; j++) __builtin_prefetch(c + i * c_rs + j * VL, 1);
    V acc[MR][NV];
#pragma GCC unroll 16
    for (int i = 0; i < mr; i++)
#pragma GCC unroll 4
        for (int j = 0; j < nv; j++) acc[i][j] = (V){0};
    for (int64_t p = 0; p < k; p++, b += b_rs) {
        V row[NV];
#ifdef FNN_TILES_FETCH
        __builtin_prefetch(fetch, 0, 2);
        fetch += pace;
#endif
#pragma GCC unroll 4
        for (int j = 0; j < nv; j++) row[j] = v_load(b + j * VL);
#pragma GCC unroll 16
        for (int i = 0; i < mr; i++) {
            V x = v_set1(element(rows[i / 4], i % 4 == 3 ? stride3 : i % 4 * stride));
#pragma GCC unroll 4
            for (int j = 0; j < nv; j++) acc[i][j] += x * row[j];
        }
#pragma GCC unroll 16
        for (int g = 0; 4 * g < mr; g++) rows[g] += a_cs;
    }
#pragma GCC unroll 16
    for (int i = 0; i < mr; i++, c += c_rs)
#pragma GCC unroll 4
        for (int j = 0; j < nv; j++) {
            T *at = c + j * VL;
            v_store(at, add ? v_load(at) + acc[i][j] : acc[i][j]);
        }
}

#define TILE_NAME(mr, nv) tile_##mr##_##nv
#define TILE(mr, nv)                                                                               \
    static void TILE_NAME(mr, nv)(TILE_PARAMETERS FETCH_PARAMETERS) {                              \
        tile(mr, nv, k, a, a_rs, a_cs, b, b_rs, c, c_rs, add FETCH_ARGUMENTS);                     \
    }
#if FNN_NV == 3
#define TILES(mr) TILE(mr, 1) TILE(mr, 2) TILE(mr, 3)
#define TILE_ENTRY(mr) {TILE_NAME(mr, 1), TILE_NAME(mr, 2), TILE_NAME(mr, 3)},
#else
#define TILES(mr) TILE(mr, 1) TILE(mr, 2)
#define TILE_ENTRY(mr) {TILE_NAME(mr, 1), TILE_NAME(mr, 2)},
#endif
#if FNN_MR == 4
#define FOR_HEIGHTS(f) f(1) f(2) f(3) f(4)
#elif FNN_MR == 6
#define FOR_HEIGHTS(f) f(1) f(2) f(3) f(4) f(5) f(6)
#elif FNN_MR == 8
#define FOR_HEIGHTS(f) f(1) f(2) f(3) f(4) f(5) f(6) f(7) f(8)
#elif FNN_MR == 14
#define FOR_HEIGHTS(f) f(1) f(2) f(3) f(4) f(5) f(6) f(7) f(8) f(9) f(10) f(11) f(12) f(13) f(14)
#endif

FOR_HEIGHTS(TILES)

/* tiles[mr - 1][nv - 1] */
static const tile_fn tiles[MR][NV] = {FOR_HEIGHTS(TILE_ENTRY)};

/* Rows of the next tile of m: all have about as many. */
FNN_INLINE int64_t tile_height(int64_t m) {
    int64_t count = (m + MR - 1) / MR;
    return count > 1 ? (m + count - 1) / count : m;
}

#endif
