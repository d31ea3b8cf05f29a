/* Flips, crops, shifts and rotations of images as one gather: each output pixel reads where the
 * inverse transform takes it.
 *
 * With o = (offset row, offset column) drawn in its ranges, R the rotation by the drawn angle and m
 * the input's middle: source = R^-1 (pixel + o - m) + m; a flip counts the output's rows or columns
 * from the other end first.
 */
#define FNN_DEF "def/augment.def"
#include "args.h"

#include "../augment.h"

enum { BORDER_CONSTANT, BORDER_EDGE, BORDER_REFLECT };
enum { FLIP_H, FLIP_V, ROW, COLUMN, ANGLE }; /* draws */
enum { ROW_BLOCK = 256 };                    /* pixels whose sources are found at a time */

typedef struct {
    const fnn_warp_args *args;
    philox_stream stream;
} warp_job;

typedef struct {
    int flip_h, flip_v;
    int64_t row, column;
    double sine, cosine; /* of the angle; 0 and 1 exactly without rotation */
} warp_sample;

/* Where row or column i of n is read, -1 for the fill value. */
FNN_INLINE int64_t folded(int64_t i, int64_t n, int64_t border) {
    if ((uint64_t)i < (uint64_t)n) return i;
    if (border == BORDER_CONSTANT) return -1;
    if (border == BORDER_EDGE || n == 1) return i < 0 ? 0 : n - 1;
    int64_t period = 2 * (n - 1), r = i % period;
    if (r < 0) r += period;
    return r < n ? r : period - r;
}

FNN_INLINE T pixel_or_fill(const fnn_warp_args *a, const T *in, int64_t row, int64_t column,
                           int64_t k) {
    row = folded(row, a->ih, a->border), column = folded(column, a->iw, a->border);
    return row < 0 || column < 0 ? (T)a->fill : in[(row * a->iw + column) * a->c + k];
}

/* One row of the output where nothing is turned: a run of one input row between two borders. */
static void shifted_row(const fnn_warp_args *a, const warp_sample *s, const T *in, T *out,
                        int64_t row) {
    int64_t c = a->c, from = -s->column, to = a->iw - s->column;
    if (from < 0) from = 0;
    if (to > a->ow) to = a->ow;
    int64_t source = folded(row + s->row, a->ih, a->border);
    if (source < 0 || to < from) from = to = a->ow; /* no part of the row is inside */
    const T *line = in + (source * a->iw + s->column) * c;
    for (int64_t q = 0; q < a->ow; q++) {
        if (q == from && to > from) q = to;
        if (q == a->ow) break;
        T *pixel = out + (s->flip_h ? a->ow - 1 - q : q) * c;
        for (int64_t k = 0; k < c; k++)
            pixel[k] = pixel_or_fill(a, in, row + s->row, q + s->column, k);
    }
    if (!s->flip_h) {
        memcpy(out + from * c, line + from * c, (size_t)((to - from) * c) * sizeof(T));
    } else if (c == 1) {
        for (int64_t q = from; q < to; q++) out[a->ow - 1 - q] = line[q];
    } else {
        for (int64_t q = from; q < to; q++)
            for (int64_t k = 0; k < c; k++) out[(a->ow - 1 - q) * c + k] = line[q * c + k];
    }
}

/* The nearest pixels of a turned row: their places first, in a loop of vectors, then the gather. */
static void nearest_row(const fnn_warp_args *a, const warp_sample *s, const T *in, T *out,
                        int64_t row) {
    int32_t at[ROW_BLOCK];
    double top = (double)(a->ih - 1) / 2, left = (double)(a->iw - 1) / 2;
    double dy = (double)(row + s->row) - top;
    float y0 = (float)(top + s->cosine * dy), x0 = (float)(left + s->sine * dy);
    float cosine = (float)s->cosine, sine = (float)s->sine;
    float dx0 = (float)((double)s->column - left), h = (float)a->ih, w = (float)a->iw;
    int32_t width = (int32_t)a->iw;
    for (int64_t q0 = 0; q0 < a->ow; q0 += ROW_BLOCK) {
        int32_t n = (int32_t)(a->ow - q0 < ROW_BLOCK ? a->ow - q0 : ROW_BLOCK);
        for (int32_t i = 0; i < n; i++) {
            float dx = (float)((int32_t)q0 + i) + dx0;
            float y = y0 - sine * dx + 0.5f, x = x0 + cosine * dx + 0.5f;
            int inside = (y >= 0) & (y < h) & (x >= 0) & (x < w);
            at[i] = inside ? (int32_t)y * width + (int32_t)x : -1;
        }
        for (int32_t i = 0; i < n; i++) {
            int64_t q = q0 + i;
            T *pixel = out + (s->flip_h ? a->ow - 1 - q : q) * a->c;
            for (int64_t k = 0; k < a->c; k++)
                pixel[k] = at[i] < 0 ? (T)a->fill : in[(int64_t)at[i] * a->c + k];
        }
    }
}

