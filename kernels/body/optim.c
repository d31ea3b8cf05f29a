/* The optimizers whose rate does not depend on the step: formulas and order of operations as in
 * PyTorch's torch.optim, Lion's as in its paper. The loops are plain, for the compiler to
 * vectorise.
 */
#define FNN_DEF "def/optim.def"
#include "args.h"

#include "../slab.h"

/* --- sgd ------------------------------------------------------------------------------------ */

typedef struct {
    T lr, momentum, fresh; /* fresh: 1 - dampening */
    int first, nesterov;
} sgd_numbers;

FNN_INLINE void sgd_rule(element *e, const void *numbers) {
    const sgd_numbers *k = numbers;
    e->w -= k->lr * e->g;
}

FNN_INLINE void momentum_rule(element *e, const void *numbers) {
    const sgd_numbers *k = numbers;
    e->a = k->first ? e->g : k->momentum * e->a + k->fresh * e->g;
    e->w -= k->lr * (k->nesterov ? e->g + k->momentum * e->a : e->a);
}

static void sgd_range(const slab_job *job, int64_t from, int64_t n) {
    const sgd_numbers k = *(const sgd_numbers *)job->numbers;
    if (job->states[0])
        each(job, from, n, 1, momentum_rule, &k);
    else
        each(job, from, n, 0, sgd_rule, &k);
}

/* Momentum also moves rows that have no gradient now, if they ever had one. `touched` lists them:
 * [0] their number (-1: look where buf is not zero), [1] counts calls, then the rows, then for each
 * row of the table the last call that moved it (0: not listed), then a row of zeros. */
typedef struct {
    const slab_job *job;
    const int64_t *rows, *moved;
    const T *zeros;
    int64_t count, now;
} idle_job;

static void idle_task(void *ctx, int64_t task) {
    const idle_job *idle = ctx;
    int64_t size = rows_a_task(idle->job->c), first = task * size;
    __auto_type before = flush_denormals();
    for (int64_t i = first; i < first + size && i < idle->count; i++)
        if (idle->moved[idle->rows[i]] != idle->now)
            slab_row(idle->job, idle->rows[i], idle->zeros);
    restore_denormals(before);
}

static void find_touched(const T *buf, int64_t table, int64_t c, int64_t *touched) {
    int64_t *rows = touched + 2, *moved = rows + table;
    touched[0] = touched[1] = 0;
    memset(moved, 0, (size_t)table * sizeof(int64_t));
    for (int64_t row = 0; row < table; row++)
        for (int64_t j = 0; j < c && !moved[row]; j++)
            if (buf[row * c + j] != 0) rows[touched[0]++] = row, moved[row] = -1;
}

/* The rows without a gradient in this step, after those with one. */
static void move_idle_rows(const fnn_sgd_args *a, slab_job job) {
    int64_t *touched = a->touched, table = a->n / a->c, *rows = touched + 2, *moved = rows + table;
    const int64_t *now = a->rows;
    if (touched[0] < 0) find_touched(a->buf, table, a->c, touched);
    touched[1]++;
    for (int64_t i = 1; i <= now[0]; i++) {
        if (!moved[now[i]]) rows[touched[0]++] = now[i];
        moved[now[i]] = touched[1];
    }
    job.w = a->w, job.scale = 1, job.c = a->c;
    idle_job idle = {&job, rows, moved, (const T *)(moved + table), touched[0], touched[1]};
    int64_t tasks = (idle.count + rows_a_task(a->c) - 1) / rows_a_task(a->c);
    fnn_parallel(tasks, 0.05 * sizeof(T) * (double)(idle.count * a->c), idle_task, &idle);
}

int FNN_SYM(sgd)(const fnn_sgd_args *a) {
    sgd_numbers k = {.lr = (T)slab_rate(a),
                     .momentum = (T)a->momentum,
                     .fresh = (T)(1 - a->dampening),
                     .first = slab_step(a) <= 1,
                     .nesterov = a->nesterov != 0};
    slab_job job = {
        .range = sgd_range, .numbers = &k, .states = {a->buf}, .decay = (T)a->weight_decay};
    if (a->rows && a->buf && !k.first) move_idle_rows(a, job);
    return slab_run(a, job, 0.05);
}

/* --- adagrad, adadelta ---------------------------------------------------------------------- */

typedef struct {
    T lr, eps;
} adagrad_numbers;

FNN_INLINE void adagrad_rule(element *e, const void *numbers) {
    const adagrad_numbers *k = numbers;
    e->a += e->g * e->g;
    e->w -= k->lr * (e->g / (root(e->a) + k->eps));
}

static void adagrad_range(const slab_job *job, int64_t from, int64_t n) {
    const adagrad_numbers k = *(const adagrad_numbers *)job->numbers;
    each(job, from, n, 1, adagrad_rule, &k);
}

int FNN_SYM(adagrad)(const fnn_adagrad_args *a) {
    double lr = slab_rate(a) / (1 + (slab_step(a) - 1) * a->lr_decay);
    adagrad_numbers k = {.lr = (T)lr, .eps = (T)a->eps};
    slab_job job = {
        .range = adagrad_range, .numbers = &k, .states = {a->sum}, .decay = (T)a->weight_decay};
    return slab_run(a, job, 0.12);
}

