/* Batch norm backward: with g = dy (where the fused ReLU let it pass), N rows and
 * xhat = (x - mean) * rstd: dbeta = sum g, dgamma = sum g * xhat,
 * dx = gamma * rstd * (g - dbeta / N - xhat * dgamma / N). */
#define FNN_DEF "def/norm.def"
#include "args.h"

#include "../norm.h"
#include "../norm_grad.h"

/* Adds the sums over `rows` rows to the slot's running ones. */
static void add_gradients(const slot *s, const rows_view *v, int64_t rows, int64_t width) {
    sum_rows(GRADIENTS, v, rows, width, s->sum0, s->sum1);
    for (int64_t j = 0; j < width; j++) s->run0[j] += s->sum0[j];
    for (int64_t j = 0; j < width; j++) s->run1[j] += s->sum1[j];
}

static rows_view view_from(const rows_view *v, int64_t at) {
    rows_view moved = *v;
    moved.x += at, moved.dy += at;
    if (moved.saved) moved.saved += at;
    return moved;
}

static void gradients_task(void *ctx, int64_t task) {
    const stats_job *job = ctx;
    const layout *l = job->l;
    slot s = slot_at(l, job->work, task);
    clear_run(&s, l->width);
    int64_t end = first_row(l, task + 1);
    for (int64_t row = first_row(l, task); row < end; row += l->block) {
        rows_view v = view_from(&job->v, row * l->width);
        add_gradients(&s, &v, least(l->block, end - row), l->width);
    }
}

static void add_sums(double *sum, const double *other, int64_t width) {
    for (int64_t j = 0; j < width; j++) sum[j] += other[j];
}

/* Sums of g and g * (x - mean) of each channel, in the first c places of the first slot's sums. */
static slot all_gradients(const layout *l, rows_view v, void *work) {
    stats_job job = {.l = l, .v = v, .work = work};
    double bytes = (double)(l->rows * l->c) * sizeof(T);
    fnn_parallel(l->tasks, 0.1 * bytes, gradients_task, &job);
    slot s = slot_at(l, work, 0);
    if (l->tasks == 0) clear_run(&s, l->width);
    for (int64_t t = 1; t < l->tasks; t++) {
        slot b = slot_at(l, work, t);
        add_sums(s.run0, b.run0, l->width);
        add_sums(s.run1, b.run1, l->width);
    }
    for (int64_t f = 1; f < l->fold; f++) {
        add_sums(s.run0, s.run0 + f * l->c, l->c);
        add_sums(s.run1, s.run1 + f * l->c, l->c);
    }
    int64_t done = l->wide * l->fold;
    rows_view rest = view_from(&v, done * l->c);
    rest.stride = l->c;
    if (done < l->rows) add_gradients(&s, &rest, l->rows - done, l->c);
    return s;
}

/* The same from what was found when dy was written. */
static slot given_sums(const layout *l, const double *parts, int64_t count, void *work) {
    slot s = slot_at(l, work, 0);
    clear_run(&s, l->width);
    for (int64_t i = 0; i < count; i++, parts += 1 + 2 * l->c) {
        add_sums(s.run0, parts + 1, l->c);
        add_sums(s.run1, parts + 1 + l->c, l->c);
    }
    return s;
}

static void backward_task(void *job, int64_t task) { apply_rows(job, task, 1); }

int64_t FNN_SYM(bn_bwd_size)(const fnn_bn_bwd_args *a) {
    layout l = lay_out(a->rows, a->c);
    return work_bytes(&l);
}

int FNN_SYM(bn_bwd)(const fnn_bn_bwd_args *a) {
    layout l = lay_out(a->rows, a->c);
    apply_job job = {.l = &l, .x = a->x, .dy = a->dy, .saved = a->saved, .out = a->dx};
    point_tables(&job, (T *)((char *)a->work + (l.tasks + 1) * l.slot));
    memcpy(job.mean, a->mean, (size_t)l.c * sizeof(T));
    widen(&l, job.mean);
    rows_view v = {
        .x = a->x, .dy = a->dy, .saved = a->saved, .center = job.mean, .stride = l.width};
    slot s = a->sums ? given_sums(&l, a->sums, a->parts, a->work) : all_gradients(&l, v, a->work);
    norm_gradient all = {.rstd = a->rstd,
                         .gamma = a->gamma,
                         .rows = (double)l.rows,
                         .dgamma = a->dgamma,
                         .dbeta = a->dbeta,
                         .scale = job.scale,
                         .slope = job.slope,
                         .shift = job.shift};
    for (int64_t ch = 0; ch < l.c; ch++) norm_gradient_channel(&all, ch, s.run0[ch], s.run1[ch]);
    if (!a->dx) return FNN_OK;
    widen(&l, job.scale), widen(&l, job.slope), widen(&l, job.shift);
    apply(&job, backward_task);
    return FNN_OK;
}
