/* Batch norm's ways through rows of c channels (rows = n*h*w): sums over rows, and y from x row by
 * row.
 *
 * `fold` rows are seen as one wide row of fold * c elements, so that few channels still fill whole
 * vectors; lane j of a wide row belongs to channel j % c. Wide rows are cut into blocks that stay
 * in L2, blocks into tasks, all by shape alone. What the tasks found is joined in double precision:
 * task by task, then the lanes of each channel, then the rows that fill no wide row.
 */
#ifndef FNN_NORM_H
#define FNN_NORM_H

#include "lanes.h"
#include "threads.h"

enum {
    FOLD_ELEMENTS = 1024, /* a wide row's most */
    BLOCK_BYTES = 65536,
    BLOCK_ROWS = 256, /* T is summed over no more rows than this */
    STATS_TASKS = 64,
    STEP = 4, /* rows summed in registers before memory is touched */
};

/* --- how the rows are cut --------------------------------------------------------------------- */

typedef struct {
    int64_t rows, c, fold, width, wide; /* wide: the number of whole wide rows */
    int64_t block, blocks, tasks; /* wide rows a block; number of blocks and statistics tasks */
    int64_t slot;                 /* bytes of a task's slot in `work` */
} layout;

FNN_INLINE layout lay_out(int64_t rows, int64_t c) {
    int64_t common = c & -c, fold = common < VL ? VL / common : 1;
    while (fold * c < 4 * VL) fold *= 2;
    if (fold * c > FOLD_ELEMENTS) fold = 1;
    layout l = {.rows = rows, .c = c, .fold = fold, .width = fold * c, .wide = rows / fold};
    l.block = BLOCK_BYTES / (l.width * (int64_t)sizeof(T));
    l.block = l.block < 8 ? 8 : least(l.block, BLOCK_ROWS);
    l.blocks = (l.wide + l.block - 1) / l.block;
    l.tasks = least(l.blocks, STATS_TASKS);
    l.slot = l.width * (int64_t)(4 * sizeof(double) + 3 * sizeof(T));
    l.slot = (l.slot + 63) & ~(int64_t)63;
    return l;
}

/* A slot: two running sums (or moments) of the task, two of the block, and the block's in T. */
typedef struct {
    double *run0, *run1, *block0, *block1;
    T *sum0, *sum1, *center;
} slot;

FNN_INLINE slot slot_at(const layout *l, void *work, int64_t task) {
    double *d = (double *)((char *)work + task * l->slot);
    T *t = (T *)(d + 4 * l->width);
    return (slot){d, d + l->width, d + 2 * l->width, d + 3 * l->width,
                  t, t + l->width, t + 2 * l->width};
}

FNN_INLINE int64_t work_bytes(const layout *l) {
    return (l->tasks + 1) * l->slot + 4 * l->width * (int64_t)sizeof(T) + 64;
}

/* --- sums over rows --------------------------------------------------------------------------- */

enum sums { SUM, DEVIATIONS, GRADIENTS };

typedef struct {
    const T *x, *dy, *saved, *center;
    int64_t stride;
} rows_view;

typedef struct {
    V first, second;
} terms;

/* What element `at` adds: SUM x; DEVIATIONS x - center and its square; GRADIENTS dy and
 * dy * (x - center). */
FNN_INLINE terms terms_of(enum sums what, const rows_view *v, int64_t at, V center, int64_t lanes) {
    V x = load_lanes(v->x + at, lanes);
    if (what == SUM) return (terms){x, (V){0}};
    V d = x - center;
    if (what == DEVIATIONS) return (terms){d, d * d};
    V g = load_lanes(v->dy + at, lanes);
    if (v->saved) g = v_select(load_lanes(v->saved + at, lanes) > 0, g, (V){0});
    return (terms){g, g * d};
}

/* Adds `count` rows (a constant power of two) in a tree to sum0 and sum1. */
FNN_INLINE void add_rows(enum sums what, const rows_view *v, int64_t row, int count, int64_t width,
                         T *sum0, T *sum1) {
    for (int64_t j = 0; j < width; j += VL) {
        int64_t lanes = width - j;
        V center = what == SUM ? (V){0} : load_lanes(v->center + j, lanes);
        terms t[STEP];
#pragma GCC unroll 4
        for (int i = 0; i < count; i++)
            t[i] = terms_of(what, v, (row + i) * v->stride + j, center, lanes);
#pragma GCC unroll 4
        for (int half = count / 2; half > 0; half /= 2)
#pragma GCC unroll 4
            for (int i = 0; i < half; i++)
                t[i].first += t[i + half].first, t[i].second += t[i + half].second;
        store_lanes(sum0 + j, load_lanes(sum0 + j, lanes) + t[0].first, lanes);
        if (what != SUM) store_lanes(sum1 + j, load_lanes(sum1 + j, lanes) + t[0].second, lanes);
    }
}

