/* Layer norm and RMS norm over rows of c, forward and backward.
 *
 * With m the row's mean (0 for RMS) and r = 1 / sqrt(mean of (x - m)^2 + eps), xhat = (x - m) * r:
 * y = xhat * gamma + beta; with g = dy * gamma, dx = r * (g - mean(g) - xhat * mean(g * xhat)),
 * without mean(g) for RMS. A row's sums are joined in double every BLOCK elements, dgamma's and
 * dbeta's every BLOCK_ROWS rows, and then task by task.
 */
#define FNN_DEF "def/layer_norm.def"
#include "args.h"

#include "fetch.h"
#include "lanes.h"
#include "threads.h"
#include <math.h>

enum { BLOCK = 1024, BLOCK_ROWS = 256, TASK_ELEMENTS = 8192, MOST_TASKS = 64 };
enum { GROUP_ROWS = 4, GROUP_ELEMENTS = 2048 }; /* rows at once, up to this length: half of L1 */
enum { MOST_PARTS = 4 };                        /* of a row's sum */
enum { CACHED = 1 << 20 };                      /* bytes of x that caches keep */

typedef struct {
    int64_t rows, tasks;
} cutting;

static cutting cut(int64_t n, int64_t c) {
    int64_t rows = TASK_ELEMENTS / (c ? c : 1), most = (n + MOST_TASKS - 1) / MOST_TASKS;
    if (rows < most) rows = most;
    if (rows < 1) rows = 1;
    return (cutting){rows, (n + rows - 1) / rows};
}

/* --- forward --------------------------------------------------------------------------------- */

FNN_INLINE V term(const T *x, V center, int square, int64_t lanes) {
    V v = load_lanes(x, lanes);
    if (!square) return v;
    v -= center;
    if (lanes < VL) v = cut_lanes(v, lanes);
    return v * v;
}

/* The sums of x, or of (x - center)^2, of some rows, each in so many parts; both are constants. */
FNN_INLINE void row_sums(const T *x, int64_t c, int rows, int parts, const T *center, int square,
                         double *total) {
    V m[GROUP_ROWS];
    for (int i = 0; i < rows; i++) m[i] = v_set1(center[i]), total[i] = 0;
    for (int64_t from = 0; from < c; from += BLOCK) {
        int64_t to = least(from + BLOCK, c), j = from;
        V acc[GROUP_ROWS][MOST_PARTS] = {{{0}}};
        for (; j + parts * VL <= to; j += parts * VL)
#pragma GCC unroll 8
            for (int k = 0; k < parts * rows; k++)
                acc[k / parts][k % parts] +=
                    term(x + k / parts * c + j + k % parts * VL, m[k / parts], square, VL);
        for (; j < to; j += VL)
#pragma GCC unroll 4
            for (int i = 0; i < rows; i++) acc[i][0] += term(x + i * c + j, m[i], square, to - j);
        for (int i = 0; i < rows; i++)
            total[i] += v_sum((acc[i][0] + acc[i][1]) + (acc[i][2] + acc[i][3]));
    }
}

typedef struct {
    const fnn_layer_norm_fwd_args *a;
    cutting cut;
} forward_job;

FNN_INLINE void apply_lanes(const fnn_layer_norm_fwd_args *a, const T *x, T *y, int64_t j, V m, V r,
                            int64_t lanes) {
    const T *gamma = a->gamma, *beta = a->beta;
    V v = (load_lanes(x + j, lanes) - m) * r;
    if (gamma) v *= load_lanes(gamma + j, lanes);
    if (beta) v += load_lanes(beta + j, lanes);
    store_lanes(y + j, v, lanes);
}

FNN_INLINE void forward_rows(const fnn_layer_norm_fwd_args *shared, int64_t row, int rows,
                             int parts) {
    const fnn_layer_norm_fwd_args own = *shared, *a = &own; /* no store to y may change it */
    const int64_t c = a->c;
    const T *x = (const T *)a->x + row * c;
    T *y = (T *)a->y + row * c, mean[GROUP_ROWS] = {0}, rstd[GROUP_ROWS];
    double sum[GROUP_ROWS];
    if (!a->rms) {
        row_sums(x, c, rows, parts, mean, 0, sum);
        for (int i = 0; i < rows; i++) mean[i] = (T)(sum[i] / (double)c);
    }
    row_sums(x, c, rows, parts, mean, 1, sum);
    for (int i = 0; i < rows; i++) rstd[i] = (T)(1 / sqrt(sum[i] / (double)c + a->eps));
    if (a->mean) memcpy((T *)a->mean + row, mean, (size_t)rows * sizeof(T));
    if (a->rstd) memcpy((T *)a->rstd + row, rstd, (size_t)rows * sizeof(T));
    for (int i = 0; i < rows; i++, x += c, y += c) {
        V m = v_set1(mean[i]), r = v_set1(rstd[i]);
        int64_t j = 0;
        for (; j + VL <= c; j += VL) apply_lanes(a, x, y, j, m, r, VL);
        if (j < c) apply_lanes(a, x, y, j, m, r, c - j);
    }
}