static void bilinear_row(const fnn_warp_args *a, const warp_sample *s, const T *in, T *out,
                         int64_t row) {
    double top = (double)(a->ih - 1) / 2, left = (double)(a->iw - 1) / 2;
    double dy = (double)(row + s->row) - top;
    for (int64_t q = 0; q < a->ow; q++) {
        double dx = (double)(q + s->column) - left;
        double y = top + s->cosine * dy - s->sine * dx, x = left + s->sine * dy + s->cosine * dx;
        double y_floor = __builtin_floor(y), x_floor = __builtin_floor(x);
        int64_t r = (int64_t)y_floor, l = (int64_t)x_floor;
        T u = (T)(y - y_floor), v = (T)(x - x_floor);
        T *pixel = out + (s->flip_h ? a->ow - 1 - q : q) * a->c;
        int inside = r >= 0 && r + 1 < a->ih && l >= 0 && l + 1 < a->iw;
        const T *p = in + (inside ? (r * a->iw + l) * a->c : 0);
        int64_t line = a->iw * a->c;
        for (int64_t k = 0; k < a->c; k++) {
            T corner[4];
            if (inside) {
                corner[0] = p[k], corner[1] = p[k + a->c];
                corner[2] = p[k + line], corner[3] = p[k + line + a->c];
            } else {
                for (int i = 0; i < 4; i++)
                    corner[i] = pixel_or_fill(a, in, r + i / 2, l + i % 2, k);
            }
            T upper = corner[0] * (1 - v) + corner[1] * v;
            T lower = corner[2] * (1 - v) + corner[3] * v;
            pixel[k] = upper * (1 - u) + lower * u;
        }
    }
}

static warp_sample draw_warp(const warp_job *j, int64_t sample) {
    const fnn_warp_args *a = j->args;
    sample_draws d = draw_sample(&j->stream, sample);
    double angle = draw_real(&d, ANGLE, a->angle_lo, a->angle_hi);
    return (warp_sample){draw(&d, FLIP_H) < a->hflip,
                         draw(&d, FLIP_V) < a->vflip,
                         draw_int(&d, ROW, a->row_lo, a->row_hi),
                         draw_int(&d, COLUMN, a->column_lo, a->column_hi),
                         __builtin_sin(-angle), /* rows count downwards */
                         __builtin_cos(angle)};
}

static void warp_task(void *ctx, int64_t sample) {
    const warp_job *j = ctx;
    const fnn_warp_args *a = j->args;
    const T *in = (const T *)a->x + sample * a->ih * a->iw * a->c;
    T *y = (T *)a->y + sample * a->oh * a->ow * a->c;
    warp_sample s = draw_warp(j, sample);
    for (int64_t row = 0; row < a->oh; row++) {
        T *out = y + (s.flip_v ? a->oh - 1 - row : row) * a->ow * a->c;
        if (a->angle_lo == 0 && a->angle_hi == 0)
            shifted_row(a, &s, in, out, row);
        else if (a->bilinear)
            bilinear_row(a, &s, in, out, row);
        else
            nearest_row(a, &s, in, out, row);
    }
}

int FNN_SYM(warp)(const fnn_warp_args *a) {
    warp_job j = {a, philox_open(a->hyper, a->key)};
    int turned = a->angle_lo != 0 || a->angle_hi != 0;
    double each = turned ? a->bilinear ? 20 : 3 : 0.5;
    fnn_parallel(a->n, each * (double)(a->n * a->oh * a->ow * a->c), warp_task, &j);
    return FNN_OK;
}
