/* Random numbers of augmentations: eight words for each sample, a function of (seed, step, key,
 * sample's place in the batch) alone.
 */
#ifndef FNN_AUGMENT_H
#define FNN_AUGMENT_H

#include "philox.h"
#include "threads.h"

enum { DRAWS = 8 };

typedef struct {
    uint32_t word[PHILOX_WORDS];
} sample_draws;

FNN_INLINE sample_draws draw_sample(const philox_stream *stream, int64_t sample) {
    sample_draws d; /* a vector of words holds at least these eight on every ISA */
    philox_words(stream, (uint64_t)sample * (DRAWS / 4), d.word);
    return d;
}

/* Draw i in [0, 1). */
FNN_INLINE double draw(const sample_draws *d, int i) { return d->word[i] * 0x1p-32; }

/* A whole number from lo to hi, both included. */
FNN_INLINE int64_t draw_int(const sample_draws *d, int i, int64_t lo, int64_t hi) {
    return lo + (int64_t)(draw(d, i) * (double)(hi - lo + 1));
}

FNN_INLINE double draw_real(const sample_draws *d, int i, double lo, double hi) {
    return lo + draw(d, i) * (hi - lo);
}

#endif
