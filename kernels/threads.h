/* The thread pool: fnn_parallel runs fn(ctx, 0..tasks-1), on the pool where that pays.
 *
 * Tasks must be cut by shape alone, never by the number of threads: then results do not depend on
 * it. Nested calls, and calls while another Python thread uses the pool, run serially in the
 * caller.
 */
#ifndef FNN_THREADS_H
#define FNN_THREADS_H

#include <stddef.h>
#include <stdint.h>

typedef void (*fnn_task)(void *ctx, int64_t task);

/* cost: rough nanoseconds of all tasks on one core; below a threshold the caller does them alone.
 */
void fnn_parallel(int64_t tasks, double cost, fnn_task fn, void *ctx);

/* The cost of reading and writing so many bytes. Small ones lie in the cache of the core that wrote
 * them, where others are slow to fetch them from. */
enum { FNN_CACHED_BYTES = 1 << 20 };
static inline double fnn_moving_ns(double bytes) {
    return bytes / (bytes < FNN_CACHED_BYTES ? 100 : 20);
}

/* This thread's scratch memory, 64-byte aligned, kept between calls and grown when needed; NULL
 * when memory is out. One user at a time: a task must not call another kernel while it holds it. */
void *fnn_scratch(size_t bytes);

/* Visible outside, for threadpoolctl. */
#define FNN_EXPORT __attribute__((visibility("default")))
FNN_EXPORT int fnn_get_threads(void);
FNN_EXPORT void fnn_set_threads(int n); /* n >= 1 */

/* quota.c: by FASTNN_NUM_THREADS, or else affinity and quota. */
int fnn_default_threads(void);
/* Whole cores that the cgroups named in the file `membership`, mounted at `mount`, leave to this
 * process; INT_MAX where they set no limit. */
int fnn_quota_threads(const char *membership, const char *mount);

#endif
