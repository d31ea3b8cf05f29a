/* Batch norm backward where 2x2 max pooling follows: the gradient of the pooled image, dy, stands
 * for that of the whole one, which is zero but for one pixel of each window, and is never written.
 * Sums and formula are norm_bwd.c's. */
#define FNN_DEF "def/norm.def"
#include "args.h"

#include "../norm.h"
#include "../norm_grad.h"
#include "../pool.h"

enum { TASK_BYTES = 131072 };

typedef struct {
    const fnn_bn_pool_bwd_args *a;
    int64_t rows, rows_per_task, tasks; /* rows of windows of the whole batch */
    double *sums;                       /* of g and of g * (x - mean), [task][2][c] */
    T *scale, *slope, *shift;
} pool_job;

/* A row of windows: its two rows of x, and what it has of each window. */
typedef struct {
    const T *x, *dy, *saved;
    const int32_t *idx;
    int64_t pitch, position; /* elements from one row of x to the next; of the first pixel */
} window_row;

/* A vector of channels of one window's gradient, and the position of its pixel from the first. */
typedef struct {
    V dy;
    VI at;
} chosen;

static window_row row_at(const fnn_bn_pool_bwd_args *a, int64_t row) {
    int64_t pooled = row * a->ow * a->c, width = 2 * a->ow;
    window_row r = {.x = (const T *)a->x + 4 * pooled,
                    .dy = (const T *)a->dy + pooled,
                    .idx = (const int32_t *)a->idx + pooled,
                    .pitch = width * a->c,
                    .position = row % a->oh * 2 * width};
    if (a->saved) r.saved = (const T *)a->saved + pooled;
    return r;
}

FNN_INLINE chosen choose(const window_row *r, int64_t i, int64_t at, int64_t lanes) {
    V dy = load_lanes(r->dy + at, lanes);
    if (r->saved) dy = v_select(load_lanes(r->saved + at, lanes) > 0, dy, (V){0});
    return (chosen){dy, pool_load_idx(r->idx + at, lanes) - pool_position(r->position + 2 * i)};
}

/* Where pixel (y, x) of a window is counted from its first. */
FNN_INLINE VI pixel(const fnn_bn_pool_bwd_args *a, int y, int x) {
    return pool_position(2 * y * a->ow + x);
}

/* Adds a row's sums of `lanes` channels from j on. */
FNN_INLINE void add_row(const pool_job *job, const window_row *r, int64_t j, int64_t lanes,
                        double *sums) {
    const fnn_bn_pool_bwd_args *a = job->a;
    V mean = load_lanes((const T *)a->mean + j, lanes), sum = {0}, product = {0};
    for (int64_t i = 0; i < a->ow; i++) {
        const T *x = r->x + 2 * i * a->c + j;
        chosen g = choose(r, i, i * a->c + j, lanes);
        V value = load_lanes(x, lanes);
        value = v_select(g.at == pixel(a, 0, 1), load_lanes(x + a->c, lanes), value);
        value = v_select(g.at == pixel(a, 1, 0), load_lanes(x + r->pitch, lanes), value);
        value = v_select(g.at == pixel(a, 1, 1), load_lanes(x + r->pitch + a->c, lanes), value);
        sum += g.dy;
        product += g.dy * (value - mean);
    }
    for (int64_t k = 0; k < lanes; k++) {
        sums[j + k] += (double)sum[k];
        sums[a->c + j + k] += (double)product[k];
    }
}

static void sums_task(void *ctx, int64_t task) {
    const pool_job *job = ctx;
    int64_t c = job->a->c, end = least((task + 1) * job->rows_per_task, job->rows);
    double *sums = job->sums + task * 2 * c;
    memset(sums, 0, (size_t)(2 * c) * sizeof(double));
    for (int64_t row = task * job->rows_per_task; row < end; row++) {
        window_row r = row_at(job->a, row);
        int64_t j = 0;
        for (; j + VL <= c; j += VL) add_row(job, &r, j, VL, sums);
        if (j < c) add_row(job, &r, j, c - j, sums);
    }
}

