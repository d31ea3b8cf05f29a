/* Convolution with unit stride into few channels: a first layer like LeNet's, a decoder's last
 * layer, backward-data of either.
 *
 * A tile whose vectors run along a few output channels would be mostly empty. Here they run along
 * the pixels, and the tile's rows are the output channels: its x are weights, its w is the source,
 * one plane a channel, with halo. A plane's rows follow each other, so vectors run on from one row
 * into the next; what they compute over the halo in between is left behind.
 *
 *   task = a sample:  source [h, w, in] -> planes [in][height][width] -> sums [out][height * width]
 *                     -> destination [h, w, out]
 */
#include "conv_planes.h"

typedef struct {
    conv_shape a;
    const T *src, *packed, *bias, *residual, *saved;
    T *dst;
    int64_t in, out, src_h, src_w, dst_h, dst_w, pad_h, pad_w, act;
    int64_t height, width; /* of a plane */
    int64_t pixels;        /* computed in each plane */
    int64_t columns;       /* of the sums: those pixels in whole vectors, and two more to read */
    size_t planes_bytes, sums_bytes;
    int failed;
} plan;

/* Rows of a tile. */
static int64_t even(int64_t rows) { return (rows + 1) & ~(int64_t)1; }

int64_t FNN_SYM(conv_planar_size)(const fnn_conv_pack_args *a) {
    return a->kh * a->kw * a->c * even(a->k) * (int64_t)sizeof(T);
}

/* [in][kh][kw][out], an odd number of outputs filled up with zero. */
void FNN_SYM(conv_planar_pack)(const fnn_conv_pack_args *a) {
    int64_t taps = a->kh * a->kw;
    const T *w = a->w;
    T *to = a->packed;
    for (int64_t i = 0; i < a->c; i++)
        for (int64_t tap = 0; tap < taps; tap++) {
            for (int64_t o = 0; o < a->k; o++) *to++ = w[(tap * a->c + i) * a->k + o];
            if (a->k % 2) *to++ = 0;
        }
}

static void multiply(const plan *p, const T *planes, T *sums, conv_segment *segments) {
    int64_t count = 0, height = even(p->out), start = 0, yoff[MR];
    for (int64_t i = 0; i < p->in; i++)
        for (int64_t r = 0; r < p->a.kh; r++, count++)
            segments[count] = (conv_segment){count * p->a.kw * height,
                                             (i * p->height + r * p->a.dilation_h) * p->width};
    for (int64_t o = 0; o < MR; o++) yoff[o] = o * p->columns;
    conv_tile t = {.x = p->packed,
                   .segments = segments,
                   .segment_count = count,
                   .len = p->a.kw,
                   .xstep = height,
                   .wstep = p->a.dilation_w};
    for (int64_t first = 0; first < p->pixels; first += NR) {
        int64_t nv = least(NV, ceil_div(p->pixels - first, VL));
        t.w = planes + first;
        t.y = sums + first;
        t.cols = nv * VL;
        FNN_SYM(conv_weight_tiles)[nv - 1][height / 2 - 1][1](&t, &start, yoff, p->out);
    }
}

/* The channels of n <= 2 VL pixels come together, with bias and act: out[pixel * channels +
 * channel]. One transposition holds two runs of VL pixels, as there are VL / 2 channels at most.
 * Whole vectors are written, each over what the one before it wrote too far, as long as that lies
 * within `room` elements. */
FNN_INLINE void join_channels(const T *sums, int64_t ld, int64_t channels, const T *bias,
                              const int act, int64_t n, T *out, int64_t room) {
    V t[VL];
#pragma GCC unroll 16
    for (int i = 0; i < VL; i++) {
        int channel = i % (VL / 2), run = i / (VL / 2);
        t[i] = (V){0};
        if (channel >= channels || run * VL >= n) continue;
        t[i] = v_load(sums + channel * ld + run * VL);
        if (bias) t[i] += v_set1(bias[channel]);
        if (act == FNN_ACT_RELU) t[i] = v_relu(t[i]);
    }
    v_transpose(t);
#pragma GCC unroll 2
    for (int run = 0; run < 2; run++)
#pragma GCC unroll 16
        for (int i = 0; i < VL; i++) {
            int64_t pixel = run * VL + i, at = pixel * channels;
            V v = run ? v_high_half(t[i]) : t[i];
            if (pixel < n && at + VL <= room)
                v_store(out + at, v);
            else if (pixel < n)
                v_store_n(out + at, v, channels);
        }
}

