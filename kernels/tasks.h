/* How elementwise kernels cut n elements into tasks. */
#ifndef FNN_TASKS_H
#define FNN_TASKS_H

#include <stdint.h>

enum { CHUNK = 16384 /* a task's elements */ };

static inline int64_t chunks(int64_t n) { return (n + CHUNK - 1) / CHUNK; }
static inline int64_t chunk_length(int64_t n, int64_t chunk) {
    int64_t left = n - chunk * CHUNK;
    return left < CHUNK ? left : CHUNK;
}

#endif
