/* Matrix products: how the work is cut, by shape alone, and handed to the pool.
 *
 * Small products are one block. Otherwise either b and a are packed step by step into `work`,
 * shared by all threads (large), or rows, columns, k and the batch are cut into independent blocks
 * (skinny shapes, batches, long sums over a small c, whose partial sums go to `work`).
 */
#define FNN_DEF "def/gemm.def"
#include "args.h"

#include "gemm_block.h"

#include <stdatomic.h>

enum {
    SMALL = 64 * 64 * 64, /* multiply-adds that are not worth a plan */
    TASK = 1 << 19,       /* and that a task should have at least */
    MAX_TASKS = 64,
    NC = 2048, /* columns and rows whose packed form is in `work` at a time */
    MC = 2048 / MR * MR,
};

static const double NS_PER_STEP = 1.0 / (VL * 4); /* a multiply-add's cost, for the pool */

FNN_INLINE output batch_output(const fnn_gemm_args *g, int64_t i) {
    return (output){
        .c = (T *)g->c + i * g->c_bs,
        .bias = g->bias,
        .residual = g->residual ? (const T *)g->residual + i * g->residual_bs : NULL,
        .saved = g->saved ? (const T *)g->saved + i * g->saved_bs : NULL,
        .c_rs = g->c_rs,
        .residual_rs = g->residual_rs,
        .saved_rs = g->saved_rs,
        .beta = (T)g->beta,
        .act = (int)g->act,
    };
}
FNN_INLINE matrix batch_a(const fnn_gemm_args *g, int64_t i) {
    return (matrix){(const T *)g->a + i * g->a_bs, g->a_rs, g->a_cs};
}
FNN_INLINE matrix batch_b(const fnn_gemm_args *g, int64_t i) {
    return (matrix){(const T *)g->b + i * g->b_bs, g->b_rs, g->b_cs};
}

/* --- large: packed operands shared by all threads ------------------------------------------- */

/* One step: m x n of c, k deep, from packed tiles of a and packed panels of b. */
typedef struct {
    matrix a, b; /* of this step */
    T *packed_a, *packed_b;
    int64_t m, n, k;
    int64_t row, col; /* in c */
    int64_t rows_per_task, cols_per_task, row_tasks;
    int64_t b_tasks; /* to pack b; 0 where it is */
    output out;
} shared_step;

/* Neighbouring panels are packed together, some rows at a time: memory is read in long runs. */
enum { PANELS_PER_PACK = 8, PACK_DEPTH = 4 * VL };

static void pack_task(void *ctx, int64_t task) {
    const shared_step *s = ctx;
    int of_b = task < s->b_tasks;
    matrix from = of_b ? s->b : s->a;
    int64_t unit = of_b ? NR : MR, total = of_b ? s->n : s->m;
    int64_t is = of_b ? from.cs : from.rs, ps = of_b ? from.rs : from.cs;
    T *packed = of_b ? s->packed_b : s->packed_a;
    int64_t first = (of_b ? task : task - s->b_tasks) * PANELS_PER_PACK * unit;
    int64_t end = least(first + PANELS_PER_PACK * unit, total);
    for (int64_t p = 0; p < s->k; p += PACK_DEPTH) {
        int64_t depth = least(s->k - p, PACK_DEPTH);
        for (int64_t i = first; i < end; i += unit) {
            int64_t width = least(end - i, unit), ld = of_b ? round_up(width, VL) : width;
            pack(packed + i * s->k + p * ld, ld, width, depth, from.at + i * is + p * ps, is, ps);
        }
    }
}

static void multiply_task(void *ctx, int64_t task) {
    const shared_step *s = ctx;
    int64_t row = task % s->row_tasks * s->rows_per_task;
    int64_t col = task / s->row_tasks * s->cols_per_task;
    int64_t rows = least(s->rows_per_task, s->m - row);
    int64_t end = least(col + s->cols_per_task, s->n);
    /* A tile of a stays in the L1 cache, the panels of b stream past it out of L2. */
    for (int64_t i = row; i < row + rows; i += MR) {
        int64_t mr = least(row + rows - i, MR);
        for (int64_t j = col; j < end; j += NR) {
            int64_t cols = least(end - j, NR);
            tile_at(mr, cols, s->k, s->packed_a + i * s->k, 1, mr, s->packed_b + j * s->k,
                    round_up(cols, VL), &s->out, s->row + i, s->col + j);
        }
    }
}

/* Cuts the step into tasks whose part of a stays in the L2 cache, enough of them for balance. */
static void cut_step(shared_step *s) {
    int64_t rows = ceil_div(s->m, 168), cols = ceil_div(s->n, 512);
    while (rows * cols < 16 && s->m * s->n * s->k > 2 * TASK * rows * cols) {
        if (s->m * cols > s->n * rows)
            rows *= 2;
        else
            cols *= 2;
    }
    s->rows_per_task = round_up(ceil_div(s->m, rows), MR);
    s->cols_per_task = round_up(ceil_div(s->n, cols), NR);
    s->row_tasks = ceil_div(s->m, s->rows_per_task);
}

