/* Walking two strided arrays of up to six dimensions together, row by row.
 *
 * Dimensions of size one are dropped and neighbours that both arrays run through at one stride are
 * merged, so that most calls end as one row. A row is the innermost dimension left.
 */
#ifndef FNN_STRIDED_H
#define FNN_STRIDED_H

#include "fnn.h"

enum { FNN_DIMS = 6 };

/* Sizes and strides, innermost first. */
typedef struct {
    int dims; /* at least 1 */
    int64_t size[FNN_DIMS], a[FNN_DIMS], b[FNN_DIMS];
} fnn_walk;

/* Offsets of a row in both arrays, and its index in each outer dimension. */
typedef struct {
    int64_t a, b, index[FNN_DIMS];
} fnn_place;

/* d, a and b are the six fields of a kernel's arguments, outermost first. */
static inline fnn_walk fnn_walk_over(const int64_t *d, const int64_t *a, const int64_t *b) {
    fnn_walk w;
    int n = 0;
    w.size[0] = w.a[0] = w.b[0] = 1;
    for (int i = FNN_DIMS - 1; i >= 0; i--) {
        if (d[i] == 1) continue;
        if (n > 0 && a[i] == w.a[n - 1] * w.size[n - 1] && b[i] == w.b[n - 1] * w.size[n - 1]) {
            w.size[n - 1] *= d[i];
        } else {
            w.size[n] = d[i], w.a[n] = a[i], w.b[n] = b[i];
            n++;
        }
    }
    w.dims = n ? n : 1;
    return w;
}

static inline int64_t fnn_walk_rows(const fnn_walk *w) {
    int64_t rows = 1;
    for (int i = 1; i < w->dims; i++) rows *= w->size[i];
    return rows;
}

static inline fnn_place fnn_walk_to(const fnn_walk *w, int64_t row) {
    fnn_place p = {0};
    for (int i = 1; i < w->dims && row > 0; i++) {
        p.index[i] = row % w->size[i];
        p.a += p.index[i] * w->a[i];
        p.b += p.index[i] * w->b[i];
        row /= w->size[i];
    }
    return p;
}

static inline void fnn_walk_next(const fnn_walk *w, fnn_place *p) {
    for (int i = 1; i < w->dims; i++) {
        p->a += w->a[i];
        p->b += w->b[i];
        if (++p->index[i] < w->size[i]) return;
        p->index[i] = 0;
        p->a -= w->a[i] * w->size[i];
        p->b -= w->b[i] * w->size[i];
    }
}

#endif
