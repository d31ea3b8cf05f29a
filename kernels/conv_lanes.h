/* VL samples side by side: planes [channel][height][width][VL], a vector a pixel, whose lanes are
 * samples. Convolutions of few channels fill their vectors so, whatever the image's size is. They
 * make the planes themselves (take_lanes), or several layers in turn keep their images so, and
 * only the halo is theirs (surround_planes).
 */
#ifndef FNN_CONV_LANES_H
#define FNN_CONV_LANES_H

#include "conv.h"
#include "transpose.h"

/* Whether enough lanes are full. */
FNN_INLINE int conv_fills_lanes(int64_t n) { return n % VL == 0 || n >= 4 * VL; }

/* Images [sample][h][w][c], `size` elements each, to planes `plane` elements apart with rows of
 * `width` pixels. Lanes from `samples` on become zero; halos are not touched. */
static inline void take_lanes(const T *images, int64_t size, int64_t samples, int64_t h, int64_t w,
                              int64_t c, T *planes, int64_t plane, int64_t width) {
    if (width == w) w *= h, h = 1; /* no halo between the rows */
    for (int64_t y = 0; y < h; y++) {
        const T *row = images + y * w * c;
        T *pixel = planes + y * width * VL;
        int64_t channel = 0;
        for (int64_t first = 0; first < w * c; first += VL) {
            int64_t n = least(VL, w * c - first);
            V t[VL];
            if (n == VL && samples == VL) {
#pragma GCC unroll 16
                for (int i = 0; i < VL; i++) t[i] = v_load(row + first + i * size);
            } else {
#pragma GCC unroll 16
                for (int i = 0; i < VL; i++)
                    t[i] = i < samples ? v_load_upto(row + first + i * size, n) : (V){0};
            }
            v_transpose(t);
#pragma GCC unroll 16
            for (int i = 0; i < VL; i++) {
                if (i >= n) break;
                v_store(pixel + channel * plane, t[i]);
                if (++channel == c) channel = 0, pixel += VL;
            }
        }
    }
}

/* Planes [c][h][w][VL] to larger ones; the halo around them is not touched. */
static inline void surround_planes(const T *from, int64_t h, int64_t w, int64_t c, T *planes,
                                   int64_t plane, int64_t width) {
    for (int64_t i = 0; i < c; i++, planes += plane)
        for (int64_t y = 0; y < h; y++, from += w * VL) {
            T *to = planes + y * width * VL;
            for (int64_t x = 0; x < w * VL; x += VL) v_store(to + x, v_load(from + x));
        }
}

/* The geometry of a convolution whose arguments have no strides and groups. */
#define LANES_SHAPE(g)                                                                             \
    {.n = (g)->n,                                                                                  \
     .c = (g)->c,                                                                                  \
     .ih = (g)->ih,                                                                                \
     .iw = (g)->iw,                                                                                \
     .k = (g)->k,                                                                                  \
     .oh = (g)->oh,                                                                                \
     .ow = (g)->ow,                                                                                \
     .kh = (g)->kh,                                                                                \
     .kw = (g)->kw,                                                                                \
     .stride_h = 1,                                                                                \
     .stride_w = 1,                                                                                \
     .pad_h = (g)->pad_h,                                                                          \
     .pad_w = (g)->pad_w,                                                                          \
     .dilation_h = (g)->dilation_h,                                                                \
     .dilation_w = (g)->dilation_w,                                                                \
     .groups = 1}

#endif
