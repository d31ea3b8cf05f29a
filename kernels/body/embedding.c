/* The gradient of a table whose rows were looked up, whole or as the rows touched. Tasks are blocks
 * of columns, so that rows are added in one order whatever the number of threads. */
#define FNN_DEF "def/embedding.def"
#include "args.h"

#include "threads.h"
#include "vec.h"

enum { COLUMNS = 64 };

/* out[at[i]] += dy[i] for each of n, but where `at` is `skip`; out[size,c] starts as zeros. */
typedef struct {
    const T *dy;
    const int64_t *at;
    T *out;
    int64_t n, size, c, skip;
} scatter;

static void column_task(void *ctx, int64_t task) {
    const scatter *s = ctx;
    int64_t first = task * COLUMNS, left = s->c - first;
    int64_t width = left < COLUMNS ? left : COLUMNS;
    for (int64_t i = 0; i < s->size; i++)
        memset(s->out + i * s->c + first, 0, (size_t)width * sizeof(T));
    for (int64_t i = 0; i < s->n; i++) {
        if (s->at[i] == s->skip) continue;
        const T *restrict from = s->dy + i * s->c + first;
        T *restrict to = s->out + s->at[i] * s->c + first;
        for (int64_t j = 0; j < width; j++) to[j] += from[j];
    }
}

static void add_rows(scatter s) {
    double elements = (double)(s.n + s.size) * (double)s.c;
    fnn_parallel((s.c + COLUMNS - 1) / COLUMNS, elements * 0.1, column_task, &s);
}

static int rows_exist(const int64_t *idx, int64_t n, int64_t table) {
    int bad = 0;
    for (int64_t i = 0; i < n; i++) bad |= (uint64_t)idx[i] >= (uint64_t)table;
    return !bad;
}

int FNN_SYM(embedding_bwd)(const fnn_embedding_bwd_args *a) {
    if (!rows_exist(a->idx, a->rows, a->table)) return FNN_BAD_INDEX;
    add_rows((scatter){.dy = a->dy,
                       .at = a->idx,
                       .out = a->dw,
                       .n = a->rows,
                       .size = a->table,
                       .c = a->c,
                       .skip = a->padding});
    return FNN_OK;
}

/* --- rows touched ---------------------------------------------------------------------------- */

/* Places of a hash table that stays half empty. */
static int64_t places(int64_t n) {
    int64_t size = 16;
    while (size < 2 * n) size *= 2;
    return size;
}

/* The number of each row by first appearance, in `at` (-1: the padding); lists the rows. */
static int64_t number_rows(const fnn_embedding_rows_args *a, int64_t *at, int64_t *table) {
    const int64_t *idx = a->idx;
    int64_t *rows = (int64_t *)a->rows + 1, size = places(a->n), count = 0;
    memset(table, 0, (size_t)size * sizeof(int64_t));
    for (int64_t i = 0; i < a->n; i++) {
        if (idx[i] == a->padding) {
            at[i] = -1;
            continue;
        }
        uint64_t place = ((uint64_t)idx[i] * 0x9e3779b97f4a7c15u) >> 32;
        for (place &= size - 1; table[place] && rows[table[place] - 1] != idx[i];)
            place = (place + 1) & (size - 1);
        if (!table[place]) rows[count] = idx[i], table[place] = ++count;
        at[i] = table[place] - 1;
    }
    return count;
}

int FNN_SYM(embedding_rows)(const fnn_embedding_rows_args *a) {
    if (!rows_exist(a->idx, a->n, a->table)) return FNN_BAD_INDEX;
    int64_t *at = a->work, count = number_rows(a, at, at + a->n);
    int64_t *rows = a->rows;
    rows[0] = count;
    memset(rows + 1 + count, 0, (size_t)(a->n - count) * sizeof(int64_t));
    add_rows((scatter){
        .dy = a->dy, .at = at, .out = a->g, .n = a->n, .size = a->n, .c = a->c, .skip = -1});
    return FNN_OK;
}

int64_t FNN_SYM(embedding_rows_size)(const fnn_embedding_rows_args *a) {
    return (a->n + places(a->n)) * (int64_t)sizeof(int64_t);
}
