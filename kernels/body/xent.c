/* Cross entropy of rows of c logits with integer labels: loss = log(sum(exp(x))) - x[label].
 * Blocks and rows: see rows.h. */
#define FNN_DEF "def/softmax.def"
#include "args.h"

#include "rows.h"
#include "threads.h"

enum { MOST_TASKS = 64 };
#define NS_PER_ELEMENT 0.6

static int labels_fit(const int64_t *labels, int64_t n, int64_t c) {
    int bad = 0;
    for (int64_t i = 0; i < n; i++) bad |= (uint64_t)labels[i] >= (uint64_t)c;
    return !bad;
}

typedef struct {
    const fnn_xent_fwd_args *args;
    int64_t rows;
    double loss[MOST_TASKS]; /* summed over each task's rows */
} forward_job;

/* Logits at the labels, read before dx, which may be x, is written. */
static void pick(T *picked, const T *x, const int64_t *labels, int64_t rows, int64_t c) {
    for (int64_t r = 0; r < rows; r++) picked[r] = x[r * c + labels[r]];
}

static double forward_block(const fnn_xent_fwd_args *a, int64_t at, int64_t rows) {
    const T *x = (const T *)a->x + at * a->c;
    const int64_t *labels = (const int64_t *)a->labels + at;
    T *lse = (T *)a->lse + at, picked[VL];
    int64_t c = a->c;
    fnn_columns t;
    pick(picked, x, labels, rows, c);
    load_columns(t, x, rows, c);
    V m = columns_max(t, c), sum = columns_exp(t, c, m);
    v_store_upto(lse, m + v_log(sum), rows);
    if (a->dx) {
        T *dx = (T *)a->dx + at * c;
        V factor = (T)a->scale / sum;
        for (int64_t j = 0; j < c; j++) t[j] *= factor;
        store_columns(dx, t, rows, c);
        for (int64_t r = 0; r < rows; r++) dx[r * c + labels[r]] -= (T)a->scale;
    }
    double total = 0;
    for (int64_t r = 0; r < rows; r++) {
        T loss = lse[r] - picked[r];
        if (a->losses) ((T *)a->losses)[at + r] = loss;
        total += loss;
    }
    return total;
}

static double forward_row(const fnn_xent_fwd_args *a, int64_t i) {
    const T *x = (const T *)a->x + i * a->c;
    T *dx = a->dx ? (T *)a->dx + i * a->c : NULL;
    int64_t label = ((const int64_t *)a->labels)[i];
    T picked = x[label], m = row_max(x, a->c);
    T sum = row_exp(x, dx, a->c, m), lse = m + log_of(sum), loss = lse - picked;
    if (dx) {
        T factor = (T)a->scale / sum;
        for (int64_t j = 0; j < a->c; j++) dx[j] *= factor;
        dx[label] -= (T)a->scale;
    }
    ((T *)a->lse)[i] = lse;
    if (a->losses) ((T *)a->losses)[i] = loss;
    return loss;
}

static void forward_task(void *ctx, int64_t task) {
    forward_job *j = ctx;
    const fnn_xent_fwd_args *a = j->args;
    int64_t from = task * j->rows, to = from + j->rows < a->n ? from + j->rows : a->n;
    double loss = 0;
    if (a->c <= FNN_SMALL)
        for (int64_t i = from; i < to; i += VL)
            loss += forward_block(a, i, to - i < VL ? to - i : VL);
    else
        for (int64_t i = from; i < to; i++) loss += forward_row(a, i);
    j->loss[task] = loss;
}

int FNN_SYM(xent_fwd)(const fnn_xent_fwd_args *a) {
    if (!labels_fit(a->labels, a->n, a->c)) return FNN_BAD_LABEL;
    forward_job j;
    j.args = a;
    j.rows = rows_per_task(a->n, a->c);
    int64_t tasks = (a->n + j.rows - 1) / j.rows;
    fnn_parallel(tasks, NS_PER_ELEMENT * a->n * a->c, forward_task, &j);
    double total = 0;
    for (int64_t t = 0; t < tasks; t++) total += j.loss[t];
    if (a->total) *(T *)a->total = (T)(a->scale * total);
    return FNN_OK;
}

/* --- backward, from the kept log-sum-exp ---------------------------------------------------- */

typedef struct {
    const fnn_xent_bwd_args *args;
    int64_t rows;
} backward_job;

static void backward_block(const fnn_xent_bwd_args *a, int64_t at, int64_t rows) {
    const int64_t *labels = (const int64_t *)a->labels + at;
    const T *dloss = (const T *)a->dloss + (a->per_row ? at : 0);
    T *dx = (T *)a->dx + at * a->c, scale = (T)a->scale;
    fnn_columns t;
    load_columns(t, (const T *)a->x + at * a->c, rows, a->c);
    V lse = v_load_upto((const T *)a->lse + at, rows);
    V factor = scale * (a->per_row ? v_load_upto(dloss, rows) : v_set1(*dloss));
    for (int64_t j = 0; j < a->c; j++) t[j] = v_exp(t[j] - lse) * factor;
    store_columns(dx, t, rows, a->c);
    for (int64_t r = 0; r < rows; r++) dx[r * a->c + labels[r]] -= factor[r];
}

static void backward_row(const fnn_xent_bwd_args *a, int64_t i) {
    const T *x = (const T *)a->x + i * a->c;
    T *dx = (T *)a->dx + i * a->c;
    T factor = (T)a->scale * ((const T *)a->dloss)[a->per_row ? i : 0];
    V lse = v_set1(((const T *)a->lse)[i]);
    int64_t j = 0, c = a->c;
    for (; j + VL <= c; j += VL) v_store(dx + j, v_exp(v_load(x + j) - lse) * factor);
    if (j < c) v_store_n(dx + j, v_exp(v_load_n(x + j, c - j) - lse) * factor, c - j);
    dx[((const int64_t *)a->labels)[i]] -= factor;
}

static void backward_task(void *ctx, int64_t task) {
    const backward_job *j = ctx;
    const fnn_xent_bwd_args *a = j->args;
    int64_t from = task * j->rows, to = from + j->rows < a->n ? from + j->rows : a->n;
    if (a->c <= FNN_SMALL)
        for (int64_t i = from; i < to; i += VL) backward_block(a, i, to - i < VL ? to - i : VL);
    else
        for (int64_t i = from; i < to; i++) backward_row(a, i);
}

int FNN_SYM(xent_bwd)(const fnn_xent_bwd_args *a) {
    if (!labels_fit(a->labels, a->n, a->c)) return FNN_BAD_LABEL;
    backward_job j = {a, rows_per_task(a->n, a->c)};
    fnn_parallel((a->n + j.rows - 1) / j.rows, NS_PER_ELEMENT * a->n * a->c, backward_task, &j);
    return FNN_OK;
}
