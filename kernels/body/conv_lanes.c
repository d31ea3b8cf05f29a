/* Convolution with unit stride of VL samples at a time: the samples are a vector's lanes.
 *
 * Into few channels a tile whose vectors run along them is starved: it broadcasts an element of the
 * source for each product of vectors. Here the tile's rows are the output channels, whose weights
 * are broadcast, and its vectors are neighbouring pixels of the planes of conv_lanes.h: all lanes
 * are full, and each vector loaded serves all rows. Backward-data is the same with the kernel
 * turned round; kernel rows and columns that only meet the outside of the image are left out.
 *
 *   task = VL samples:  source -> planes [in][h][width][VL]; for some rows of the destination:
 *                       sums [out][pixels][VL] -> destination [sample][h, w, out]
 */
#include "conv_lanes.h"

/* HALO: pixels beside a plane's rows, which a tile's first or last vector may read. */
enum { SUMS_BYTES = 24576, MOST_PLANES_BYTES = 1 << 19, HALO = NV - 1 };

typedef struct {
    conv_shape a;
    conv_steps steps; /* of packed */
    const T *src, *packed, *bias, *residual, *saved;
    T *dst;
    int64_t in, out, src_h, src_w, dst_h, dst_w, pad_h, pad_w, act;
    int64_t width; /* of a plane */
    int64_t rows;  /* of the destination at a time */
    int planes;    /* src and dst are planes already */
    size_t planes_bytes, sums_bytes;
    int failed;
} plan;

static plan make_plan(const conv_shape *a, int backward) {
    int64_t span_h = (a->kh - 1) * a->dilation_h, span_w = (a->kw - 1) * a->dilation_w;
    plan p = {.a = *a,
              .in = backward ? a->k : a->c,
              .out = backward ? a->c : a->k,
              .src_h = backward ? a->oh : a->ih,
              .src_w = backward ? a->ow : a->iw,
              .dst_h = backward ? a->ih : a->oh,
              .dst_w = backward ? a->iw : a->ow,
              .pad_h = backward ? span_h - a->pad_h : a->pad_h,
              .pad_w = backward ? span_w - a->pad_w : a->pad_w};
    p.width = p.src_w + 2 * HALO;
    int64_t row = p.dst_w * p.out, row_bytes = row * FNN_VBYTES;
    p.rows = 1; /* more where one would end in part of a vector */
    while (p.rows < p.dst_h && p.rows * row % VL != 0 && (p.rows + 1) * row_bytes <= SUMS_BYTES)
        p.rows++;
    p.planes_bytes = (size_t)(p.in * p.src_h * p.width) * FNN_VBYTES;
    p.sums_bytes = (size_t)(p.rows * row_bytes);
    return p;
}

/* Where packed weights lie: as conv_planar.c, conv_gather.c or conv_pack.c has made them. */
static int find_steps(const conv_shape *a, int backward, conv_steps *steps) {
    int64_t in = backward ? a->k : a->c;
    if (backward && conv_is_gathered(a->k, a->c, a->kh, a->kw, a->dilation_w, a->groups)) {
        if (!FNN_SYM(conv_gather_steps)(a, steps)) return 0;
        steps->first += (a->kh - 1) * steps->row + (a->kw - 1) * steps->column;
        steps->row = -steps->row;
        steps->column = -steps->column;
    } else if (!backward && conv_is_planar(a->k, 1, 1, 1)) { /* [in][kh][kw][out] */
        int64_t out = round_up(a->k, 2);
        *steps = (conv_steps){0, a->kh * a->kw * out, a->kw * out, out};
    } else { /* [kh][kw][in][VL], for backward-data kw turned round already */
        *steps = (conv_steps){0, VL, a->kw * in * VL, in * VL};
        if (backward) {
            steps->first = (a->kh - 1) * steps->row;
            steps->row = -steps->row;
        }
    }
    return 1;
}

