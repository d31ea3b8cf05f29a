/* Backward-weights' end: the chunks' partial sums, added in rising order. */
#ifndef FNN_CONV_SUM_H
#define FNN_CONV_SUM_H

#include "conv.h"

typedef struct {
    const T *work; /* [chunks][dw_size + dbias_size] */
    T *dw, *dbias; /* dbias may be null */
    int64_t chunks, dw_size, dbias_size;
} conv_sum;

enum { CONV_SUM_SLICE = 4096 };

static void conv_sum_slice(void *ctx, int64_t task) {
    const conv_sum *s = ctx;
    int64_t part = s->dw_size + s->dbias_size;
    int64_t end = s->dbias ? part : s->dw_size;
    end = least(end, (task + 1) * CONV_SUM_SLICE);
    for (int64_t i = task * CONV_SUM_SLICE; i < end; i += VL) {
        int64_t n = least(VL, end - i);
        V sum = {0};
        for (int64_t chunk = 0; chunk < s->chunks; chunk++) {
            const T *from = s->work + chunk * part + i;
            sum += n == VL ? v_load(from) : v_load_n(from, n);
        }
        if (n == VL && i + VL <= s->dw_size) {
            v_store(s->dw + i, sum);
            continue;
        }
        for (int64_t j = 0; j < n; j++)
            *(i + j < s->dw_size ? s->dw + i + j : s->dbias + (i + j - s->dw_size)) = sum[j];
    }
}

static void conv_sum_chunks(const T *work, int64_t chunks, T *dw, int64_t dw_size, T *dbias,
                            int64_t dbias_size) {
    conv_sum sum = {work, dw, dbias, chunks, dw_size, dbias_size};
    int64_t part = dw_size + dbias_size;
    fnn_parallel(ceil_div(part, CONV_SUM_SLICE), (double)(part * chunks) * 0.1, conv_sum_slice,
                 &sum);
}

#endif
