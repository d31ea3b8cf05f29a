/* Cross entropy of rows of c logits with integer labels, times the label's weight:
 * loss = weight[label] * (log(sum(exp(x))) - x[label]). Blocks and rows: see rows.h. */
#define FNN_DEF "def/softmax.def"
#include "args.h"

#include "labels.h"
#include "rows.h"
#include "threads.h"

enum { MOST_TASKS = 64 };
#define NS_PER_ELEMENT 0.6

typedef struct {
    const fnn_xent_fwd_args *args;
    fnn_labels labels;
    int64_t rows;
    double loss[MOST_TASKS]; /* summed over each task's rows */
} forward_job;

/* What rows need beside their logits: the weights and, before dx, which may be x, is written, the
 * logits at the labels. */
typedef struct {
    T weight[VL], picked[VL];
} picks;

static picks pick(const fnn_labels *l, const T *x, int64_t at, int64_t rows) {
    picks p = {.weight = {0}};
    for (int64_t r = 0; r < rows; r++) {
        p.weight[r] = label_weight(l, at + r);
        p.picked[r] = x[r * l->c + label_class(l, at + r)];
    }
    return p;
}

/* The losses' sum; ignored rows have none, whatever stands in them. */
static double forward_losses(const forward_job *j, const picks *p, const T *lse, int64_t at,
                             int64_t rows) {
    T *losses = j->args->losses;
    double total = 0;
    for (int64_t r = 0; r < rows; r++) {
        T loss = p->weight[r] * (lse[r] - p->picked[r]);
        if (j->labels.ignored && j->labels.labels[at + r] == j->labels.ignore) loss = 0;
        if (losses) losses[at + r] = loss;
        total += loss;
    }
    return total;
}

static double forward_block(const forward_job *job, int64_t at, int64_t rows) {
    const fnn_xent_fwd_args *a = job->args;
    const fnn_labels *l = &job->labels;
    const T *x = (const T *)a->x + at * a->c;
    T *lse = (T *)a->lse + at, scale = (T)l->scale;
    int64_t c = a->c;
    fnn_columns t;
    picks p = pick(l, x, at, rows);
    load_columns(t, x, rows, c);
    V m = columns_max(t, c), sum = columns_exp(t, c, m);
    v_store_upto(lse, m + v_log(sum), rows);
    if (a->dx) {
        T *dx = (T *)a->dx + at * c;
        V factor = scale * v_load(p.weight) / sum;
        for (int64_t j = 0; j < c; j++) t[j] *= factor;
        store_columns(dx, t, rows, c);
        for (int64_t r = 0; r < rows; r++)
            dx[r * c + label_class(l, at + r)] -= scale * p.weight[r];
        zero_ignored(l, dx, at, rows);
    }
    return forward_losses(job, &p, lse, at, rows);
}

static double forward_row(const forward_job *job, int64_t i) {
    const fnn_xent_fwd_args *a = job->args;
    const fnn_labels *l = &job->labels;
    const T *x = (const T *)a->x + i * a->c;
    T *dx = a->dx ? (T *)a->dx + i * a->c : NULL, *lse = (T *)a->lse + i;
    picks p = pick(l, x, i, 1);
    T m = row_max(x, a->c), sum = row_exp(x, dx, a->c, m);
    *lse = m + log_of(sum);
    if (dx) {
        T scale = (T)l->scale * p.weight[0], factor = scale / sum;
        for (int64_t j = 0; j < a->c; j++) dx[j] *= factor;
        dx[label_class(l, i)] -= scale;
        zero_ignored(l, dx, i, 1);
    }
    return forward_losses(job, &p, lse, i, 1);
}

static void forward_task(void *ctx, int64_t task) {
    forward_job *j = ctx;
    const fnn_xent_fwd_args *a = j->args;
    int64_t from = task * j->rows, to = from + j->rows < a->n ? from + j->rows : a->n;
    double loss = 0;
    if (a->c <= FNN_SMALL)
        for (int64_t i = from; i < to; i += VL)
            loss += forward_block(j, i, to - i < VL ? to - i : VL);
    else
        for (int64_t i = from; i < to; i++) loss += forward_row(j, i);
    j->loss[task] = loss;
}

