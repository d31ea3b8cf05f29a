/* What stands at each row's label, and the gradient that goes back there. Nothing is computed but
 * one product a row, so one thread does it. */
#define FNN_DEF "def/softmax.def"
#include "args.h"

#include "labels.h"

int FNN_SYM(nll_fwd)(const fnn_nll_fwd_args *a) {
    fnn_labels l = {.labels = a->labels, .weight = a->weight, .c = a->c, .ignore = a->ignore};
    if (!labels_fit(&l, a->n, a->mean, a->scale)) return FNN_BAD_LABEL;
    const T *x = a->x;
    double total = 0;
    for (int64_t i = 0; i < a->n; i++) {
        T loss = l.labels[i] == l.ignore ? 0 : -label_weight(&l, i) * x[i * a->x_rs + l.labels[i]];
        if (a->losses) ((T *)a->losses)[i] = (T)l.scale * loss;
        total += loss;
    }
    if (a->total) *(T *)a->total = (T)(l.scale * total);
    return FNN_OK;
}

int FNN_SYM(nll_bwd)(const fnn_nll_bwd_args *a) {
    fnn_labels l = {.labels = a->labels, .weight = a->weight, .c = a->c, .ignore = a->ignore};
    if (!labels_fit(&l, a->n, a->mean, a->scale)) return FNN_BAD_LABEL;
    const T *dloss = a->dloss;
    T *dx = a->dx;
    memset(dx, 0, sizeof(T) * a->n * a->c);
    for (int64_t i = 0; i < a->n; i++)
        if (l.labels[i] != l.ignore)
            dx[i * a->c + l.labels[i]] =
                (T)-l.scale * label_weight(&l, i) * dloss[a->per_row ? i : 0];
    return FNN_OK;
}
