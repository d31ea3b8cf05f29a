/* Winograd's convolution, forward; with exchanged channels and turned weights backward-data.
 *
 * A task takes a block of tiles, of whatever rows and samples, and a range of panels of output
 * channels. It transforms the block's input into scratch, [position][tile][c]; for each panel it
 * makes the 36 products, [position][tile][width], with the register tiles of conv.c, and transforms
 * them to output pixels, clipped at the borders. All of it stays in L2.
 */
#define FNN_DEF "def/winograd.def"
#include "args.h"

#include "moments.h"
#include "winograd.h"

enum { BLOCK = 28 / MR * MR }; /* tiles of a task */

typedef struct {
    const fnn_winograd_fwd_args *a;
    const T *saved;
    winograd_grid grid;
    int64_t tiles, blocks, block; /* block: tiles of the largest */
    int64_t panels, parts;
    int64_t row; /* elements of a transformed tile's channels; not a power of two */
    size_t input_bytes, product_bytes, table_bytes, zeros_bytes;
    int failed;
} plan;

typedef struct {
    int64_t first, count; /* tiles */
    T *input, *products;
    int64_t *xoff, *yoff;
    const T *zeros;
} block_state;

FNN_INLINE void transform_input_as(const int scales, const plan *p, const block_state *s) {
    const fnn_winograd_fwd_args *a = p->a;
    const winograd_source source = {a->c, a->c, s->zeros, a->table};
    const T *pixels[WINOGRAD_POSITIONS];
    for (int64_t i = 0; i < s->count; i++) {
        winograd_tile t = winograd_tile_at(p->grid, s->first + i);
        winograd_window(WINOGRAD_REACH, pixels, a->x, t.sample, a->ih, a->iw, a->c, t.y - a->pad_h,
                        t.x - a->pad_w, s->zeros);
        winograd_expand_channels(WINOGRAD_REACH, scales, &source, pixels, s->input + i * p->row,
                                 p->block * p->row);
    }
}

static void transform_input(const plan *p, const block_state *s) {
    if (p->a->table)
        transform_input_as(1, p, s);
    else
        transform_input_as(0, p, s);
}

static void multiply(const plan *p, const block_state *s, int64_t panel, int64_t vectors) {
    int64_t height = conv_tile_height(s->count), width = vectors * VL;
    conv_segment whole = {0, 0};
    conv_tile t = {.x = s->input,
                   .w = (const T *)p->a->packed + panel * NR * WINOGRAD_POSITIONS * p->a->c,
                   .segments = &whole,
                   .segment_count = 1,
                   .len = p->a->c,
                   .y = s->products,
                   .cols = width};
    for (int position = 0; position < WINOGRAD_POSITIONS; position++) {
        for (int64_t i = 0; i < s->count; i += height) {
            int64_t rows = least(height, s->count - i);
            FNN_SYM(conv_tiles)
            [vectors - 1][(rows + 1) / 2 - 1](&t, s->xoff + i, s->yoff + i, rows);
        }
        t.x += p->block * p->row;
        t.w += p->a->c * width;
        t.y += p->block * NR;
    }
}

/* A vector of channels of one tile's pixels, n of its lanes, through the epilogue. */
FNN_INLINE void store_pixels(const int64_t act, const int whole, const plan *p, V v[4][4],
                             winograd_tile t, int64_t channel, int64_t n) {
    const fnn_winograd_fwd_args *a = p->a;
    const T *bias = a->bias, *residual = a->residual;
    const scaling scaling = scaling_at(a->saved_table, a->k, channel);
    V start = !bias ? (V){0} : whole ? v_load(bias + channel) : v_load_n(bias + channel, n);
    int64_t rows = least(WINOGRAD_TILE, a->oh - t.y), cols = least(WINOGRAD_TILE, a->ow - t.x);
    for (int64_t r = 0; r < rows; r++) {
        int64_t at = ((t.sample * a->oh + t.y + r) * a->ow + t.x) * a->k + channel;
        for (int64_t c = 0; c < cols; c++, at += a->k) {
            V sum = v[r][c] + start, saved = {0};
            if (residual) sum += whole ? v_load(residual + at) : v_load_n(residual + at, n);
            if (epilogue_reads_saved(act))
                saved = whole ? v_load(p->saved + at) : v_load_n(p->saved + at, n);
            if (epilogue_reads_saved(act) && a->saved_table) saved = scaled(&scaling, saved);
            sum = epilogue(act, sum, saved);
            if (whole)
                v_store((T *)a->y + at, sum);
            else
                v_store_n((T *)a->y + at, sum, n);
        }
    }
}

static __attribute__((noinline)) void store_slow(const plan *p, V v[4][4], winograd_tile t,
                                                 int64_t channel, int64_t n) {
    if (n >= VL)
        store_pixels(p->a->act, 1, p, v, t, channel, n);
    else
        store_pixels(p->a->act, 0, p, v, t, channel, n);
}