int FNN_SYM(xent_fwd)(const fnn_xent_fwd_args *a) {
    forward_job j;
    j.args = a;
    j.labels =
        (fnn_labels){.labels = a->labels, .weight = a->weight, .c = a->c, .ignore = a->ignore};
    if (!labels_fit(&j.labels, a->n, a->mean, a->scale)) return FNN_BAD_LABEL;
    j.rows = rows_per_task(a->n, a->c);
    int64_t tasks = (a->n + j.rows - 1) / j.rows;
    fnn_parallel(tasks, NS_PER_ELEMENT * a->n * a->c, forward_task, &j);
    double total = 0;
    for (int64_t t = 0; t < tasks; t++) total += j.loss[t];
    if (a->total) *(T *)a->total = (T)(j.labels.scale * total);
    return FNN_OK;
}

/* --- backward, from the kept log-sum-exp ---------------------------------------------------- */

typedef struct {
    const fnn_xent_bwd_args *args;
    fnn_labels labels;
    int64_t rows;
} backward_job;

/* What row i's softmax - onehot is multiplied by. */
FNN_INLINE T row_factor(const backward_job *j, int64_t i) {
    T dloss = ((const T *)j->args->dloss)[j->args->per_row ? i : 0];
    return (T)j->labels.scale * label_weight(&j->labels, i) * dloss;
}

static void backward_block(const backward_job *job, int64_t at, int64_t rows) {
    const fnn_xent_bwd_args *a = job->args;
    T *dx = (T *)a->dx + at * a->c, factors[VL] = {0};
    for (int64_t r = 0; r < rows; r++) factors[r] = row_factor(job, at + r);
    fnn_columns t;
    load_columns(t, (const T *)a->x + at * a->c, rows, a->c);
    V lse = v_load_upto((const T *)a->lse + at, rows), factor = v_load(factors);
    for (int64_t j = 0; j < a->c; j++) t[j] = v_exp(t[j] - lse) * factor;
    store_columns(dx, t, rows, a->c);
    for (int64_t r = 0; r < rows; r++)
        dx[r * a->c + label_class(&job->labels, at + r)] -= factors[r];
    zero_ignored(&job->labels, dx, at, rows);
}

static void backward_row(const backward_job *job, int64_t i) {
    const fnn_xent_bwd_args *a = job->args;
    const T *x = (const T *)a->x + i * a->c;
    T *dx = (T *)a->dx + i * a->c, factor = row_factor(job, i);
    V lse = v_set1(((const T *)a->lse)[i]);
    int64_t j = 0, c = a->c;
    for (; j + VL <= c; j += VL) v_store(dx + j, v_exp(v_load(x + j) - lse) * factor);
    if (j < c) v_store_n(dx + j, v_exp(v_load_n(x + j, c - j) - lse) * factor, c - j);
    dx[label_class(&job->labels, i)] -= factor;
    zero_ignored(&job->labels, dx, i, 1);
}

static void backward_task(void *ctx, int64_t task) {
    const backward_job *j = ctx;
    const fnn_xent_bwd_args *a = j->args;
    int64_t from = task * j->rows, to = from + j->rows < a->n ? from + j->rows : a->n;
    if (a->c <= FNN_SMALL)
        for (int64_t i = from; i < to; i += VL) backward_block(j, i, to - i < VL ? to - i : VL);
    else
        for (int64_t i = from; i < to; i++) backward_row(j, i);
}

int FNN_SYM(xent_bwd)(const fnn_xent_bwd_args *a) {
    backward_job j = {.args = a, .rows = rows_per_task(a->n, a->c)};
    j.labels =
        (fnn_labels){.labels = a->labels, .weight = a->weight, .c = a->c, .ignore = a->ignore};
    if (!labels_fit(&j.labels, a->n, a->mean, a->scale)) return FNN_BAD_LABEL;
    fnn_parallel((a->n + j.rows - 1) / j.rows, NS_PER_ELEMENT * a->n * a->c, backward_task, &j);
    return FNN_OK;
}