int FNN_SYM(conv_is_lanes)(const conv_shape *a, int backward) {
    if (a->groups != 1 || a->stride_h != 1 || a->stride_w != 1) return 0;
    if ((backward ? a->c : a->k) > VL || !conv_fills_lanes(a->n)) return 0;
    plan p = make_plan(a, backward);
    if ((double)p.in * (double)p.src_h * (double)p.width * FNN_VBYTES > MOST_PLANES_BYTES) return 0;
    if (!find_steps(a, backward, &p.steps)) return 0;
    if (!backward && conv_is_planar(a->k, 1, 1, 1)) return 1;
    /* What a tile along the channels loses, against the transpositions: rough cycles a pixel. */
    return 0.15 * (double)(a->kh * a->kw * a->c * a->k) > 6.0 * (double)(a->c + a->k);
}

/* A row of the destination: sums [out][columns]. */
static void multiply(const plan *p, const T *planes, int64_t y, conv_segment *segments, T *sums,
                     int64_t columns) {
    const conv_shape *a = &p->a;
    int64_t count = 0, height = conv_tile_height(p->out), start = 0, yoff[MR];
    for (int64_t i = 0; i < p->in; i++)
        for (int64_t r = 0; r < a->kh; r++) {
            int64_t row = y + r * a->dilation_h - p->pad_h;
            if (row >= 0 && row < p->src_h)
                segments[count++] = (conv_segment){i * p->steps.in + r * p->steps.row,
                                                   (i * p->src_h + row) * p->width * VL};
        }
    for (int64_t o = 0; o < MR; o++) yoff[o] = o * columns;
    conv_tile t = {.segments = segments,
                   .segment_count = count,
                   .xstep = p->steps.column,
                   .wstep = a->dilation_w * VL};
    for (int64_t pixel = 0; pixel < p->dst_w; pixel += NV) {
        int64_t nv = least(NV, p->dst_w - pixel);
        int64_t first = most(0, ceil_div(p->pad_w - (pixel + nv - 1), a->dilation_w));
        int64_t reach = p->src_w - 1 + p->pad_w - pixel;
        int64_t end = reach < 0 ? 0 : least(a->kw, reach / a->dilation_w + 1);
        t.len = end - first;
        t.w = planes + (HALO + pixel - p->pad_w + first * a->dilation_w) * VL;
        t.cols = nv * VL;
        for (int64_t o = 0; o < p->out; o += height) {
            int64_t rows = least(height, p->out - o);
            t.x = p->packed + p->steps.first + first * p->steps.column + o;
            t.y = sums + o * columns + pixel * VL;
            FNN_SYM(conv_weight_tiles)[nv - 1][(rows + 1) / 2 - 1][1](&t, &start, yoff, rows);
        }
    }
}

/* What does not stay in registers: the end of a row, of the batch, and the costly epilogues. */
static __attribute__((noinline)) void put_slowly(const plan *p, const V *pieces, int64_t n,
                                                 int64_t at, int64_t samples) {
    int64_t size = p->dst_h * p->dst_w * p->out;
    for (int64_t i = 0; i < samples; i++, at += size) {
        V v = pieces[i], saved = {0};
        if (p->residual) v += v_load_upto(p->residual + at, n);
        if (p->saved) saved = v_load_upto(p->saved + at, n);
        v_store_upto(p->dst + at, epilogue(p->act, v, saved), n);
    }
}

/* The sums of some pixels to `samples` images, with the epilogue. at: the first pixel's, in dst. */
FNN_INLINE void put(const plan *p, const int relu, const T *sums, int64_t columns, int64_t pixels,
                    int64_t at, int64_t samples) {
    int64_t k = p->out, size = p->dst_h * p->dst_w * k, channel = 0;
    int fast = samples == VL && !p->residual && (relu || p->act == FNN_ACT_NONE);
    for (int64_t left = pixels * k; left > 0; left -= VL, at += VL) {
        V t[VL];
#pragma GCC unroll 16
        for (int i = 0; i < VL; i++) {
            t[i] = (V){0};
            if (i >= left) continue;
            t[i] = v_load(sums + channel * columns);
            if (p->bias) t[i] += v_set1(p->bias[channel]);
            if (++channel == k) channel = 0, sums += VL;
        }
        v_transpose(t);
        if (fast && left >= VL) {
            T *to = p->dst + at;
#pragma GCC unroll 16
            for (int i = 0; i < VL; i++, to += size) v_store(to, relu ? v_relu(t[i]) : t[i]);
        } else {
            V pieces[VL];
#pragma GCC unroll 16
            for (int i = 0; i < VL; i++) pieces[i] = t[i];
            put_slowly(p, pieces, least(VL, left), at, samples);
        }
    }
}

