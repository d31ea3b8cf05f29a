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

/* This thread's scratch memory, 64-byte aligned, kept between calls and grown when needed; NULL
 * when memory is out. One user at a time: a task must not call another kernel while it holds it. */
void *fnn_scratch(size_t bytes);

int fnn_get_threads(void);
void fnn_set_threads(int n);   /* n >= 1 */
int fnn_default_threads(void); /* by affinity, cgroup quota and FASTNN_NUM_THREADS */

#endif
