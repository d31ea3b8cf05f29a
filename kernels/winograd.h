/* Winograd's convolution of 4x4 output tiles by 3x3 kernels, F(4x4, 3x3), and its transforms.
 *
 * A tile's 6x6 input pixels and the 3x3 weights are evaluated at six points each way; the products
 * at the 36 positions, summed over the channels, are 36 products of matrices; the output is read
 * off them (Lavin & Gray 2015, "Fast Algorithms for Convolutional Neural Networks"). The points are
 * 0, +-sqrt(1/2), +-sqrt(2) and infinity: with them float32 errs by about 1e-6 of the output's RMS
 * (rms; at most 1e-4 anywhere), a fifth of what the paper's 0, +-1, +-2 do.
 *
 * The same transforms make the weights' gradient, F(3x3, 4x4): the 4x4 pixels of dy stand for the
 * weights. An infinity or NaN in the input spreads over every tile that reads it.
 */
#ifndef FNN_WINOGRAD_H
#define FNN_WINOGRAD_H

#include "conv.h"
#include "fetch.h"
#include "scaled.h"

enum { WINOGRAD_TILE = 4, WINOGRAD_REACH = 6, WINOGRAD_POSITIONS = 36 };

#define SQRT_HALF ((T)0.70710678118654752440)
#define SQRT_TWO ((T)1.41421356237309504880)

/* One dimension into the six points, from `size` values: 6 pixels of the input, or 3 or 4 taps. */
FNN_INLINE void winograd_expand(const int size, const V d[6], V out[6]) {
    if (size == WINOGRAD_REACH) {
        V even = d[4] - 2 * d[2], odd = SQRT_HALF * (d[3] - 2 * d[1]);
        V even2 = d[4] - (T)0.5 * d[2], odd2 = SQRT_TWO * (d[3] - (T)0.5 * d[1]);
        out[0] = d[4] - (T)2.5 * d[2] + d[0];
        out[1] = even + odd;
        out[2] = even - odd;
        out[3] = even2 + odd2;
        out[4] = even2 - odd2;
        out[5] = d[5] - (T)2.5 * d[3] + d[1];
        return;
    }
    V even = (d[0] + (T)0.5 * d[2]) * (T)(-2.0 / 3), odd = d[1];
    V even2 = (d[0] + 2 * d[2]) * (T)(1.0 / 6), odd2 = d[1];
    if (size == 4) {
        odd += (T)0.5 * d[3];
        odd2 += 2 * d[3];
    }
    odd *= SQRT_HALF * (T)(-2.0 / 3);
    odd2 *= SQRT_TWO * (T)(1.0 / 6);
    out[0] = d[0];
    out[1] = even + odd;
    out[2] = even - odd;
    out[3] = even2 + odd2;
    out[4] = even2 - odd2;
    out[5] = d[size - 1];
}

/* One dimension back from the six points: `size` values, 4 pixels of the output or 3 taps. */
FNN_INLINE void winograd_reduce(const int size, const V m[6], V out[4]) {
    V sum = m[1] + m[2], difference = m[1] - m[2];
    V sum2 = m[3] + m[4], difference2 = m[3] - m[4];
    out[0] = m[0] + sum + sum2;
    out[1] = SQRT_HALF * (difference + 2 * difference2);
    out[2] = (T)0.5 * sum + 2 * sum2;
    if (size == 4)
        out[3] = SQRT_HALF * ((T)0.5 * difference + 4 * difference2) + m[5];
    else
        out[2] += m[5];
}

/* The images that a tile is read from: channels-last, of c channels, of which `channels` are read.
 * zeros stands for pixels outside; table (null ok): for the others the values it gives (scaled.h).
 */
typedef struct {
    int64_t c, channels;
    const T *zeros, *table;
} winograd_source;

/* A vector of channels of size x size pixels, transformed to out[position * step]; n of its lanes
 * exist (whole: all), the others become zero. */
FNN_INLINE void winograd_expand_tile(const int size, const int whole, const int scales,
                                     const winograd_source *source, const T *const *pixels,
                                     int64_t channel, int64_t n, T *out, int64_t step) {
    V rows[6][6], d[6], o[6];
    const T *zeros = source->zeros;
    scaling scaling = scaling_at(scales ? source->table : NULL, source->c, channel);
#pragma GCC unroll 6
    for (int r = 0; r < size; r++) {
#pragma GCC unroll 6
        for (int s = 0; s < size; s++) {
            const T *pixel = pixels[r * size + s], *from = pixel + channel;
            d[s] = whole ? v_load(from) : v_load_n(from, n);
            if (scales && pixel != zeros) d[s] = scaled(&scaling, d[s]);
        }
        winograd_expand(size, d, rows[r]);
    }
#pragma GCC unroll 6
    for (int s = 0; s < 6; s++) {
#pragma GCC unroll 6
        for (int r = 0; r < size; r++) d[r] = rows[r][s];
        winograd_expand(size, d, o);
#pragma GCC unroll 6
        for (int r = 0; r < 6; r++) v_store(out + (r * 6 + s) * step, o[r]);
    }
}