static void transform_output(const plan *p, const block_state *s, int64_t panel, int64_t vectors) {
    const fnn_winograd_fwd_args *a = p->a;
    for (int64_t i = 0; i < s->count; i++) {
        winograd_tile t = winograd_tile_at(p->grid, s->first + i);
        for (int64_t j = 0; j < vectors; j++) {
            V v[4][4];
            int64_t channel = panel * NR + j * VL, n = a->k - channel;
            winograd_reduce_tile(WINOGRAD_TILE, s->products + i * NR + j * VL, p->block * NR, v);
            if (n >= VL && a->act == FNN_ACT_NONE)
                store_pixels(FNN_ACT_NONE, 1, p, v, t, channel, n);
            else if (n >= VL && a->act == FNN_ACT_RELU)
                store_pixels(FNN_ACT_RELU, 1, p, v, t, channel, n);
            else if (n >= VL && a->act == FNN_GRAD_RELU)
                store_pixels(FNN_GRAD_RELU, 1, p, v, t, channel, n);
            else
                store_slow(p, v, t, channel, n);
        }
    }
}

/* Where the pixels of a tile lie in y; returns their number. */
static int64_t list_pixels(const plan *p, int64_t tile, int64_t *offsets) {
    const fnn_winograd_fwd_args *a = p->a;
    winograd_tile t = winograd_tile_at(p->grid, tile);
    int64_t rows = least(WINOGRAD_TILE, a->oh - t.y), width = least(WINOGRAD_TILE, a->ow - t.x);
    int64_t count = 0;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < width; c++)
            offsets[count++] = ((t.sample * a->oh + t.y + r) * a->ow + t.x + c) * a->k;
    return count;
}

/* The moments of a panel's channels in the block's pixels, part `block` of them; of a gradient its
 * sums for the batch norm that saved_table is of. */
static void find_moments(const plan *p, const block_state *s, int64_t panel, int64_t block) {
    const fnn_winograd_fwd_args *a = p->a;
    moments_state found = {0};
    gradient_state sums = {0};
    int64_t first = panel * NR, cols = least(NR, a->k - first);
    int64_t offsets[WINOGRAD_TILE * WINOGRAD_TILE];
    const T *y = (const T *)a->y + first, *x = p->saved ? p->saved + first : NULL;
    const T *mean = a->saved_table ? (const T *)a->saved_table + first : NULL;
    for (int64_t i = 0; i < s->count; i++) {
        int64_t count = list_pixels(p, s->first + i, offsets);
        if (mean)
            gradients_add(&sums, y, x, mean, offsets, count, cols);
        else
            moments_add(&found, y, offsets, count, cols);
    }
    double *part = (double *)a->moments + block * moments_part(a->k);
    if (mean)
        gradients_store(&sums, part, a->k, first, cols);
    else
        moments_store(&found, part, a->k, first, cols);
}

static void run_task(void *ctx, int64_t task) {
    plan *p = ctx;
    char *scratch =
        fnn_scratch(p->input_bytes + p->product_bytes + 2 * p->table_bytes + p->zeros_bytes);
    if (!scratch) {
        __atomic_store_n(&p->failed, 1, __ATOMIC_RELAXED);
        return;
    }
    int64_t block = task / p->parts, part = task % p->parts;
    block_state s = {.first = p->tiles * block / p->blocks, .input = (T *)scratch};
    s.count = p->tiles * (block + 1) / p->blocks - s.first;
    s.products = (T *)(scratch += p->input_bytes);
    s.xoff = (int64_t *)(scratch += p->product_bytes);
    s.yoff = (int64_t *)(scratch += p->table_bytes);
    s.zeros = (T *)(scratch += p->table_bytes);
    memset(scratch, 0, p->zeros_bytes);
    for (int64_t i = 0; i < s.count + MR; i++) {
        s.xoff[i] = least(i, s.count - 1) * p->row;
        s.yoff[i] = i * NR;
    }
    transform_input(p, &s);
    for (int64_t i = p->panels * part / p->parts; i < p->panels * (part + 1) / p->parts; i++) {
        int64_t vectors = conv_panel_vectors(p->a->k, i);
        multiply(p, &s, i, vectors);
        transform_output(p, &s, i, vectors);
        if (p->a->moments) find_moments(p, &s, i, block);
    }
}

int64_t FNN_SYM(winograd_fwd_size)(const fnn_winograd_fwd_args *a) {
    winograd_grid grid = winograd_tiles(a->oh, a->ow);
    return moments_bytes(ceil_div(a->n * grid.rows * grid.cols, BLOCK), a->k);
}

int FNN_SYM(winograd_fwd)(const fnn_winograd_fwd_args *a) {
    plan p = {.a = a, .saved = a->saved, .grid = winograd_tiles(a->oh, a->ow)};
    p.tiles = a->n * p.grid.rows * p.grid.cols;
    if (p.tiles * a->k == 0) return FNN_OK;
    double cost = winograd_tile_ns(a->c, a->k) * (double)p.tiles;
    p.blocks = ceil_div(p.tiles, BLOCK);
    p.block = ceil_div(p.tiles, p.blocks);
    p.panels = conv_panels(a->k);
    int64_t worth = (int64_t)(cost / (double)p.blocks / CONV_TASK_NS);
    p.parts = most(1, least(least(p.panels, worth), CONV_TASKS / p.blocks));
    p.row = conv_padded(a->c) + VL;
    p.input_bytes = conv_align((size_t)(WINOGRAD_POSITIONS * p.block * p.row) * sizeof(T));
    p.product_bytes = conv_align((size_t)(WINOGRAD_POSITIONS * p.block * NR) * sizeof(T));
    p.table_bytes = conv_align((size_t)(p.block + MR) * sizeof(int64_t));
    p.zeros_bytes = conv_align((size_t)p.row * sizeof(T));
    fnn_parallel(p.blocks * p.parts, cost, run_task, &p);
    return p.failed ? FNN_NO_MEMORY : FNN_OK;
}
