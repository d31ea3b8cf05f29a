/* Adam, AdamW, AMSGrad and NAdam: formulas and order of operations as in PyTorch's torch.optim. */
#define FNN_DEF "def/optim.def"
#include "args.h"

#include "../slab.h"
#include <math.h>

typedef struct {
    T fresh1, beta2, fresh2;              /* of the moments */
    T mean_rate, g_rate, root_scale, eps; /* of the step; g_rate: NAdam's */
    T shrink;                             /* of w, by decoupled weight decay */
} adam_numbers;

/* a, b: the moments; c: AMSGrad's largest second one. */
FNN_INLINE void adam(element *e, const adam_numbers *k, int amsgrad, int nesterov) {
    e->a += k->fresh1 * (e->g - e->a);
    e->b = k->beta2 * e->b + k->fresh2 * (e->g * e->g);
    if (amsgrad) e->c = e->c > e->b || e->c != e->c ? e->c : e->b; /* NaN stays */
    T below = root(amsgrad ? e->c : e->b) * k->root_scale + k->eps;
    T step = k->mean_rate * e->a;
    if (nesterov) step += k->g_rate * e->g;
    e->w = e->w * k->shrink - step / below;
}

FNN_INLINE void adam_rule(element *e, const void *numbers) { adam(e, numbers, 0, 0); }
FNN_INLINE void amsgrad_rule(element *e, const void *numbers) { adam(e, numbers, 1, 0); }
FNN_INLINE void nadam_rule(element *e, const void *numbers) { adam(e, numbers, 0, 1); }

static void adam_range(const slab_job *job, int64_t from, int64_t n) {
    const adam_numbers k = *(const adam_numbers *)job->numbers;
    if (job->states[2])
        each(job, from, n, 3, amsgrad_rule, &k);
    else
        each(job, from, n, 2, adam_rule, &k);
}

static void nadam_range(const slab_job *job, int64_t from, int64_t n) {
    const adam_numbers k = *(const adam_numbers *)job->numbers;
    each(job, from, n, 2, nadam_rule, &k);
}

static adam_numbers common(double beta1, double beta2, double eps, double step) {
    return (adam_numbers){.fresh1 = (T)(1 - beta1),
                          .beta2 = (T)beta2,
                          .fresh2 = (T)(1 - beta2),
                          .root_scale = (T)(1 / sqrt(bias_correction(beta2, step))),
                          .eps = (T)eps,
                          .shrink = 1};
}

int FNN_SYM(adam)(const fnn_adam_args *a) {
    double step = slab_step(a), lr = slab_rate(a);
    adam_numbers k = common(a->beta1, a->beta2, a->eps, step);
    slab_job job = {.range = adam_range, .numbers = &k, .states = {a->m, a->v, a->vmax}};
    k.mean_rate = (T)(lr / bias_correction(a->beta1, step));
    if (a->rows) k.eps *= k.root_scale; /* as SparseAdam has it */
    if (a->decoupled)
        k.shrink = (T)(1 - lr * a->weight_decay);
    else
        job.decay = (T)a->weight_decay;
    return slab_run(a, job, 0.15);
}

/* The momentum of a step, and the product of those of all steps so far. The cache holds a step and
 * its product; the product of an earlier step is made anew, by the same multiplications. */
static double momentum(const fnn_nadam_args *a, double step) {
    return a->beta1 * (1 - 0.5 * pow(0.96, step * a->momentum_decay));
}

static double product(const fnn_nadam_args *a, double step) {
    double *cache = a->cache;
    if (cache[0] > step || cache[0] < 1) cache[0] = 0, cache[1] = 1;
    while (cache[0] < step && cache[1] != 0) cache[1] *= momentum(a, ++cache[0]);
    cache[0] = step;
    return cache[1];
}

int FNN_SYM(nadam)(const fnn_nadam_args *a) {
    double step = slab_step(a), lr = slab_rate(a);
    double now = momentum(a, step), next = momentum(a, step + 1), all = product(a, step);
    adam_numbers k = common(a->beta1, a->beta2, a->eps, step);
    slab_job job = {.range = nadam_range, .numbers = &k, .states = {a->m, a->v}};
    k.g_rate = (T)(lr * (1 - now) / (1 - all));
    k.mean_rate = (T)(lr * next / (1 - all * next));
    if (a->decoupled)
        k.shrink = (T)(1 - lr * a->weight_decay);
    else
        job.decay = (T)a->weight_decay;
    return slab_run(a, job, 0.15);
}