/* The 36 positions at in[position * step] back to size x size values. */
FNN_INLINE void winograd_reduce_tile(const int size, const T *in, int64_t step, V out[4][4]) {
    V columns[4][6], m[6], o[4];
#pragma GCC unroll 6
    for (int s = 0; s < 6; s++) {
#pragma GCC unroll 6
        for (int r = 0; r < 6; r++) m[r] = v_load(in + (r * 6 + s) * step);
        winograd_reduce(size, m, o);
#pragma GCC unroll 4
        for (int r = 0; r < size; r++) columns[r][s] = o[r];
    }
#pragma GCC unroll 4
    for (int r = 0; r < size; r++) winograd_reduce(size, columns[r], out[r]);
}

/* All channels of one tile. */
FNN_INLINE void winograd_expand_channels(const int size, const int scales,
                                         const winograd_source *source, const T *const *pixels,
                                         T *out, int64_t step) {
    int64_t i = 0, channels = source->channels;
    for (; i + VL <= channels; i += VL)
        winograd_expand_tile(size, 1, scales, source, pixels, i, VL, out + i, step);
    if (i < channels)
        winograd_expand_tile(size, 0, scales, source, pixels, i, channels - i, out + i, step);
}

/* --- where tiles lie -------------------------------------------------------------------------- */

/* The tiles of all samples' outputs, row by row. */
typedef struct {
    int64_t rows, cols; /* tiles of one sample */
} winograd_grid;

typedef struct {
    int64_t sample, y, x; /* the first output pixel */
} winograd_tile;

FNN_INLINE winograd_grid winograd_tiles(int64_t oh, int64_t ow) {
    return (winograd_grid){ceil_div(oh, WINOGRAD_TILE), ceil_div(ow, WINOGRAD_TILE)};
}
FNN_INLINE winograd_tile winograd_tile_at(winograd_grid grid, int64_t index) {
    int64_t sample = index / (grid.rows * grid.cols), in = index % (grid.rows * grid.cols);
    return (winograd_tile){sample, in / grid.cols * WINOGRAD_TILE, in % grid.cols * WINOGRAD_TILE};
}

/* Points at size x size pixels of a sample from (y, x) on; outside of the image at `zeros`. */
FNN_INLINE void winograd_window(const int size, const T **pixels, const T *images, int64_t sample,
                                int64_t h, int64_t w, int64_t c, int64_t y, int64_t x,
                                const T *zeros) {
    const T *first = images + ((sample * h + y) * w + x) * c;
    for (int r = 0; r < size; r++)
        for (int s = 0; s < size; s++) {
            int inside = y + r >= 0 && y + r < h && x + s >= 0 && x + s < w;
            pixels[r * size + s] = inside ? first + (r * w + s) * c : zeros;
        }
}

/* --- fetching ahead --------------------------------------------------------------------------- */

/* Pixels of some tiles, four to a row, which memory brings beside the arithmetic: some at each of a
 * number of calls, evenly, as a core has room for few misses of its own. */
typedef struct {
    int64_t first, rows_per_tile; /* tile */
    int64_t asked, pixels, at_once;
    const T *row[3]; /* of the images that have this row: where its four pixels begin */
    int64_t c, channels;
} winograd_coming;

FNN_INLINE winograd_coming winograd_expect(int64_t first, int64_t tiles, int64_t rows_per_tile,
                                           int64_t calls) {
    int64_t pixels = most(0, tiles) * rows_per_tile * WINOGRAD_TILE;
    return (winograd_coming){.first = first,
                             .rows_per_tile = rows_per_tile,
                             .pixels = pixels,
                             .at_once = ceil_div(pixels, calls)};
}

/* Where a row of an image begins at column x; null outside. */
FNN_INLINE const T *winograd_row(const T *image, int64_t sample, int64_t h, int64_t w, int64_t c,
                                 int64_t y, int64_t x) {
    return image && y >= 0 && y < h ? image + ((sample * h + y) * w + x) * c : NULL;
}

/* Asks for the next pixel; beside the image it does no harm. */
FNN_INLINE void winograd_fetch_pixel(winograd_coming *w) {
    int64_t pixel = w->asked++ % WINOGRAD_TILE;
    for (int i = 0; i < 3; i++)
        if (w->row[i]) fetch_run(w->row[i] + pixel * w->c, w->channels);
}

/* Whether the next pixel begins a row, which tile's and which one. */
FNN_INLINE int winograd_begins_row(const winograd_coming *w, winograd_grid grid,
                                   winograd_tile *tile, int64_t *row) {
    if (w->asked % WINOGRAD_TILE) return 0;
    int64_t at = w->asked / WINOGRAD_TILE;
    *tile = winograd_tile_at(grid, w->first + at / w->rows_per_tile);
    *row = at % w->rows_per_tile;
    return 1;
}

/* Rough nanoseconds of transforms and products for one tile. */
FNN_INLINE double winograd_tile_ns(int64_t c, int64_t k) {
    double products = 2.0 * WINOGRAD_POSITIONS * (double)c * (double)k / CONV_FLOP_PER_NS;
    return products + 0.8 * (double)(c + k) * sizeof(T);
}

#endif
