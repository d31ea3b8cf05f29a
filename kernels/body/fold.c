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

/* The outputs j with 0 <= j * stride + at < size, as from..to. */
static void inside(int64_t at, int64_t stride, int64_t size, int64_t outputs, int64_t *from,
                   int64_t *to) {
    *from = at < 0 ? (-at + stride - 1) / stride : 0;
    *to = size > at ? (size - at + stride - 1) / stride : 0;
    if (*to > outputs) *to = outputs;
    if (*from > *to) *from = *to;
}

/* One row of one tap: `image` starts at the row's first pixel of the window, `cols` at output 0. */
static void gather_row(const T *image, int64_t stride, T *cols, int64_t from, int64_t to,
                       int64_t outputs) {
    for (int64_t j = 0; j < from; j++) cols[j] = 0;
    if (stride == 1 && to > from)
        memcpy(cols + from, image + from, (size_t)(to - from) * sizeof(T));
    else
        for (int64_t j = from; j < to; j++) cols[j] = image[j * stride];
    for (int64_t j = to; j < outputs; j++) cols[j] = 0;
}

static void scatter_row(T *restrict image, int64_t stride, const T *restrict cols, int64_t from,
                        int64_t to) {
    if (stride == 1)
        for (int64_t j = from; j < to; j++) image[j] += cols[j];
    else
        for (int64_t j = from; j < to; j++) image[j * stride] += cols[j];
}

/* Row i of every output under the tap (r, s) of a plane. */
static void fold_row(const fold_job *f, int64_t plane, int64_t r, int64_t s, int64_t i) {
    const fnn_im2col_args *g = f->g;
    int64_t row = i * g->stride_h - g->pad_h + r * g->dilation_h;
    int64_t column = s * g->dilation_w - g->pad_w, from, to;
    int64_t at = plane * f->cols + ((r * g->kw + s) * g->oh + i) * g->ow;
    int64_t pixel = plane * f->image + row * g->iw + column;
    inside(column, g->stride_w, g->iw, g->ow, &from, &to);
    if (row < 0 || row >= g->ih) from = to = 0;
    if (f->back)
        scatter_row(f->out + pixel, g->stride_w, f->in + at, from, to);
    else
        gather_row(f->in + pixel, g->stride_w, f->out + at, from, to, g->ow);
}

static void fold_task(void *ctx, int64_t task) {
    const fold_job *f = ctx;
    const fnn_im2col_args *g = f->g;
    int64_t from = task * f->planes_per_task, to = from + f->planes_per_task;
    if (to > g->planes) to = g->planes;
    if (f->back) memset(f->out + from * f->image, 0, (size_t)((to - from) * f->image) * sizeof(T));
    for (int64_t plane = from; plane < to; plane++)
        for (int64_t r = 0; r < g->kh; r++)
            for (int64_t s = 0; s < g->kw; s++)
                for (int64_t i = 0; i < g->oh; i++) fold_row(f, plane, r, s, i);
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
