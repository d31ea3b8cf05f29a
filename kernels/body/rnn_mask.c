/* The input of a recurrent layer without what lies beyond the samples' lengths. */
#include "rnn.h"

static void mask_task(void *ctx, int64_t t) {
    const fnn_rnn_mask_args *a = ctx;
    const int64_t *lengths = a->lengths;
    T *out = (T *)a->out + t * a->n * a->c;
    for (int64_t i = 0; i < a->n; i++, out += a->c) {
        if (t < lengths[i])
            memcpy(out, (const T *)a->x + t * a->x_ts + i * a->x_ns, (size_t)a->c * sizeof(T));
        else
            memset(out, 0, (size_t)a->c * sizeof(T));
    }
}

int FNN_SYM(rnn_mask)(const fnn_rnn_mask_args *a) {
    fnn_parallel(a->steps, (double)a->steps * a->n * a->c * 0.1, mask_task, (void *)a);
    return FNN_OK;
}
