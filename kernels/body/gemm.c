/* Matrix products: how the work is cut, by shape alone, and handed to the pool.
 *
 * Small products are one block. Otherwise rows, columns and the batch are cut into independent
 * blocks, or k is (long sums over a small c, whose partial sums go to `work`). Each block packs
 * what it needs for itself: what one core has packed, another is as slow to fetch as from memory.
 */
#define FNN_DEF "def/gemm.def"
#include "args.h"

#include "gemm_block.h"

#include <stdatomic.h>

enum {
    SMALL = 64 * 64 * 64, /* multiply-adds that are not worth a plan */
    TASK = 1 << 20,       /* and that a task should have at least */
    MAX_TASKS = 64,
    BLOCK_ROWS = 384, /* of c, which then fits the L2 cache beside KC x BLOCK_COLS of b */
    CACHED = 1 << 20, /* bytes of an operand that the L2 cache keeps */
    BALANCED = 8,     /* blocks, if they can be had at no cost, */
    FEW = 4,          /* and at any */
    USES = 320,       /* rows or columns that make up for what a block packs or fetches */
    READING = 16, /* rows whose arithmetic takes as long as the reading of b, or columns, of a */
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

/* Whether the L2 cache keeps an operand of so many elements. */
FNN_INLINE int is_near(int64_t size) { return size * (int64_t)sizeof(T) <= CACHED; }

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
               least(t->depth, g->k - p), is_near(g->k * g->n), &out))
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

/* Whether more blocks that share an operand would cost: each packs it, or fetches it from beyond
 * the L2 cache, once more. */
FNN_INLINE int is_costly(int packs, int64_t size) { return packs || !is_near(size); }

/* Multiply-adds, or what the reading of the larger operand takes as long as. */
FNN_INLINE double work_size(const fnn_gemm_args *g) {
    return (double)g->batch * most(g->m * g->n, READING * most(g->m, g->n)) * g->k;
}

/* Whether k is cut, as c has too few rows and columns for it. */
FNN_INLINE int sums_are_long(const fnn_gemm_args *g) {
    int64_t columns = g->m <= FEW_LINES ? FEW * NR - 1 : 128 * 128 / g->m;
    return g->batch == 1 && g->n <= columns && g->k >= 8 * (g->m + g->n) && g->k > 4 * KC;
}

/* Cuts c, the longer side of a block first, into enough blocks for balance. */
static void cut_rows_and_columns(const fnn_gemm_args *g, cut *t) {
    int costly_b = is_costly(packs_b(batch_b(g, 0), g->m, is_near(g->k * g->n)), g->k * g->n);
    int costly_a = is_costly(packs_a(batch_a(g, 0), g->n), g->m * g->k);
    double size = work_size(g);
    int64_t rows = ceil_div(g->m, BLOCK_ROWS), cols = ceil_div(g->n, BLOCK_COLS);
    for (;;) {
        int64_t count = rows * cols * g->batch;
        if (count >= BALANCED || size < 2.0 * TASK * (double)count) break;
        int64_t least_rows = costly_b && count >= FEW ? USES : MR;
        int64_t least_cols = costly_a && count >= FEW ? USES : NR;
        int cuts_rows = g->m >= 2 * rows * least_rows, cuts_cols = g->n >= 2 * cols * least_cols;
        if (!cuts_rows && !cuts_cols) break;
        if (cuts_rows && (!cuts_cols || g->m * cols > g->n * rows))
            rows *= 2;
        else
            cols *= 2;
    }
    t->rows = ceil_div(g->m, rows);
    t->cols = round_up(ceil_div(g->n, cols), NR);
}

static void cut_blocks(const fnn_gemm_args *g, cut *t) {
    *t = (cut){.g = g, .rows = g->m, .cols = g->n, .depth = g->k, .k_tasks = 1};
    double tasks = work_size(g) / TASK;
    if (sums_are_long(g))
        t->depth =
            round_up(ceil_div(g->k, least(least((int64_t)tasks + 1, 32), g->k / KC)), 4 * VL);
    else if (g->batch < MAX_TASKS)
        cut_rows_and_columns(g, t);
    t->row_tasks = ceil_div(g->m, t->rows);
    t->col_tasks = ceil_div(g->n, t->cols);
    if (t->depth > 0) t->k_tasks = ceil_div(g->k, t->depth);
}

static int blocks(const fnn_gemm_args *g) {
    cut t;
    cut_blocks(g, &t);
    double cost = (work_size(g) + 4.0 * (double)g->batch * g->m * g->n) * NS_PER_STEP;
    fnn_parallel(t.row_tasks * t.col_tasks * t.k_tasks * g->batch, cost, block_task, &t);
    if (atomic_load(&t.failed)) return FNN_NO_MEMORY;
    if (t.k_tasks > 1) add_parts(&t);
    return FNN_OK;
}

/* --- the kernel ------------------------------------------------------------------------------ */

FNN_INLINE int is_small(const fnn_gemm_args *g) {
    return (double)g->m * (double)g->n * (double)g->k <= SMALL;
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
    if (g->m <= 0 || g->n <= 0) return FNN_OK;
    if (g->batch > 1 || !is_small(g)) return blocks(g);
    output out = batch_output(g, 0);
    return block(batch_a(g, 0), batch_b(g, 0), g->m, g->n, g->k, 1, &out) ? FNN_OK : FNN_NO_MEMORY;
}

static int64_t product_size(const fnn_gemm_args *g) {
    if (g->m <= 0 || g->n <= 0 || is_small(g)) return 0;
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