/* The sums of some rows to planes, with the epilogue. at: the rows' place in the first plane. */
FNN_INLINE void put_planes(const plan *p, const int64_t act, const T *sums, int64_t columns,
                           int64_t at, int64_t length) {
    int64_t plane = p->dst_h * p->dst_w * VL;
    for (int64_t o = 0; o < p->out; o++, at += plane, sums += columns) {
        V start = p->bias ? v_set1(p->bias[o]) : (V){0};
        for (int64_t i = 0; i < length; i += VL) {
            V saved = epilogue_reads_saved(act) ? v_load(p->saved + at + i) : (V){0};
            v_store(p->dst + at + i, epilogue(act, v_load(sums + i) + start, saved));
        }
    }
}

static __attribute__((noinline)) void
put_planes_slowly(const plan *p, const T *sums, int64_t columns, int64_t at, int64_t length) {
    put_planes(p, p->act, sums, columns, at, length);
}

/* `rows` rows from row y on of the samples from `first` on. */
static void put_rows(const plan *p, const T *sums, int64_t columns, int64_t first, int64_t y,
                     int64_t rows) {
    if (p->planes) {
        int64_t at = (first * p->out * p->dst_h + y * VL) * p->dst_w, length = rows * p->dst_w * VL;
        if (p->act == FNN_ACT_NONE)
            put_planes(p, FNN_ACT_NONE, sums, columns, at, length);
        else if (p->act == FNN_ACT_RELU)
            put_planes(p, FNN_ACT_RELU, sums, columns, at, length);
        else
            put_planes_slowly(p, sums, columns, at, length);
        return;
    }
    int64_t at = (first * p->dst_h + y) * p->dst_w * p->out, samples = least(VL, p->a.n - first);
    if (p->act == FNN_ACT_RELU)
        put(p, 1, sums, columns, rows * p->dst_w, at, samples);
    else
        put(p, 0, sums, columns, rows * p->dst_w, at, samples);
}

/* The samples from `first` on, as planes between halos. */
static void take_samples(const plan *p, int64_t first, T *planes) {
    int64_t src_size = p->src_h * p->src_w * p->in, plane = p->src_h * p->width * VL;
    for (int64_t i = 0; i < p->in * p->src_h; i++) {
        T *row = planes + i * p->width * VL;
        memset(row, 0, HALO * sizeof(V));
        memset(row + (p->width - HALO) * VL, 0, HALO * sizeof(V));
    }
    planes += HALO * VL;
    const T *src = p->src + first * src_size;
    if (p->planes)
        surround_planes(src, p->src_h, p->src_w, p->in, planes, plane, p->width);
    else
        take_lanes(src, src_size, least(VL, p->a.n - first), p->src_h, p->src_w, p->in, planes,
                   plane, p->width);
}

static void run_task(void *ctx, int64_t task) {
    plan *p = ctx;
    size_t segments = (size_t)(p->in * p->a.kh) * sizeof(conv_segment);
    char *scratch = fnn_scratch(p->planes_bytes + p->sums_bytes + segments);
    if (!scratch) {
        __atomic_store_n(&p->failed, 1, __ATOMIC_RELAXED);
        return;
    }
    T *planes = (T *)scratch, *sums = (T *)(scratch + p->planes_bytes);
    conv_segment *list = (conv_segment *)(scratch + p->planes_bytes + p->sums_bytes);
    int64_t first = task * VL, columns = p->rows * p->dst_w * VL;
    take_samples(p, first, planes);
    for (int64_t y = 0; y < p->dst_h; y += p->rows) {
        int64_t rows = least(p->rows, p->dst_h - y);
        for (int64_t i = 0; i < rows; i++)
            multiply(p, planes, y + i, list, sums + i * p->dst_w * VL, columns);
        put_rows(p, sums, columns, first, y, rows);
    }
}