FNN_INLINE void sum_rows(enum sums what, const rows_view *v, int64_t rows, int64_t width, T *sum0,
                         T *sum1) {
    memset(sum0, 0, (size_t)width * sizeof(T));
    if (what != SUM) memset(sum1, 0, (size_t)width * sizeof(T));
    int64_t row = 0;
    for (; row + STEP <= rows; row += STEP) add_rows(what, v, row, STEP, width, sum0, sum1);
    for (; row < rows; row++) add_rows(what, v, row, 1, width, sum0, sum1);
}

/* --- a task of statistics -------------------------------------------------------------------- */

typedef struct {
    const layout *l;
    rows_view v;
    void *work;
} stats_job;

/* The wide rows first..end of a task. */
FNN_INLINE int64_t first_row(const layout *l, int64_t task) {
    return least(l->blocks * task / l->tasks * l->block, l->wide);
}

FNN_INLINE void clear_run(const slot *s, int64_t width) {
    memset(s->run0, 0, (size_t)(2 * width) * sizeof(double)); /* run1 follows */
}

/* --- y = (x - mean) * scale + shift, dx = dy * scale + (x - mean) * slope + shift --------------
 */

typedef struct {
    const layout *l;
    const T *x, *residual, *dy, *saved;
    T *out;
    T *mean, *scale, *shift, *slope; /* wide tables */
    int64_t task_rows;
    int relu;
} apply_job;

FNN_INLINE void point_tables(apply_job *job, T *tables) {
    int64_t width = job->l->width;
    job->mean = tables, job->scale = tables + width;
    job->shift = tables + 2 * width, job->slope = tables + 3 * width;
}

/* Copies the first c places of a table to its other lanes. */
FNN_INLINE void widen(const layout *l, T *table) {
    for (int64_t f = 1; f < l->fold; f++) memcpy(table + f * l->c, table, (size_t)l->c * sizeof(T));
}

FNN_INLINE V applied(const apply_job *job, int64_t at, int64_t j, int64_t lanes, int backward) {
    V centered = load_lanes(job->x + at, lanes) - load_lanes(job->mean + j, lanes);
    V scale = load_lanes(job->scale + j, lanes), shift = load_lanes(job->shift + j, lanes);
    if (backward) {
        V g = load_lanes(job->dy + at, lanes);
        if (job->saved) g = v_select(load_lanes(job->saved + at, lanes) > 0, g, (V){0});
        return g * scale + (centered * load_lanes(job->slope + j, lanes) + shift);
    }
    V y = centered * scale + shift;
    if (job->residual) y += load_lanes(job->residual + at, lanes);
    return job->relu ? v_relu(y) : y;
}

FNN_INLINE void apply_rows(const void *ctx, int64_t task, int backward) {
    const apply_job own = *(const apply_job *)ctx, *job = &own; /* no store may change it */
    const int64_t width = job->l->width, total = job->l->rows * job->l->c;
    int64_t at = task * job->task_rows * width, end = least(at + job->task_rows * width, total);
    for (; at < end; at += width) {
        int64_t here = least(width, end - at), j = 0;
        for (; j + VL <= here; j += VL)
            v_store(job->out + at + j, applied(job, at + j, j, VL, backward));
        if (j < here)
            v_store_n(job->out + at + j, applied(job, at + j, j, here - j, backward), here - j);
    }
}

FNN_INLINE void apply(apply_job *job, fnn_task fn) {
    const layout *l = job->l;
    int64_t wide = (l->rows + l->fold - 1) / l->fold;
    job->task_rows = 2 * l->block;
    int64_t tasks = (wide + job->task_rows - 1) / job->task_rows;
    double bytes = (double)(l->rows * l->c) * sizeof(T) * (job->dy || job->residual ? 3 : 2);
    fnn_parallel(tasks, fnn_moving_ns(bytes), fn, job);
}

#endif
