/* Group norm over samples of hw rows of c channels, channels-last: each of g groups of neighbouring
 * channels of a sample has its mean and variance. A sample belongs to one task.
 *
 * Sums run per channel, over at most BLOCK_ROWS rows in T and then in double; those of a group's
 * channels are added last.
 */
#define FNN_DEF "def/group_norm.def"
#include "args.h"

#include "../norm.h"
#include <math.h>

/* A task's tables: sums of a channel in double, and what the passes need of it in T. */
typedef struct {
    double *first, *second;
    T *sum0, *sum1, *center, *scale, *shift, *slope;
} tables;

static int64_t table_bytes(int64_t c) { return c * (int64_t)(2 * sizeof(double) + 6 * sizeof(T)); }

static tables tables_at(void *memory, int64_t c) {
    double *d = memory;
    T *t = (T *)(d + 2 * c);
    return (tables){d, d + c, t, t + c, t + 2 * c, t + 3 * c, t + 4 * c, t + 5 * c};
}

/* Sums over a sample's rows for each channel, in first and second. */
FNN_INLINE void sum_channels(enum sums what, const tables *t, rows_view v, int64_t rows,
                             int64_t c) {
    memset(t->first, 0, (size_t)(2 * c) * sizeof(double)); /* second follows */
    v.center = t->center, v.stride = c;
    for (int64_t row = 0; row < rows; row += BLOCK_ROWS) {
        sum_rows(what, &v, least(BLOCK_ROWS, rows - row), c, t->sum0, t->sum1);
        for (int64_t j = 0; j < c; j++) t->first[j] += (double)t->sum0[j];
        if (what != SUM)
            for (int64_t j = 0; j < c; j++) t->second[j] += (double)t->sum1[j];
        v.x += BLOCK_ROWS * c;
        if (what == GRADIENTS) v.dy += BLOCK_ROWS * c;
    }
}

static double add_up(const double *sum, int64_t n) {
    double total = 0;
    for (int64_t j = 0; j < n; j++) total += sum[j];
    return total;
}

static void put(T *table, T value, int64_t n) {
    for (int64_t j = 0; j < n; j++) table[j] = value;
}

/* --- forward --------------------------------------------------------------------------------- */

static void forward_sample(const fnn_group_norm_fwd_args *a, const tables *t, int64_t sample) {
    const int64_t c = a->c, size = c / a->groups, at = sample * a->hw * c;
    const double count = (double)(size * a->hw);
    const T *gamma = a->gamma, *beta = a->beta;
    rows_view v = {.x = (const T *)a->x + at};
    sum_channels(SUM, t, v, a->hw, c);
    for (int64_t g = 0; g < a->groups; g++)
        put(t->center + g * size, (T)(add_up(t->first + g * size, size) / count), size);
    sum_channels(DEVIATIONS, t, v, a->hw, c);
    for (int64_t g = 0; g < a->groups; g++) {
        double off = add_up(t->first + g * size, size) / count; /* center is not quite the mean */
        double var = add_up(t->second + g * size, size) / count - off * off;
        double mean = (double)t->center[g * size] + off, rstd = 1 / sqrt(var + a->eps);
        if (a->mean) ((T *)a->mean)[sample * a->groups + g] = (T)mean;
        if (a->rstd) ((T *)a->rstd)[sample * a->groups + g] = (T)rstd;
        for (int64_t j = g * size; j < (g + 1) * size; j++) {
            double scale = gamma ? rstd * (double)gamma[j] : rstd;
            t->scale[j] = (T)scale;
            t->shift[j] = (T)((beta ? (double)beta[j] : 0) - off * scale);
        }
    }
    const T *x = v.x;
    T *y = (T *)a->y + at;
    for (int64_t row = 0; row < a->hw; row++, x += c, y += c)
        for (int64_t j = 0; j < c; j += VL) {
            int64_t lanes = c - j;
            V d = load_lanes(x + j, lanes) - load_lanes(t->center + j, lanes);
            V scale = load_lanes(t->scale + j, lanes);
            store_lanes(y + j, d * scale + load_lanes(t->shift + j, lanes), lanes);
        }
}

/* --- backward -------------------------------------------------------------------------------- */

