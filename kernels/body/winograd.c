/* Winograd's convolution, forward; with exchanged channels and turned weights backward-data.
 *
 * A task takes some blocks of tiles, of whatever rows and samples, and a range of panels of output
 * channels. It transforms a block's input into scratch; for each panel it makes the 36 products
 * with the register tiles of conv.c, and transforms them to output pixels. All of it stays in L2,
 * and what comes next is fetched beside the products.
 *
 * Weights that do not fit there (many channels, small images) would be fetched anew for each block.
 * Then many blocks go through it in stages, all threads together: their inputs, products position
 * by position, of whose weights each is read once, and their outputs.
 */
#include "winograd_block.h"

enum {
    BLOCK = 28 / MR * MR,    /* tiles that stay in the L2 cache together */
    MOST_RUN = 4,            /* blocks of a task, which it can fetch ahead for */
    WEIGHT_BYTES = 16 << 20, /* of packed weights: more are read in stages */
    SLICE_BYTES = 1 << 19,   /* of one position's transformed input, then */
};

/* --- block by block -------------------------------------------------------------------------- */

/* A block's panels first..last; the input of the next `tiles` is fetched beside their products. */
static void run_block(const plan *p, block_state *s, int64_t block, int64_t first, int64_t last,
                      int64_t tiles) {
    fill_tables(p, s);
    transform_input(p, s);
    int64_t calls = WINOGRAD_POSITIONS * ceil_div(s->count, conv_tile_height(s->count));
    fetches beside = {.input = winograd_expect(s->first + s->count, tiles, WINOGRAD_REACH,
                                               calls * (last - first))};
    for (int64_t i = first; i < last; i++) {
        beside.output = winograd_expect(s->first, s->count, WINOGRAD_TILE, calls);
        for (int position = 0; position < WINOGRAD_POSITIONS; position++)
            multiply(p, s, i, position, &beside);
        transform_output(p, s, i);
        if (p->a->moments) find_moments(p, s, i, block);
    }
}

static void run_task(void *ctx, int64_t task) {
    plan *p = ctx;
    char *scratch =
        fnn_scratch(p->input_bytes + p->product_bytes + 2 * p->table_bytes + p->zeros_bytes);
    if (!scratch) {
        __atomic_store_n(&p->failed, 1, __ATOMIC_RELAXED);
        return;
    }
    int64_t block = task / p->parts * p->run, part = task % p->parts;
    int64_t end = least(block + p->run, p->blocks);
    block_state s = state_at(p, scratch);
    for (; block < end; block++) {
        s.first = first_tile(p, block), s.count = first_tile(p, block + 1) - s.first;
        int64_t next = first_tile(p, least(block + 2, end)) - s.first - s.count;
        run_block(p, &s, block, p->panels * part / p->parts, p->panels * (part + 1) / p->parts,
                  next);
    }
}

static int run_blocks(plan *p, double cost) {
    int64_t worth = (int64_t)(cost / (double)p->blocks / CONV_TASK_NS);
    p->block = ceil_div(p->tiles, p->blocks);
    p->parts = most(1, least(least(p->panels, worth), CONV_TASKS / p->blocks));
    p->run = most(1, least(MOST_RUN, p->blocks * p->parts / CONV_TASKS));
    measure_scratch(p, 1);
    fnn_parallel(ceil_div(p->blocks, p->run) * p->parts, cost, run_task, p);
    return p->failed ? FNN_NO_MEMORY : FNN_OK;
}

/* --- stage by stage -------------------------------------------------------------------------- */

/* Some blocks in a row; all is the state of all their tiles. */
typedef struct {
    const plan *p;
    int64_t first, blocks;
    block_state all;
} stage_run;

static block_state stage_block(const stage_run *r, int64_t block, int64_t panel) {
    block_state s = r->all;
    int64_t at = first_tile(r->p, block) - s.first;
    s.first += at;
    s.count = first_tile(r->p, block + 1) - s.first;
    s.input += at * r->p->row;
    s.products += panel * WINOGRAD_POSITIONS * r->p->block * NR + at * NR;
    return s;
}

static void input_task(void *ctx, int64_t task) {
    const stage_run *r = ctx;
    block_state s = stage_block(r, r->first + task, 0);
    transform_input(r->p, &s);
}

static void product_task(void *ctx, int64_t position) {
    const stage_run *r = ctx;
    block_state s = r->all;
    fetches none = {0};
    for (int64_t i = 0; i < r->p->panels; i++, s.products += WINOGRAD_POSITIONS * r->p->block * NR)
        multiply(r->p, &s, i, position, &none);
}

static void output_task(void *ctx, int64_t task) {
    const stage_run *r = ctx;
    int64_t block = r->first + task / r->p->panels, panel = task % r->p->panels;
    block_state s = stage_block(r, block, panel);
    transform_output(r->p, &s, panel);
    if (r->p->a->moments) find_moments(r->p, &s, panel, block);
}

static int run_stages(plan *p, double cost) {
    int64_t most_tiles = SLICE_BYTES / (p->row * (int64_t)sizeof(T));
    int64_t runs = ceil_div(p->blocks, most(1, most_tiles / BLOCK));
    int64_t blocks = ceil_div(p->blocks, runs);
    p->block = blocks * ceil_div(p->tiles, p->blocks);
    measure_scratch(p, p->panels);
    char *scratch =
        fnn_scratch(p->input_bytes + p->product_bytes + 2 * p->table_bytes + p->zeros_bytes);
    if (!scratch) return FNN_NO_MEMORY;
    for (int64_t first = 0; first < p->blocks; first += blocks) {
        stage_run r = {p, first, least(blocks, p->blocks - first), state_at(p, scratch)};
        r.all.first = first_tile(p, first);
        r.all.count = first_tile(p, first + r.blocks) - r.all.first;
        fill_tables(p, &r.all);
        double part = cost * (double)r.all.count / (double)p->tiles;
        fnn_parallel(r.blocks, part / 4, input_task, &r);
        fnn_parallel(WINOGRAD_POSITIONS, part / 2, product_task, &r);
        fnn_parallel(r.blocks * p->panels, part / 4, output_task, &r);
    }
    return FNN_OK;
}

/* --- the kernel ------------------------------------------------------------------------------ */

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
    p.panels = conv_panels(a->k);
    p.row = conv_padded(a->c) + VL;
    int64_t weights = WINOGRAD_POSITIONS * a->c * a->k * (int64_t)sizeof(T);
    return p.blocks > 1 && weights > WEIGHT_BYTES ? run_stages(&p, cost) : run_blocks(&p, cost);
}
