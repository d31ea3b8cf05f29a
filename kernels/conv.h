/* What the convolution bodies share: how packed weights are cut into panels, and images with halo.
 */
#ifndef FNN_CONV_H
#define FNN_CONV_H

#define FNN_DEF "def/conv.def"
#include "args.h"

#include "conv_tile.h"
#include "threads.h"

/* Rough work of one core, for the cutting of tasks: FLOP per nanosecond, and a task's least cost.
 */
#define CONV_FLOP_PER_NS (VL * 8.0)
#define CONV_TASK_NS 8000.0
enum { CONV_TASKS = 16 }; /* enough tasks to balance a large convolution */

/* A multiple of 64 bytes, so that blocks laid one after another in scratch stay aligned. */
FNN_INLINE size_t conv_align(size_t bytes) { return (bytes + 63) & ~(size_t)63; }

/* The integers that the kernels share, as they follow each other in all of their arguments. */
typedef struct {
    int64_t n, c, ih, iw, k, oh, ow, kh, kw, stride_h, stride_w, pad_h, pad_w;
    int64_t dilation_h, dilation_w, groups;
} conv_shape;
#define CONV_SHAPE(a) (*(const conv_shape *)((const char *)(a) + offsetof(__typeof__(*(a)), n)))

FNN_INLINE int conv_is_depthwise(int64_t groups, int64_t c, int64_t k) {
    return groups > 1 && groups == c && groups == k;
}

/* A 1x1 convolution that takes each pixel once: a product of matrices, whatever the image is. */
FNN_INLINE int conv_is_dense(const conv_shape *a) {
    return a->kh == 1 && a->kw == 1 && a->stride_h == 1 && a->stride_w == 1 && a->pad_h == 0 &&
           a->pad_w == 0 && a->ih == a->oh && a->iw == a->ow;
}

/* The same as one column of pixels. */
FNN_INLINE conv_shape conv_flatten(const conv_shape *a) {
    conv_shape flat = *a;
    flat.n = flat.iw = flat.ow = 1;
    flat.ih = flat.oh = a->n * a->ih * a->iw;
    return flat;
}

/* Panels of NR output channels; a group's last one is as many vectors wide as it needs.
 * A group's panels follow each other: [panel][kh][kw][in][width]. */
FNN_INLINE int64_t conv_panels(int64_t out) { return ceil_div(out, NR); }
FNN_INLINE int64_t conv_padded(int64_t out) { return ceil_div(out, VL) * VL; }
FNN_INLINE int64_t conv_panel_vectors(int64_t out, int64_t panel) {
    return least(NV, ceil_div(out - panel * NR, VL));
}

/* Rows y0.. and columns x0.. of an image of c channels, zero outside it. */
static inline __attribute__((unused)) void conv_copy_window(T *out, const T *image, int64_t ih,
                                                            int64_t iw, int64_t c, int64_t y0,
                                                            int64_t x0, int64_t rows,
                                                            int64_t width) {
    int64_t left = least(most(-x0, 0), width) * c;
    int64_t right = most(least(iw - x0, width), 0) * c;
    for (int64_t y = y0; y < y0 + rows; y++, out += width * c) {
        if (y < 0 || y >= ih || right <= left) {
            memset(out, 0, (size_t)(width * c) * sizeof(T));
            continue;
        }
        memset(out, 0, (size_t)left * sizeof(T));
        memcpy(out + left, image + (y * iw + x0) * c + left, (size_t)(right - left) * sizeof(T));
        memset(out + right, 0, (size_t)(width * c - right) * sizeof(T));
    }
}

/* The output pixels lo..hi of a row whose input coordinate i * stride + shift lies in 0..size-1. */
FNN_INLINE void conv_valid_range(int64_t size, int64_t out, int64_t stride, int64_t shift,
                                 int64_t *lo, int64_t *hi) {
    *lo = shift >= 0 ? 0 : ceil_div(-shift, stride);
    *hi = shift >= size ? 0 : least(out, (size - 1 - shift) / stride + 1);
}

/* Whether a direction into `out` channels runs along pixels (conv_planar.c): tiles that run along
 * the channels would be at most half full. */
FNN_INLINE int conv_is_planar(int64_t out, int64_t stride_h, int64_t stride_w, int64_t groups) {
    return groups == 1 && stride_h == 1 && stride_w == 1 && 2 * out <= VL && out <= MR;
}

/* Whether backward-data from `in` into `out` channels is cheaper as a product per source pixel,
 * gathered (conv_gather.c), than by tiles: rough vector operations for each pixel on either side.
 */
FNN_INLINE int conv_is_gathered(int64_t in, int64_t out, int64_t kh, int64_t kw, int64_t dilation_w,
                                int64_t groups) {
    if (groups != 1 || dilation_w != 1 || 2 * out > VL) return 0;
    int64_t tile = kh * kw * in;
    int64_t product = in * ceil_div(kh * kw * out, VL), add = 4 * kh * ceil_div(kw * out, VL);
    return 3 * (product + add) < 2 * tile;
}

/* conv.c: the tiles with xstep 1 and wstep nv * VL, by vectors - 1 and rows / 2 - 1. */
extern const conv_tile_fn FNN_SYM(conv_tiles)[NV][MR / 2];

/* conv_weight.c: the tiles with any steps, by vectors - 1, rows / 2 - 1, and whether dense. */
extern const conv_tile_fn FNN_SYM(conv_weight_tiles)[NV][MR / 2][2];

/* conv_planar.c */
int64_t FNN_SYM(conv_planar_size)(const fnn_conv_pack_args *a);
void FNN_SYM(conv_planar_pack)(const fnn_conv_pack_args *a);
int FNN_SYM(conv_planar_fwd)(const fnn_conv_fwd_args *a);

/* Where packed weights of one group lie: element (in, row, column) of output channel 0 at
 * first + in * .in + row * .row + column * .column, the other channels behind it. */
typedef struct {
    int64_t first, in, row, column;
} conv_steps;

/* conv_lanes.c: whether forward or backward-data takes VL samples at a time, and that. */
int FNN_SYM(conv_is_lanes)(const conv_shape *a, int backward);
int FNN_SYM(conv_lanes_fwd)(const fnn_conv_fwd_args *a);
int FNN_SYM(conv_lanes_bwd_data)(const fnn_conv_bwd_data_args *a);

/* conv_weight_planar.c: whether backward-weights runs along pixels, and that. */
int FNN_SYM(conv_weight_is_planar)(const fnn_conv_bwd_weight_args *a);
int64_t FNN_SYM(conv_weight_planar_size)(const fnn_conv_bwd_weight_args *a);
int FNN_SYM(conv_weight_planar)(const fnn_conv_bwd_weight_args *a);

/* conv_gather.c */
int64_t FNN_SYM(conv_gather_size)(const fnn_conv_pack_args *a);
void FNN_SYM(conv_gather_pack)(const fnn_conv_pack_args *a);
int FNN_SYM(conv_gather_steps)(const conv_shape *a, conv_steps *steps);
int FNN_SYM(conv_gather_bwd_data)(const fnn_conv_bwd_data_args *a);

/* conv_depthwise.c: groups == c == k. */
int FNN_SYM(conv_depthwise_fwd)(const fnn_conv_fwd_args *a);
int FNN_SYM(conv_depthwise_bwd_data)(const fnn_conv_bwd_data_args *a);
/* conv_depthwise_weight.c */
int FNN_SYM(conv_depthwise_bwd_weight)(const fnn_conv_bwd_weight_args *a);
int64_t FNN_SYM(conv_depthwise_bwd_weight_size)(const fnn_conv_bwd_weight_args *a);

#endif