/* A few rows at once, where they stay in L1: one's alone would wait for its own sums. */
static void forward_task(void *ctx, int64_t task) {
    const forward_job *f = ctx;
    const fnn_layer_norm_fwd_args *a = f->a;
    int64_t row = task * f->cut.rows, end = least(row + f->cut.rows, a->n);
    if (a->c > GROUP_ELEMENTS) {
        for (; row < end; row++) forward_rows(a, row, 1, MOST_PARTS);
        return;
    }
    for (; row + GROUP_ROWS <= end; row += GROUP_ROWS) forward_rows(a, row, GROUP_ROWS, 2);
    for (; row < end; row++) forward_rows(a, row, 1, 2); /* the same sums */
}

int FNN_SYM(layer_norm_fwd)(const fnn_layer_norm_fwd_args *a) {
    forward_job f = {a, cut(a->n, a->c)};
    if (a->c > 0) fnn_parallel(f.cut.tasks, 0.3 * (double)(a->n * a->c), forward_task, &f);
    return FNN_OK;
}

/* --- backward -------------------------------------------------------------------------------- */

/* A task's sums for dgamma and dbeta: in double, and those of some rows in T. */
typedef struct {
    double *gamma, *beta;
    T *rows_gamma, *rows_beta;
} slot;

static int64_t slot_bytes(int64_t c) {
    return (2 * c * (int64_t)(sizeof(double) + sizeof(T)) + 63) & ~(int64_t)63;
}

static slot slot_at(const fnn_layer_norm_bwd_args *a, int64_t task) {
    double *d = (double *)((char *)a->work + task * slot_bytes(a->c));
    T *t = (T *)(d + 2 * a->c);
    return (slot){d, d + a->c, t, t + a->c};
}

typedef struct {
    const fnn_layer_norm_bwd_args *a;
    cutting cut;
    int sums; /* dgamma or dbeta are wanted */
} backward_job;

typedef struct {
    V m, r, g_sum, gx_sum;
} row_state;

/* Asks for a part of the rows after these, as large as that of all rows from j on: in the order of
 * memory, which the prefetchers follow as they do not follow some rows at once. */
FNN_INLINE void fetch_next(const T *x, int64_t c, int rows, int64_t j) {
    fetch_run(x + rows * c + rows * j, rows * VL);
}

/* One row at a time is a stream by itself. */
FNN_INLINE int fetches_next(int64_t n, int64_t c, int rows) {
    return rows > 1 && n * c * (int64_t)sizeof(T) > CACHED;
}

/* Elements j..j+lanes of some rows: adds to their sums and, where wanted, to those over rows. */
FNN_INLINE void add_terms(const backward_job *job, const slot *s, const T *x, const T *dy,
                          int64_t j, int64_t lanes, int rows, row_state *state) {
    const T *gamma = job->a->gamma;
    const int64_t c = job->a->c;
    V to_gamma = {0}, to_beta = {0};
#pragma GCC unroll 4
    for (int i = 0; i < rows; i++) {
        V g = load_lanes(dy + i * c + j, lanes);
        V xhat = (load_lanes(x + i * c + j, lanes) - state[i].m) * state[i].r;
        to_gamma += g * xhat, to_beta += g;
        if (gamma) g *= load_lanes(gamma + j, lanes);
        V gx = g * xhat;
        if (lanes < VL) gx = cut_lanes(gx, lanes); /* NaN * 0 */
        state[i].g_sum += g, state[i].gx_sum += gx;
    }
    if (!job->sums) return;
    store_lanes(s->rows_gamma + j, load_lanes(s->rows_gamma + j, lanes) + to_gamma, lanes);
    store_lanes(s->rows_beta + j, load_lanes(s->rows_beta + j, lanes) + to_beta, lanes);
}

FNN_INLINE void store_gradient(const fnn_layer_norm_bwd_args *a, const T *x, const T *dy, T *dx,
                               int64_t j, int64_t lanes, const row_state *state) {
    V g = load_lanes(dy + j, lanes), xhat = (load_lanes(x + j, lanes) - state->m) * state->r;
    if (a->gamma) g *= load_lanes((const T *)a->gamma + j, lanes);
    store_lanes(dx + j, ((g - state->g_sum) - xhat * state->gx_sum) * state->r, lanes);
}