/* dx of `lanes` channels of a row from j on. */
FNN_INLINE void write_row(const pool_job *job, const window_row *r, T *dx, int64_t j,
                          int64_t lanes) {
    const fnn_bn_pool_bwd_args *a = job->a;
    V mean = load_lanes((const T *)a->mean + j, lanes), scale = load_lanes(job->scale + j, lanes);
    V slope = load_lanes(job->slope + j, lanes), shift = load_lanes(job->shift + j, lanes);
    for (int64_t i = 0; i < a->ow; i++) {
        chosen g = choose(r, i, i * a->c + j, lanes);
        V dy = g.dy * scale;
#pragma GCC unroll 4
        for (int k = 0; k < 4; k++) {
            int64_t at = k / 2 * r->pitch + (2 * i + k % 2) * a->c + j;
            V rest = (load_lanes(r->x + at, lanes) - mean) * slope + shift;
            V taken = v_select(g.at == pixel(a, k / 2, k % 2), dy, (V){0});
            store_lanes(dx + at, taken + rest, lanes);
        }
    }
}

static void write_task(void *ctx, int64_t task) {
    const pool_job *job = ctx;
    int64_t c = job->a->c, end = least((task + 1) * job->rows_per_task, job->rows);
    for (int64_t row = task * job->rows_per_task; row < end; row++) {
        window_row r = row_at(job->a, row);
        T *dx = (T *)job->a->dx + (r.x - (const T *)job->a->x);
        int64_t j = 0;
        for (; j + VL <= c; j += VL) write_row(job, &r, dx, j, VL);
        if (j < c) write_row(job, &r, dx, j, c - j);
    }
}

static pool_job cut(const fnn_bn_pool_bwd_args *a) {
    pool_job job = {.a = a, .rows = a->n * a->oh};
    int64_t bytes = 4 * a->ow * a->c * (int64_t)sizeof(T);
    job.rows_per_task = most(most(1, TASK_BYTES / most(1, bytes)), ceil_div(job.rows, STATS_TASKS));
    job.tasks = ceil_div(job.rows, job.rows_per_task);
    return job;
}

int64_t FNN_SYM(bn_pool_bwd_size)(const fnn_bn_pool_bwd_args *a) {
    return (cut(a).tasks + 1) * 2 * a->c * (int64_t)sizeof(double) + 3 * a->c * (int64_t)sizeof(T);
}

int FNN_SYM(bn_pool_bwd)(const fnn_bn_pool_bwd_args *a) {
    pool_job job = cut(a);
    job.sums = a->work;
    job.scale = (T *)(job.sums + (job.tasks + 1) * 2 * a->c);
    job.slope = job.scale + a->c;
    job.shift = job.slope + a->c;
    double bytes = 4.0 * (double)(job.rows * a->ow * a->c) * sizeof(T);
    fnn_parallel(job.tasks, fnn_moving_ns(1.5 * bytes), sums_task, &job);
    norm_gradient all = {.rstd = a->rstd,
                         .gamma = a->gamma,
                         .rows = (double)(4 * job.rows * a->ow),
                         .dgamma = a->dgamma,
                         .dbeta = a->dbeta,
                         .scale = job.scale,
                         .slope = job.slope,
                         .shift = job.shift};
    for (int64_t ch = 0; ch < a->c; ch++) {
        double sum = 0, product = 0;
        for (int64_t t = 0; t < job.tasks; t++) {
            sum += job.sums[t * 2 * a->c + ch];
            product += job.sums[(t * 2 + 1) * a->c + ch];
        }
        norm_gradient_channel(&all, ch, sum, product);
    }
    if (a->dx) fnn_parallel(job.tasks, fnn_moving_ns(2.5 * bytes), write_task, &job);
    return FNN_OK;
}
