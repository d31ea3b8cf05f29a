/* Pooling forward: each output row is made from the input rows of its windows. */
#include "../pool.h"
#include "../threads.h"

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
} window;

/* The window's largest (or smallest) element and where it is. PyTorch's choice: the first of
 * equals, but the last of several NaN. rows and cols are the window's, constants where the caller
 * knows. */
FNN_INLINE V window_extreme(const window *win, const T *x, int64_t lanes, int64_t rows,
                            int64_t cols, int min, int with_idx, VI *where) {
    V best = pool_load(x, lanes);
    VI at = pool_position(win->position);
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t q = r == 0; q < cols; q++) {
            V v = pool_load(x + r * win->row_step + q * win->col_step, lanes);
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

FNN_INLINE V window_value(const window *win, const T *x, int64_t lanes, int mode, int with_idx,
                          VI *where) {
    int two_by_two = win->rows == 2 && win->cols == 2;
    if (mode == FNN_POOL_AVG)
        return two_by_two ? window_average(win, x, lanes, 2, 2)
                          : window_average(win, x, lanes, win->rows, win->cols);
    int min = mode == FNN_POOL_MIN;
    return two_by_two ? window_extreme(win, x, lanes, 2, 2, min, with_idx, where)
                      : window_extreme(win, x, lanes, win->rows, win->cols, min, with_idx, where);
}

/* The value of a window that lies wholly in the padding: PyTorch's start of the search, index -1.
 */
FNN_INLINE T empty_value(int mode) {
    if (mode == FNN_POOL_AVG) return 0;
    return mode == FNN_POOL_MIN ? (T)__builtin_inf() : -(T)__builtin_inf();
}

/* One output pixel at y (and idx): `lanes` = VL, or c where a whole vector would not fit. */
FNN_INLINE void pool_pixel(const window *win, T *y, int32_t *idx, int64_t c, int64_t lanes,
                           int mode, int with_idx, int relu) {
    int64_t last = c > VL ? c - VL : 0;
    for (int64_t ch = 0; ch < c; ch += VL) {
        int64_t from = pool_min(ch, last);
        VI where = pool_position(-1);
        V v = win->rows * win->cols > 0
                  ? window_value(win, win->x + from, lanes, mode, with_idx, &where)
                  : v_set1(empty_value(mode));
        pool_store(y + from, relu ? v_relu(v) : v, lanes);
        if (with_idx) pool_store_idx(idx + from, where, lanes);
    }
}

/* Output rows from..to of the batch. */
FNN_INLINE void pool_rows(const fwd_job *job, int64_t from, int64_t to, int mode, int with_idx) {
    const fnn_pool_fwd_args *a = job->a;
    const int64_t c = a->c, iw = a->iw, ow = a->ow, image = a->ih * iw * c;
    const T *x_end = (const T *)a->x + a->n * image;
    const T *y_end = (T *)a->y + to * ow * c;
    int64_t sample = from / a->oh, oy = from % a->oh;
    for (int64_t row = from; row < to; row++) {
        pool_cells v = pool_window(&job->h, oy);
        int64_t height = pool_divisor(&job->h, oy, v.count, (int)a->count_include_pad);
        const T *x = (const T *)a->x + sample * image;
        T *y = (T *)a->y + row * ow * c;
        int32_t *idx = with_idx ? (int32_t *)a->idx + row * ow * c : NULL;
        window win = {.rows = v.count, .row_step = v.step * iw * c, .row_jump = v.step * iw};
        for (int64_t ox = 0; ox < ow; ox++, y += c) {
            pool_cells u = pool_window(&job->w, ox);
            win.position = v.first * iw + u.first;
            win.x = x + win.position * c;
            win.cols = u.count, win.col_step = u.step * c, win.col_jump = u.step;
            if (mode == FNN_POOL_AVG)
                win.divisor =
                    (T)(height * pool_divisor(&job->w, ox, u.count, (int)a->count_include_pad));
            int64_t reach = (v.count - 1) * win.row_step + (u.count - 1) * win.col_step + VL;
            int fits = c >= VL || (y_end - y >= VL && x_end - win.x >= reach);
            pool_pixel(&win, y, idx, c, fits ? VL : c, mode, with_idx, a->act == FNN_ACT_RELU);
            if (with_idx) idx += c;
        }
        if (++oy == a->oh) oy = 0, sample++;
    }
}

static void fwd_task(void *ctx, int64_t task) {
    const fwd_job *job = ctx;
    int64_t from = task * job->rows_per_task;
    int64_t to = pool_min(from + job->rows_per_task, job->rows);
    switch (job->a->mode) {
    case FNN_POOL_AVG:
        pool_rows(job, from, to, FNN_POOL_AVG, 0);
        break;
    case FNN_POOL_MIN:
        if (job->a->idx)
            pool_rows(job, from, to, FNN_POOL_MIN, 1);
        else
            pool_rows(job, from, to, FNN_POOL_MIN, 0);
        break;
    default:
        if (job->a->idx)
            pool_rows(job, from, to, FNN_POOL_MAX, 1);
        else
            pool_rows(job, from, to, FNN_POOL_MAX, 0);
    }
}

int FNN_SYM(pool_fwd)(const fnn_pool_fwd_args *a) {
    fwd_job job = {.a = a, .h = POOL_AXIS_H(a), .w = POOL_AXIS_W(a), .rows = a->n * a->oh};
    int64_t bytes = (a->n * a->c * (a->ih * a->iw + a->oh * a->ow)) * (int64_t)sizeof(T);
    job.rows_per_task = pool_rows_per_task(job.rows, bytes);
    int64_t tasks = (job.rows + job.rows_per_task - 1) / job.rows_per_task;
    fnn_parallel(tasks, 0.1 * (double)bytes, fwd_task, &job);
    return FNN_OK;
}
