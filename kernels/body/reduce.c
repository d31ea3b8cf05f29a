/* reduce, accumulate, count_correct and count_confusion.
 *
 * x[outer, len, inner] is cut by shape into units of one outer index, one block of len and one
 * strip of inner. Each leaves partial results; those of a strip are then combined pairwise. Inside
 * a unit no sum runs over more than about a hundred terms in a row, so that float32 keeps its
 * digits.
 */
#define FNN_DEF "def/reduce.def"
#include "args.h"

#include "threads.h"
#include "vec.h"

/* Elements of a unit, columns of a strip, terms in a row, and what one core reads. */
enum { UNIT = 32768, STRIP = 256, RUN = 64, BYTES_PER_NS = 20 };

FNN_INLINE V v_combine(int op, V a, V b) {
    return op == FNN_SUM ? a + b : op == FNN_REDUCE_MAX ? v_max(a, b) : v_min(a, b);
}
FNN_INLINE T combine(int op, T a, T b) {
    if (op == FNN_SUM) return a + b;
    return (op == FNN_REDUCE_MAX ? a > b : a < b) || a != a ? a : b;
}
FNN_INLINE T identity(int op) {
    T inf = (T)__builtin_inf();
    return op == FNN_SUM ? 0 : op == FNN_REDUCE_MAX ? -inf : inf;
}
FNN_INLINE T v_fold(int op, V v) {
    T lanes[VL];
    v_store(lanes, v);
    for (int half = VL / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) lanes[i] = combine(op, lanes[i], lanes[i + half]);
    return lanes[0];
}

/* --- inner = 1: rows ------------------------------------------------------------------------ */

FNN_INLINE T short_row(int op, const T *x, int64_t n) {
    V first = v_set1(identity(op)), acc[4] = {first, first, first, first};
    int64_t i = 0;
    for (; i + 4 * VL <= n; i += 4 * VL)
#pragma GCC unroll 4
        for (int k = 0; k < 4; k++) acc[k] = v_combine(op, acc[k], v_load(x + i + k * VL));
    for (; i + VL <= n; i += VL) acc[0] = v_combine(op, acc[0], v_load(x + i));
    V all = v_combine(op, v_combine(op, acc[0], acc[1]), v_combine(op, acc[2], acc[3]));
    T result = i ? v_fold(op, all) : identity(op);
    T rest = identity(op);
    for (; i < n; i++) rest = combine(op, rest, x[i]);
    return combine(op, result, rest);
}

static T row(int op, const T *x, int64_t n) {
    int64_t most = 4 * VL * RUN / 4;
    if (n > most) {
        int64_t half = (n / 2 + most - 1) / most * most;
        return combine(op, row(op, x, half), row(op, x + half, n - half));
    }
    if (op == FNN_SUM) return short_row(FNN_SUM, x, n);
    return op == FNN_REDUCE_MAX ? short_row(FNN_REDUCE_MAX, x, n) : short_row(FNN_REDUCE_MIN, x, n);
}

/* --- inner > 1: columns --------------------------------------------------------------------- */

/* out[j] = reduce over rows of x[r * stride + j], for nv vectors of columns; the last one has
 * `last` lanes. Several rows go to accumulators of their own, to hide latency. */
FNN_INLINE void column_group(int op, int nv, const T *x, int64_t stride, int64_t rows, int64_t last,
                             T *out) {
    int side = 4 / nv;
    V total[4], first = v_set1(identity(op));
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++) total[k] = first;
    for (int64_t from = 0; from < rows; from += RUN * side) {
        int64_t to = from + RUN * side < rows ? from + RUN * side : rows, r = from;
        V acc[4] = {first, first, first, first};
        for (; r < to; r += side)
#pragma GCC unroll 4
            for (int k = 0; k < 4; k++) {
                if (r + k / nv >= to) continue;
                const T *p = x + (r + k / nv) * stride + k % nv * VL;
                acc[k] = v_combine(op, acc[k], last < VL ? v_load_n(p, last) : v_load(p));
            }
#pragma GCC unroll 4
        for (int k = 0; k < 4; k++) total[k] = v_combine(op, total[k], acc[k]);
    }
    if (nv == 1) total[0] = v_combine(op, total[0], total[2]);
    if (nv == 1) total[1] = v_combine(op, total[1], total[3]);
    if (nv == 1) total[0] = v_combine(op, total[0], total[1]);
    if (nv == 2) total[0] = v_combine(op, total[0], total[2]);
    if (nv == 2) total[1] = v_combine(op, total[1], total[3]);
    if (last < VL)
        v_store_n(out, total[0], last);
    else
