/* Images resized by linear interpolation along rows and columns, channels-last, and the gradient.
 *
 * Output row i is (1 - t) * input row low[i] + t * input row high[i] with t = part[i]; columns
 * likewise. Nearest neighbours are the case of parts that are all 0.
 */
#define FNN_DEF "def/upsample.def"
#include "args.h"

#include "lanes.h"
#include "threads.h"

enum { TASK_ELEMENTS = 16384, STRIP = 64 };

typedef struct {
    const fnn_upsample_fwd_args *a; /* backward: x is dy, y is dx */
    int64_t rows, row_tasks, strips;
} resize_job;

typedef struct {
    int64_t low, high;
    T part;
} tap;

FNN_INLINE tap tap_at(const void *low, const void *high, const void *part, int64_t i) {
    return (tap){((const int64_t *)low)[i], ((const int64_t *)high)[i], ((const T *)part)[i]};
}

/* A pixel without neighbours is copied: 0 * infinity would be NaN. */
static void resize_row(const fnn_upsample_fwd_args *a, int64_t image, int64_t i) {
    const int64_t c = a->c;
    tap r = tap_at(a->row_low, a->row_high, a->row_part, i);
    const T *top = (const T *)a->x + (image * a->ih + r.low) * a->iw * c;
    const T *bottom = (const T *)a->x + (image * a->ih + r.high) * a->iw * c;
    T *y = (T *)a->y + (image * a->oh + i) * a->ow * c;
    for (int64_t j = 0; j < a->ow; j++, y += c) {
        tap s = tap_at(a->col_low, a->col_high, a->col_part, j);
        if (r.part == 0 && s.part == 0) {
            memcpy(y, top + s.low * c, (size_t)c * sizeof(T));
            continue;
        }
        V down = v_set1(r.part), up = v_set1(1 - r.part), right = v_set1(s.part);
        V left = v_set1(1 - s.part);
        for (int64_t k = 0; k < c; k += VL) {
            int64_t lanes = c - k, low = s.low * c + k, high = s.high * c + k;
            V above = load_lanes(top + low, lanes), below = load_lanes(bottom + low, lanes);
            if (s.part != 0) {
                above = left * above + right * load_lanes(top + high, lanes);
                below = left * below + right * load_lanes(bottom + high, lanes);
            }
            store_lanes(y + k, r.part == 0 ? above : up * above + down * below, lanes);
        }
    }
}

static void forward_task(void *ctx, int64_t task) {
    const resize_job *job = ctx;
    int64_t image = task / job->row_tasks, from = task % job->row_tasks * job->rows;
    int64_t to = from + job->rows < job->a->oh ? from + job->rows : job->a->oh;
    for (int64_t i = from; i < to; i++) resize_row(job->a, image, i);
}

int FNN_SYM(upsample_fwd)(const fnn_upsample_fwd_args *a) {
    resize_job job = {.a = a, .rows = TASK_ELEMENTS / (a->ow * a->c + 1) + 1};
    job.row_tasks = (a->oh + job.rows - 1) / job.rows;
    fnn_parallel(a->n * job.row_tasks, 0.3 * (double)(a->n * a->oh * a->ow * a->c), forward_task,
                 &job);
    return FNN_OK;
}

/* --- the gradient: an image's strip of channels is one task ---------------------------------- */

FNN_INLINE void add(T *p, V v, int64_t lanes) { store_lanes(p, load_lanes(p, lanes) + v, lanes); }

static void spread_pixel(T *top, T *bottom, const T *dy, tap r, tap s, int64_t c,
                         int64_t channels) {
    V down = v_set1(r.part), up = v_set1(1 - r.part), right = v_set1(s.part);
    V left = v_set1(1 - s.part);
    for (int64_t k = 0; k < channels; k += VL) {
        int64_t lanes = channels - k, low = s.low * c + k, high = s.high * c + k;
        V g = load_lanes(dy + k, lanes);
        add(top + low, up * left * g, lanes);
        if (s.part != 0) add(top + high, up * right * g, lanes);
        if (r.part == 0) continue;
        add(bottom + low, down * left * g, lanes);
        if (s.part != 0) add(bottom + high, down * right * g, lanes);
    }
}

static void backward_task(void *ctx, int64_t task) {
    const resize_job *job = ctx;
    const fnn_upsample_fwd_args *a = job->a;
    const int64_t c = a->c, image = task / job->strips, first = task % job->strips * STRIP;
    const int64_t channels = c - first < STRIP ? c - first : STRIP;
    T *dx = (T *)a->y + image * a->ih * a->iw * c + first;
    const T *dy = (const T *)a->x + image * a->oh * a->ow * c + first;
    for (int64_t pixel = 0; pixel < a->ih * a->iw; pixel++)
        memset(dx + pixel * c, 0, (size_t)channels * sizeof(T));
    for (int64_t i = 0; i < a->oh; i++) {
        tap r = tap_at(a->row_low, a->row_high, a->row_part, i);
        for (int64_t j = 0; j < a->ow; j++, dy += c)
            spread_pixel(dx + r.low * a->iw * c, dx + r.high * a->iw * c, dy, r,
                         tap_at(a->col_low, a->col_high, a->col_part, j), c, channels);
    }
}

int FNN_SYM(upsample_bwd)(const fnn_upsample_bwd_args *a) {
    resize_job job = {.a = (const fnn_upsample_fwd_args *)a, .strips = (a->c + STRIP - 1) / STRIP};
    fnn_parallel(a->n * job.strips, 0.6 * (double)(a->n * a->oh * a->ow * a->c), backward_task,
                 &job);
    return FNN_OK;
}
