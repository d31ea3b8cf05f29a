/* Elementwise kernels: unary, binary with broadcasting, lerp.
 *
 * Every operation is a vector function of `op`, inlined with op constant into one loop each. Where
 * y is also an operand, each vector is read before it is written.
 */
#define FNN_DEF "def/elementwise.def"
#include "args.h"

#include "strided.h"
#include "threads.h"
#include "vec.h"
#include "vmath.h"

#include <math.h>

/* A task's elements; BYTES_PER_NS is what one core copies. */
enum { CHUNK = 16384, BYTES_PER_NS = 20 };

static int64_t chunks(int64_t n) { return (n + CHUNK - 1) / CHUNK; }
static int64_t chunk_length(int64_t n, int64_t chunk) {
    int64_t left = n - chunk * CHUNK;
    return left < CHUNK ? left : CHUNK;
}

/* --- unary ---------------------------------------------------------------------------------- */

FNN_INLINE V unary_op(int op, V x, V alpha, V beta) {
    V zero = {0}, one = v_set1(1);
    switch (op) {
    case FNN_NEG:
        return -x;
    case FNN_ABS:
        return v_abs(x);
    case FNN_SQUARE:
        return x * x;
    case FNN_SQRT:
        return v_sqrt(x);
    case FNN_EXP:
        return v_exp(x);
    case FNN_LOG:
        return v_log(x);
    case FNN_RELU:
        return v_relu(x);
    case FNN_SIGMOID:
        return v_sigmoid(x);
    case FNN_TANH:
        return v_tanh(x);
    case FNN_SIGN:
        return v_select(x > zero, one, v_select(x < zero, -one, v_select(x == zero, zero, x)));
    case FNN_RECIPROCAL:
        return one / x;
    default:
        return alpha * x + beta;
    }
}

FNN_INLINE void unary_loop(int op, const T *x, T *y, int64_t n, T alpha, T beta) {
    V a = v_set1(alpha), b = v_set1(beta);
    int64_t i = 0;
    for (; i + VL <= n; i += VL) v_store(y + i, unary_op(op, v_load(x + i), a, b));
    if (i < n) v_store_n(y + i, unary_op(op, v_load_n(x + i, n - i), a, b), n - i);
}

static void unary_any(int64_t op, const T *x, T *y, int64_t n, T a, T b) {
    switch (op) {
    case FNN_NEG:
        unary_loop(FNN_NEG, x, y, n, a, b);
        break;
    case FNN_ABS:
        unary_loop(FNN_ABS, x, y, n, a, b);
        break;
    case FNN_SQUARE:
        unary_loop(FNN_SQUARE, x, y, n, a, b);
        break;
    case FNN_SQRT:
        unary_loop(FNN_SQRT, x, y, n, a, b);
        break;
    case FNN_EXP:
        unary_loop(FNN_EXP, x, y, n, a, b);
        break;
    case FNN_LOG:
        unary_loop(FNN_LOG, x, y, n, a, b);
        break;
    case FNN_RELU:
        unary_loop(FNN_RELU, x, y, n, a, b);
        break;
    case FNN_SIGMOID:
        unary_loop(FNN_SIGMOID, x, y, n, a, b);
        break;
    case FNN_TANH:
        unary_loop(FNN_TANH, x, y, n, a, b);
        break;
    case FNN_SIGN:
        unary_loop(FNN_SIGN, x, y, n, a, b);
        break;
    case FNN_RECIPROCAL:
        unary_loop(FNN_RECIPROCAL, x, y, n, a, b);
        break;
    default:
        unary_loop(FNN_AFFINE, x, y, n, a, b);
    }
}

static void unary_task(void *ctx, int64_t chunk) {
    const fnn_unary_args *u = ctx;
    int64_t at = chunk * CHUNK;
    unary_any(u->op, (const T *)u->x + at, (T *)u->y + at, chunk_length(u->n, chunk), (T)u->alpha,
              (T)u->beta);
}

int FNN_SYM(unary)(const fnn_unary_args *u) {
    double ns = 2. * sizeof(T) * u->n / BYTES_PER_NS;
    if (u->op == FNN_EXP || u->op == FNN_LOG || u->op == FNN_SIGMOID || u->op == FNN_TANH) ns *= 2;
    if (u->n <= CHUNK)
        unary_any(u->op, u->x, u->y, u->n, (T)u->alpha, (T)u->beta);
    else
        fnn_parallel(chunks(u->n), ns, unary_task, (void *)u);
    return FNN_OK;
}

/* --- binary --------------------------------------------------------------------------------- */

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
    default:
        return b * (one - a * a); /* FNN_TANH_GRAD */
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

#define ROW(name, op)                                                                              \
    static void name(const T *a, const T *b, T *y, int64_t n, int64_t as, int64_t bs) {            \
        binary_row(op, a, b, y, n, as, bs);                                                        \
    }
ROW(add_row, FNN_ADD)
ROW(sub_row, FNN_SUB)
ROW(mul_row, FNN_MUL)
ROW(div_row, FNN_DIV)
ROW(max_row, FNN_MAX)
ROW(min_row, FNN_MIN)
ROW(greater_row, FNN_GREATER)
ROW(equal_row, FNN_EQUAL)
ROW(relu_grad_row, FNN_RELU_GRAD)
ROW(sigmoid_grad_row, FNN_SIGMOID_GRAD)
ROW(tanh_grad_row, FNN_TANH_GRAD)

static void pow_row(const T *a, const T *b, T *y, int64_t n, int64_t as, int64_t bs) {
    if (bs == 0 && n > 0 && *b == 2)
        binary_row(FNN_MUL, a, a, y, n, as, as);
    else
        binary_row(FNN_POW, a, b, y, n, as, bs);
}

static const row_fn row_fns[] = {
    [FNN_ADD] = add_row,
    [FNN_SUB] = sub_row,
    [FNN_MUL] = mul_row,
    [FNN_DIV] = div_row,
    [FNN_MAX] = max_row,
    [FNN_MIN] = min_row,
    [FNN_POW] = pow_row,
    [FNN_GREATER] = greater_row,
    [FNN_EQUAL] = equal_row,
    [FNN_RELU_GRAD] = relu_grad_row,
    [FNN_SIGMOID_GRAD] = sigmoid_grad_row,
    [FNN_TANH_GRAD] = tanh_grad_row,
};

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
    double ns = 3. * sizeof(T) * j.rows * n / BYTES_PER_NS;
    fnn_parallel(tasks, args->op == FNN_POW ? 20 * ns : ns, binary_task, &j);
    return FNN_OK;
}

/* --- lerp ----------------------------------------------------------------------------------- */

static void lerp_task(void *ctx, int64_t chunk) {
    const fnn_lerp_args *l = ctx;
    const T *x = (const T *)l->x + chunk * CHUNK;
    T *y = (T *)l->y + chunk * CHUNK;
    int64_t n = chunk_length(l->n, chunk), i = 0;
    V old = v_set1((T)(1 - l->t)), new = v_set1((T)(l->t * l->scale));
    for (; i + VL <= n; i += VL) v_store(y + i, old * v_load(y + i) + new * v_load(x + i));
    if (i < n) v_store_n(y + i, old * v_load_n(y + i, n - i) + new * v_load_n(x + i, n - i), n - i);
}

int FNN_SYM(lerp)(const fnn_lerp_args *l) {
    fnn_parallel(chunks(l->n), 3. * sizeof(T) * l->n / BYTES_PER_NS, lerp_task, (void *)l);
    return FNN_OK;
}