#pragma GCC unroll 4
        for (int k = 0; k < nv; k++) v_store(out + k * VL, total[k]);
}

FNN_INLINE void wide_columns(int op, const T *x, int64_t stride, int64_t rows, int64_t n, T *out) {
    int64_t j = 0;
    for (; j + 4 * VL <= n; j += 4 * VL) column_group(op, 4, x + j, stride, rows, VL, out + j);
    for (; j + 2 * VL <= n; j += 2 * VL) column_group(op, 2, x + j, stride, rows, VL, out + j);
    for (; j + VL <= n; j += VL) column_group(op, 1, x + j, stride, rows, VL, out + j);
    if (j < n) column_group(op, 1, x + j, stride, rows, n - j, out + j);
}

/* Dense rows of n < VL columns: VL rows are n vectors, whose lanes stay with their columns. */
FNN_INLINE void narrow_columns(int op, const T *x, int64_t rows, int64_t n, T *out) {
    V acc[2 * VL + 4];
    T *lanes = (T *)acc;
    int64_t period = n < 4 ? 4 * n : n, step = period / n * VL, r = 0; /* vectors, rows */
    for (int64_t j = 0; j < n; j++) out[j] = identity(op);
    while (r + step <= rows) {
        for (int64_t k = 0; k < period; k++) acc[k] = v_load(x + r * n + k * VL);
        r += step;
        for (int run = 1; run < RUN && r + step <= rows; run++, r += step)
            for (int64_t k = 0; k < period; k++)
                acc[k] = v_combine(op, acc[k], v_load(x + r * n + k * VL));
        for (int64_t half = step / 2; half > 0; half /= 2)
            for (int64_t e = 0; e < half * n; e++)
                lanes[e] = combine(op, lanes[e], lanes[e + half * n]);
        for (int64_t j = 0; j < n; j++) out[j] = combine(op, out[j], lanes[j]);
    }
    for (; r < rows; r++)
        for (int64_t j = 0; j < n; j++) out[j] = combine(op, out[j], x[r * n + j]);
}

static void columns(int op, const T *x, int64_t stride, int64_t rows, int64_t n, T *out) {
    if (stride < VL) {
        if (op == FNN_SUM) narrow_columns(FNN_SUM, x, rows, n, out);
        if (op == FNN_REDUCE_MAX) narrow_columns(FNN_REDUCE_MAX, x, rows, n, out);
        if (op == FNN_REDUCE_MIN) narrow_columns(FNN_REDUCE_MIN, x, rows, n, out);
    } else {
        if (op == FNN_SUM) wide_columns(FNN_SUM, x, stride, rows, n, out);
        if (op == FNN_REDUCE_MAX) wide_columns(FNN_REDUCE_MAX, x, stride, rows, n, out);
        if (op == FNN_REDUCE_MIN) wide_columns(FNN_REDUCE_MIN, x, stride, rows, n, out);
    }
}

/* --- the tree ------------------------------------------------------------------------------- */

typedef struct {
    const fnn_reduce_args *args;
    int64_t block, blocks, strips; /* rows of a block, blocks of len, strips of inner */
    int64_t units, units_per_task;
    T *partial; /* [outer, blocks, inner] */
} reduce_job;

static reduce_job cut(const fnn_reduce_args *a) {
    int64_t width = a->inner < STRIP ? a->inner : STRIP;
    reduce_job j = {.args = a, .strips = 1, .blocks = 1, .block = a->len, .units_per_task = 1};
    if (a->len * a->inner > UNIT) { /* else a unit is all of an outer index */
        j.strips = (a->inner + STRIP - 1) / STRIP;
        j.block = UNIT / width;
        j.blocks = a->len > j.block ? (a->len + j.block - 1) / j.block : 1;
    } else if (a->len * a->inner > 0) {
        j.units_per_task = (UNIT + a->len * a->inner - 1) / (a->len * a->inner);
    }
    j.units = a->outer * j.blocks * j.strips;
    return j;
}

static void scale_row(T *y, int64_t n, T scale) {
    if (scale == 1) return;
    for (int64_t i = 0; i < n; i++) y[i] *= scale;
}

