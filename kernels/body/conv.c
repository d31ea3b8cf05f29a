/* Convolution forward and backward-data: one correlation with one register tile.
 *
 * The destination's pixels are cut by phase: with a stride, backward-data's pixels of one residue
 * share their taps (forward has a single phase). Within a phase the source moves by `step` pixels
 * for each destination pixel. A task takes some samples, or some rows of one sample, and a range of
 * panels. Where taps fall outside the image it copies its window with a halo into scratch, so the
 * tile knows no edges; otherwise it reads in place.
 */
#include "conv.h"
#include "moments.h"

typedef struct {
    int64_t source, count; /* size of the source; pixels of the destination */
    int64_t kernel, stride, pad, dilation;
    int64_t step, phases; /* (stride, 1) forward, (1, stride) backward */
    int64_t pixels;       /* of the largest phase */
    int64_t first,
        span;    /* source coordinate of the first tap of pixel 0; taps span first..first+span */
    int outside; /* whether some tap lies outside the source */
} axis;

typedef struct {
    const T *src, *packed, *bias, *residual, *saved;
    T *dst;
    double *moments;
    axis h, w;
    int64_t n, src_c, dst_c, groups, group_in, group_out, act;
    int backward,
        merged;     /* merged: a kernel row's taps and channels are contiguous in the source */
    int64_t panels; /* of one group */
    int64_t samples, rows, row_blocks, panel_parts; /* the cut into tasks */
    int64_t width, height;                          /* of a task's window */
    size_t window_bytes, table_bytes;
    int failed;
} plan;

/* The source coordinate, for pixel 0 of a phase, of kernel position r; 0 if the phase lacks it. */
static int tap_at(const axis *x, int backward, int64_t phase, int64_t r, int64_t *at) {
    if (!backward) {
        *at = r * x->dilation - x->pad;
        return 1;
    }
    int64_t distance = phase + x->pad - r * x->dilation;
    if (x->stride == 1) {
        *at = distance;
        return 1;
    }
    *at = distance / x->stride;
    return distance % x->stride == 0;
}

static axis make_axis(int backward, int64_t input, int64_t output, int64_t kernel, int64_t stride,
                      int64_t pad, int64_t dilation) {
    axis x = {backward ? output : input,
              backward ? input : output,
              kernel,
              stride,
              pad,
              dilation,
              backward ? 1 : stride,
              backward ? stride : 1,
              0,
              INT64_MAX,
              INT64_MIN,
              0};
    x.pixels = ceil_div(x.count, x.phases);
    int64_t last = INT64_MIN, at;
    for (int64_t phase = 0; phase < least(x.phases, x.count); phase++)
        for (int64_t r = 0; r < kernel; r++)
            if (tap_at(&x, backward, phase, r, &at)) {
                x.first = least(x.first, at);
                last = most(last, at);
            }
    if (last < x.first) x.first = last = 0; /* no pixel has a tap */
    x.span = last - x.first;
    x.outside = x.first < 0 || (x.pixels - 1) * x.step + last >= x.source;
    return x;
}

