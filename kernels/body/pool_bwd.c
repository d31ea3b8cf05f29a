/* Pooling backward: each input row gathers from the windows that cover it, so that overlapping
 * windows need no atomics, the order of sums is fixed and every element of dx is written once. */
#define FNN_DEF "def/pool.def"
#include "args.h"

#include "../pool.h"
#include "../threads.h"

typedef struct {
    const fnn_pool_bwd_args *a;
    pool_axis h, w;
    int64_t rows, rows_per_task; /* input rows of the whole batch */
    int disjoint;                /* no two windows share a cell, cells of a window are neighbours */
    int quarters;                /* windows of 2x2 side by side, all inside */
    int corners;                 /* windows of 3x3 two cells apart: neighbours share an edge */
} bwd_job;

/* One row of dx; offsets into dy, idx and saved count from the sample's first output. */
typedef struct {
    const T *dy, *saved, *dy_end; /* dy_end: of the whole batch */
    const int32_t *idx;
    T *dx, *dx_end; /* dx_end: of the task */
    int64_t iy;
    pool_range oy;
} bwd_row;

FNN_INLINE V load_grad(const bwd_row *row, int64_t at, int64_t lanes) {
    V g = pool_load(row->dy + at, lanes);
    if (row->saved) g = v_select(pool_load(row->saved + at, lanes) > 0, g, (V){0});
    return g;
}

/* Lanes for a pixel of dx at ix and outputs up to the offset `out`: VL, or c near the ends. */
FNN_INLINE int64_t fitting_lanes(const bwd_row *row, int64_t c, int64_t ix, int64_t out) {
    const T *dx = row->dx + ix * c, *dy = row->dy + out;
    return c >= VL || (row->dx_end - dx >= VL && row->dy_end - dy >= VL) ? VL : c;
}

/* What window o of an average has of cells along one axis if it holds cell i, else 0. */
FNN_INLINE int64_t average_cells(const pool_axis *a, int64_t o, int64_t i, int include_pad) {
    if (!a->adaptive && a->dilation > 1 && (i - pool_start(a, o)) % a->dilation) return 0;
    return pool_divisor(a, o, pool_window(a, o).count, include_pad);
}

/* Max and min: a pixel's sum over the windows that chose it, held in registers. */
FNN_INLINE void gather_row(const bwd_job *job, const bwd_row *row) {
    const int64_t c = job->a->c, ow = job->a->ow, last = c > VL ? c - VL : 0;
    pool_range ox = {0, -1};
    for (int64_t ix = 0; ix < job->a->iw; ix++) {
        ox = pool_advance(&job->w, ox, ix);
        int64_t lanes = fitting_lanes(row, c, ix, (row->oy.hi * ow + ox.hi) * c);
        VI here = pool_position(row->iy * job->a->iw + ix);
        for (int64_t ch = 0; ch < c; ch += VL) {
            int64_t from = least(ch, last);
            V sum = {0};
            for (int64_t oy = row->oy.lo; oy <= row->oy.hi; oy++) {
                for (int64_t o = ox.lo; o <= ox.hi; o++) {
                    int64_t at = (oy * ow + o) * c + from;
                    VI chosen = pool_load_idx(row->idx + at, lanes) == here;
                    sum += v_select(chosen, load_grad(row, at, lanes), (V){0});
                }
            }
            pool_store(row->dx + ix * c + from, sum, lanes);
        }
    }
}

/* A window's gradient and choice. */
typedef struct {
    V g;
    VI idx;
} chosen;

FNN_INLINE V add_chosen(V sum, const chosen *w, VI here) {
    return sum + v_select(w->idx == here, w->g, (V){0});
}

/* The usual case of gather_row, `rows` rows of windows over this row: every second cell along it
 * belongs to two windows, of which the left one is still in registers. A pixel has whole vectors.
 */
FNN_INLINE void gather_corners(const bwd_job *job, const bwd_row *row, int rows) {
    const int64_t c = job->a->c, iw = job->a->iw, ow = job->a->ow, pad = job->w.pad;
    for (int64_t ch = 0; ch < c; ch += VL) {
        const int64_t from = least(ch, c - VL);
        chosen left[2] = {{{0}, pool_position(-1)}, {{0}, pool_position(-1)}};
        VI here = pool_position(row->iy * iw - pad);
        T *dx = row->dx + from - pad * c;
        for (int64_t o = 0; 2 * o - pad < iw; o++, here += 2, dx += 2 * c) {
            V shared = {0}, own = {0};
#pragma GCC unroll 2
            for (int r = 0; r < rows; r++) {
                int64_t at = ((row->oy.lo + r) * ow + o) * c + from;
                chosen w = {{0}, pool_position(-1)};
                if (o < ow) w = (chosen){load_grad(row, at, VL), pool_load_idx(row->idx + at, VL)};
                shared = add_chosen(add_chosen(shared, &left[r], here), &w, here);
                own = add_chosen(own, &w, here + 1);
                left[r] = w;
            }
            if (2 * o >= pad) v_store(dx, shared);
            if (2 * o + 1 - pad < iw) v_store(dx + c, own);
        }
    }
}

