/* Winograd's convolution, backward-weights: F(3x3, 4x4), with 4x4 tiles of dy as the kernel.
 *
 * The tiles of the whole batch are cut into chunks, dw into parts of so many inputs and outputs
 * that a part's 36 sums stay in L2. A task walks its chunk in blocks: x and dy are transformed into
 * scratch, [position][tile][c] and [panel][position][tile][width], and the products of each
 * position added to its sums; at the end the sums become the chunk's dw. The chunks are added in a
 * fixed order.
 */
#define FNN_DEF "def/winograd.def"
#include "args.h"

#include "conv_sum.h"
#include "winograd.h"

enum { SUM_BYTES = 1 << 20, BLOCK_BYTES = 3 << 18, BLOCK_LEAST = 16, BLOCK_MOST = 48 };

typedef struct {
    const fnn_winograd_bwd_weight_args *a;
    winograd_grid grid;
    int64_t tiles, chunks, block;
    int64_t c_parts, k_parts, part_c, part_panels; /* the largest part's channels and panels */
    int64_t row; /* elements of a transformed tile of x; not a power of two */
    size_t sum_bytes, x_bytes, dy_bytes, table_bytes, zeros_bytes;
    int failed;
} plan;

typedef struct {
    T *sums, *x, *dy; /* sums[panel][position][c][width], the width of every panel NR */
    int64_t *xoff, *yoff;
    const T *zeros;
    int64_t first_c, channels, first_panel, panels;
    T *dw, *dbias; /* the chunk's; dbias null where another part makes it */
} part_state;

FNN_INLINE int64_t panel_size(int64_t rows) { return WINOGRAD_POSITIONS * rows * NR; }

static void add_dbias(const T *const *pixels, int64_t n, T *dbias) {
    for (int64_t j = 0; j < n; j += VL) {
        V sum[4];
        int64_t left = n - j;
        for (int r = 0; r < 4; r++) {
            V d[4];
            for (int s = 0; s < 4; s++) {
                const T *from = pixels[r * 4 + s] + j;
                d[s] = left >= VL ? v_load(from) : v_load_n(from, left);
            }
            sum[r] = (d[0] + d[1]) + (d[2] + d[3]);
        }
        V all = (sum[0] + sum[1]) + (sum[2] + sum[3]);
        if (left >= VL)
            v_store(dbias + j, v_load(dbias + j) + all);
        else
            v_store_n(dbias + j, v_load_n(dbias + j, left) + all, left);
    }
}

/* The tiles first.. of the chunk, `count` of them. */
FNN_INLINE void transform_as(const int scales, const plan *p, const part_state *s, int64_t first,
                             int64_t count) {
    const fnn_winograd_bwd_weight_args *a = p->a;
    const T *table = scales ? (const T *)a->table + s->first_c : NULL;
    const winograd_source x = {a->c, s->channels, s->zeros, table};
    const T *pixels[WINOGRAD_POSITIONS];
    for (int64_t i = 0; i < count; i++) {
        winograd_tile t = winograd_tile_at(p->grid, first + i);
        winograd_window(WINOGRAD_REACH, pixels, (const T *)a->x + s->first_c, t.sample, a->ih,
                        a->iw, a->c, t.y - a->pad_h, t.x - a->pad_w, s->zeros);
        winograd_expand_channels(WINOGRAD_REACH, scales, &x, pixels, s->x + i * p->row,
                                 p->block * p->row);
        for (int64_t j = 0; j < s->panels; j++) {
            int64_t column = (s->first_panel + j) * NR, n = least(NR, a->k - column);
            winograd_window(WINOGRAD_TILE, pixels, (const T *)a->dy + column, t.sample, a->oh,
                            a->ow, a->k, t.y, t.x, s->zeros);
            const winograd_source dy = {a->k, n, s->zeros, NULL};
            winograd_expand_channels(WINOGRAD_TILE, 0, &dy, pixels,
                                     s->dy + j * panel_size(p->block) + i * NR, p->block * NR);
            if (s->dbias) add_dbias(pixels, n, s->dbias + column);
        }
    }
}

static void transform(const plan *p, const part_state *s, int64_t first, int64_t count) {
    if (p->a->table)
        transform_as(1, p, s, first, count);
    else
        transform_as(0, p, s, first, count);
}

