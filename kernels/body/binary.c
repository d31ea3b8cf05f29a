/* Elementwise kernels of two operands that broadcast.
 *
 * Each op has a loop of its own over its vector function. Where y is also an operand, each vector
 * is read before it is written.
 */
#define FNN_DEF "def/elementwise.def"
#include "args.h"

#include "functions.h"
#include "strided.h"
#include "tasks.h"
#include "threads.h"
#include "vmath.h"

#include <math.h>

FNN_INLINE V v_pow(V a, V b) {
    V y;
    for (int i = 0; i < VL; i++) y[i] = FNN_BITS == 32 ? (T)powf(a[i], b[i]) : (T)pow(a[i], b[i]);
    return y;
}

FNN_INLINE V binary_op(int op, V a, V b) {
    V zero = {0}, one = v_set1(1);
    switch (op) {
    case FNN_ADD:
        return a + b;
    case FNN_SUB:
        return a - b;
    case FNN_MUL:
        return a * b;
    case FNN_DIV:
        return a / b;
    case FNN_MAX:
        return v_max(a, b);
    case FNN_MIN:
        return v_min(a, b);
    case FNN_POW:
        return v_pow(a, b);
    case FNN_GREATER:
        return v_select(a > b, one, zero);
    case FNN_EQUAL:
        return v_select(a == b, one, zero);
    case FNN_RELU_GRAD:
        return v_select(a > zero, b, zero);
    case FNN_SIGMOID_GRAD:
        return b * (a * (one - a));
    case FNN_TANH_GRAD:
        return b * (one - a * a);
    case FNN_PRELU:
        return v_select(a > zero, a, b * a);
    case FNN_PRELU_SLOPE:
        return v_select(a > zero, one, b);
    case FNN_BCE:
        return v_relu(a) - a * b + v_log1p(v_exp(-v_abs(a)));
    default: /* FNN_XLOGY */
        return v_select((a == zero) & (b == b), zero, a * v_log(b));
    }
}

/* n <= VL elements at any stride. */
FNN_INLINE V load_strided(const T *p, int64_t stride, int64_t n) {
    T lanes[VL] = {0};
    for (int64_t i = 0; i < n; i++) lanes[i] = p[i * stride];
    return v_load(lanes);
}

/* One row; the stride patterns that broadcasting leaves in dense arrays have loops of their own. */
FNN_INLINE void binary_row(int op, const T *a, const T *b, T *y, int64_t n, int64_t as,
                           int64_t bs) {
    int64_t i = 0, whole = n - n % VL;
    if (as == 1 && bs == 1) {
        for (; i < whole; i += VL) v_store(y + i, binary_op(op, v_load(a + i), v_load(b + i)));
        if (i < n)
            v_store_n(y + i, binary_op(op, v_load_n(a + i, n - i), v_load_n(b + i, n - i)), n - i);
    } else if (as == 1 && bs == 0) {
        V other = v_set1(*b);
        for (; i < whole; i += VL) v_store(y + i, binary_op(op, v_load(a + i), other));
        if (i < n) v_store_n(y + i, binary_op(op, v_load_n(a + i, n - i), other), n - i);
    } else if (as == 0 && bs == 1) {
        V other = v_set1(*a);
        for (; i < whole; i += VL) v_store(y + i, binary_op(op, other, v_load(b + i)));
        if (i < n) v_store_n(y + i, binary_op(op, other, v_load_n(b + i, n - i)), n - i);
    } else {
        for (; i < whole; i += VL) {
            V va = load_strided(a + i * as, as, VL), vb = load_strided(b + i * bs, bs, VL);
            v_store(y + i, binary_op(op, va, vb));
        }
        if (i < n) {
            V va = load_strided(a + i * as, as, n - i), vb = load_strided(b + i * bs, bs, n - i);
            v_store_n(y + i, binary_op(op, va, vb), n - i);
        }
    }
}

typedef void (*row_fn)(const T *, const T *, T *, int64_t, int64_t, int64_t);

#define ROW(op)                                                                                    \
    static void op##_row(const T *a, const T *b, T *y, int64_t n, int64_t as, int64_t bs) {        \
        binary_row(FNN_##op, a, b, y, n, as, bs);                                                  \
    }
#define ENTRY(op) [FNN_##op] = op##_row,
FNN_BINARY_OPS(ROW)
static const row_fn row_fns[] = {FNN_BINARY_OPS(ENTRY)};

typedef struct {
    const T *a, *b;
    T *y;
    row_fn fn;
    int64_t rows;
    fnn_walk walk;
    int64_t rows_per_task; /* 0: a task is one chunk of one row */
} binary_job;

static void binary_rows(const binary_job *j, int64_t from, int64_t to) {
    int64_t n = j->walk.size[0], as = j->walk.a[0], bs = j->walk.b[0];
    fnn_place p = fnn_walk_to(&j->walk, from);
    for (int64_t row = from; row < to; row++) {
        j->fn(j->a + p.a, j->b + p.b, j->y + row * n, n, as, bs);
        fnn_walk_next(&j->walk, &p);
    }
}

static void binary_task(void *ctx, int64_t task) {
    const binary_job *j = ctx;
    int64_t n = j->walk.size[0], as = j->walk.a[0], bs = j->walk.b[0];
    if (j->rows_per_task) {
        int64_t from = task * j->rows_per_task, to = from + j->rows_per_task;
        binary_rows(j, from, to < j->rows ? to : j->rows);
    } else {
        int64_t row = task / chunks(n), chunk = task % chunks(n), at = chunk * CHUNK;
        fnn_place p = fnn_walk_to(&j->walk, row);
        j->fn(j->a + p.a + at * as, j->b + p.b + at * bs, j->y + row * n + at,
              chunk_length(n, chunk), as, bs);
    }
}

int FNN_SYM(binary)(const fnn_binary_args *args) {
    binary_job j = {.a = args->a, .b = args->b, .y = args->y, .fn = row_fns[args->op]};
    const int64_t *fields = (const int64_t *)args;
    j.walk = fnn_walk_over(fields + offsetof(fnn_binary_args, d0) / 8,
                           fields + offsetof(fnn_binary_args, as0) / 8,
                           fields + offsetof(fnn_binary_args, bs0) / 8);
    int64_t n = j.walk.size[0];
    j.rows = fnn_walk_rows(&j.walk);
    if (j.rows * n <= CHUNK) {
        binary_rows(&j, 0, n ? j.rows : 0);
        return FNN_OK;
    }
    j.rows_per_task = n < CHUNK ? CHUNK / n : 0;
    int64_t per = j.rows_per_task;
    int64_t tasks = per ? (j.rows + per - 1) / per : j.rows * chunks(n);
    double bytes = 3. * sizeof(T) * j.rows * n, ns = fnn_moving_ns(bytes);
    if (args->op == FNN_POW) ns = bytes;
    if (args->op == FNN_BCE || args->op == FNN_XLOGY) ns = bytes / 15;
    fnn_parallel(tasks, ns, binary_task, &j);
    return FNN_OK;
}
