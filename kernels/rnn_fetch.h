/* What the next step reads and writes comes into the L2 cache while this one multiplies.
 *
 * Saved gates and cells go to memory and come back from there: a step's cells would wait for their
 * lines longer than they compute. The products beside them leave memory alone, so their tiles
 * (gemm_tile.h) fetch a little with each row of depth. Any more at once and the tile itself waits.
 */
#ifndef FNN_RNN_FETCH_H
#define FNN_RNN_FETCH_H

#define FNN_TILES_FETCH
#include "gemm_tile.h"

enum { MOST_AREAS = 4, LINE = 64 };

typedef struct {
    const char *from[MOST_AREAS], *to[MOST_AREAS];
    int count;
    int64_t pace; /* bytes with each row of depth */
} rnn_fetch;

/* So many elements too, if there are any. */
static inline void fetch_also(rnn_fetch *f, const T *area, int64_t size) {
    if (!area) return;
    f->from[f->count] = (const char *)area;
    f->to[f->count++] = (const char *)(area + size);
}

/* All within tiles of so many rows of depth together. */
static inline void fetch_within(rnn_fetch *f, int64_t depth) {
    int64_t bytes = 0;
    for (int i = 0; i < f->count; i++) bytes += f->to[i] - f->from[i];
    f->pace = least(ceil_div(bytes, depth), LINE);
}

/* Where a tile of this depth begins to fetch; null if nothing is left. */
FNN_INLINE const char *fetch_next(rnn_fetch *f, int64_t depth) {
    if (!f || !f->count) return NULL;
    int last = f->count - 1;
    const char *from = f->from[last];
    f->from[last] += f->pace * depth;
    if (f->from[last] >= f->to[last]) f->count--;
    return from;
}

#endif
