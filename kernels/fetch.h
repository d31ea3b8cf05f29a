/* Asking memory for what comes next, beside the arithmetic.
 *
 * For the L2 cache, as tiles need L1 for themselves; in the order of memory, which the hardware's
 * prefetchers take up; a little at a time, as a core has room for some twenty misses of its own.
 * All inlined: GCC takes a function that only fetches for one without effect, and its calls away.
 */
#ifndef FNN_FETCH_H
#define FNN_FETCH_H

#include "vec.h"

enum { LINE_LENGTH = 64 / sizeof(T) };

/* Asks for n elements from `at` on, readable or not; returns where the next ones begin. */
FNN_INLINE const T *fetch_run(const T *at, int64_t n) {
    for (const T *end = at + n; at < end; at += LINE_LENGTH) __builtin_prefetch(at, 0, 2);
    return at;
}

#endif