/* Average: window by window, so that its weight is worked out once for all channels. */
FNN_INLINE void gather_average_row(const bwd_job *job, const bwd_row *row) {
    const int64_t c = job->a->c, ow = job->a->ow;
    const int include_pad = (int)job->a->count_include_pad;
    pool_range ox = {0, -1};
    memset(row->dx, 0, (size_t)(job->a->iw * c) * sizeof(T));
    for (int64_t ix = 0; ix < job->a->iw; ix++) {
        ox = pool_advance(&job->w, ox, ix);
        T *dx = row->dx + ix * c;
        for (int64_t oy = row->oy.lo; oy <= row->oy.hi; oy++) {
            for (int64_t o = ox.lo; o <= ox.hi; o++) {
                int64_t cells = average_cells(&job->h, oy, row->iy, include_pad) *
                                average_cells(&job->w, o, ix, include_pad);
                if (cells == 0) continue;
                T weight = 1 / (T)cells;
                for (int64_t ch = 0; ch < c; ch += VL) {
                    int64_t lanes = least(VL, c - ch);
                    V g = load_grad(row, (oy * ow + o) * c + ch, lanes);
                    pool_store(dx + ch, pool_load(dx + ch, lanes) + g * v_set1(weight), lanes);
                }
            }
        }
    }
}

FNN_INLINE void zero_pixels(const bwd_row *row, int64_t c, int64_t from, int64_t to) {
    if (from < to) memset(row->dx + from * c, 0, (size_t)((to - from) * c) * sizeof(T));
}

/* Windows side by side: each output is read once and writes its cells of this row. */
FNN_INLINE void spread_row(const bwd_job *job, const bwd_row *row, int average) {
    const int64_t c = job->a->c, iw = job->a->iw, ow = job->a->ow, last = c > VL ? c - VL : 0;
    const int include_pad = (int)job->a->count_include_pad;
    const int64_t height = average ? average_cells(&job->h, row->oy.lo, row->iy, include_pad) : 0;
    int64_t done = 0; /* pixels of dx */
    for (int64_t ox = 0; ox < ow && row->oy.lo <= row->oy.hi; ox++) {
        pool_cells u = pool_window(&job->w, ox);
        if (u.count == 0) continue;
        zero_pixels(row, c, done, u.first);
        done = u.first + u.count;
        int64_t out = (row->oy.lo * ow + ox) * c;
        int64_t lanes = fitting_lanes(row, c, done - 1, out);
        T weight = 1;
        if (average) weight /= (T)(height * pool_divisor(&job->w, ox, u.count, include_pad));
        for (int64_t ch = 0; ch < c; ch += VL) {
            int64_t from = least(ch, last);
            V g = load_grad(row, out + from, lanes);
            T *dx = row->dx + u.first * c + from;
            if (average) {
                g *= v_set1(weight);
                for (int64_t q = 0; q < u.count; q++) pool_store(dx + q * c, g, lanes);
            } else {
                VI idx = pool_load_idx(row->idx + out + from, lanes);
                VI here = pool_position(row->iy * iw + u.first);
                for (int64_t q = 0; q < u.count; q++, here += 1)
                    pool_store(dx + q * c, v_select(idx == here, g, (V){0}), lanes);
            }
        }
    }
    zero_pixels(row, c, done, iw);
}

/* What cell `here` gets of the window at the offset `at`, a quarter of an average. */
FNN_INLINE V quarter(const bwd_row *row, int64_t at, int64_t lanes, int average, VI here) {
    V g = load_grad(row, at, lanes);
    if (average) return g * v_set1((T)0.25);
    return v_select(pool_load_idx(row->idx + at, lanes) == here, g, (V){0});
}

/* The usual case of spread_row, where everything about the windows is a constant. Of more than a
 * vector, one pixel after the other: stores that jump to and fro are slow where they cross cache
 * lines. Pixels of less than a vector spill into the next ones, which are written later. */