/* Cuts the work into tasks, by shape alone. */
static double cut_tasks(plan *p) {
    int64_t taps = p->h.kernel * p->w.kernel, pixels = p->h.count * p->w.count;
    double flop = 2.0 * (double)taps * (double)p->group_in * (double)p->dst_c /
                  (double)(p->h.phases * p->w.phases);
    double pixel_ns = flop / CONV_FLOP_PER_NS + (double)(p->src_c + p->dst_c) * sizeof(T) / 20.0;
    double weights = (double)taps * (double)p->group_in * (double)p->dst_c * sizeof(T);
    double total = pixel_ns * (double)pixels * (double)p->n;
    int64_t fewest = 1 + (int64_t)(CONV_TASK_NS / pixel_ns); /* pixels that are worth a task */
    if (weights > 262144.0) fewest = most(fewest, 128);      /* they are read again by each task */
    int64_t row_bytes =
        ((p->w.pixels - 1) * p->w.step + p->w.span + 1) * p->src_c * (int64_t)sizeof(T);
    int64_t sample_bytes = ((p->h.pixels - 1) * p->h.step + p->h.span + 1) * row_bytes;
    int64_t most_bytes = 1 << 20, most_pixels = 4096;

    p->samples = 1;
    p->rows = p->h.pixels;
    if (pixels < fewest) {
        p->samples = least(p->n, ceil_div(fewest, pixels));
        p->samples = least(p->samples, most(1, most_bytes / most(1, sample_bytes)));
    } else {
        int64_t blocks = most(ceil_div(sample_bytes, most_bytes),
                              ceil_div(p->h.pixels * p->w.pixels, most_pixels));
        blocks = most(blocks, ceil_div(CONV_TASKS, p->n));
        p->rows = most(ceil_div(p->h.pixels, blocks), ceil_div(fewest, p->w.count * p->h.phases));
        p->rows = least(p->rows, p->h.pixels);
    }
    p->row_blocks = ceil_div(p->h.pixels, p->rows);
    p->panels = conv_panels(p->group_out);
    int64_t tasks = ceil_div(p->n, p->samples) * p->row_blocks;
    int64_t worth = (int64_t)(total / (double)tasks / CONV_TASK_NS);
    p->panel_parts = least(p->groups * p->panels, least(CONV_TASKS / tasks, worth));
    p->panel_parts = most(1, p->panel_parts);

    p->width = (p->w.pixels - 1) * p->w.step + p->w.span + 1;
    p->height = (p->rows - 1) * p->h.step + p->h.span + 1;
    int copies = p->h.outside || p->w.outside;
    p->window_bytes = copies ? conv_align((size_t)(p->samples * p->height * row_bytes)) : 0;
    p->table_bytes =
        conv_align((size_t)(p->samples * p->rows * p->w.pixels + MR) * sizeof(int64_t));
    return total;
}

/* --- one task --------------------------------------------------------------------------------- */

typedef struct {
    const T *x; /* the window's first pixel */
    int64_t row_pitch, sample_pitch;
    int64_t first_sample, samples, first_row, rows;
    int64_t *xoff, *yoff;
    conv_segment *segments;
} task_state;

#define CONV_TILE(mr, nv)                                                                          \
    static __attribute__((noinline)) void tile_##mr##x##nv(                                        \
        const conv_tile *t, const int64_t *xoff, const int64_t *yoff, int64_t rows) {              \
        conv_tile_run(mr, nv, 0, 1, nv * VL, t, xoff, yoff, rows);                                 \
    }
CONV_EACH_TILE(CONV_TILE)

#define CONV_TILE_ENTRY(mr, nv) [nv - 1][mr / 2 - 1] = tile_##mr##x##nv,
const conv_tile_fn FNN_SYM(conv_tiles)[NV][MR / 2] = {CONV_EACH_TILE(CONV_TILE_ENTRY)};

/* The phase's pixels of this task, as offsets into window and destination; returns their number. */
static int64_t list_pixels(const plan *p, const task_state *s, int64_t phase_y, int64_t phase_x) {
    int64_t cols = p->w.count <= phase_x ? 0 : ceil_div(p->w.count - phase_x, p->w.phases);
    int64_t all_rows = p->h.count <= phase_y ? 0 : ceil_div(p->h.count - phase_y, p->h.phases);
    int64_t rows = least(s->first_row + s->rows, all_rows) - s->first_row;
    int64_t xstep = p->w.step * p->src_c, ystep = p->w.phases * p->dst_c, count = 0;
    for (int64_t i = 0; i < s->samples; i++)
        for (int64_t row = 0; row < rows; row++) {
            int64_t x = i * s->sample_pitch + row * p->h.step * s->row_pitch;
            int64_t dst_row = (s->first_row + row) * p->h.phases + phase_y;
            int64_t y =
                (((s->first_sample + i) * p->h.count + dst_row) * p->w.count + phase_x) * p->dst_c;
            for (int64_t col = 0; col < cols; col++, count++) {
                s->xoff[count] = x + col * xstep;
                s->yoff[count] = y + col * ystep;
            }
        }
    for (int64_t i = 0; i < MR && count > 0; i++) s->xoff[count + i] = s->xoff[count - 1];
    return count;
}

/* The phase's taps as segments of a panel `width` columns wide; returns their number. */
static int64_t list_taps(const plan *p, const task_state *s, int64_t phase_y, int64_t phase_x,
                         int64_t width) {
    int64_t count = 0, y, x;
    for (int64_t r = 0; r < p->h.kernel; r++) {
        if (!tap_at(&p->h, p->backward, phase_y, r, &y)) continue;
        for (int64_t i = 0; i < p->w.kernel; i++) {
            int64_t position = p->backward ? p->w.kernel - 1 - i : i;
            if (!tap_at(&p->w, p->backward, phase_x, position, &x)) continue;
            s->segments[count++] =
                (conv_segment){(y - p->h.first) * s->row_pitch + (x - p->w.first) * p->src_c,
                               (r * p->w.kernel + i) * p->group_in * width};
            if (p->merged) break;
        }
    }
    return count;
}

