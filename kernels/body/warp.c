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

/* Sources of a block of a turned row's pixels, found in a loop of vectors. */
typedef struct {
    int32_t row[ROW_BLOCK], column[ROW_BLOCK]; /* of the corner above and to the left */
    int32_t at[ROW_BLOCK];                     /* its place where all four are inside, else 0 */
    int32_t outside[ROW_BLOCK];
    T down[ROW_BLOCK], right[ROW_BLOCK]; /* shares of the corners below and to the right */
} corners;

static int32_t find_corners(const fnn_warp_args *a, const warp_sample *s, int64_t row, int64_t q0,
                            int32_t n, corners *f) {
    double top = (double)(a->ih - 1) / 2, left = (double)(a->iw - 1) / 2;
    double dy = (double)(row + s->row) - top;
    double first = s->flip_h ? (double)(a->ow - 1 - q0) : (double)q0;
    T y0 = (T)(top + s->cosine * dy), x0 = (T)(left + s->sine * dy);
    T cosine = (T)s->cosine, sine = (T)s->sine, step = s->flip_h ? -1 : 1;
    T dx0 = (T)(first + (double)s->column - left);
    int32_t h = (int32_t)a->ih, w = (int32_t)a->iw, outside = 0;
    for (int32_t i = 0; i < n; i++) {
        T dx = dx0 + step * (T)i;
        T y = y0 - sine * dx, x = x0 + cosine * dx;
        int32_t r = (int32_t)y, l = (int32_t)x;
        r -= y < (T)r, l -= x < (T)l;
        int inside = (r >= 0) & (r + 1 < h) & (l >= 0) & (l + 1 < w);
        f->row[i] = r, f->column[i] = l, f->outside[i] = !inside;
        f->at[i] = inside ? r * w + l : 0;
        f->down[i] = y - (T)r, f->right[i] = x - (T)l;
        outside += !inside;
    }
    return outside;
}

FNN_INLINE T between(T a, T b, T c, T d, T down, T right) {
    T upper = a * (1 - right) + b * right, lower = c * (1 - right) + d * right;
    return upper * (1 - down) + lower * down;
}

FNN_INLINE void inner_pixels(const corners *f, const T *in, T *out, int32_t n, int64_t line,
                             int64_t c) {
    for (int32_t i = 0; i < n; i++)
        for (int64_t k = 0; k < c; k++) {
            const T *p = in + f->at[i] * c + k, *q = p + line;
            out[i * c + k] = between(p[0], p[c], q[0], q[c], f->down[i], f->right[i]);
        }
}

static void outer_pixel(const fnn_warp_args *a, const corners *f, int32_t i, const T *in, T *out) {
    int64_t r = f->row[i], l = f->column[i];
    int none = a->border == BORDER_CONSTANT && (r < -1 || r >= a->ih || l < -1 || l >= a->iw);
    for (int64_t k = 0; k < a->c; k++) {
        if (none) {
            out[k] = (T)a->fill;
            continue;
        }
        T corner[4];
        for (int e = 0; e < 4; e++) corner[e] = pixel_or_fill(a, in, r + e / 2, l + e % 2, k);
        out[k] = between(corner[0], corner[1], corner[2], corner[3], f->down[i], f->right[i]);
    }
}

static void bilinear_row(const fnn_warp_args *a, const warp_sample *s, const T *in, T *out,
                         int64_t row) {
    corners f;
    int64_t c = a->c, line = a->iw * c;
    for (int64_t q0 = 0; q0 < a->ow; q0 += ROW_BLOCK) {
        int32_t n = (int32_t)(a->ow - q0 < ROW_BLOCK ? a->ow - q0 : ROW_BLOCK);
        int32_t outside = find_corners(a, s, row, q0, n, &f);
        T *pixels = out + q0 * c;
        if (outside < n) {
            if (c == 1)
                inner_pixels(&f, in, pixels, n, line, 1);
            else
                inner_pixels(&f, in, pixels, n, line, c);
        }
        for (int32_t i = 0; i < n && outside; i++)
            if (f.outside[i]) outer_pixel(a, &f, i, in, pixels + i * c), outside--;
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