/* Asks for some of the pixels of x and dy that the next block reads. */
FNN_INLINE void fetch(const plan *p, const part_state *s, winograd_coming *coming) {
    const fnn_winograd_bwd_weight_args *a = p->a;
    const int64_t overlap = WINOGRAD_REACH - WINOGRAD_TILE; /* belongs to the tile before */
    int64_t end = least(coming->asked + coming->at_once, coming->pixels), r;
    winograd_tile t;
    while (coming->asked < end) {
        if (winograd_begins_row(coming, p->grid, &t, &r)) {
            const int of_x = r < WINOGRAD_REACH;
            coming->c = of_x ? a->c : a->k;
            coming->channels = of_x ? s->channels : s->panels * NR;
            coming->row[0] =
                of_x ? winograd_row((const T *)a->x + s->first_c, t.sample, a->ih, a->iw, a->c,
                                    t.y - a->pad_h + r, t.x - a->pad_w + overlap)
                     : winograd_row((const T *)a->dy + s->first_panel * NR, t.sample, a->oh, a->ow,
                                    a->k, t.y + r - WINOGRAD_REACH, t.x);
        }
        winograd_fetch_pixel(coming);
    }
}

/* The products of a block of tiles; the next ones, `tiles` from `next` on, are fetched beside them.
 */
static void multiply(const plan *p, const part_state *s, int64_t count, int add, int64_t next,
                     int64_t tiles) {
    int64_t height = conv_tile_height(s->channels);
    int64_t calls = s->panels * WINOGRAD_POSITIONS * ceil_div(s->channels, height);
    winograd_coming coming = winograd_expect(next, tiles, WINOGRAD_REACH + WINOGRAD_TILE, calls);
    conv_segment whole = {0, 0};
    for (int64_t j = 0; j < s->panels; j++) {
        int64_t vectors = conv_panel_vectors(p->a->k, s->first_panel + j);
        conv_tile t = {.x = s->x,
                       .w = s->dy + j * panel_size(p->block),
                       .segments = &whole,
                       .segment_count = 1,
                       .len = count,
                       .xstep = p->row,
                       .wstep = NR,
                       .y = s->sums + j * panel_size(p->part_c),
                       .cols = vectors * VL};
        for (int position = 0; position < WINOGRAD_POSITIONS; position++) {
            t.residual = add ? t.y : NULL;
            for (int64_t i = 0; i < s->channels; i += height) {
                int64_t rows = least(height, s->channels - i), dense = rows % 2 == 0;
                fetch(p, s, &coming);
                FNN_SYM(conv_weight_tiles)
                [vectors - 1][(rows + 1) / 2 - 1][dense](&t, s->xoff + i, s->yoff + i, rows);
            }
            t.x += p->block * p->row;
            t.w += p->block * NR;
            t.y += p->part_c * NR;
        }
    }
}

/* The sums of the part become its elements of dw. */
static void finish(const plan *p, const part_state *s) {
    const fnn_winograd_bwd_weight_args *a = p->a;
    for (int64_t j = 0; j < s->panels; j++)
        for (int64_t i = 0; i < s->channels; i++)
            for (int64_t column = 0; column < NR; column += VL) {
                int64_t k = (s->first_panel + j) * NR + column, n = a->k - k;
                if (n <= 0) break;
                V v[4][4];
                winograd_reduce_tile(3, s->sums + j * panel_size(p->part_c) + i * NR + column,
                                     p->part_c * NR, v);
                for (int tap = 0; tap < 9; tap++) {
                    T *out = s->dw + (tap * a->c + s->first_c + i) * a->k + k;
                    if (n >= VL)
                        v_store(out, v[tap / 3][tap % 3]);
                    else
                        v_store_n(out, v[tap / 3][tap % 3], n);
                }
            }
}