/* A few rows (a constant) at once: one's alone would wait for its own sums. */
FNN_INLINE void backward_rows(const backward_job *shared, const slot *s, int64_t row, int rows) {
    const fnn_layer_norm_bwd_args args = *shared->a, *a = &args; /* no store may change them */
    const backward_job own = {.a = a, .sums = shared->sums}, *job = &own;
    const int64_t c = a->c;
    const T *x = (const T *)a->x + row * c, *dy = (const T *)a->dy + row * c;
    row_state state[GROUP_ROWS];
    double g_sum[GROUP_ROWS] = {0}, gx_sum[GROUP_ROWS] = {0};
    const int fetches = fetches_next(a->n, c, rows);
    for (int i = 0; i < rows; i++) {
        state[i].m = v_set1(a->rms ? 0 : ((const T *)a->mean)[row + i]);
        state[i].r = v_set1(((const T *)a->rstd)[row + i]);
    }
    for (int64_t from = 0; from < c; from += BLOCK) {
        int64_t to = least(from + BLOCK, c), j = from;
        for (int i = 0; i < rows; i++) state[i].g_sum = state[i].gx_sum = (V){0};
        for (; j + VL <= to; j += VL) {
            if (fetches) fetch_next(x, c, rows, j), fetch_next(dy, c, rows, j);
            add_terms(job, s, x, dy, j, VL, rows, state);
        }
        if (j < to) add_terms(job, s, x, dy, j, to - j, rows, state);
        for (int i = 0; i < rows; i++)
            g_sum[i] += v_sum(state[i].g_sum), gx_sum[i] += v_sum(state[i].gx_sum);
    }
    if (!a->dx) return;
    for (int i = 0; i < rows; i++) { /* from here on their means */
        state[i].g_sum = v_set1(a->rms ? 0 : (T)(g_sum[i] / (double)c));
        state[i].gx_sum = v_set1((T)(gx_sum[i] / (double)c));
    }
    for (int i = 0; i < rows; i++, x += c, dy += c) {
        T *dx = (T *)a->dx + (row + i) * c;
        int64_t j = 0;
        for (; j + VL <= c; j += VL) store_gradient(a, x, dy, dx, j, VL, &state[i]);
        if (j < c) store_gradient(a, x, dy, dx, j, c - j, &state[i]);
    }
}

/* Moves what some rows summed in T to the task's sums. */
static void move_rows(const slot *s, int64_t c) {
    for (int64_t j = 0; j < c; j++) s->gamma[j] += (double)s->rows_gamma[j];
    for (int64_t j = 0; j < c; j++) s->beta[j] += (double)s->rows_beta[j];
    memset(s->rows_gamma, 0, (size_t)(2 * c) * sizeof(T)); /* rows_beta follows */
}

static void backward_task(void *ctx, int64_t task) {
    const backward_job *job = ctx;
    int64_t from = task * job->cut.rows, to = from + job->cut.rows;
    if (to > job->a->n) to = job->a->n;
    slot s = slot_at(job->a, task);
    if (job->sums) memset(s.gamma, 0, (size_t)slot_bytes(job->a->c));
    for (int64_t row = from, next; row < to; row = next) {
        if (row + GROUP_ROWS <= to) {
            backward_rows(job, &s, row, GROUP_ROWS);
            next = row + GROUP_ROWS;
        } else {
            backward_rows(job, &s, row, 1);
            next = row + 1;
        }
        if (job->sums && ((next - from) % BLOCK_ROWS == 0 || next == to)) move_rows(&s, job->a->c);
    }
}

int64_t FNN_SYM(layer_norm_bwd_size)(const fnn_layer_norm_bwd_args *a) {
    int64_t tasks = cut(a->n, a->c).tasks;
    return (tasks > 0 ? tasks : 1) * slot_bytes(a->c);
}

int FNN_SYM(layer_norm_bwd)(const fnn_layer_norm_bwd_args *a) {
    backward_job job = {.a = a, .cut = cut(a->n, a->c), .sums = a->dgamma || a->dbeta};
    T *dgamma = a->dgamma, *dbeta = a->dbeta;
    if (a->c == 0) return FNN_OK;
    fnn_parallel(job.cut.tasks, 0.5 * (double)(a->n * a->c), backward_task, &job);
    if (!job.sums) return FNN_OK;
    slot all = slot_at(a, 0);
    if (job.cut.tasks == 0) memset(all.gamma, 0, (size_t)slot_bytes(a->c));
    for (int64_t t = 1; t < job.cut.tasks; t++) {
        slot s = slot_at(a, t);
        for (int64_t j = 0; j < 2 * a->c; j++) all.gamma[j] += s.gamma[j]; /* beta follows */
    }
    for (int64_t j = 0; j < a->c; j++) {
        if (dgamma) dgamma[j] = (T)all.gamma[j];
        if (dbeta) dbeta[j] = (T)all.beta[j];
    }
    return FNN_OK;
}
