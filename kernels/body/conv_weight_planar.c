/* Backward-weights with unit stride between few channels, as of LeNet's layers.
 *
 * Vectors along a few output channels would be mostly empty, or starve for elements to broadcast.
 * Here x and dy lie as planes, x with halo, and the vectors run along the pixels of one sample or,
 * where there are enough of them, along VL samples (conv_lanes.h):
 *
 *   dw[r, s, c, k] = sum over pixels p of dy[k][p] * x[c][p + r * width + s]
 *
 * Along pixels, dy's rows end in zeros, so that an output row and what it reads lie `width` apart
 * in both planes and all rows are one. Samples as lanes go some output rows at a time.
 *
 * A task takes some samples. Its sums stay vectors, one for each weight, until the samples are
 * done; the tasks' results are added in a fixed order.
 */
#include "conv_lanes.h"
#include "conv_planes.h"
#include "conv_products.h"
#include "conv_sum.h"
#include "pool.h"

enum { MOST_PLANE_BYTES = 1 << 18, MOST_LANES_BYTES = 1 << 20, DY_TILE_BYTES = 24576 };
enum { FEW_CHANNELS = 8 };

typedef struct {
    conv_shape a;
    const T *x, *dy;
    const int32_t *idx; /* dy is that of 2x2 max pooling, if this is given */
    const T *saved;
    T *dw, *dbias, *work;
    int64_t lanes;         /* samples of a vector: 1, or VL */
    int planes;            /* x and dy are planes of VL samples already */
    int64_t height, width; /* of a plane of x */
    int64_t rows;          /* output rows at a time */
    int64_t line;          /* elements of dy that follow each other, as do those of x: in vectors */
    int64_t plane;         /* of dy */
    int64_t taps, chunks;
    size_t x_bytes, dy_bytes, sums_bytes, offset_bytes;
    int failed;
} plan;

static double plane_bytes(const conv_shape *a, double channels) {
    double height = (double)a->oh + (double)(a->kh - 1) * (double)a->dilation_h;
    double width = (double)a->ow + (double)(a->kw - 1) * (double)a->dilation_w;
    return channels * height * width * sizeof(T);
}

static int is_lanes(const conv_shape *a) {
    if (a->k > VL || a->c >= FEW_CHANNELS || !conv_fills_lanes(a->n)) return 0;
    if (a->pad_h + a->ih > a->oh + (a->kh - 1) * a->dilation_h ||
        a->pad_w + a->iw > a->ow + (a->kw - 1) * a->dilation_w)
        return 0; /* the image would not lie within the planes */
    double sums = (double)(a->kh * a->kw * a->c * a->k) * sizeof(T);
    return (plane_bytes(a, (double)a->c) + sums) * VL <= MOST_LANES_BYTES;
}

int FNN_SYM(conv_weight_is_planar)(const fnn_conv_bwd_weight_args *args) {
    const conv_shape *a = &CONV_SHAPE(args);
    if (a->n == 0 || a->groups != 1 || a->stride_h != 1 || a->stride_w != 1 || a->kh * a->kw == 1)
        return 0;
    if (is_lanes(a)) return 1;
    return conv_is_planar(a->k, 1, 1, 1) &&
           plane_bytes(a, (double)(a->c + a->k)) <= MOST_PLANE_BYTES;
}

static double make_plan(plan *p, conv_shape shape, int planes) {
    conv_shape *a = &p->a;
    *a = shape;
    p->planes = planes;
    p->lanes = planes || is_lanes(a) ? VL : 1;
    p->height = a->oh + (a->kh - 1) * a->dilation_h;
    p->width = a->ow + (a->kw - 1) * a->dilation_w;
    p->rows = a->oh;
    p->line = round_up(a->oh * p->width, VL);
    p->plane = p->line;
    if (p->lanes > 1) {
        p->line = a->ow * VL;
        p->rows = most(1, DY_TILE_BYTES / (TILE_K * p->line * (int64_t)sizeof(T)));
        p->rows = round_up(ceil_div(a->oh, ceil_div(a->oh, p->rows)), 2); /* windows stay whole */
        p->plane = p->rows * p->line;
    }
    p->taps = a->kh * a->kw * a->c;
    /* The last vectors read on behind the last plane of x. */
    int64_t x_size = a->c * p->height * p->width * p->lanes;
    p->x_bytes = conv_align((size_t)(x_size + p->width + 2 * VL) * sizeof(T));
    p->dy_bytes = conv_align((size_t)(a->k * p->plane) * sizeof(T));
    p->sums_bytes = (size_t)((p->taps + 1) * a->k * VL) * sizeof(T);
    p->offset_bytes = (size_t)(p->taps + TILE_TAPS) * sizeof(int64_t);
    int64_t groups = ceil_div(a->n, p->lanes), pixels = a->oh * p->width;
    double flop = 2.0 * (double)(p->taps * a->k) * (double)(pixels * p->lanes);
    double moved = (double)x_size + (double)(a->k * pixels * p->lanes);
    double cost = (double)groups * (flop / CONV_FLOP_PER_NS + moved * 0.2);
    p->chunks = most(1, least(least(CONV_TASKS, groups), 1 + (int64_t)(cost / CONV_TASK_NS)));
    return cost;
}

