/* Batch norm forward.
 *
 * A block's moments come from sums around a center near its mean and are merged by the formula of
 * Chan, Golub and LeVeque ("Algorithms for computing the sample variance", 1983).
 */
#define FNN_DEF "def/norm.def"
#include "args.h"

#include "../norm.h"
#include <math.h>

enum { SAMPLE_ROWS = 8 };

/* Joins n_b values of mean and sum of squared deviations (mean_b, m2_b) to n_a of them. */
static void merge_moments(double *restrict mean, double *restrict m2, double n_a,
                          const double *restrict mean_b, const double *restrict m2_b, double n_b,
                          int64_t width) {
    const double share = n_b / (n_a + n_b), cross = n_a * share;
    for (int64_t j = 0; j < width; j++) {
        double delta = mean_b[j] - mean[j];
        mean[j] += share * delta;
        m2[j] += m2_b[j] + cross * delta * delta;
    }
}

/* The block's moments from its sums around the center, to block0 and block1. True where a center is
 * so far off the mean, by more than two standard deviations, that cancellation would show. */
static int block_moments(const slot *s, int64_t rows, int64_t width) {
    const T *restrict sum = s->sum0, *restrict square = s->sum1, *restrict center = s->center;
    double *restrict mean = s->block0, *restrict m2 = s->block1, inverse = 1 / (double)rows;
    int64_t far = 0;
    for (int64_t j = 0; j < width; j++) {
        double off = sum[j] * inverse, lost = off * sum[j];
        mean[j] = center[j] + off;
        m2[j] = square[j] - lost;
        far |= lost > 4 * m2[j];
    }
    return far != 0;
}

/* Joins `rows` rows of x to n rows in the slot's running moments. One pass around the mean so far,
 * or that of some rows; a second where that turns out to be far off. */
static void add_moments(const slot *s, double n, const T *x, int64_t rows, int64_t width) {
    rows_view v = {.x = x, .center = s->center, .stride = width};
    if (n > 0) {
        for (int64_t j = 0; j < width; j++) s->center[j] = (T)s->run0[j];
    } else {
        int64_t step = most(rows / SAMPLE_ROWS, 1), count = least(rows, SAMPLE_ROWS);
        rows_view some = {.x = x, .stride = step * width};
        sum_rows(SUM, &some, count, width, s->center, NULL);
        for (int64_t j = 0; j < width; j++) s->center[j] *= (T)1 / (T)count;
    }
    sum_rows(DEVIATIONS, &v, rows, width, s->sum0, s->sum1);
    if (block_moments(s, rows, width)) {
        for (int64_t j = 0; j < width; j++) s->center[j] = (T)s->block0[j];
        sum_rows(DEVIATIONS, &v, rows, width, s->sum0, s->sum1);
        block_moments(s, rows, width);
    }
    merge_moments(s->run0, s->run1, n, s->block0, s->block1, (double)rows, width);
}

static void moments_task(void *ctx, int64_t task) {
    const stats_job *job = ctx;
    const layout *l = job->l;
    slot s = slot_at(l, job->work, task);
    clear_run(&s, l->width);
    int64_t first = first_row(l, task), end = first_row(l, task + 1);
    for (int64_t row = first; row < end; row += l->block)
        add_moments(&s, (double)(row - first), job->v.x + row * l->width,
                    least(l->block, end - row), l->width);
}

/* mean and m2 of each channel, in the first c places of the first slot's sums. */
static slot all_moments(const layout *l, const T *x, void *work) {
    stats_job job = {.l = l, .v = {.x = x}, .work = work};
    double bytes = (double)(l->rows * l->c) * sizeof(T);
    fnn_parallel(l->tasks, 0.05 * bytes, moments_task, &job);
    slot s = slot_at(l, work, 0);
    if (l->tasks == 0) clear_run(&s, l->width);
    for (int64_t t = 1; t < l->tasks; t++) {
        slot b = slot_at(l, work, t);
        int64_t first = first_row(l, t), end = first_row(l, t + 1);
        merge_moments(s.run0, s.run1, (double)first, b.run0, b.run1, (double)(end - first),
                      l->width);
    }
    for (int64_t f = 1; f < l->fold && l->wide > 0; f++)
        merge_moments(s.run0, s.run1, (double)(l->wide * f), s.run0 + f * l->c, s.run1 + f * l->c,
                      (double)l->wide, l->c);
    int64_t done = l->wide * l->fold;
    if (done < l->rows) add_moments(&s, (double)done, x + done * l->c, l->rows - done, l->c);
    return s;
}