static void reduce_unit(const reduce_job *j, int64_t unit) {
    const fnn_reduce_args *a = j->args;
    int64_t strip = 0, slot = unit; /* slot: outer index and block */
    if (j->strips > 1) strip = unit % j->strips, slot = unit / j->strips;
    int64_t outer = slot, block = 0;
    if (j->blocks > 1) outer = slot / j->blocks, block = slot % j->blocks;
    int64_t at = strip * STRIP, from = block * j->block;
    int64_t n = j->strips > 1 && a->inner - at > STRIP ? STRIP : a->inner - at;
    int64_t rows = a->len - from < j->block ? a->len - from : j->block;
    const T *x = (const T *)a->x + (outer * a->len + from) * a->inner + at;
    T *out = (j->blocks > 1 ? j->partial : (T *)a->y) + slot * a->inner + at;
    if (a->inner == 1)
        *out = row((int)a->op, x, rows);
    else
        columns((int)a->op, x, a->inner, rows, n, out);
    if (j->blocks == 1) scale_row(out, n, (T)a->scale);
}

static void reduce_task(void *ctx, int64_t task) {
    const reduce_job *j = ctx;
    int64_t from = task * j->units_per_task, to = from + j->units_per_task;
    for (int64_t unit = from; unit < to && unit < j->units; unit++) reduce_unit(j, unit);
}

/* y[outer] from the partial results of its blocks, pairwise. */
static void combine_blocks(const reduce_job *j, int64_t outer) {
    const fnn_reduce_args *a = j->args;
    int64_t n = a->inner;
    T *p = j->partial + outer * j->blocks * n, *y = (T *)a->y + outer * n;
    for (int64_t step = 1; step < j->blocks; step *= 2)
        for (int64_t b = 0; b + step < j->blocks; b += 2 * step)
            for (int64_t i = 0; i < n; i++)
                p[b * n + i] = combine((int)a->op, p[b * n + i], p[(b + step) * n + i]);
    for (int64_t i = 0; i < n; i++) y[i] = p[i] * (T)a->scale;
}

int64_t FNN_SYM(reduce_size)(const fnn_reduce_args *a) {
    reduce_job j = cut(a);
    return j.blocks > 1 ? a->outer * j.blocks * a->inner * (int64_t)sizeof(T) : 0;
}

int FNN_SYM(reduce)(const fnn_reduce_args *a) {
    reduce_job j = cut(a);
    j.partial = a->work;
    if (a->inner == 0) return FNN_OK;
    double ns = 1. * sizeof(T) * a->outer * a->len * a->inner / BYTES_PER_NS;
    fnn_parallel((j.units + j.units_per_task - 1) / j.units_per_task, ns, reduce_task, &j);
    if (j.blocks > 1)
        for (int64_t outer = 0; outer < a->outer; outer++) combine_blocks(&j, outer);
    return FNN_OK;
}

int FNN_SYM(accumulate)(const fnn_accumulate_args *a) {
    *(double *)a->acc += a->weight * *(const T *)a->x;
    return FNN_OK;
}

/* How many elements come before the label's: larger ones, and equal ones to its left; NaN is the
 * largest of all. */
static int64_t rank_of(const T *x, int64_t c, int64_t label) {
    T mine = x[label];
    int64_t rank = 0;
    if (mine != mine) {
        for (int64_t j = 0; j < label; j++) rank += x[j] != x[j];
    } else {
        for (int64_t j = 0; j < label; j++) rank += !(x[j] < mine);
        for (int64_t j = label + 1; j < c; j++) rank += !(x[j] <= mine);
    }
    return rank;
}

int FNN_SYM(count_correct)(const fnn_count_correct_args *a) {
    const int64_t *labels = a->labels;
    int64_t classes = a->c == 1 ? 2 : a->c, correct = 0, counted = 0;
    for (int64_t i = 0; i < a->n; i++) {
        const T *x = (const T *)a->x + i * a->c;
        if ((uint64_t)labels[i] >= (uint64_t)classes) continue;
        counted++;
        correct +=
            a->c == 1 ? (*x > a->threshold) == labels[i] : rank_of(x, a->c, labels[i]) < a->k;
    }
    ((double *)a->acc)[0] += (double)correct;
    ((double *)a->acc)[1] += (double)counted;
    return FNN_OK;
}

static int64_t largest(const T *x, int64_t c) {
    int64_t best = 0;
    for (int64_t j = 1; j < c && x[best] == x[best]; j++)
        if (!(x[j] <= x[best])) best = j;
    return best;
}

int FNN_SYM(count_confusion)(const fnn_count_confusion_args *a) {
    const int64_t *labels = a->labels, classes = a->c == 1 ? 2 : a->c;
    const T *x = a->x;
    double *acc = a->acc;
    for (int64_t i = 0; i < a->n; i++) {
        if ((uint64_t)labels[i] >= (uint64_t)classes) continue;
        int64_t predicted = a->c == 1 ? x[i] > a->threshold : largest(x + i * a->c, a->c);
        acc[labels[i] * classes + predicted] += 1;
    }
    return FNN_OK;
}
