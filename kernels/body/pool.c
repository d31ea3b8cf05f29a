/* Pooling forward: each output row is made from the input rows of its windows. */
#define FNN_DEF "def/pool.def"
#include "args.h"

#include "../fetch.h"
#include "../pool.h"
#include "../scaled.h"
#include "../threads.h"
#include "../vbits.h"

typedef struct {
    const fnn_pool_fwd_args *a;
    pool_axis h, w;
    int64_t rows, rows_per_task; /* output rows of the whole batch */
} fwd_job;

/* One output pixel's window: real cells only, steps and positions counted from the first. */
typedef struct {
    const T *x;
    int64_t rows, cols, row_step, col_step; /* steps in elements */
    int64_t position, row_jump, col_jump;   /* ih*iw-flat positions */
    T divisor;
    const T *table;
} window;

/* A vector of the image; `scales`: of what the table makes of it. */
FNN_INLINE V cell(const T *x, int64_t lanes, int scales, const scaling *table) {
    V v = pool_load(x, lanes);
    return scales ? scaled(table, v) : v;
}

/* The window's largest (or smallest) element and where it is. PyTorch's choice: the first of
 * equals, but the last of several NaN. rows and cols are the window's, constants where the caller
 * knows. */
FNN_INLINE V window_extreme(const window *win, const T *x, int64_t lanes, int64_t rows,
                            int64_t cols, int min, int with_idx, int scales, const scaling *table,
                            VI *where) {
    V best = cell(x, lanes, scales, table);
    VI at = pool_position(win->position);
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t q = r == 0; q < cols; q++) {
            V v = cell(x + r * win->row_step + q * win->col_step, lanes, scales, table);
            VI take = (min ? v < best : v > best) | (v != v);
            best = v_select(take, v, best);
            if (with_idx) {
                VI here = pool_position(win->position + r * win->row_jump + q * win->col_jump);
                at = (here & take) | (at & ~take);
            }
        }
    }
    *where = at;
    return best;
}

/* The same without NaN, in half the instructions, for side * side elements, loaded once. (Of 2x2
 * the look for NaN would cost more than it saves.) */
FNN_INLINE V square_extreme(const window *win, const T *x, int side, int min, int with_idx,
                            int scales, const scaling *table, VI *where) {
    V v[9];
    int nan = 0;
#pragma GCC unroll 9
    for (int k = 0; k < side * side; k++)
        v[k] = cell(x + k / side * win->row_step + k % side * win->col_step, VL, scales, table);
#pragma GCC unroll 5
    for (int k = 0; k < side * side; k += 2) nan |= v_any_nan(v[k], v[k + (k + 1 < side * side)]);
    if (__builtin_expect(nan, 0))
        return window_extreme(win, x, VL, win->rows, win->cols, min, with_idx, scales, table,
                              where);
    V best = v[0];
    VI at = {0};
#pragma GCC unroll 8
    for (int k = 1; k < side * side; k++) {
        VI here = pool_position(k / side * win->row_jump + k % side * win->col_jump);
        at = v_select_greater(min ? best : v[k], min ? v[k] : best, here, at);
        best = min ? v_smaller(v[k], best) : v_larger(v[k], best);
    }
    *where = at + pool_position(win->position);
    return best;
}

/* Row by row, so that a long sum is a tree of two levels. */
FNN_INLINE V window_average(const window *win, const T *x, int64_t lanes, int64_t rows,
                            int64_t cols) {
    V sum = {0};
    for (int64_t r = 0; r < rows; r++) {
        V row = pool_load(x + r * win->row_step, lanes);
        for (int64_t q = 1; q < cols; q++)
            row += pool_load(x + r * win->row_step + q * win->col_step, lanes);
        sum += row;
    }
    return sum / v_set1(win->divisor);
}

