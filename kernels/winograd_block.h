/* The parts of Winograd's forward pass over some tiles: transformed input, [position][tile][c], the
 * products of a panel, [position][tile][width], and output pixels, clipped at the borders. */
#ifndef FNN_WINOGRAD_BLOCK_H
#define FNN_WINOGRAD_BLOCK_H

#define FNN_DEF "def/winograd.def"
#include "args.h"

#include "moments.h"
#include "winograd.h"

typedef struct {
    const fnn_winograd_fwd_args *a;
    const T *saved;
    winograd_grid grid;
    int64_t tiles, blocks, block; /* block: tiles from one position of scratch to the next */
    int64_t panels, parts, run;   /* run: blocks of a task */
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

/* What is fetched beside the products: the next block's input, and where a panel's output goes. */
typedef struct {
    winograd_coming input, output;
} fetches;

/* Asks for some pixels of the input that the next block reads. */
FNN_INLINE void fetch_input(const plan *p, winograd_coming *coming) {
    const fnn_winograd_fwd_args *a = p->a;
    const int64_t overlap = WINOGRAD_REACH - WINOGRAD_TILE; /* belongs to the tile before */
    int64_t end = least(coming->asked + coming->at_once, coming->pixels), r;
    winograd_tile t;
    coming->c = coming->channels = a->c;
    while (coming->asked < end) {
        if (winograd_begins_row(coming, p->grid, &t, &r))
            coming->row[0] = winograd_row(a->x, t.sample, a->ih, a->iw, a->c, t.y - a->pad_h + r,
                                          t.x - a->pad_w + overlap);
        winograd_fetch_pixel(coming);
    }
}

/* Asks for some pixels of the output, which is written soon, and of what the epilogue reads. */
FNN_INLINE void fetch_output(const plan *p, int64_t panel, winograd_coming *coming) {
    const fnn_winograd_fwd_args *a = p->a;
    const T *images[] = {a->y, a->residual, p->saved};
    int64_t end = least(coming->asked + coming->at_once, coming->pixels), r;
    winograd_tile t;
    coming->c = a->k;
    coming->channels = least(NR, a->k - panel * NR);
    while (coming->asked < end) {
        if (winograd_begins_row(coming, p->grid, &t, &r))
            for (int i = 0; i < 3; i++)
                coming->row[i] = winograd_row(images[i] ? images[i] + panel * NR : NULL, t.sample,
                                              a->oh, a->ow, a->k, t.y + r, t.x);
        winograd_fetch_pixel(coming);
    }
}

/* The products of one position for one panel: all of the block's tiles. */
FNN_INLINE void multiply(const plan *p, const block_state *s, int64_t panel, int64_t position,
                         fetches *beside) {
    int64_t vectors = conv_panel_vectors(p->a->k, panel), width = vectors * VL, c = p->a->c;
    int64_t height = conv_tile_height(s->count);
    conv_segment whole = {0, 0};
    conv_tile t = {.x = s->input + position * p->block * p->row,
                   .w = (const T *)p->a->packed + panel * NR * WINOGRAD_POSITIONS * c +
                        position * c * width,
                   .segments = &whole,
                   .segment_count = 1,
                   .len = c,
                   .y = s->products + position * p->block * NR,
                   .cols = width};
    for (int64_t i = 0; i < s->count; i += height) {
        int64_t rows = least(height, s->count - i);
        fetch_input(p, &beside->input);
        fetch_output(p, panel, &beside->output);
        FNN_SYM(conv_tiles)
        [vectors - 1][(rows + 1) / 2 - 1](&t, s->xoff + i, s->yoff + i, rows);
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

static void transform_output(const plan *p, const block_state *s, int64_t panel) {
    const fnn_winograd_fwd_args *a = p->a;
    int64_t vectors = conv_panel_vectors(a->k, panel);
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

/* Rows of transformed tiles and of products, for the register tiles. */
static void fill_tables(const plan *p, const block_state *s) {
    memset((T *)s->zeros, 0, p->zeros_bytes);
    for (int64_t i = 0; i < s->count + MR; i++) {
        s->xoff[i] = least(i, s->count - 1) * p->row;
        s->yoff[i] = i * NR;
    }
}

/* The sizes of scratch, with the products of so many panels. */
static void measure_scratch(plan *p, int64_t panels) {
    int64_t positions = WINOGRAD_POSITIONS * p->block;
    p->input_bytes = conv_align((size_t)(positions * p->row) * sizeof(T));
    p->product_bytes = conv_align((size_t)(panels * positions * NR) * sizeof(T));
    p->table_bytes = conv_align((size_t)(p->block + MR) * sizeof(int64_t));
    p->zeros_bytes = conv_align((size_t)p->row * sizeof(T));
}

static block_state state_at(const plan *p, char *scratch) {
    block_state s = {.input = (T *)scratch};
    s.products = (T *)(scratch += p->input_bytes);
    s.xoff = (int64_t *)(scratch += p->product_bytes);
    s.yoff = (int64_t *)(scratch += p->table_bytes);
    s.zeros = (const T *)(scratch + p->table_bytes);
    return s;
}

FNN_INLINE int64_t first_tile(const plan *p, int64_t block) { return p->tiles * block / p->blocks; }

#endif