static void run_step(shared_step *s) {
    cut_step(s);
    int64_t a_tasks = ceil_div(s->m, PANELS_PER_PACK * MR);
    double packed = (double)s->m * s->k + (double)s->b_tasks * PANELS_PER_PACK * NR * s->k;
    fnn_parallel(s->b_tasks + a_tasks, packed * 0.3, pack_task, s);
    double product = (double)s->m * s->n * s->k;
    fnn_parallel(s->row_tasks * ceil_div(s->n, s->cols_per_task), product * NS_PER_STEP,
                 multiply_task, s);
}

/* The size of `count` equal parts, none above `most`, in whole units. */
static int64_t part(int64_t total, int64_t most, int64_t unit) {
    return round_up(ceil_div(total, ceil_div(total, most)), unit);
}

static void shared_product(const fnn_gemm_args *g, int64_t i) {
    int64_t nc = part(g->n, NC, NR), mc = part(g->m, MC, MR), kc = part(g->k, KC, 1);
    matrix a = batch_a(g, i), b = batch_b(g, i);
    output out = batch_output(g, i);
    shared_step s;
    s.packed_b = g->work;
    s.packed_a = s.packed_b + nc * kc;
    for (s.col = 0; s.col < g->n; s.col += nc)
        for (int64_t p = 0; p < g->k; p += kc)
            for (s.row = 0; s.row < g->m; s.row += mc) {
                s.m = least(mc, g->m - s.row);
                s.n = least(nc, g->n - s.col);
                s.k = least(kc, g->k - p);
                s.a = (matrix){a.at + s.row * a.rs + p * a.cs, a.rs, a.cs};
                s.b = (matrix){b.at + p * b.rs + s.col * b.cs, b.rs, b.cs};
                s.b_tasks = s.row == 0 ? ceil_div(s.n, PANELS_PER_PACK * NR) : 0;
                s.out = step_output(&out, p == 0, p + s.k == g->k);
                run_step(&s);
            }
}

/* --- small and skinny: independent blocks --------------------------------------------------- */

typedef struct {
    const fnn_gemm_args *g;
    int64_t rows, cols, depth;             /* of a block */
    int64_t row_tasks, col_tasks, k_tasks; /* k_tasks > 1: partial sums in work */
    _Atomic int failed;
} cut;

/* Where the sums over one part of k go: dense m x n parts, one after another. */
FNN_INLINE output partial_output(const cut *t, int64_t k_task) {
    return (output){.c = (T *)t->g->work + k_task * t->g->m * t->g->n, .c_rs = t->g->n};
}

static void block_task(void *ctx, int64_t task) {
    cut *t = ctx;
    const fnn_gemm_args *g = t->g;
    int64_t row = task % t->row_tasks * t->rows;
    task /= t->row_tasks;
    int64_t col = task % t->col_tasks * t->cols;
    task /= t->col_tasks;
    int64_t p = task % t->k_tasks * t->depth, i = task / t->k_tasks;
    matrix a = batch_a(g, i), b = batch_b(g, i);
    a.at += row * a.rs + p * a.cs;
    b.at += p * b.rs + col * b.cs;
    output out = t->k_tasks > 1 ? partial_output(t, task) : batch_output(g, i);
    out.c += row * out.c_rs + col;
    if (out.bias) out.bias += col;
    if (out.residual) out.residual += row * out.residual_rs + col;
    if (out.saved) out.saved += row * out.saved_rs + col;
    if (!block(a, b, least(t->rows, g->m - row), least(t->cols, g->n - col),
               least(t->depth, g->k - p), &out))
        atomic_store(&t->failed, 1);
}

/* Adds up the parts pairwise, in a tree that only their number decides, and finishes c. */
static void add_parts(const cut *t) {
    const fnn_gemm_args *g = t->g;
    int64_t size = g->m * g->n;
    T *parts = g->work;
    for (int64_t half = 1; half < t->k_tasks; half *= 2)
        for (int64_t i = 0; i + half < t->k_tasks; i += 2 * half) {
            T *into = parts + i * size;
            const T *from = parts + (i + half) * size;
            for (int64_t e = 0; e < size; e += VL)
                v_store_upto(into + e,
                             v_load_upto(into + e, size - e) + v_load_upto(from + e, size - e),
                             size - e);
        }
    output out = batch_output(g, 0);
    for (int64_t i = 0; i < g->m; i++) finish(&out, i, 0, 1, g->n, parts + i * g->n, g->n);
}