FNN_INLINE void spread_quarters(const bwd_job *job, const bwd_row *row, int average) {
    const int64_t c = job->a->c, iw = job->a->iw, ow = job->a->ow;
    int64_t out = row->oy.lo * ow * c;
    VI here = pool_position(row->iy * iw);
    T *dx = row->dx;
    for (int64_t ox = 0; ox < ow; ox++, out += c) {
        if (c <= VL) {
            const int64_t lanes = fitting_lanes(row, c, 2 * ox + 1, out);
            V left = quarter(row, out, lanes, average, here);
            V right = quarter(row, out, lanes, average, here + 1);
            pool_store(dx, left, lanes);
            pool_store(dx + c, right, lanes);
            dx += 2 * c, here += 2;
            continue;
        }
        for (int q = 0; q < 2; q++, dx += c, here += 1)
            for (int64_t ch = 0; ch < c; ch += VL) {
                int64_t from = least(ch, c - VL);
                v_store(dx + from, quarter(row, out + from, VL, average, here));
            }
    }
    zero_pixels(row, c, 2 * ow, iw);
}

FNN_INLINE void bwd_rows(const bwd_job *shared, int64_t from, int64_t to, int average) {
    const fnn_pool_bwd_args args = *shared->a, *a = &args; /* no store to dx may change them */
    bwd_job own = *shared;
    const bwd_job *job = &own;
    own.a = a;
    const int64_t out_image = a->oh * a->ow * a->c;
    int64_t sample = from / a->ih, iy = from % a->ih;
    pool_range oy = pool_covering(&job->h, iy);
    bwd_row row = {.dy_end = (const T *)a->dy + a->n * out_image,
                   .dx_end = (T *)a->dx + to * a->iw * a->c};
    for (int64_t r = from; r < to; r++) {
        row.dy = (const T *)a->dy + sample * out_image;
        row.saved = a->saved ? (const T *)a->saved + sample * out_image : NULL;
        row.idx = average ? NULL : (const int32_t *)a->idx + sample * out_image;
        row.dx = (T *)a->dx + r * a->iw * a->c;
        row.iy = iy;
        oy = pool_advance(&job->h, oy, iy);
        const int again = r > from && iy > 0 && oy.lo == row.oy.lo && oy.hi == row.oy.hi;
        row.oy = oy;
        if (average && job->disjoint && again) /* all rows of a window are the same */
            memcpy(row.dx, row.dx - a->iw * a->c, (size_t)(a->iw * a->c) * sizeof(T));
        else if (job->quarters && row.oy.lo <= row.oy.hi)
            spread_quarters(job, &row, average);
        else if (job->disjoint)
            spread_row(job, &row, average);
        else if (average)
            gather_average_row(job, &row);
        else if (job->corners && row.oy.hi == row.oy.lo)
            gather_corners(job, &row, 1);
        else if (job->corners && row.oy.hi == row.oy.lo + 1)
            gather_corners(job, &row, 2);
        else
            gather_row(job, &row);
        if (++iy == a->ih) iy = 0, sample++, oy = (pool_range){0, -1};
    }
}

static void bwd_task(void *ctx, int64_t task) {
    const bwd_job *job = ctx;
    int64_t from = task * job->rows_per_task;
    int64_t to = least(from + job->rows_per_task, job->rows);
    if (job->a->mode == FNN_POOL_AVG)
        bwd_rows(job, from, to, 1);
    else
        bwd_rows(job, from, to, 0);
}

static int is_disjoint(const pool_axis *a) {
    if (a->adaptive) return a->in % a->out == 0;
    return a->stride >= a->kernel && a->dilation == 1;
}

static int is_halved(const pool_axis *a) {
    return !a->adaptive && a->kernel == 2 && a->stride == 2 && a->pad == 0 && a->dilation == 1 &&
           2 * a->out <= a->in;
}

static int is_overlapped(const pool_axis *a) {
    return !a->adaptive && a->kernel == 3 && a->stride == 2 && a->pad <= 1 && a->dilation == 1;
}

int FNN_SYM(pool_bwd)(const fnn_pool_bwd_args *a) {
    bwd_job job = {.a = a, .h = POOL_AXIS_H(a), .w = POOL_AXIS_W(a), .rows = a->n * a->ih};
    job.disjoint = is_disjoint(&job.h) && is_disjoint(&job.w);
    job.quarters = is_halved(&job.h) && is_halved(&job.w);
    job.corners = is_overlapped(&job.h) && is_overlapped(&job.w) && a->c >= VL;
    int64_t bytes = (a->n * a->c * (a->ih * a->iw + 2 * a->oh * a->ow)) * (int64_t)sizeof(T);
    job.rows_per_task = pool_rows_per_task(job.rows, bytes);
    int64_t tasks = (job.rows + job.rows_per_task - 1) / job.rows_per_task;
    double ns = fnn_moving_ns((double)bytes) * (job.quarters || job.corners ? 1.5
                                                : job.disjoint              ? 3
                                                                            : 8);
    fnn_parallel(tasks, ns, bwd_task, &job);
    return FNN_OK;
}
