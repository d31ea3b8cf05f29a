/* im2col and col2im: the windows of each plane laid out side by side, and their sum back.
 *
 * A plane of the image belongs to one task, so that overlapping windows are added in one order.
 */
#define FNN_DEF "def/fold.def"
#include "args.h"

#include "threads.h"
#include "vec.h"

enum { TASK_ELEMENTS = 32768 };

typedef struct {
    const T *in;
    T *out;
    const fnn_im2col_args *g; /* col2im's arguments are the same */
    int64_t image, cols, planes_per_task;
    int back;
} fold_job;

/* Outputs from..to along one axis. */
typedef struct {
    int64_t from, to;
} span;

/* The outputs j with 0 <= j * stride + at < size. */
static span inside(int64_t at, int64_t stride, int64_t size, int64_t outputs) {
    int64_t from = at < 0 ? (-at + stride - 1) / stride : 0;
    int64_t to = least(size > at ? (size - at + stride - 1) / stride : 0, outputs);
    return (span){least(from, to), to};
}

/* Rows are short: a call of memset or memcpy for each would cost as much as its work; and for a
 * plane, memcpy takes a string instruction that is slow on AMD where addresses are not aligned. */
FNN_INLINE void zero(T *cols, int64_t from, int64_t to) {
    for (int64_t j = from; j < to; j += VL) v_store_upto(cols + j, (V){0}, to - j);
}
FNN_INLINE void copy(T *cols, const T *image, int64_t from, int64_t to) {
    int64_t j = from;
    for (; j + VL <= to; j += VL) v_store(cols + j, v_load(image + j));
    if (j < to) v_store_n(cols + j, v_load_n(image + j, to - j), to - j);
}

static void gather_row(const T *image, int64_t stride, T *cols, span at) {
    if (stride == 1)
        copy(cols, image, at.from, at.to);
    else
        for (int64_t j = at.from; j < at.to; j++) cols[j] = image[j * stride];
}

static void scatter_row(T *restrict image, int64_t stride, const T *restrict cols, span at) {
    if (stride == 1)
        for (int64_t j = at.from; j < at.to; j++) image[j] += cols[j];
    else
        for (int64_t j = at.from; j < at.to; j++) image[j * stride] += cols[j];
}

/* All outputs under one tap, of which `image` is the pixel under the first. Where they lie as their
 * pixels do, one copy writes all rows, and then the padding between them. */
static void gather_tap(const fnn_im2col_args *g, const T *image, T *cols, span rows, span columns) {
    const int64_t ow = g->ow, first = rows.from * ow + columns.from;
    const int same = ow == g->iw && g->stride_h == 1 && g->stride_w == 1;
    if (rows.from == rows.to || columns.from == columns.to) rows.from = rows.to = g->oh;
    memset(cols, 0, (size_t)(rows.from * ow) * sizeof(T));
    if (same && rows.from < rows.to) copy(cols, image, first, (rows.to - 1) * ow + columns.to);
    for (int64_t i = rows.from; i < rows.to; i++) {
        T *row = cols + i * ow;
        if (!same) gather_row(image + i * g->stride_h * g->iw, g->stride_w, row, columns);
        zero(row, 0, columns.from);
        zero(row, columns.to, ow);
    }
    memset(cols + rows.to * ow, 0, (size_t)((g->oh - rows.to) * ow) * sizeof(T));
}

/* Adds all outputs under one tap to their pixels. */
static void scatter_tap(const fnn_im2col_args *g, T *image, const T *cols, span rows,
                        span columns) {
    for (int64_t i = rows.from; i < rows.to; i++)
        scatter_row(image + i * g->stride_h * g->iw, g->stride_w, cols + i * g->ow, columns);
}

static void fold_tap(const fold_job *f, int64_t plane, int64_t r, int64_t s) {
    const fnn_im2col_args *g = f->g;
    int64_t row = r * g->dilation_h - g->pad_h, column = s * g->dilation_w - g->pad_w;
    int64_t at = plane * f->cols + (r * g->kw + s) * g->oh * g->ow;
    int64_t pixel = plane * f->image + row * g->iw + column;
    span rows = inside(row, g->stride_h, g->ih, g->oh);
    span columns = inside(column, g->stride_w, g->iw, g->ow);
    if (f->back)
        scatter_tap(g, f->out + pixel, f->in + at, rows, columns);
    else
        gather_tap(g, f->in + pixel, f->out + at, rows, columns);
}

static void fold_task(void *ctx, int64_t task) {
    const fold_job *f = ctx;
    const fnn_im2col_args *g = f->g;
    int64_t from = task * f->planes_per_task, to = from + f->planes_per_task;
    if (to > g->planes) to = g->planes;
    if (f->back) memset(f->out + from * f->image, 0, (size_t)((to - from) * f->image) * sizeof(T));
    for (int64_t plane = from; plane < to; plane++)
        for (int64_t r = 0; r < g->kh; r++)
            for (int64_t s = 0; s < g->kw; s++) fold_tap(f, plane, r, s);
}

static int fold(const fnn_im2col_args *g, int back) {
    fold_job f = {.in = g->x, .out = g->y, .g = g, .back = back, .image = g->ih * g->iw};
    f.cols = g->kh * g->kw * g->oh * g->ow;
    int64_t each = f.cols + f.image;
    f.planes_per_task = each < TASK_ELEMENTS ? TASK_ELEMENTS / (each + 1) : 1;
    if (f.planes_per_task < 1) f.planes_per_task = 1;
    fnn_parallel((g->planes + f.planes_per_task - 1) / f.planes_per_task,
                 0.3 * (double)(g->planes * each), fold_task, &f);
    return FNN_OK;
}

int FNN_SYM(im2col)(const fnn_im2col_args *args) { return fold(args, 0); }
int FNN_SYM(col2im)(const fnn_col2im_args *args) { return fold((const fnn_im2col_args *)args, 1); }
