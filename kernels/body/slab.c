/* Around an optimizer: clipping, sums over micro-batches and averaged weights. */
#define FNN_DEF "def/optim.def"
#include "args.h"

#include "../slab.h"
#include <math.h>

static int64_t tasks_of(int64_t n) { return (n + SLAB_TASK - 1) / SLAB_TASK; }
static int64_t task_size(int64_t n, int64_t task) {
    int64_t left = n - task * SLAB_TASK;
    return left < SLAB_TASK ? left : SLAB_TASK;
}

/* --- clipping ------------------------------------------------------------------------------- */

static void clamp_task(void *ctx, int64_t task) {
    const fnn_clamp_args own = *(const fnn_clamp_args *)ctx, *a = &own;
    T *g = (T *)a->g + task * SLAB_TASK;
    int64_t n = task_size(a->n, task), i = 0;
    V most = v_set1((T)a->bound), least = -most;
    for (; i + VL <= n; i += VL) v_store(g + i, v_min(v_max(v_load(g + i), least), most));
    if (i < n) v_store_n(g + i, v_min(v_max(v_load_n(g + i, n - i), least), most), n - i);
}

int FNN_SYM(clamp)(const fnn_clamp_args *a) {
    fnn_parallel(tasks_of(a->n), 0.08 * sizeof(T) * (double)a->n, clamp_task, (void *)a);
    return FNN_OK;
}

/* Four vectors of sums over a run, double over the runs of a task and over the tasks. */
static void norm_task(void *ctx, int64_t task) {
    enum { SIDE = 4 * VL, RUN = 32 * SIDE };
    const fnn_grad_norm_args *a = ctx;
    const T *g = (const T *)a->g + task * SLAB_TASK;
    int64_t n = task_size(a->n, task);
    double total = 0;
    for (int64_t from = 0; from < n; from += RUN) {
        int64_t to = from + RUN < n ? from + RUN : n, i = from;
        V sums[4] = {{0}};
        for (; i + SIDE <= to; i += SIDE)
#pragma GCC unroll 4
            for (int k = 0; k < 4; k++) {
                V x = v_load(g + i + k * VL);
                sums[k] += x * x;
            }
        for (; i + VL <= to; i += VL) sums[0] += v_load(g + i) * v_load(g + i);
        if (i < to) {
            V x = v_load_n(g + i, to - i);
            sums[1] += x * x;
        }
        total += (double)v_sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
    }
    ((double *)a->work)[task] = total;
}

int64_t FNN_SYM(grad_norm_size)(const fnn_grad_norm_args *a) {
    return tasks_of(a->n) * (int64_t)sizeof(double);
}

int FNN_SYM(grad_norm)(const fnn_grad_norm_args *a) {
    fnn_parallel(tasks_of(a->n), 0.04 * sizeof(T) * (double)a->n, norm_task, (void *)a);
    double total = 0;
    for (int64_t i = 0; i < tasks_of(a->n); i++) total += ((const double *)a->work)[i];
    double factor = a->max_norm / (sqrt(total) + 1e-6);
    *(double *)a->factor = factor >= 1 ? 1 : factor; /* NaN stays */
    return FNN_OK;
}

/* --- means ---------------------------------------------------------------------------------- */

typedef struct {
    const T *x;
    T *mean;
    int64_t n;
    T part;
} mean_job;

/* mean += part * (x - mean); with part = 1 whatever it held is gone, NaN too. */
static void mean_task(void *ctx, int64_t task) {
    const mean_job *job = ctx;
    const T *restrict x = job->x + task * SLAB_TASK, part = job->part;
    T *restrict mean = job->mean + task * SLAB_TASK;
    int64_t n = task_size(job->n, task);
    if (part == 1)
        memcpy(mean, x, (size_t)n * sizeof(T));
    else
        for (int64_t i = 0; i < n; i++) mean[i] += part * (x[i] - mean[i]);
}

static void move_mean(const T *x, T *mean, int64_t n, double part) {
    mean_job job = {.x = x, .mean = mean, .n = n, .part = (T)part};
    fnn_parallel(tasks_of(n), 0.1 * sizeof(T) * (double)n, mean_task, &job);
}

int FNN_SYM(grad_mean)(const fnn_grad_mean_args *a) {
    const double *hyper = a->hyper;
    move_mean(a->g, a->mean, a->n, hyper[3]);
    return hyper[0] < 4294967296. ? FNN_OK : FNN_SKIP_REST;
}

int FNN_SYM(ema)(const fnn_ema_args *a) {
    double step = *(const double *)a->hyper - (double)a->start;
    move_mean(a->w, a->mean, a->n, step <= 1 ? 1 : 1 - a->decay);
    return FNN_OK;
}
