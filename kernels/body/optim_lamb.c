/* LAMB (You et al., 2020, algorithm 2): Adam's step with decoupled weight decay, for each parameter
 * scaled to a trust ratio |w| / |step|. One pass moves the moments and sums squares by pieces of
 * parameters, a second one makes the step again and takes it. */
#define FNN_DEF "def/optim.def"
#include "args.h"

#include "../slab.h"
#include <math.h>

typedef struct {
    const fnn_lamb_args *args;
    T scale, fresh1, beta2, fresh2, mean_scale, root_scale, eps, decay;
    double *squares; /* [pieces][2]: of w and of the step */
    T *rates;        /* [parameters] */
} lamb_job;

FNN_INLINE T lamb_step(const lamb_job *k, T m, T v, T w) {
    T step = m * k->mean_scale / (root(v) * k->root_scale + k->eps);
    return k->decay != 0 ? step + k->decay * w : step;
}

enum { LANES = 64, RUN = 16 };

/* Sums of squares by lanes, so that the loop is vectors and the tree is fixed; double over runs. */
static void moments_task(void *ctx, int64_t task) {
    const lamb_job own = *(const lamb_job *)ctx, *k = &own;
    const int64_t *piece = (const int64_t *)k->args->pieces + 3 * task;
    const T *restrict g = (const T *)k->args->g + piece[0];
    const T *restrict w = (const T *)k->args->w + piece[0];
    T *restrict m = (T *)k->args->m + piece[0], *restrict v = (T *)k->args->v + piece[0];
    double weights = 0, steps = 0;
    __auto_type before = flush_denormals();
    for (int64_t from = 0; from < piece[1]; from += LANES * RUN) {
        int64_t to = from + LANES * RUN < piece[1] ? from + LANES * RUN : piece[1];
        T ww[LANES] = {0}, ss[LANES] = {0};
        for (int64_t at = from; at < to; at += LANES) {
            int64_t n = to - at < LANES ? to - at : LANES;
            for (int64_t j = 0; j < n; j++) {
                int64_t i = at + j;
                T slope = k->scale * g[i];
                m[i] += k->fresh1 * (slope - m[i]);
                v[i] = k->beta2 * v[i] + k->fresh2 * (slope * slope);
                T step = lamb_step(k, m[i], v[i], w[i]);
                ww[j] += w[i] * w[i];
                ss[j] += step * step;
            }
        }
        for (int j = 0; j < LANES; j++) weights += (double)ww[j], steps += (double)ss[j];
    }
    restore_denormals(before);
    k->squares[2 * task] = weights, k->squares[2 * task + 1] = steps;
}

static void step_task(void *ctx, int64_t task) {
    const lamb_job own = *(const lamb_job *)ctx, *k = &own;
    const int64_t *piece = (const int64_t *)k->args->pieces + 3 * task;
    const T *restrict m = (const T *)k->args->m + piece[0];
    const T *restrict v = (const T *)k->args->v + piece[0];
    T *restrict w = (T *)k->args->w + piece[0], rate = k->rates[piece[2]];
    for (int64_t i = 0; i < piece[1]; i++) w[i] -= rate * lamb_step(k, m[i], v[i], w[i]);
}

/* The rate of each parameter from the sums of its pieces, added in their order. */
static void trust(const lamb_job *k, double lr) {
    const int64_t *pieces = k->args->pieces;
    for (int64_t i = 0; i < k->args->count;) {
        int64_t parameter = pieces[3 * i + 2];
        double weights = 0, steps = 0;
        for (; i < k->args->count && pieces[3 * i + 2] == parameter; i++)
            weights += k->squares[2 * i], steps += k->squares[2 * i + 1];
        double ratio = weights == 0 || steps == 0 ? 1 : sqrt(weights) / sqrt(steps);
        k->rates[parameter] = (T)(lr * ratio);
    }
}

int64_t FNN_SYM(lamb_size)(const fnn_lamb_args *a) {
    return 2 * a->count * (int64_t)sizeof(double) + a->parameters * (int64_t)sizeof(T);
}

int FNN_SYM(lamb)(const fnn_lamb_args *a) {
    double step = slab_step(a);
    lamb_job job = {.args = a,
                    .scale = slab_scale(a),
                    .fresh1 = (T)(1 - a->beta1),
                    .beta2 = (T)a->beta2,
                    .fresh2 = (T)(1 - a->beta2),
                    .mean_scale = (T)(1 / bias_correction(a->beta1, step)),
                    .root_scale = (T)(1 / sqrt(bias_correction(a->beta2, step))),
                    .eps = (T)a->eps,
                    .decay = (T)a->weight_decay,
                    .squares = a->work,
                    .rates = (T *)((double *)a->work + 2 * a->count)};
    fnn_parallel(a->count, 0.2 * sizeof(T) * (double)a->n, moments_task, &job);
    trust(&job, slab_rate(a));
    fnn_parallel(a->count, 0.15 * sizeof(T) * (double)a->n, step_task, &job);
    return FNN_OK;
}