static void run_task(void *ctx, int64_t task) {
    plan *p = ctx;
    const fnn_winograd_bwd_weight_args *a = p->a;
    char *scratch =
        fnn_scratch(p->sum_bytes + p->x_bytes + p->dy_bytes + 2 * p->table_bytes + p->zeros_bytes);
    if (!scratch) {
        __atomic_store_n(&p->failed, 1, __ATOMIC_RELAXED);
        return;
    }
    int64_t k_part = task % p->k_parts, c_part = task / p->k_parts % p->c_parts;
    int64_t chunk = task / (p->k_parts * p->c_parts), all = conv_panels(a->k);
    int64_t dw_size = 9 * a->c * a->k, end = p->tiles * (chunk + 1) / p->chunks;
    part_state s = {.first_c = a->c * c_part / p->c_parts,
                    .first_panel = all * k_part / p->k_parts,
                    .sums = (T *)scratch};
    s.channels = a->c * (c_part + 1) / p->c_parts - s.first_c;
    s.panels = all * (k_part + 1) / p->k_parts - s.first_panel;
    s.x = (T *)(scratch += p->sum_bytes);
    s.dy = (T *)(scratch += p->x_bytes);
    s.xoff = (int64_t *)(scratch += p->dy_bytes);
    s.yoff = (int64_t *)(scratch += p->table_bytes);
    s.zeros = (T *)(scratch += p->table_bytes);
    memset(scratch, 0, p->zeros_bytes);
    for (int64_t i = 0; i < s.channels + MR; i++) {
        s.xoff[i] = least(i, s.channels - 1);
        s.yoff[i] = i * NR;
    }
    s.dw = p->chunks > 1 ? (T *)a->work + chunk * (dw_size + a->k) : a->dw;
    if (a->dbias && c_part == 0) {
        int64_t column = s.first_panel * NR;
        s.dbias = p->chunks > 1 ? s.dw + dw_size : a->dbias;
        memset(s.dbias + column, 0, (size_t)least(s.panels * NR, a->k - column) * sizeof(T));
    }
    int64_t first = p->tiles * chunk / p->chunks, begin = first;
    for (; first < end; first += p->block) {
        int64_t count = least(p->block, end - first);
        transform(p, &s, first, count);
        int64_t next = first + count;
        multiply(p, &s, count, first > begin, next, least(p->block, end - next));
    }
    finish(p, &s);
}

static double make_plan(plan *p) {
    const fnn_winograd_bwd_weight_args *a = p->a;
    p->grid = winograd_tiles(a->oh, a->ow);
    p->tiles = a->n * p->grid.rows * p->grid.cols;
    double cost = winograd_tile_ns(a->c, a->k) * (double)p->tiles;
    int64_t panels = conv_panels(a->k);
    p->c_parts = p->k_parts = 1;
    for (;;) {
        p->part_c = ceil_div(a->c, p->c_parts);
        p->part_panels = ceil_div(panels, p->k_parts);
        p->sum_bytes = (size_t)(panel_size(p->part_c) * p->part_panels) * sizeof(T);
        if (p->sum_bytes <= SUM_BYTES) break;
        if (p->part_c > p->part_panels * NR)
            p->c_parts++;
        else if (p->part_panels > 1)
            p->k_parts++;
        else
            p->c_parts++;
    }
    p->row = conv_padded(p->part_c) + VL;
    size_t tile_bytes = WINOGRAD_POSITIONS * (size_t)(p->row + p->part_panels * NR) * sizeof(T);
    p->block = most(BLOCK_LEAST, least(BLOCK_MOST, BLOCK_BYTES / (int64_t)tile_bytes));
    int64_t worth = least((int64_t)(cost / CONV_TASK_NS), p->tiles / BLOCK_LEAST);
    p->chunks = most(1, least(worth, CONV_TASKS) / (p->c_parts * p->k_parts));
    p->block = least(p->block, ceil_div(p->tiles, p->chunks));
    p->sum_bytes = conv_align(p->sum_bytes);
    p->x_bytes = conv_align((size_t)(WINOGRAD_POSITIONS * p->block * p->row) * sizeof(T));
    p->dy_bytes = conv_align((size_t)(panel_size(p->block) * p->part_panels) * sizeof(T));
    p->table_bytes = conv_align((size_t)(p->part_c + MR) * sizeof(int64_t));
    p->zeros_bytes = conv_align((size_t)most(p->row, NR) * sizeof(T));
    return cost;
}

int64_t FNN_SYM(winograd_bwd_weight_size)(const fnn_winograd_bwd_weight_args *a) {
    plan p = {.a = a};
    make_plan(&p);
    return p.chunks > 1 ? p.chunks * (9 * a->c * a->k + a->k) * (int64_t)sizeof(T) : 0;
}

int FNN_SYM(winograd_bwd_weight)(const fnn_winograd_bwd_weight_args *a) {
    plan p = {.a = a};
    double cost = make_plan(&p);
    if (p.tiles == 0) {
        memset(a->dw, 0, (size_t)(9 * a->c * a->k) * sizeof(T));
        if (a->dbias) memset(a->dbias, 0, (size_t)a->k * sizeof(T));
        return FNN_OK;
    }
    fnn_parallel(p.chunks * p.c_parts * p.k_parts, cost, run_task, &p);
    if (p.failed) return FNN_NO_MEMORY;
    if (p.chunks > 1) conv_sum_chunks(a->work, p.chunks, a->dw, 9 * a->c * a->k, a->dbias, a->k);
    return FNN_OK;
}