/* The same from what was found when x was written. */
static slot given_moments(const layout *l, const double *parts, int64_t count, void *work) {
    slot s = slot_at(l, work, 0);
    clear_run(&s, l->width);
    double rows = 0;
    for (int64_t i = 0; i < count; i++, parts += 1 + 2 * l->c) {
        merge_moments(s.run0, s.run1, rows, parts + 1, parts + 1 + l->c, parts[0], l->c);
        rows += parts[0];
    }
    return s;
}

static void forward_task(void *job, int64_t task) { apply_rows(job, task, 0); }

/* Fills the forward tables for channel ch; the mean's rounding to T is made good in the shift. */
FNN_INLINE void set_channel(const apply_job *job, int64_t ch, double mean, double rstd,
                            const T *gamma, const T *beta) {
    double scale = gamma ? rstd * (double)gamma[ch] : rstd;
    job->mean[ch] = (T)mean;
    job->scale[ch] = (T)scale;
    double lost = ((double)job->mean[ch] - mean) * scale;
    job->shift[ch] = (T)((beta ? (double)beta[ch] : 0) + lost);
}

/* For those who compute y themselves; whole vectors of it are read. */
static void keep_table(const apply_job *job, T *table) {
    int64_t c = job->l->c, ld = round_up(c, VL);
    const T *parts[] = {job->mean, job->scale, job->shift};
    for (int part = 0; part < 3; part++)
        for (int64_t j = 0; j < ld; j++) table[part * ld + j] = j < c ? parts[part][j] : 0;
    v_store(table + 3 * ld, (V){0});
}

int64_t FNN_SYM(bn_fwd_size)(const fnn_bn_fwd_args *a) {
    layout l = lay_out(a->rows, a->c);
    return work_bytes(&l);
}

int FNN_SYM(bn_fwd)(const fnn_bn_fwd_args *a) {
    layout l = lay_out(a->rows, a->c);
    slot s = a->moments ? given_moments(&l, a->moments, a->parts, a->work)
                        : all_moments(&l, a->x, a->work);
    apply_job job = {.l = &l, .x = a->x, .residual = a->residual, .out = a->y};
    job.relu = a->act == FNN_ACT_RELU;
    point_tables(&job, (T *)((char *)a->work + (l.tasks + 1) * l.slot));
    T *mean = a->mean, *var = a->var, *rstd = a->rstd;
    for (int64_t ch = 0; ch < l.c; ch++) {
        double v = s.run1[ch] / (double)l.rows, r = 1 / sqrt(v + a->eps);
        mean[ch] = (T)s.run0[ch], var[ch] = (T)v, rstd[ch] = (T)r;
        set_channel(&job, ch, s.run0[ch], r, a->gamma, a->beta);
    }
    if (a->table) keep_table(&job, a->table);
    if (!a->y) return FNN_OK;
    widen(&l, job.mean), widen(&l, job.scale), widen(&l, job.shift);
    apply(&job, forward_task);
    return FNN_OK;
}

int FNN_SYM(bn_apply)(const fnn_bn_apply_args *a) {
    layout l = lay_out(a->rows, a->c);
    T *tables = fnn_scratch((size_t)(4 * l.width) * sizeof(T));
    if (!tables) return FNN_NO_MEMORY;
    apply_job job = {.l = &l, .x = a->x, .residual = a->residual, .out = a->y};
    job.relu = a->act == FNN_ACT_RELU;
    point_tables(&job, tables);
    const T *mean = a->mean, *var = a->var;
    for (int64_t ch = 0; ch < l.c; ch++)
        set_channel(&job, ch, mean[ch], 1 / sqrt((double)var[ch] + a->eps), a->gamma, a->beta);
    widen(&l, job.mean), widen(&l, job.scale), widen(&l, job.shift);
    apply(&job, forward_task);
    return FNN_OK;
}