static void cut_blocks(const fnn_gemm_args *g, cut *t) {
    double size = (double)g->m * (double)g->n * (double)g->k;
    int64_t tasks = size > (double)TASK * MAX_TASKS ? MAX_TASKS : (int64_t)(size / TASK) + 1;
    *t = (cut){.g = g, .rows = g->m, .cols = g->n, .depth = g->k, .k_tasks = 1};
    if (g->batch < MAX_TASKS && tasks > 1) {
        if (g->batch == 1 && g->m * g->n <= 128 * 128 && g->k >= 8 * (g->m + g->n) &&
            g->k > 4 * KC) {
            t->depth = round_up(ceil_div(g->k, least(least(tasks, 32), g->k / KC)), 4 * VL);
        } else if (g->m > g->n) {
            t->rows = round_up(ceil_div(g->m, tasks), MR);
        } else {
            t->cols = round_up(ceil_div(g->n, tasks), NR);
        }
    }
    t->row_tasks = ceil_div(g->m, t->rows);
    t->col_tasks = ceil_div(g->n, t->cols);
    if (t->depth > 0) t->k_tasks = ceil_div(g->k, t->depth);
}

static int blocks(const fnn_gemm_args *g) {
    cut t;
    cut_blocks(g, &t);
    double cost = (double)g->batch * g->m * g->n * (g->k + 4) * NS_PER_STEP;
    fnn_parallel(t.row_tasks * t.col_tasks * t.k_tasks * g->batch, cost, block_task, &t);
    if (atomic_load(&t.failed)) return FNN_NO_MEMORY;
    if (t.k_tasks > 1) add_parts(&t);
    return FNN_OK;
}

/* --- the kernel ------------------------------------------------------------------------------ */

FNN_INLINE int is_small(const fnn_gemm_args *g) {
    return (double)g->m * (double)g->n * (double)g->k <= SMALL;
}

/* Packing pays where each packed element is used often, and there are threads to share it. */
static int is_shared(const fnn_gemm_args *g) {
    return g->m >= 4 * MR && g->n >= 2 * NR && g->k >= 32 && !is_small(g) &&
           (double)g->m * (double)g->n * (double)g->k >= 160.0 * 160 * 160 &&
           (g->m * g->n > 128 * 128 || g->k < 4 * KC);
}

/* A column c is the row c^T = b^T a^T if its neighbours in memory allow to see it so. */
static int is_row_in_disguise(const fnn_gemm_args *g) {
    return g->n == 1 && g->m > 1 && g->c_rs == 1 && !g->bias &&
           (!g->residual || g->residual_rs == 1) &&
           (!epilogue_reads_saved(g->act) || g->saved_rs == 1);
}

static fnn_gemm_args transposed(const fnn_gemm_args *g) {
    fnn_gemm_args t = *g;
    t.a = g->b, t.a_rs = g->b_cs, t.a_cs = g->b_rs, t.a_bs = g->b_bs;
    t.b = g->a, t.b_rs = g->a_cs, t.b_cs = g->a_rs, t.b_bs = g->a_bs;
    t.m = 1, t.n = g->m;
    t.c_rs = t.residual_rs = t.saved_rs = g->m;
    return t;
}

static int product(const fnn_gemm_args *g) {
    if (g->batch == 1 && is_small(g)) {
        output out = batch_output(g, 0);
        return block(batch_a(g, 0), batch_b(g, 0), g->m, g->n, g->k, &out) ? FNN_OK : FNN_NO_MEMORY;
    }
    if (g->m <= 0 || g->n <= 0) return FNN_OK;
    if (!is_shared(g)) return blocks(g);
    for (int64_t i = 0; i < g->batch; i++) shared_product(g, i);
    return FNN_OK;
}

static int64_t product_size(const fnn_gemm_args *g) {
    if (g->m <= 0 || g->n <= 0 || is_small(g)) return 0;
    if (is_shared(g)) {
        int64_t kc = part(g->k, KC, 1);
        return (part(g->n, NC, NR) + part(g->m, MC, MR)) * kc * (int64_t)sizeof(T);
    }
    cut t;
    cut_blocks(g, &t);
    return t.k_tasks > 1 ? t.k_tasks * g->m * g->n * (int64_t)sizeof(T) : 0;
}

int FNN_SYM(gemm)(const fnn_gemm_args *g) {
    if (!is_row_in_disguise(g)) return product(g);
    fnn_gemm_args row = transposed(g);
    return product(&row);
}

/* Pointers are not known here, so that a column is taken both ways. */
int64_t FNN_SYM(gemm_size)(const fnn_gemm_args *g) {
    int64_t size = product_size(g);
    if (g->n != 1) return size;
    fnn_gemm_args row = transposed(g);
    int64_t other = product_size(&row);
    return size > other ? size : other;
}