/* side: of a window that is a whole square, 0 of others. */
FNN_INLINE V window_value(const window *win, const T *x, int64_t lanes, int side, int mode,
                          int with_idx, int scales, const scaling *table, VI *where) {
    if (side == 3 && mode != FNN_POOL_AVG)
        return square_extreme(win, x, side, mode == FNN_POOL_MIN, with_idx, scales, table, where);
    if (mode == FNN_POOL_AVG) return window_average(win, x, lanes, win->rows, win->cols);
    return window_extreme(win, x, lanes, win->rows, win->cols, mode == FNN_POOL_MIN, with_idx,
                          scales, table, where);
}

/* The value of a window that lies wholly in the padding: PyTorch's start of the search, index -1.
 */
FNN_INLINE T empty_value(int mode) {
    if (mode == FNN_POOL_AVG) return 0;
    return mode == FNN_POOL_MIN ? (T)__builtin_inf() : -(T)__builtin_inf();
}

/* One output pixel at y (and idx): `lanes` = VL, or c where a whole vector would not fit. */
FNN_INLINE void pool_pixel(const window *win, T *y, int32_t *idx, int64_t c, int64_t lanes,
                           int side, int mode, int with_idx, int relu, int scales) {
    int64_t last = c > VL ? c - VL : 0;
    for (int64_t ch = 0; ch < c; ch += VL) {
        int64_t from = least(ch, last);
        VI where = pool_position(-1);
        scaling table = scaling_at(scales ? win->table : NULL, c, from);
        V v = win->rows * win->cols > 0 ? window_value(win, win->x + from, lanes, side, mode,
                                                       with_idx, scales, &table, &where)
                                        : v_set1(empty_value(mode));
        pool_store(y + from, relu ? v_relu(v) : v, lanes);
        if (with_idx) pool_store_idx(idx + from, where, lanes);
    }
}

/* `count` pixels of one output row, whole windows of 2x2 or 3x3 (`side`) `step` input pixels apart:
 * the usual cases, so everything about the window is a constant. */
FNN_INLINE void pool_run(const window *first, T *y, int32_t *idx, int64_t c, int64_t count,
                         int64_t step, int side, int mode, int with_idx, int relu, int scales) {
    const T *below = first->x + side * first->row_step; /* what the next output row adds */
    window win = {first->x,        side, side,
                  first->row_step, c,    first->position,
                  first->row_jump, 1,    (T)(side * side),
                  first->table};
    for (int64_t i = 0; i < count; i++, y += c, win.x += step * c, win.position += step) {
        below = fetch_run(below, step * step * c); /* rows of few lines are no streams */
        pool_pixel(&win, y, idx, c, VL, side, mode, with_idx, relu, scales);
        if (with_idx) idx += c;
    }
}

