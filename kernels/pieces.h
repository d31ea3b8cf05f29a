/* Functions by pieces, for AVX-512: its permutations look 16 numbers up among 32 as fast as they
 * multiply.
 *
 * a is nearest to i * width for one i, and piece i is a polynomial in what is left of a. Term k of
 * all pieces is one array, and the tables come from tests/kernels/golden/make_pieces.py.
 */
#ifndef FNN_PIECES_H
#define FNN_PIECES_H

#include "vbits.h"

#if defined(__AVX512F__) && FNN_BITS == 32
#define FNN_PIECES 32
#define PIECES_ROUNDER 0x1.8p23f /* a / width + this has the piece's number in its low bits, */
#define PIECES_REST(a, log2)     /* and this is a less the nearest multiple of 2^-log2 */          \
    ((V)_mm512_reduce_ps((__m512)(a), (log2) << 4))

FNN_INLINE V piece_term(const T terms[FNN_PIECES], V number) {
    return (V)_mm512_permutex2var_ps(v_load(terms), (__m512i)number, v_load(terms + VL));
}

FNN_INLINE V piece_value(const T terms[][FNN_PIECES], int count, V number, V u) {
    V y = piece_term(terms[count - 1], number);
#pragma GCC unroll 8
    for (int k = count - 2; k >= 0; k--) y = y * u + piece_term(terms[k], number);
    return y;
}
#endif

#endif
