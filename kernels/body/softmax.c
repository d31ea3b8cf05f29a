/* softmax and log-softmax over rows of c, and their gradients. Blocks and rows: see rows.h. */
#define FNN_DEF "def/softmax.def"
#include "args.h"

#include "rows.h"
#include "threads.h"

#define NS_PER_ELEMENT 0.6

typedef struct {
    const T *x, *dy; /* forward: logits; backward: output and its gradient */
    T *y;
    int64_t n, c, log, rows;
} softmax_job;

static void forward_block(const T *x, T *y, int64_t rows, int64_t c, int64_t log) {
    fnn_columns t;
    load_columns(t, x, rows, c);
    V m = columns_max(t, c);
    if (log) {
        V sum = {0};
        for (int64_t j = 0; j < c; j++) {
            t[j] -= m;
            sum += exp_below(t[j]);
        }
        V log_sum = v_log(sum);
        for (int64_t j = 0; j < c; j++) t[j] -= log_sum;
    } else {
        V inverse = (T)1 / columns_exp(t, c, m);
        for (int64_t j = 0; j < c; j++) t[j] *= inverse;
    }
    store_columns(y, t, rows, c);
}

static void forward_row(const T *x, T *y, int64_t c, int64_t log) {
    T m = row_max(x, c);
    if (log) {
        T log_sum = log_of(row_exp(x, NULL, c, m));
        for (int64_t j = 0; j < c; j++) y[j] = (x[j] - m) - log_sum;
    } else {
        T inverse = 1 / row_exp(x, y, c, m);
        for (int64_t j = 0; j < c; j++) y[j] *= inverse;
    }
}

/* softmax: dx = y (dy - sum(y dy)); log-softmax: dx = dy - exp(y) sum(dy). */
static void backward_block(const T *y, const T *dy, T *dx, int64_t rows, int64_t c, int64_t log) {
    fnn_columns t, d;
    load_columns(t, y, rows, c);
    load_columns(d, dy, rows, c);
    V sum = {0};
    for (int64_t j = 0; j < c; j++) sum += log ? d[j] : t[j] * d[j];
    for (int64_t j = 0; j < c; j++) d[j] = log ? d[j] - v_exp(t[j]) * sum : t[j] * (d[j] - sum);
    store_columns(dx, d, rows, c);
}

static void backward_row(const T *y, const T *dy, T *dx, int64_t c, int64_t log) {
    T total = 0;
    for (int64_t from = 0; from < c; from += FNN_ROWS_BLOCK) {
        int64_t to = from + FNN_ROWS_BLOCK < c ? from + FNN_ROWS_BLOCK : c, j = from;
        V sum = {0};
        for (; j + VL <= to; j += VL) {
            V d = v_load(dy + j);
            sum += log ? d : v_load(y + j) * d;
        }
        if (j < to) {
            V d = v_load_n(dy + j, to - j);
            sum += log ? d : v_load_n(y + j, to - j) * d;
        }
        total += v_sum(sum);
    }
    V sum = v_set1(total);
    int64_t j = 0;
    for (; j + VL <= c; j += VL) {
        V v = v_load(y + j), d = v_load(dy + j);
        v_store(dx + j, log ? d - v_exp(v) * sum : v * (d - sum));
    }
    if (j < c) {
        V v = v_load_n(y + j, c - j), d = v_load_n(dy + j, c - j);
        v_store_n(dx + j, log ? d - v_exp(v) * sum : v * (d - sum), c - j);
    }
}

static void softmax_task(void *ctx, int64_t task) {
    const softmax_job *s = ctx;
    int64_t c = s->c, step = c <= FNN_SMALL ? VL : 1;
    int64_t from = task * s->rows, to = from + s->rows < s->n ? from + s->rows : s->n;
    for (int64_t i = from; i < to; i += step) {
        int64_t rows = to - i < step ? to - i : step;
        const T *x = s->x + i * c;
        if (s->dy && step > 1)
            backward_block(x, s->dy + i * c, s->y + i * c, rows, c, s->log);
        else if (s->dy)
            backward_row(x, s->dy + i * c, s->y + i * c, c, s->log);
        else if (step > 1)
            forward_block(x, s->y + i * c, rows, c, s->log);
        else
            forward_row(x, s->y + i * c, c, s->log);
    }
}

static int run(softmax_job *s) {
    s->rows = rows_per_task(s->n, s->c);
    if (s->c > 0)
        fnn_parallel((s->n + s->rows - 1) / s->rows, NS_PER_ELEMENT * s->n * s->c, softmax_task, s);
    return FNN_OK;
}

int FNN_SYM(softmax_fwd)(const fnn_softmax_fwd_args *a) {
    softmax_job s = {.x = a->x, .y = a->y, .n = a->n, .c = a->c, .log = a->log};
    return run(&s);
}

int FNN_SYM(softmax_bwd)(const fnn_softmax_bwd_args *a) {
    softmax_job s = {.x = a->y, .dy = a->dy, .y = a->dx, .n = a->n, .c = a->c, .log = a->log};
    return run(&s);
}