static void run_panel(const plan *p, const task_state *s, int64_t phase_y, int64_t phase_x,
                      int64_t index, int64_t pixels) {
    int64_t group = index / p->panels, panel = index % p->panels;
    int64_t nv = conv_panel_vectors(p->group_out, panel), taps = p->h.kernel * p->w.kernel;
    int64_t first = group * p->group_out + panel * NR;
    conv_tile t = {
        .x = s->x + group * p->group_in,
        .w = p->packed + (group * conv_padded(p->group_out) + panel * NR) * taps * p->group_in,
        .segments = s->segments,
        .segment_count = list_taps(p, s, phase_y, phase_x, nv * VL),
        .len = p->group_in * (p->merged ? p->w.kernel : 1),
        .bias = p->bias ? p->bias + first : NULL,
        .residual = p->residual ? p->residual + first : NULL,
        .saved = p->saved ? p->saved + first : NULL,
        .y = p->dst + first,
        .cols = least(NR, p->group_out - panel * NR),
        .act = (int)p->act,
    };
    int64_t height = conv_tile_height(pixels);
    for (int64_t i = 0; i < pixels; i += height) {
        int64_t rows = least(height, pixels - i), mr = (rows + 1) / 2;
        FNN_SYM(conv_tiles)[nv - 1][mr - 1](&t, s->xoff + i, s->yoff + i, rows);
    }
}

/* Points the task at its window of the source, copied with halo if taps fall outside. */
static void take_window(const plan *p, task_state *s, T *scratch) {
    int64_t row = p->w.source * p->src_c, sample = p->h.source * row;
    int64_t y0 = s->first_row * p->h.step + p->h.first;
    if (p->window_bytes == 0) {
        s->x = p->src + s->first_sample * sample + y0 * row + p->w.first * p->src_c;
        s->row_pitch = row;
        s->sample_pitch = sample;
        return;
    }
    s->x = scratch;
    s->row_pitch = p->width * p->src_c;
    s->sample_pitch = p->height * s->row_pitch;
    for (int64_t i = 0; i < s->samples; i++)
        conv_copy_window(scratch + i * s->sample_pitch, p->src + (s->first_sample + i) * sample,
                         p->h.source, p->w.source, p->src_c, y0, p->w.first, p->height, p->width);
}

/* The moments of a panel's channels in the task's pixels, part `block` of them. */
static void find_moments(const plan *p, const task_state *s, int64_t index, int64_t pixels,
                         int64_t block) {
    moments_state found = {0};
    int64_t group = index / p->panels, panel = index % p->panels;
    int64_t first = group * p->group_out + panel * NR, cols = least(NR, p->group_out - panel * NR);
    for (int64_t i = 0; i < pixels; i += MOMENT_ROWS)
        moments_add(&found, p->dst + first, s->yoff + i, least(MOMENT_ROWS, pixels - i), cols);
    moments_store(&found, p->moments + block * moments_part(p->dst_c), p->dst_c, first, cols);
}

static void run_task(void *ctx, int64_t task) {
    plan *p = ctx;
    int64_t taps = p->h.kernel * p->w.kernel;
    char *scratch =
        fnn_scratch(p->window_bytes + 2 * p->table_bytes + (size_t)taps * sizeof(conv_segment));
    if (!scratch) {
        __atomic_store_n(&p->failed, 1, __ATOMIC_RELAXED);
        return;
    }
    int64_t part = task % p->panel_parts, block = task / p->panel_parts;
    int64_t all = p->groups * p->panels;
    task_state s = {.first_sample = block / p->row_blocks * p->samples,
                    .first_row = block % p->row_blocks * p->rows};
    s.samples = least(p->samples, p->n - s.first_sample);
    s.rows = least(p->rows, p->h.pixels - s.first_row);
    s.xoff = (int64_t *)(scratch + p->window_bytes);
    s.yoff = (int64_t *)(scratch + p->window_bytes + p->table_bytes);
    s.segments = (conv_segment *)(scratch + p->window_bytes + 2 * p->table_bytes);
    take_window(p, &s, (T *)scratch);
    for (int64_t y = 0; y < p->h.phases; y++)
        for (int64_t x = 0; x < p->w.phases; x++) {
            int64_t pixels = list_pixels(p, &s, y, x);
            if (pixels <= 0) continue;
            for (int64_t i = all * part / p->panel_parts; i < all * (part + 1) / p->panel_parts;
                 i++) {
                run_panel(p, &s, y, x, i, pixels);
                if (p->moments) find_moments(p, &s, i, pixels, block);
            }
        }
}