/* dx of a sample; its sums for dgamma and dbeta go to row `sample` of work. */
static void backward_sample(const fnn_group_norm_bwd_args *a, const tables *t, int64_t sample) {
    const int64_t c = a->c, size = c / a->groups, at = sample * a->hw * c;
    const double count = (double)(size * a->hw);
    const T *gamma = a->gamma, *mean = (const T *)a->mean + sample * a->groups;
    const T *rstd = (const T *)a->rstd + sample * a->groups;
    double *dgamma = (double *)a->work + 2 * sample * c, *dbeta = dgamma + c;
    for (int64_t g = 0; g < a->groups; g++) put(t->center + g * size, mean[g], size);
    rows_view v = {.x = (const T *)a->x + at, .dy = (const T *)a->dy + at};
    sum_channels(GRADIENTS, t, v, a->hw, c);
    for (int64_t g = 0; g < a->groups; g++) {
        double r = (double)rstd[g], g_sum = 0, gx_sum = 0;
        for (int64_t j = g * size; j < (g + 1) * size; j++) {
            double weight = gamma ? (double)gamma[j] : 1;
            dbeta[j] = t->first[j], dgamma[j] = t->second[j] * r;
            g_sum += weight * dbeta[j], gx_sum += weight * dgamma[j];
            t->scale[j] = (T)(weight * r);
        }
        put(t->shift + g * size, (T)(-r * g_sum / count), size);
        put(t->slope + g * size, (T)(-r * r * gx_sum / count), size);
    }
    if (!a->dx) return;
    const T *x = v.x, *dy = v.dy;
    T *dx = (T *)a->dx + at;
    for (int64_t row = 0; row < a->hw; row++, x += c, dy += c, dx += c)
        for (int64_t j = 0; j < c; j += VL) {
            int64_t lanes = c - j;
            V d = load_lanes(x + j, lanes) - load_lanes(t->center + j, lanes);
            V rest = d * load_lanes(t->slope + j, lanes) + load_lanes(t->shift + j, lanes);
            V g = load_lanes(dy + j, lanes) * load_lanes(t->scale + j, lanes);
            store_lanes(dx + j, g + rest, lanes);
        }
}

/* --- tasks ----------------------------------------------------------------------------------- */

typedef struct {
    const fnn_group_norm_fwd_args *forward;
    const fnn_group_norm_bwd_args *backward;
    int64_t n, c, each; /* samples, channels, samples a task */
    char *tables;
} group_job;

static void group_task(void *ctx, int64_t task) {
    const group_job *job = ctx;
    tables t = tables_at(job->tables + task * ((table_bytes(job->c) + 63) & ~(int64_t)63), job->c);
    int64_t from = task * job->each, to = least(from + job->each, job->n);
    for (int64_t sample = from; sample < to; sample++) {
        if (job->forward)
            forward_sample(job->forward, &t, sample);
        else
            backward_sample(job->backward, &t, sample);
    }
}

enum { MOST_TASKS = 64, TASK_ELEMENTS = 16384 };

/* Samples a task: at most MOST_TASKS, each with some thousand elements at least. */
static int64_t samples_each(int64_t n, int64_t elements) {
    int64_t each = (n + MOST_TASKS - 1) / MOST_TASKS, least_each = TASK_ELEMENTS / (elements + 1);
    if (each < least_each) each = least_each;
    return each > 0 ? each : 1;
}

static int64_t all_tables(int64_t n, int64_t hw, int64_t c) {
    int64_t each = samples_each(n, hw * c), tasks = (n + each - 1) / each;
    return tasks * ((table_bytes(c) + 63) & ~(int64_t)63);
}

int64_t FNN_SYM(group_norm_fwd_size)(const fnn_group_norm_fwd_args *a) {
    return all_tables(a->n, a->hw, a->c);
}

int FNN_SYM(group_norm_fwd)(const fnn_group_norm_fwd_args *a) {
    group_job job = {.forward = a, .n = a->n, .c = a->c, .tables = a->work};
    job.each = samples_each(a->n, a->hw * a->c);
    fnn_parallel((a->n + job.each - 1) / job.each, 0.4 * (double)(a->n * a->hw * a->c), group_task,
                 &job);
    return FNN_OK;
}

/* work: for each sample dgamma and dbeta of every channel in double, then the tables. */
int64_t FNN_SYM(group_norm_bwd_size)(const fnn_group_norm_bwd_args *a) {
    return 2 * a->n * a->c * (int64_t)sizeof(double) + 64 + all_tables(a->n, a->hw, a->c);
}

int FNN_SYM(group_norm_bwd)(const fnn_group_norm_bwd_args *a) {
    int64_t sums = 2 * a->n * a->c * (int64_t)sizeof(double);
    group_job job = {.backward = a, .n = a->n, .c = a->c};
    job.tables = (char *)a->work + ((sums + 63) & ~(int64_t)63);
    job.each = samples_each(a->n, a->hw * a->c);
    fnn_parallel((a->n + job.each - 1) / job.each, 0.5 * (double)(a->n * a->hw * a->c), group_task,
                 &job);
    T *dgamma = a->dgamma, *dbeta = a->dbeta;
    for (int64_t j = 0; j < a->c; j++) {
        double gamma = 0, beta = 0;
        for (int64_t sample = 0; sample < a->n; sample++) {
            const double *row = (const double *)a->work + 2 * sample * a->c;
            gamma += row[j], beta += row[a->c + j];
        }
        if (dgamma) dgamma[j] = (T)gamma;
        if (dbeta) dbeta[j] = (T)beta;
    }
    return FNN_OK;
}
