/* The gradient of a table whose rows were looked up. Tasks are blocks of columns, so that rows are
 * added in one order whatever the number of threads. */
#define FNN_DEF "def/embedding.def"
#include "args.h"

#include "threads.h"
#include "vec.h"

enum { COLUMNS = 64 };

static void column_task(void *ctx, int64_t task) {
    const fnn_embedding_bwd_args *a = ctx;
    const int64_t *idx = a->idx;
    int64_t first = task * COLUMNS, left = a->c - first;
    int64_t width = left < COLUMNS ? left : COLUMNS;
    const T *dy = (const T *)a->dy + first;
    T *dw = (T *)a->dw + first;
    for (int64_t i = 0; i < a->table; i++) memset(dw + i * a->c, 0, (size_t)width * sizeof(T));
    for (int64_t i = 0; i < a->rows; i++) {
        if (idx[i] == a->padding) continue;
        const T *restrict from = dy + i * a->c;
        T *restrict to = dw + idx[i] * a->c;
        for (int64_t j = 0; j < width; j++) to[j] += from[j];
    }
}

int FNN_SYM(embedding_bwd)(const fnn_embedding_bwd_args *a) {
    const int64_t *idx = a->idx;
    int bad = 0;
    for (int64_t i = 0; i < a->rows; i++) bad |= (uint64_t)idx[i] >= (uint64_t)a->table;
    if (bad) return FNN_BAD_INDEX;
    double elements = (double)(a->rows + a->table) * (double)a->c;
    fnn_parallel((a->c + COLUMNS - 1) / COLUMNS, elements * 0.1, column_task, (void *)a);
    return FNN_OK;
}