static int64_t count_blocks(const plan *p) { return ceil_div(p->n, p->samples) * p->row_blocks; }

static int run_plan(plan *p) {
    if (p->n * p->h.count * p->w.count * p->dst_c == 0) return FNN_OK;
    double cost = cut_tasks(p);
    fnn_parallel(count_blocks(p) * p->panel_parts, cost, run_task, p);
    return p->failed ? FNN_NO_MEMORY : FNN_OK;
}

/* --- the kernels ------------------------------------------------------------------------------ */

static void set_shape(plan *p, conv_shape a, int backward) {
    if (conv_is_dense(&a)) a = conv_flatten(&a);
    p->n = a.n;
    p->backward = backward;
    p->groups = a.groups;
    p->h = make_axis(backward, a.ih, a.oh, a.kh, a.stride_h, a.pad_h, a.dilation_h);
    p->w = make_axis(backward, a.iw, a.ow, a.kw, a.stride_w, a.pad_w, a.dilation_w);
    p->src_c = backward ? a.k : a.c;
    p->dst_c = backward ? a.c : a.k;
    p->group_in = p->src_c / a.groups;
    p->group_out = p->dst_c / a.groups;
    p->merged = a.groups == 1 && a.dilation_w == 1 && (!backward || a.stride_w == 1);
}

static int is_planar(const fnn_conv_fwd_args *a) {
    return conv_is_planar(a->k, a->stride_h, a->stride_w, a->groups);
}

/* Of `moments`: the other ways of computing leave them out. */
int64_t FNN_SYM(conv_fwd_size)(const fnn_conv_fwd_args *a) {
    if (conv_is_depthwise(a->groups, a->c, a->k) || is_planar(a) ||
        FNN_SYM(conv_is_lanes)(&CONV_SHAPE(a), 0) || a->n * a->oh * a->ow * a->k == 0)
        return 0;
    plan p = {0};
    set_shape(&p, CONV_SHAPE(a), 0);
    cut_tasks(&p);
    return moments_bytes(count_blocks(&p), a->k);
}

int FNN_SYM(conv_fwd)(const fnn_conv_fwd_args *a) {
    if (conv_is_depthwise(a->groups, a->c, a->k)) return FNN_SYM(conv_depthwise_fwd)(a);
    if (FNN_SYM(conv_is_lanes)(&CONV_SHAPE(a), 0)) return FNN_SYM(conv_lanes_fwd)(a);
    if (is_planar(a)) return FNN_SYM(conv_planar_fwd)(a);
    plan p = {.src = a->x,
              .packed = a->packed,
              .bias = a->bias,
              .residual = a->residual,
              .saved = epilogue_reads_saved(a->act) ? a->saved : NULL,
              .dst = a->y,
              .moments = a->moments,
              .act = a->act};
    set_shape(&p, CONV_SHAPE(a), 0);
    return run_plan(&p);
}

int FNN_SYM(conv_bwd_data)(const fnn_conv_bwd_data_args *a) {
    if (conv_is_depthwise(a->groups, a->c, a->k)) return FNN_SYM(conv_depthwise_bwd_data)(a);
    if (FNN_SYM(conv_is_lanes)(&CONV_SHAPE(a), 1)) return FNN_SYM(conv_lanes_bwd_data)(a);
    if (conv_is_gathered(a->k, a->c, a->kh, a->kw, a->dilation_w, a->groups))
        return FNN_SYM(conv_gather_bwd_data)(a);
    plan p = {.src = a->dy,
              .packed = a->packed,
              .residual = a->residual,
              .saved = epilogue_reads_saved(a->act) ? a->saved : NULL,
              .dst = a->dx,
              .act = a->act};
    set_shape(&p, CONV_SHAPE(a), 1);
    return run_plan(&p);
}