typedef struct {
    T lr, rho, fresh, eps;
} adadelta_numbers;

FNN_INLINE void adadelta_rule(element *e, const void *numbers) {
    const adadelta_numbers *k = numbers;
    e->a = k->rho * e->a + k->fresh * (e->g * e->g);
    T delta = root(e->b + k->eps) / root(e->a + k->eps) * e->g;
    e->b = k->rho * e->b + k->fresh * (delta * delta);
    e->w -= k->lr * delta;
}

static void adadelta_range(const slab_job *job, int64_t from, int64_t n) {
    const adadelta_numbers k = *(const adadelta_numbers *)job->numbers;
    each(job, from, n, 2, adadelta_rule, &k);
}

int FNN_SYM(adadelta)(const fnn_adadelta_args *a) {
    adadelta_numbers k = {
        .lr = (T)slab_rate(a), .rho = (T)a->rho, .fresh = (T)(1 - a->rho), .eps = (T)a->eps};
    slab_job job = {.range = adadelta_range,
                    .numbers = &k,
                    .states = {a->square, a->delta},
                    .decay = (T)a->weight_decay};
    return slab_run(a, job, 0.2);
}

/* --- rmsprop -------------------------------------------------------------------------------- */

typedef struct {
    T lr, alpha, fresh, momentum, eps;
    int centered, buffered;
} rmsprop_numbers;

/* states: square, then those of mean and buf that there are. */
FNN_INLINE void rmsprop(element *e, const rmsprop_numbers *k, T *mean, T *buf) {
    T variance = e->a = k->alpha * e->a + k->fresh * (e->g * e->g);
    if (mean) {
        *mean += k->fresh * (e->g - *mean);
        variance -= *mean * *mean;
        variance = variance < 0 ? 0 : variance; /* by rounding */
    }
    T step = e->g / (root(variance) + k->eps);
    if (buf) step = *buf = k->momentum * *buf + step;
    e->w -= k->lr * step;
}

FNN_INLINE void rmsprop_rule(element *e, const void *numbers) { rmsprop(e, numbers, NULL, NULL); }
FNN_INLINE void centered_rule(element *e, const void *numbers) { rmsprop(e, numbers, &e->b, NULL); }
FNN_INLINE void buffered_rule(element *e, const void *numbers) { rmsprop(e, numbers, NULL, &e->b); }
FNN_INLINE void both_rule(element *e, const void *numbers) { rmsprop(e, numbers, &e->b, &e->c); }

static void rmsprop_range(const slab_job *job, int64_t from, int64_t n) {
    const rmsprop_numbers k = *(const rmsprop_numbers *)job->numbers;
    if (k.centered && k.buffered)
        each(job, from, n, 3, both_rule, &k);
    else if (k.centered)
        each(job, from, n, 2, centered_rule, &k);
    else if (k.buffered)
        each(job, from, n, 2, buffered_rule, &k);
    else
        each(job, from, n, 1, rmsprop_rule, &k);
}

int FNN_SYM(rmsprop)(const fnn_rmsprop_args *a) {
    rmsprop_numbers k = {.lr = (T)slab_rate(a),
                         .alpha = (T)a->alpha,
                         .fresh = (T)(1 - a->alpha),
                         .momentum = (T)a->momentum,
                         .eps = (T)a->eps,
                         .centered = a->mean != NULL,
                         .buffered = a->buf != NULL};
    slab_job job = {.range = rmsprop_range,
                    .numbers = &k,
                    .states = {a->square, a->mean ? a->mean : a->buf, a->buf},
                    .decay = (T)a->weight_decay};
    return slab_run(a, job, 0.15);
}

/* --- lion ----------------------------------------------------------------------------------- */

typedef struct {
    T lr, fresh1, fresh2, shrink; /* shrink: of w, by the decoupled weight decay */
} lion_numbers;

FNN_INLINE void lion_rule(element *e, const void *numbers) {
    const lion_numbers *k = numbers;
    T step = e->a + k->fresh1 * (e->g - e->a);
    T sign = step > 0 ? 1 : step < 0 ? -1 : step; /* of NaN: NaN */
    e->w = e->w * k->shrink - k->lr * sign;
    e->a += k->fresh2 * (e->g - e->a);
}

static void lion_range(const slab_job *job, int64_t from, int64_t n) {
    const lion_numbers k = *(const lion_numbers *)job->numbers;
    each(job, from, n, 1, lion_rule, &k);
}

int FNN_SYM(lion)(const fnn_lion_args *a) {
    double lr = slab_rate(a);
    lion_numbers k = {.lr = (T)lr,
                      .fresh1 = (T)(1 - a->beta1),
                      .fresh2 = (T)(1 - a->beta2),
                      .shrink = (T)(1 - lr * a->weight_decay)};
    slab_job job = {.range = lion_range, .numbers = &k, .states = {a->m}};
    return slab_run(a, job, 0.1);
}
