/* copy and fill. A copy is rows of memcpy, planes that are transposed, or single elements.
 *
 * Neighbouring dimensions are merged first. If then one dimension has unit stride in x and another
 * in y, these two form the plane; the others are walked around it.
 */
#define FNN_DEF "def/copy.def"
#include "args.h"

#include "strided.h"
#include "threads.h"
#include "transpose.h"
#include "vec.h"

/* A task's elements; BYTES_PER_NS is what one core copies. */
enum { CHUNK = 32768, BYTES_PER_NS = 20 };

typedef struct {
    const T *x;
    T *y;
    fnn_walk walk; /* a: x, b: y */
    int64_t rows, rows_per_task;
    int64_t pieces;            /* of a row, where it is longer than a task */
    int64_t across, across_xs; /* planes: the dimension of unit stride in y */
} copy_job;

static void copy_row(T *y, int64_t ys, const T *x, int64_t xs, int64_t n) {
    if (xs == 1 && ys == 1)
        memcpy(y, x, (size_t)n * sizeof(T));
    else
        for (int64_t i = 0; i < n; i++) y[i * ys] = x[i * xs];
}

static void copy_rows(const copy_job *j, int64_t from, int64_t to) {
    const fnn_walk *w = &j->walk;
    fnn_place p = fnn_walk_to(w, from);
    for (int64_t row = from; row < to; row++) {
        copy_row(j->y + p.b, w->b[0], j->x + p.a, w->a[0], w->size[0]);
        fnn_walk_next(w, &p);
    }
}

static void copy_task(void *ctx, int64_t task) {
    const copy_job *j = ctx;
    const fnn_walk *w = &j->walk;
    if (j->pieces > 1) {
        fnn_place p = fnn_walk_to(w, task / j->pieces);
        int64_t at = task % j->pieces * CHUNK, left = w->size[0] - at;
        copy_row(j->y + p.b + at * w->b[0], w->b[0], j->x + p.a + at * w->a[0], w->a[0],
                 left < CHUNK ? left : CHUNK);
    } else {
        int64_t from = task * j->rows_per_task, to = from + j->rows_per_task;
        copy_rows(j, from, to < j->rows ? to : j->rows);
    }
}

/* y[i, k] = x[k, i] for i < n and k < across; unit strides are x's along i and y's along k. */
static void transpose_plane(const T *x, int64_t xs, T *y, int64_t ys, int64_t n, int64_t across) {
    if (n < 3 || across < 3) {
        for (int64_t i = 0; i < n; i++)
            for (int64_t k = 0; k < across; k++) y[i * ys + k] = x[k * xs + i];
        return;
    }
    for (int64_t i = 0; i < n; i += VL) {
        int64_t columns = n - i < VL ? n - i : VL;
        for (int64_t k = 0; k < across; k += VL) {
            int64_t rows = across - k < VL ? across - k : VL;
            v_transpose_block(x + k * xs + i, xs, rows, y + i * ys + k, ys, columns);
        }
    }
}

/* Whole planes, or one piece of one: large planes are cut along their longer side. */
static void plane_task(void *ctx, int64_t task) {
    const copy_job *j = ctx;
    const fnn_walk *w = &j->walk;
    int64_t n = w->size[0], xs = j->across_xs, ys = w->b[0];
    int64_t from = task / j->pieces * j->rows_per_task, to = from + j->rows_per_task;
    int64_t side = n > j->across ? n : j->across;
    int64_t step = (side + j->pieces - 1) / j->pieces, at = task % j->pieces * step;
    step = side - at < step ? side - at : step;
    fnn_place p = fnn_walk_to(w, from);
    for (int64_t row = from; row < to && row < j->rows && step > 0; row++) {
        if (n > j->across)
            transpose_plane(j->x + p.a + at, xs, j->y + p.b + at * ys, ys, step, j->across);
        else
            transpose_plane(j->x + p.a + at * xs, xs, j->y + p.b + at, ys, n, step);
        fnn_walk_next(w, &p);
    }
}

/* Moves dimension `unit_x` to the front and takes `unit_y` out of the walk. */
static void make_planes(copy_job *j, int unit_x, int unit_y) {
    fnn_walk old = j->walk, *w = &j->walk;
    j->across = old.size[unit_y];
    j->across_xs = old.a[unit_y];
    w->dims = 1;
    w->size[0] = old.size[unit_x], w->a[0] = old.a[unit_x], w->b[0] = old.b[unit_x];
    for (int i = 0; i < old.dims; i++) {
        if (i == unit_x || i == unit_y) continue;
        w->size[w->dims] = old.size[i], w->a[w->dims] = old.a[i], w->b[w->dims] = old.b[i];
        w->dims++;
    }
}

int FNN_SYM(copy)(const fnn_copy_args *args) {
    copy_job j = {.x = args->x, .y = args->y, .across = 1};
    const int64_t *fields = (const int64_t *)args;
    j.walk = fnn_walk_over(fields + offsetof(fnn_copy_args, d0) / 8,
                           fields + offsetof(fnn_copy_args, xs0) / 8,
                           fields + offsetof(fnn_copy_args, ys0) / 8);
    int unit_x = -1, unit_y = -1;
    for (int i = j.walk.dims - 1; i >= 0; i--) {
        if (j.walk.a[i] == 1) unit_x = i;
        if (j.walk.b[i] == 1) unit_y = i;
    }
    int planes = unit_x >= 0 && unit_y >= 0 && unit_x != unit_y;
    if (planes) make_planes(&j, unit_x, unit_y);
    j.rows = fnn_walk_rows(&j.walk);
    int64_t each = j.walk.size[0] * j.across;
    if (j.rows * each == 0) return FNN_OK;
    j.rows_per_task = each < CHUNK ? CHUNK / each : 1;
    j.pieces = (each + CHUNK - 1) / CHUNK;
    int64_t tasks =
        j.pieces > 1 ? j.rows * j.pieces : (j.rows + j.rows_per_task - 1) / j.rows_per_task;
    int dense = planes || (j.walk.a[0] == 1 && j.walk.b[0] == 1);
    double ns = 2. * sizeof(T) * j.rows * each / BYTES_PER_NS * (dense ? 1 : 4);
    fnn_parallel(tasks, ns, planes ? plane_task : copy_task, &j);
    return FNN_OK;
}

static void fill_task(void *ctx, int64_t task) {
    const fnn_fill_args *f = ctx;
    T *y = (T *)f->y + task * CHUNK;
    int64_t n = f->n - task * CHUNK, i = 0;
    V value = v_set1((T)f->value);
    if (n > CHUNK) n = CHUNK;
    for (; i + VL <= n; i += VL) v_store(y + i, value);
    if (i < n) v_store_n(y + i, value, n - i);
}

int FNN_SYM(fill)(const fnn_fill_args *f) {
    fnn_parallel((f->n + CHUNK - 1) / CHUNK, 1. * sizeof(T) * f->n / BYTES_PER_NS, fill_task,
                 (void *)f);
    return FNN_OK;
}
