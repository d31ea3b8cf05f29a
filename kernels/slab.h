/* What the optimizers share: a pass over a slab of parameters, gradients and up to three states,
 * cut into tasks by shape. An optimizer is a rule for one element, inlined into `each`. A body
 * includes def/optim.def's arguments first.
 */
#ifndef FNN_SLAB_H
#define FNN_SLAB_H

#include "denormals.h"
#include "threads.h"

enum { SLAB_TASK = 16384 };
/* A status below FNN_OK: no error, but the program's other steps are left out in this iteration. */
enum { FNN_SKIP_REST = -1 };

/* Any optimizer's arguments: they begin alike. */
typedef fnn_sgd_args slab_args;

typedef struct {
    T g, w, a, b, c; /* gradient, parameter, states */
} element;

/* A rule with its numbers, applied to n elements from `from` on. */
typedef struct slab_job {
    void (*range)(const struct slab_job *job, int64_t from, int64_t n);
    const void *numbers;
    T *states[3];
    T decay; /* L2 penalty: g counts as scale * g + decay * w */
    const T *g;
    T *w;
    int64_t n;
    T scale;
    const int64_t *rows; /* of a table, those that move; their number first */
    int64_t c;
} slab_job;

FNN_INLINE T root(T x) { return FNN_BITS == 32 ? (T)__builtin_sqrtf((float)x) : __builtin_sqrt(x); }

/* Apply a rule to n elements. `states` and `rule` are constants of the caller, and `numbers` its
 * own copy, which no store can change. Without decay w is not looked at (it may be inf). */
FNN_INLINE void each(const slab_job *job, int64_t from, int64_t n, int states,
                     void (*rule)(element *, const void *), const void *numbers) {
    const T *restrict g = job->g + from, scale = job->scale, decay = job->decay;
    T *restrict w = job->w + from;
    T *restrict a = states > 0 ? job->states[0] + from : NULL;
    T *restrict b = states > 1 ? job->states[1] + from : NULL;
    T *restrict c = states > 2 ? job->states[2] + from : NULL;
    for (int64_t i = 0; i < n; i++) {
        element e = {.g = decay != 0 ? scale * g[i] + decay * w[i] : scale * g[i], .w = w[i]};
        if (states > 0) e.a = a[i];
        if (states > 1) e.b = b[i];
        if (states > 2) e.c = c[i];
        rule(&e, numbers);
        w[i] = e.w;
        if (states > 0) a[i] = e.a;
        if (states > 1) b[i] = e.b;
        if (states > 2) c[i] = e.c;
    }
}

/* Steps that the parameters of these arguments have seen, this one included. */
FNN_INLINE double slab_step(const void *args) {
    const slab_args *a = args;
    return *(const double *)a->hyper - (double)a->start;
}
FNN_INLINE double slab_rate(const void *args) {
    const slab_args *a = args;
    return ((const double *)a->hyper)[a->lr_at];
}
FNN_INLINE T slab_scale(const void *args) {
    const slab_args *a = args;
    double factor = a->clip ? *(const double *)a->clip : 1;
    return (T)(a->maximize ? -factor : factor);
}

static inline void slab_task(void *ctx, int64_t task) {
    const slab_job *job = ctx;
    int64_t from = task * SLAB_TASK, left = job->n - from;
    __auto_type before = flush_denormals();
    job->range(job, from, left < SLAB_TASK ? left : SLAB_TASK);
    restore_denormals(before);
}

/* The rule over one row of a table; g is that row's. */
FNN_INLINE void slab_row(const slab_job *table, int64_t row, const T *g) {
    slab_job job = *table;
    job.g = g;
    job.w += row * job.c;
    for (int s = 0; s < 3; s++)
        if (job.states[s]) job.states[s] += row * job.c;
    job.range(&job, 0, job.c);
}

FNN_INLINE int64_t rows_a_task(int64_t c) { return c < SLAB_TASK ? SLAB_TASK / c : 1; }

static inline void slab_rows_task(void *ctx, int64_t task) {
    const slab_job *job = ctx;
    int64_t first = task * rows_a_task(job->c), last = first + rows_a_task(job->c);
    __auto_type before = flush_denormals();
    for (int64_t i = first; i < last && i < job->rows[0]; i++)
        slab_row(job, job->rows[1 + i], job->g + i * job->c);
    restore_denormals(before);
}

/* The pass: the job's range, numbers, states and decay are given. ns: of a byte of one slab. */
static inline int slab_run(const void *args, slab_job job, double ns) {
    const slab_args *a = args;
    job.g = a->g, job.w = a->w, job.n = a->n, job.scale = slab_scale(a);
    job.rows = a->rows, job.c = a->c;
    if (job.rows) {
        int64_t count = job.rows[0], tasks = (count + rows_a_task(a->c) - 1) / rows_a_task(a->c);
        fnn_parallel(tasks, ns * sizeof(T) * (double)(count * a->c), slab_rows_task, &job);
        return FNN_OK;
    }
    int64_t tasks = (a->n + SLAB_TASK - 1) / SLAB_TASK;
    /* Small ones lie in the cache of the core that wrote them, and come out uneven: a second thread
     * pays late. */
    if (tasks <= 4) ns *= 0.45;
    fnn_parallel(tasks, ns * sizeof(T) * (double)a->n, slab_task, &job);
    return FNN_OK;
}

/* 1 - base^step for a whole step, by repeated squaring: a few ns, where pow takes tens. */
static inline double bias_correction(double base, double step) {
    double power = 1;
    for (uint64_t n = (uint64_t)step; n && power != 0; n >>= 1, base *= base)
        power *= n & 1 ? base : 1;
    return 1 - power;
}

#endif