static void add_block(const plan *p, const block *b, const int64_t *offsets, V *sums) {
    int64_t k = p->a.k, height = ceil_div(k, ceil_div(k, TILE_K));
    for (int64_t o = 0; o < k; o += height)
        for (int64_t t = 0; t < p->taps; t += TILE_TAPS)
            add_rows(least(height, k - o), b, o, offsets + t, sums + t * k, k,
                     least(TILE_TAPS, p->taps - t));
    if (!p->dbias) return;
    for (int64_t o = 0; o < k; o++) {
        V sum = {0};
        for (int64_t i = 0; i < b->lines * b->line; i += VL)
            sum += v_load(b->dy + o * b->plane + i);
        sums[p->taps * k + o] = b->fresh ? sum : sums[p->taps * k + o] + sum;
    }
}

/* Where the taps read, channel by channel. */
static void list_offsets(const plan *p, int64_t *offsets) {
    const conv_shape *a = &p->a;
    int64_t *to = offsets;
    for (int64_t c = 0; c < a->c; c++)
        for (int64_t r = 0; r < a->kh; r++)
            for (int64_t s = 0; s < a->kw; s++)
                *to++ =
                    ((c * p->height + r * a->dilation_h) * p->width + s * a->dilation_w) * p->lanes;
    for (int64_t t = 0; t < TILE_TAPS; t++) to[t] = to[-1];
}

/* Some rows of dy from that of 2x2 max pooling: each element to the pixel that was the largest. */
static void spread_rows(const plan *p, int64_t first, int64_t y, int64_t lines, T *dy) {
    const conv_shape *a = &p->a;
    int64_t rows = a->oh / 2, cols = a->ow / 2;
    for (int64_t o = 0; o < a->k; o++, dy += p->plane)
        for (int64_t line = 0; line < lines; line++) {
            T *to = dy + line * p->line;
            int64_t row = y + line, pixel = 0;
            int64_t from = ((first / VL * a->k + o) * rows + row / 2) * cols * VL;
            for (; row / 2 < rows && pixel < 2 * cols; pixel += 2, from += VL) {
                V grad = v_load(p->dy + from);
                VI at = pool_load_idx(p->idx + from, VL) - pool_position(row * a->ow + pixel);
                if (p->saved) grad = v_select(v_load(p->saved + from) > 0, grad, (V){0});
                v_store(to + pixel * VL, v_select(at == 0, grad, (V){0}));
                v_store(to + (pixel + 1) * VL, v_select(at == 1, grad, (V){0}));
            }
            for (; pixel < a->ow; pixel++) v_store(to + pixel * VL, (V){0});
        }
}

/* `lanes` samples from `first` on. */
static void add_samples(const plan *p, int64_t first, T *x, T *dy, const int64_t *offsets, V *sums,
                        int fresh) {
    const conv_shape *a = &p->a;
    int64_t x_size = a->ih * a->iw * a->c, dy_size = a->oh * a->ow * a->k;
    const T *from_x = p->x + first * x_size, *from_dy = p->dy + first * dy_size; /* without idx */
    block b = {x, dy, 1, p->line, 0, p->plane, fresh};
    if (p->lanes == 1) {
        take_planes(from_x, p->x + a->n * x_size, a->ih, a->iw, a->c, x, p->height * p->width,
                    p->height, p->width, a->pad_h, a->pad_w);
        take_planes(from_dy, p->dy + a->n * dy_size, a->oh, a->ow, a->k, dy, p->plane, a->oh,
                    p->width, 0, 0);
        add_block(p, &b, offsets, sums);
        return;
    }
    int64_t samples = least(VL, a->n - first);
    T *inside = x + (a->pad_h * p->width + a->pad_w) * VL;
    if (p->planes)
        surround_planes(from_x, a->ih, a->iw, a->c, inside, p->height * p->width * VL, p->width);
    else
        take_lanes(from_x, x_size, samples, a->ih, a->iw, a->c, inside, p->height * p->width * VL,
                   p->width);
    b.pitch = p->width * VL;
    for (int64_t y = 0; y < a->oh; y += b.lines, b.x += b.lines * b.pitch) {
        b.lines = least(p->rows, a->oh - y);
        if (p->idx) {
            spread_rows(p, first, y, b.lines, dy);
        } else if (p->planes) {
            b.dy = from_dy + y * a->ow * VL;
            b.plane = a->oh * a->ow * VL;
        } else {
            take_lanes(from_dy + y * a->ow * a->k, dy_size, samples, b.lines, a->ow, a->k, dy,
                       p->plane, a->ow);
        }
        add_block(p, &b, offsets, sums);
        b.fresh = 0;
    }
}