/* A row of the destination. What is added to it, or multiplied, may lie where it goes: then the
 * row is joined in `aside` first. */
static void finish_row(const plan *p, const T *sums, int64_t row, T *aside) {
    int64_t columns = p->columns, n = p->dst_w * p->out, at = row * n;
    int at_once = !p->residual && (p->act == FNN_ACT_NONE || p->act == FNN_ACT_RELU);
    T *dst = p->dst + at, *joined = at_once ? dst : aside;
    for (int64_t x = 0; x < p->dst_w; x += 2 * VL)
        join_channels(sums + x, columns, p->out, p->bias, at_once ? p->act : FNN_ACT_NONE,
                      least(2 * VL, p->dst_w - x), joined + x * p->out, n - x * p->out);
    if (at_once) return;
    for (int64_t j = 0; j < n; j += VL) {
        int64_t m = least(VL, n - j);
        V v = v_load_upto(joined + j, m), saved = {0};
        if (p->residual) v += v_load_upto(p->residual + at + j, m);
        if (p->saved) saved = v_load_upto(p->saved + at + j, m);
        v_store_upto(dst + j, epilogue(p->act, v, saved), m);
    }
}

static void run_task(void *ctx, int64_t task) {
    plan *p = ctx;
    size_t segments = (size_t)(p->in * p->a.kh) * sizeof(conv_segment);
    size_t row = (size_t)(p->dst_w * p->out) * sizeof(T);
    char *scratch = fnn_scratch(p->planes_bytes + p->sums_bytes + segments + row);
    if (!scratch) {
        __atomic_store_n(&p->failed, 1, __ATOMIC_RELAXED);
        return;
    }
    T *planes = (T *)scratch, *sums = (T *)(scratch + p->planes_bytes);
    int64_t image = p->src_h * p->src_w * p->in;
    memset(planes, 0, p->planes_bytes);
    take_planes(p->src + task * image, p->src + p->a.n * image, p->src_h, p->src_w, p->in, planes,
                p->height * p->width, p->height, p->width, p->pad_h, p->pad_w);
    char *rest = scratch + p->planes_bytes + p->sums_bytes;
    multiply(p, planes, sums, (conv_segment *)rest);
    for (int64_t y = 0; y < p->dst_h; y++)
        finish_row(p, sums + y * p->width, task * p->dst_h + y, (T *)(rest + segments));
}

static int run_plan(plan *p) {
    const conv_shape *a = &p->a;
    if (a->n * p->dst_h * p->dst_w == 0) return FNN_OK;
    p->height = p->dst_h + (a->kh - 1) * a->dilation_h;
    p->width = p->dst_w + (a->kw - 1) * a->dilation_w;
    p->pixels = (p->dst_h - 1) * p->width + p->dst_w;
    p->columns = (ceil_div(p->pixels, VL) + 2) * VL;
    /* Vectors of the last pixels read on behind the last plane. */
    p->planes_bytes = conv_align((size_t)(p->in * p->height * p->width + NR) * sizeof(T));
    p->sums_bytes = (size_t)(p->out * p->columns) * sizeof(T);
    double flop = 2.0 * (double)(a->kh * a->kw * p->in * p->out) * (double)p->columns;
    double moved = (double)(p->in * p->height * p->width + 2 * p->out * p->columns);
    fnn_parallel(a->n, (double)a->n * (flop / CONV_FLOP_PER_NS + moved * 0.2), run_task, p);
    return p->failed ? FNN_NO_MEMORY : FNN_OK;
}

int FNN_SYM(conv_planar_fwd)(const fnn_conv_fwd_args *a) {
    plan p = {.a = CONV_SHAPE(a),
              .src = a->x,
              .packed = a->packed,
              .bias = a->bias,
              .residual = a->residual,
              .saved = epilogue_reads_saved(a->act) ? a->saved : NULL,
              .dst = a->y,
              .in = a->c,
              .out = a->k,
              .src_h = a->ih,
              .src_w = a->iw,
              .dst_h = a->oh,
              .dst_w = a->ow,
              .pad_h = a->pad_h,
              .pad_w = a->pad_w,
              .act = a->act};
    return run_plan(&p);
}
