/* Philox4x32-10, the counter-based generator of Salmon et al., "Parallel random numbers: as easy as
 * 1, 2, 3" (SC 2011), many counters at a time.
 *
 * Element i of a stream takes word i % 4 of the counter (i / 4 low, i / 4 high, step, key) under
 * the key words (seed low, seed high). Nothing depends on the ISA, the float type or how work is
 * cut.
 */
#ifndef FNN_PHILOX_H
#define FNN_PHILOX_H

#include "vec.h"

/* Words live in the low halves of 64-bit lanes, where their products fit. */
enum { PHILOX_LANES = FNN_VBYTES / 8, PHILOX_WORDS = 4 * PHILOX_LANES };
typedef uint64_t philox_vec __attribute__((vector_size(FNN_VBYTES)));

/* Low half of each lane times m: one instruction that GCC does not find by itself on x86. */
FNN_INLINE philox_vec philox_product(philox_vec a, uint32_t m) {
    philox_vec b = m - (philox_vec){0};
#if defined(__AVX512F__)
    return (philox_vec)_mm512_mul_epu32((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
    return (philox_vec)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#elif defined(__SSE2__)
    return (philox_vec)_mm_mul_epu32((__m128i)a, (__m128i)b);
#else
    return (a & UINT32_MAX) * b;
#endif
}

typedef struct {
    uint32_t step, key;
    uint64_t keys[10][2]; /* of each round: broadcast from memory, they cost no shuffle */
} philox_stream;

/* hyper: [0] step number, [1] seed, both whole numbers of at most 2^53. A step number's high half
 * (the micro-batches that are left of the step) joins the high half of the key. */
FNN_INLINE philox_stream philox_open(const double *hyper, int64_t key) {
    uint64_t seed = (uint64_t)(int64_t)hyper[1];
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    uint64_t step = (uint64_t)(int64_t)hyper[0];
    philox_stream s = {.step = (uint32_t)step, .key = (uint32_t)key ^ (uint32_t)(step >> 32) << 16};
    for (int round = 0; round < 10; round++) {
        s.keys[round][0] = k0, s.keys[round][1] = k1;
        k0 += 0x9E3779B9, k1 += 0xBB67AE85;
    }
    return s;
}

/* The words of elements 4 * counter .. 4 * counter + PHILOX_WORDS - 1. */
FNN_INLINE void philox_words(const philox_stream *s, uint64_t counter,
                             uint32_t words[PHILOX_WORDS]) {
    static const uint64_t lane[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    philox_vec c0;
    memcpy(&c0, lane, sizeof c0);
    c0 += counter;
    philox_vec c1 = c0 >> 32, c2 = s->step - (philox_vec){0}, c3 = s->key - (philox_vec){0};
#pragma GCC unroll 10
    for (int round = 0; round < 10; round++) {
        philox_vec p0 = philox_product(c0, 0xD2511F53), p1 = philox_product(c2, 0xCD9E8D57);
        /* The high halves of c1 and c3 gather rubbish that no product and no output reads. */
        c0 = (p1 >> 32) ^ c1 ^ s->keys[round][0];
        c2 = (p0 >> 32) ^ c3 ^ s->keys[round][1];
        c1 = p1, c3 = p0;
    }
    philox_vec low = (c0 & UINT32_MAX) | (c1 << 32), high = (c2 & UINT32_MAX) | (c3 << 32);
    uint64_t pairs[2 * PHILOX_LANES];
    for (int i = 0; i < PHILOX_LANES; i++) pairs[2 * i] = low[i], pairs[2 * i + 1] = high[i];
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "philox_words writes pairs of words as little-endian 64-bit numbers"
#endif
    memcpy(words, pairs, sizeof pairs);
}

#endif