/* The vectors' sums to dw and dbias; they are written over the vectors. */
static void sum_lanes(const plan *p, V *sums, T *dw, T *dbias) {
    const conv_shape *a = &p->a;
    int64_t kernel = a->kh * a->kw, weights = p->taps * a->k;
    int64_t all = weights + (p->dbias ? a->k : 0);
    T *values = (T *)sums;
    for (int64_t i = 0; i < all; i += VL) {
        V t[VL];
#pragma GCC unroll 16
        for (int j = 0; j < VL; j++) t[j] = i + j < all ? sums[i + j] : (V){0};
        v_store(values + i, v_sums(t));
    }
    for (int64_t t = 0; t < p->taps; t++)
        memcpy(dw + (t % kernel * a->c + t / kernel) * a->k, values + t * a->k,
               (size_t)a->k * sizeof(T));
    if (p->dbias) memcpy(dbias, values + weights, (size_t)a->k * sizeof(T));
}

static void run_task(void *ctx, int64_t task) {
    plan *p = ctx;
    const conv_shape *a = &p->a;
    char *scratch = fnn_scratch(p->x_bytes + p->dy_bytes + p->sums_bytes + p->offset_bytes);
    if (!scratch) {
        __atomic_store_n(&p->failed, 1, __ATOMIC_RELAXED);
        return;
    }
    T *x = (T *)scratch, *dy = (T *)(scratch + p->x_bytes);
    V *sums = (V *)(scratch + p->x_bytes + p->dy_bytes);
    int64_t *offsets = (int64_t *)(scratch + p->x_bytes + p->dy_bytes + p->sums_bytes);
    /* Halos, and what vectors along pixels read on behind the planes. */
    if (p->lanes == 1 || p->height > a->ih || p->width > a->iw)
        memset(scratch, 0, p->x_bytes + p->dy_bytes);
    list_offsets(p, offsets);
    int64_t groups = ceil_div(a->n, p->lanes), end = groups * (task + 1) / p->chunks;
    int64_t first = groups * task / p->chunks;
    for (int64_t group = first; group < end; group++)
        add_samples(p, group * p->lanes, x, dy, offsets, sums, group == first);
    int64_t weights = p->taps * a->k;
    T *part = (T *)p->work + task * (weights + a->k);
    if (p->chunks > 1)
        sum_lanes(p, sums, part, part + weights);
    else
        sum_lanes(p, sums, p->dw, p->dbias);
}

static int64_t work_size(plan p) {
    return p.chunks > 1 ? p.chunks * (p.taps + 1) * p.a.k * (int64_t)sizeof(T) : 0;
}

static int run_plan(plan *p, double cost) {
    fnn_parallel(p->chunks, cost, run_task, p);
    if (p->failed) return FNN_NO_MEMORY;
    int64_t weights = p->taps * p->a.k;
    if (p->chunks > 1) conv_sum_chunks(p->work, p->chunks, p->dw, weights, p->dbias, p->a.k);
    return FNN_OK;
}

int64_t FNN_SYM(conv_weight_planar_size)(const fnn_conv_bwd_weight_args *a) {
    plan p = {0};
    make_plan(&p, CONV_SHAPE(a), 0);
    return work_size(p);
}

int FNN_SYM(conv_weight_planar)(const fnn_conv_bwd_weight_args *a) {
    plan p = {.x = a->x, .dy = a->dy, .dw = a->dw, .dbias = a->dbias, .work = a->work};
    double cost = make_plan(&p, CONV_SHAPE(a), 0);
    return run_plan(&p, cost);
}

int64_t FNN_SYM(lanes_conv_bwd_weight_size)(const fnn_lanes_conv_bwd_weight_args *a) {
    plan p = {0};
    conv_shape shape = LANES_SHAPE(a);
    make_plan(&p, shape, 1);
    return work_size(p);
}

int FNN_SYM(lanes_conv_bwd_weight)(const fnn_lanes_conv_bwd_weight_args *a) {
    plan p = {.x = a->x,
              .dy = a->dy,
              .idx = a->idx,
              .saved = a->saved,
              .dw = a->dw,
              .dbias = a->dbias,
              .work = a->work};
    conv_shape shape = LANES_SHAPE(a);
    double cost = make_plan(&p, shape, 1);
    return run_plan(&p, cost);
}
