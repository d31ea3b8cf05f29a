/* Channels-last images as planes, one a channel, for convolutions whose vectors run along pixels.
 */
#ifndef FNN_CONV_PLANES_H
#define FNN_CONV_PLANES_H

#include "conv.h"
#include "transpose.h"

/* The lower lanes of a, the upper ones of b. */
FNN_INLINE V v_halves(V a, V b) {
    VI lower;
    for (int i = 0; i < VL; i++) lower[i] = i < VL / 2 ? -1 : 0;
    return v_select(lower, a, b);
}

/* A row of n pixels with c channels each to c rows, `plane` elements apart. */
FNN_INLINE void split_channels(const T *row, int64_t n, int64_t c, T *out, int64_t plane) {
    for (int64_t first = 0; first < n; first += VL)
        for (int64_t i = 0; i < c; i += VL)
            v_transpose_block(row + first * c + i, c, least(VL, n - first), out + i * plane + first,
                              plane, least(VL, c - i));
}

/* The same for up to VL / 2 channels: one transposition takes two runs of VL pixels. Whole vectors
 * are read, but nothing from `end` on. */
FNN_INLINE void split_few_channels(const T *row, const T *end, int64_t n, int64_t c, T *out,
                                   int64_t plane) {
    for (int64_t first = 0; first < n; first += 2 * VL) {
        V t[VL];
        for (int i = 0; i < VL; i++) {
            const T *low = row + (first + i) * c, *high = low + VL * c - VL / 2;
            V a = first + i < n ? v_load_upto(low, end - low) : (V){0};
            V b = first + VL + i < n ? v_load_upto(high, end - high) : (V){0};
            t[i] = v_halves(a, b);
        }
        v_transpose(t);
        for (int64_t i = 0; i < c; i++) {
            v_store_upto(out + i * plane + first, t[i], n - first);
            v_store_upto(out + i * plane + first + VL, t[i + VL / 2], n - first - VL);
        }
    }
}

/* The inside of planes [c][height][width], `plane` elements each, whose halo is zero already: an
 * image [h][w][c] from row pad_h and column pad_w on. end: of the array that the image is in. */
static void take_planes(const T *image, const T *end, int64_t h, int64_t w, int64_t c, T *planes,
                        int64_t plane, int64_t height, int64_t width, int64_t pad_h,
                        int64_t pad_w) {
    int64_t n = least(w, width - pad_w);
    if (n <= 0) return;
    for (int64_t y = 0; y < least(h, height - pad_h); y++) {
        const T *row = image + y * w * c;
        T *out = planes + (y + pad_h) * width + pad_w;
        if (c == 1)
            memcpy(out, row, (size_t)n * sizeof(T));
        else if (2 * c <= VL)
            split_few_channels(row, end, n, c, out, plane);
        else
            split_channels(row, n, c, out, plane);
    }
}

#endif