static int run_plan(plan *p) {
    const conv_shape *a = &p->a;
    if (a->n * p->dst_h * p->dst_w == 0) return FNN_OK;
    int64_t groups = ceil_div(a->n, VL);
    double flop = 2.0 * (double)(a->kh * a->kw * a->c * a->k) * (double)(a->oh * a->ow);
    double moved = (double)(p->in * p->src_h * p->width + p->dst_h * p->dst_w * p->out);
    double cost = (double)(groups * VL) * (flop / CONV_FLOP_PER_NS + moved * 0.1);
    fnn_parallel(groups, cost, run_task, p);
    return p->failed ? FNN_NO_MEMORY : FNN_OK;
}

int FNN_SYM(conv_lanes_fwd)(const fnn_conv_fwd_args *a) {
    plan p = make_plan(&CONV_SHAPE(a), 0);
    find_steps(&p.a, 0, &p.steps);
    p.src = a->x;
    p.packed = a->packed;
    p.bias = a->bias;
    p.residual = a->residual;
    p.saved = epilogue_reads_saved(a->act) ? a->saved : NULL;
    p.dst = a->y;
    p.act = a->act;
    return run_plan(&p);
}

int FNN_SYM(conv_lanes_bwd_data)(const fnn_conv_bwd_data_args *a) {
    plan p = make_plan(&CONV_SHAPE(a), 1);
    find_steps(&p.a, 1, &p.steps);
    p.src = a->dy;
    p.packed = a->packed;
    p.residual = a->residual;
    p.saved = epilogue_reads_saved(a->act) ? a->saved : NULL;
    p.dst = a->dx;
    p.act = a->act;
    return run_plan(&p);
}

/* --- images that are planes ------------------------------------------------------------------ */

/* Packed: [in][kh][kw][out], an odd number of outputs filled up, as tiles take two at a time. */
static conv_steps packed_steps(int64_t out, int64_t kh, int64_t kw) {
    out = round_up(out, 2);
    return (conv_steps){0, kh * kw * out, kw * out, out};
}

int64_t FNN_SYM(lanes_pack_size)(const fnn_lanes_pack_args *a) {
    int64_t in = a->direction ? a->k : a->c, out = a->direction ? a->c : a->k;
    return in * packed_steps(out, a->kh, a->kw).in * (int64_t)sizeof(T);
}

int FNN_SYM(lanes_pack)(const fnn_lanes_pack_args *a) {
    int64_t taps = a->kh * a->kw;
    int64_t in = a->direction ? a->k : a->c, out = a->direction ? a->c : a->k;
    const T *w = a->w;
    T *to = a->packed;
    for (int64_t i = 0; i < in; i++)
        for (int64_t tap = 0; tap < taps; tap++) {
            const T *from = w + (a->direction ? taps - 1 - tap : tap) * a->c * a->k;
            for (int64_t o = 0; o < out; o++)
                *to++ = a->direction ? from[o * a->k + i] : from[i * a->k + o];
            if (out % 2) *to++ = 0;
        }
    return FNN_OK;
}

int FNN_SYM(lanes_conv)(const fnn_lanes_conv_args *a) {
    conv_shape shape = LANES_SHAPE(a);
    plan p = make_plan(&shape, 0);
    p.steps = packed_steps(a->k, a->kh, a->kw);
    p.planes = 1;
    p.src = a->x;
    p.packed = a->packed;
    p.bias = a->bias;
    p.saved = a->saved;
    p.dst = a->y;
    p.act = a->act;
    return run_plan(&p);
}
