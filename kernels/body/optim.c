/* The optimizers: one pass over a slab of parameters, gradients and state, formulas and order of
 * operations as in PyTorch's torch.optim. The loops are plain, for the compiler to vectorise. */
#define FNN_DEF "def/optim.def"
#include "args.h"

#include "../threads.h"
#include "../vec.h"
#include <math.h>

enum { SLAB_TASK = 16384 };

FNN_INLINE T root(T x) { return FNN_BITS == 32 ? (T)__builtin_sqrtf((float)x) : __builtin_sqrt(x); }

static int64_t slab_tasks(int64_t n) { return (n + SLAB_TASK - 1) / SLAB_TASK; }
FNN_INLINE int64_t slab_end(int64_t n, int64_t from) {
    return from + SLAB_TASK < n ? from + SLAB_TASK : n;
}

/* Gradient with its sign and the L2 penalty; without one, w is not looked at (it may be inf). */
FNN_INLINE T full_gradient(T g, T w, T sign, T decay) {
    return decay != 0 ? sign * g + decay * w : sign * g;
}

typedef struct {
    const T *g;
    T *w, *buf;
    int64_t n;
    int first, nesterov;
    T sign, lr, momentum, fresh, decay; /* fresh: 1 - dampening */
} sgd_job;

static void sgd_task(void *ctx, int64_t task) {
    const sgd_job job = *(const sgd_job *)ctx;
    int64_t from = task * SLAB_TASK, n = slab_end(job.n, from) - from;
    const T *restrict g = job.g + from;
    T *restrict w = job.w + from;
    if (!job.buf) {
        for (int64_t i = 0; i < n; i++)
            w[i] -= job.lr * full_gradient(g[i], w[i], job.sign, job.decay);
        return;
    }
    T *restrict buf = job.buf + from;
    if (job.first) {
        const T weight = job.nesterov ? 1 + job.momentum : 1; /* g + momentum * g */
        for (int64_t i = 0; i < n; i++) {
            buf[i] = full_gradient(g[i], w[i], job.sign, job.decay);
            w[i] -= job.lr * (weight * buf[i]);
        }
    } else if (job.nesterov) {
        for (int64_t i = 0; i < n; i++) {
            T step = full_gradient(g[i], w[i], job.sign, job.decay);
            buf[i] = job.momentum * buf[i] + job.fresh * step;
            w[i] -= job.lr * (step + job.momentum * buf[i]);
        }
    } else {
        for (int64_t i = 0; i < n; i++) {
            T step = full_gradient(g[i], w[i], job.sign, job.decay);
            buf[i] = job.momentum * buf[i] + job.fresh * step;
            w[i] -= job.lr * buf[i];
        }
    }
}

int FNN_SYM(sgd)(const fnn_sgd_args *a) {
    const double *hyper = a->hyper;
    sgd_job job = {.g = a->g,
                   .w = a->w,
                   .buf = a->buf,
                   .n = a->n,
                   .first = hyper[0] <= 1,
                   .nesterov = a->nesterov != 0,
                   .sign = a->maximize ? -1 : 1,
                   .lr = (T)hyper[2],
                   .momentum = (T)a->momentum,
                   .fresh = (T)(1 - a->dampening),
                   .decay = (T)a->weight_decay};
    fnn_parallel(slab_tasks(a->n), 0.05 * sizeof(T) * (double)a->n, sgd_task, &job);
    return FNN_OK;
}

typedef struct {
    const T *g;
    T *w, *m, *v;
    int64_t n;
    T sign, decay, shrink; /* decay joins the gradient; shrink multiplies w (AdamW) */
    T fresh1, beta2, fresh2, step_size, root_scale, eps;
} adam_job;

static void adam_task(void *ctx, int64_t task) {
    const adam_job job = *(const adam_job *)ctx;
    int64_t from = task * SLAB_TASK, n = slab_end(job.n, from) - from;
    const T *restrict g = job.g + from;
    T *restrict w = job.w + from, *restrict m = job.m + from, *restrict v = job.v + from;
    for (int64_t i = 0; i < n; i++) {
        T step = full_gradient(g[i], w[i], job.sign, job.decay);
        T mean = m[i] + job.fresh1 * (step - m[i]);
        T square = job.beta2 * v[i] + job.fresh2 * (step * step);
        m[i] = mean, v[i] = square;
        w[i] =
            w[i] * job.shrink - job.step_size * (mean / (root(square) * job.root_scale + job.eps));
    }
}

int FNN_SYM(adam)(const fnn_adam_args *a) {
    const double *hyper = a->hyper;
    double step = hyper[0], lr = hyper[2];
    adam_job job = {.g = a->g,
                    .w = a->w,
                    .m = a->m,
                    .v = a->v,
                    .n = a->n,
                    .sign = a->maximize ? -1 : 1,
                    .decay = a->decoupled ? 0 : (T)a->weight_decay,
                    .shrink = a->decoupled ? (T)(1 - lr * a->weight_decay) : 1,
                    .fresh1 = (T)(1 - a->beta1),
                    .beta2 = (T)a->beta2,
                    .fresh2 = (T)(1 - a->beta2),
                    .step_size = (T)(lr / (1 - pow(a->beta1, step))),
                    .root_scale = (T)(1 / sqrt(1 - pow(a->beta2, step))),
                    .eps = (T)a->eps};
    fnn_parallel(slab_tasks(a->n), 0.15 * sizeof(T) * (double)a->n, adam_task, &job);
    return FNN_OK;
}