/* Output rows from..to of the batch. */
FNN_INLINE void pool_rows(const fwd_job *job, int64_t from, int64_t to, int mode, int with_idx,
                          int scales) {
    const fnn_pool_fwd_args own = *job->a, *a = &own; /* no store to y may change them */
    const pool_axis h = job->h, w = job->w;
    const int relu = a->act == FNN_ACT_RELU;
    const int64_t side = h.kernel;
    const int plain = !a->adaptive && (side == 2 || side == 3) && w.kernel == side &&
                      h.dilation == 1 && w.dilation == 1;
    const int64_t c = a->c, iw = a->iw, ow = a->ow, image = a->ih * iw * c;
    const T *x_end = (const T *)a->x + a->n * image;
    const T *y_end = (T *)a->y + to * ow * c;
    int64_t sample = from / a->oh, oy = from % a->oh;
    for (int64_t row = from; row < to; row++) {
        pool_cells v = pool_window(&h, oy);
        int64_t height = pool_divisor(&h, oy, v.count, (int)a->count_include_pad);
        const T *x = (const T *)a->x + sample * image;
        T *y = (T *)a->y + row * ow * c;
        int32_t *idx = with_idx ? (int32_t *)a->idx + row * ow * c : NULL;
        const int all_rows = plain && v.count == side;
        window win = {.rows = v.count,
                      .row_step = v.step * iw * c,
                      .row_jump = v.step * iw,
                      .table = a->table};
        for (int64_t ox = 0; ox < ow;) {
            pool_cells u = pool_window(&w, ox);
            win.position = v.first * iw + u.first;
            win.x = x + win.position * c;
            win.cols = u.count, win.col_step = u.step * c, win.col_jump = u.step;
            if (mode == FNN_POOL_AVG)
                win.divisor =
                    (T)(height * pool_divisor(&w, ox, u.count, (int)a->count_include_pad));
            int64_t reach = (v.count - 1) * win.row_step + (u.count - 1) * win.col_step + VL;
            if (all_rows && u.count == side) {
                int64_t run = least((iw - side - u.first) / w.stride + 1, ow - ox);
                if (c < VL) {
                    int64_t x_room = x_end - win.x - reach, y_room = y_end - y - VL;
                    run = least(run, x_room < 0 ? 0 : x_room / (w.stride * c) + 1);
                    run = least(run, y_room < 0 ? 0 : y_room / c + 1);
                }
                if (side == 3)
                    pool_run(&win, y, idx, c, run, w.stride, 3, mode, with_idx, relu, scales);
                else if (relu)
                    pool_run(&win, y, idx, c, run, w.stride, 2, mode, with_idx, 1, scales);
                else
                    pool_run(&win, y, idx, c, run, w.stride, 2, mode, with_idx, 0, scales);
                ox += run, y += run * c;
                if (with_idx) idx += run * c;
                if (run > 0) continue;
            }
            int fits = c >= VL || (y_end - y >= VL && x_end - win.x >= reach);
            pool_pixel(&win, y, idx, c, fits ? VL : c, 0, mode, with_idx, relu, scales);
            ox++, y += c;
            if (with_idx) idx += c;
        }
        if (++oy == a->oh) oy = 0, sample++;
    }
}

static void fwd_task(void *ctx, int64_t task) {
    const fwd_job *job = ctx;
    const fnn_pool_fwd_args *a = job->a;
    int64_t from = task * job->rows_per_task;
    int64_t to = least(from + job->rows_per_task, job->rows);
    if (a->mode == FNN_POOL_AVG)
        pool_rows(job, from, to, FNN_POOL_AVG, 0, 0);
    else if (a->mode == FNN_POOL_MIN && a->idx)
        pool_rows(job, from, to, FNN_POOL_MIN, 1, 0);
    else if (a->mode == FNN_POOL_MIN)
        pool_rows(job, from, to, FNN_POOL_MIN, 0, 0);
    else if (a->table && a->idx)
        pool_rows(job, from, to, FNN_POOL_MAX, 1, 1);
    else if (a->table)
        pool_rows(job, from, to, FNN_POOL_MAX, 0, 1);
    else if (a->idx)
        pool_rows(job, from, to, FNN_POOL_MAX, 1, 0);
    else
        pool_rows(job, from, to, FNN_POOL_MAX, 0, 0);
}

int FNN_SYM(pool_fwd)(const fnn_pool_fwd_args *a) {
    fwd_job job = {.a = a, .h = POOL_AXIS_H(a), .w = POOL_AXIS_W(a), .rows = a->n * a->oh};
    int64_t bytes = (a->n * a->c * (a->ih * a->iw + a->oh * a->ow)) * (int64_t)sizeof(T);
    job.rows_per_task = pool_rows_per_task(job.rows, bytes);
    int64_t tasks = (job.rows + job.rows_per_task - 1) / job.rows_per_task;
    double ns = fnn_moving_ns((double)bytes);
    int64_t area = a->adaptive ? 4 : a->kh * a->kw; /* cells that a window reads */
    fnn_parallel(tasks, ns * (area > 4 ? (double)area / 3 : 1.2), fwd_task, &job);
    return FNN_OK;
}
