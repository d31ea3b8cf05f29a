/* Elementwise kernels of one operand: unary, unary_grad, lerp.
 *
 * Each op has a loop of its own over its vector function (pointwise.h). Where y is also an operand,
 * each vector is read before it is written.
 */
#define FNN_DEF "def/elementwise.def"
#include "args.h"

#include "pointwise.h"
#include "threads.h"
#include "tasks.h"

typedef void (*unary_fn)(const T *x, const T *dy, T *y, int64_t n, T a, T b);

FNN_INLINE void unary_loop(int op, const T *x, T *y, int64_t n, T a, T b) {
    int64_t i = 0;
    for (; i + VL <= n; i += VL) v_store(y + i, pointwise(op, v_load(x + i), a, b));
    if (i < n) v_store_n(y + i, pointwise(op, v_load_n(x + i, n - i), a, b), n - i);
}

FNN_INLINE void slope_loop(int op, const T *x, const T *dy, T *dx, int64_t n, T a, T b) {
    int64_t i = 0;
    for (; i + VL <= n; i += VL)
        v_store(dx + i, v_load(dy + i) * pointwise_slope(op, v_load(x + i), a, b));
    if (i < n) {
        V slope = pointwise_slope(op, v_load_n(x + i, n - i), a, b);
        v_store_n(dx + i, v_load_n(dy + i, n - i) * slope, n - i);
    }
}

#define LOOP(op)                                                                                   \
    static void op##_loop(const T *x, const T *dy, T *y, int64_t n, T a, T b) {                    \
        (void)dy;                                                                                  \
        unary_loop(FNN_##op, x, y, n, a, b);                                                       \
    }
#define SLOPE_LOOP(op)                                                                             \
    static void op##_slope_loop(const T *x, const T *dy, T *dx, int64_t n, T a, T b) {             \
        slope_loop(FNN_##op, x, dy, dx, n, a, b);                                                  \
    }
FNN_UNARY_OPS(LOOP)
FNN_CURVES(LOOP)
FNN_CURVES(SLOPE_LOOP)

#define ENTRY(op) [FNN_##op] = op##_loop,
#define SLOPE_ENTRY(op) [FNN_##op] = op##_slope_loop,
static const unary_fn loops[] = {FNN_UNARY_OPS(ENTRY) FNN_CURVES(ENTRY)};
static const unary_fn slope_loops[] = {FNN_CURVES(SLOPE_ENTRY)};

typedef struct {
    const T *x, *dy;
    T *y, a, b;
    int64_t n;
    unary_fn fn;
} unary_job;

static void unary_task(void *ctx, int64_t chunk) {
    const unary_job *j = ctx;
    int64_t at = chunk * CHUNK;
    const T *dy = j->dy ? j->dy + at : NULL;
    j->fn(j->x + at, dy, j->y + at, chunk_length(j->n, chunk), j->a, j->b);
}

/* True where memory is the limit, not arithmetic. */
static int is_light(int64_t op) {
    switch (op) {
    case FNN_NEG:
    case FNN_ABS:
    case FNN_SQUARE:
    case FNN_RELU:
    case FNN_SIGN:
    case FNN_AFFINE:
    case FNN_HEAVISIDE:
    case FNN_THRESHOLD:
    case FNN_HARDTANH:
    case FNN_LEAKY_RELU:
    case FNN_HARDSIGMOID:
    case FNN_HARDSWISH:
    case FNN_HUBER:
        return 1;
    default:
        return 0;
    }
}

static int run(unary_job *j, int64_t op, int arrays) {
    double bytes = (double)arrays * sizeof(T) * j->n;
    double ns = is_light(op) ? fnn_moving_ns(bytes) : bytes / 15;
    if (j->n <= CHUNK)
        j->fn(j->x, j->dy, j->y, j->n, j->a, j->b);
    else
        fnn_parallel(chunks(j->n), ns, unary_task, j);
    return FNN_OK;
}

int FNN_SYM(unary)(const fnn_unary_args *u) {
    unary_job j = {.x = u->x, .y = u->y, .n = u->n, .a = (T)u->alpha, .b = (T)u->beta};
    j.fn = loops[u->op];
    return run(&j, u->op, 2);
}

int FNN_SYM(unary_grad)(const fnn_unary_grad_args *u) {
    unary_job j = {.x = u->x, .dy = u->dy, .y = u->dx, .n = u->n};
    j.a = (T)u->alpha, j.b = (T)u->beta;
    j.fn = slope_loops[u->op];
    return run(&j, u->op, 3);
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
    fnn_parallel(chunks(l->n), fnn_moving_ns(3. * sizeof(T) * l->n), lerp_task, (void *)l);
    return FNN_OK;
}
