/* Integer class labels of rows: their weights, the rows to ignore, and what losses are scaled by.
 */
#ifndef FNN_LABELS_H
#define FNN_LABELS_H

#include "vec.h"

typedef struct {
    const int64_t *labels;
    const T *weight; /* of each class; null: 1 */
    int64_t c, ignore;
    int64_t ignored; /* rows with the label `ignore` */
    double scale;    /* of the losses: as given, or for a mean divided by the sum of weights */
} fnn_labels;

/* 0 where row i is ignored. */
FNN_INLINE T label_weight(const fnn_labels *l, int64_t i) {
    int64_t k = l->labels[i];
    return k == l->ignore ? 0 : l->weight ? l->weight[k] : (T)1;
}

/* Row i's class; 0 where it is ignored, so that it can be an index in any case. */
FNN_INLINE int64_t label_class(const fnn_labels *l, int64_t i) {
    int64_t k = l->labels[i];
    return k == l->ignore ? 0 : k;
}

/* Fills in the rest of l; 0 if a label is none of the c classes nor `ignore`. */
static inline int labels_fit(fnn_labels *l, int64_t n, int64_t mean, double scale) {
    int64_t bad = 0, ignored = 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t k = l->labels[i], skip = k == l->ignore;
        bad |= !skip & ((uint64_t)k >= (uint64_t)l->c);
        ignored += skip;
    }
    if (bad || (n > 0 && l->c == 0)) return 0;
    double sum = (double)(n - ignored);
    if (mean && l->weight) {
        sum = 0;
        for (int64_t i = 0; i < n; i++) sum += label_weight(l, i);
    }
    l->ignored = ignored;
    l->scale = mean ? scale / sum : scale;
    return 1;
}

/* Ignored rows have no gradient, whatever stands in them. */
static inline void zero_ignored(const fnn_labels *l, T *dx, int64_t from, int64_t rows) {
    for (int64_t r = 0; l->ignored && r < rows; r++)
        if (l->labels[from + r] == l->ignore) memset(dx + r * l->c, 0, sizeof(T) * l->c);
}

#endif
