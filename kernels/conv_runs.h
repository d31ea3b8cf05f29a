/* Depthwise convolution's walk along rows: which taps each destination pixel has inside the source.
 *
 * Pixels of a row that have the same taps are a run: all but the edges' are one, or backwards one
 * for each residue of the stride. The vectors run along the channels.
 */
#ifndef FNN_CONV_RUNS_H
#define FNN_CONV_RUNS_H

#include "conv.h"
#include "lanes.h"

enum { FAR_BYTES = 4 << 20 };

typedef struct {
    int64_t x, w; /* offsets into the source and the weights */
} tap;

/* Pixels of a row with the same taps; those of the first are listed. */
typedef struct {
    const tap *cols;
    int64_t col_count, first, count;
} run;

typedef struct {
    conv_shape a;
    int backward;
    int64_t src_h, src_w, dst_h, dst_w;
    int64_t phases;             /* of columns, that have taps of their own */
    int64_t src_step, dst_step; /* from a run's pixel to the next */
    const run *runs;
    const tap *rows;          /* [dst_h][kh] */
    const int64_t *row_count; /* [dst_h] */
    int64_t run_count;
} walk;

/* The taps of coordinate i of the destination, in rising order; returns their number. */
static int64_t list_taps(tap *out, int backward, int64_t i, int64_t kernel, int64_t stride,
                         int64_t pad, int64_t dilation, int64_t size) {
    int64_t count = 0;
    for (int64_t r = 0; r < kernel; r++) {
        int64_t at = backward ? i + pad - r * dilation : i * stride - pad + r * dilation;
        if (at < 0) continue;
        if (backward && stride > 1) {
            if (at % stride != 0) continue;
            at /= stride;
        }
        if (at < size) out[count++] = (tap){at, r};
    }
    return count;
}

/* The first row of a source image that lies behind those which row y of the destination reads. */
FNN_INLINE const T *row_behind(const walk *k, const T *image, int64_t y) {
    const tap *rows = k->rows + y * k->a.kh, *last = rows + k->row_count[y] - 1;
    return image + (last >= rows ? most(rows->x, last->x) : 0) + k->src_w * k->a.c;
}

/* Whether the source lies beyond the caches, so that it pays to ask for it. */
FNN_INLINE int is_far_source(const walk *k) {
    return k->a.n * k->src_h * k->src_w * k->a.c * (int64_t)sizeof(T) > FAR_BYTES;
}

static void scale_taps(tap *taps, int64_t count, int64_t x, int64_t w) {
    for (int64_t i = 0; i < count; i++) taps[i] = (tap){taps[i].x * x, taps[i].w * w};
}

/* Fills `k`, whose geometry is set, in this thread's scratch memory; returns whether there was any.
 * Runs are at most `longest` pixels, those of all phases beside each other. */
static int list_walk(walk *k, int64_t longest) {
    const conv_shape *a = &k->a;
    int64_t phases = k->phases;
    k->src_step = (k->backward ? 1 : a->stride_w) * a->c;
    k->dst_step = phases * a->c;
    size_t taps = (size_t)(k->dst_w * a->kw + k->dst_h * a->kh);
    run *runs = fnn_scratch((size_t)k->dst_w * sizeof(run) + taps * sizeof(tap) +
                            (size_t)k->dst_h * sizeof(int64_t));
    if (!runs) return 0;
    tap *cols = (tap *)(runs + k->dst_w), *rows = cols + k->dst_w * a->kw;
    int64_t *row_count = (int64_t *)(rows + k->dst_h * a->kh);
    k->runs = runs;
    k->rows = rows;
    k->row_count = row_count;
    for (int64_t y = 0; y < k->dst_h; y++, rows += a->kh) {
        row_count[y] =
            list_taps(rows, k->backward, y, a->kh, a->stride_h, a->pad_h, a->dilation_h, k->src_h);
        scale_taps(rows, row_count[y], k->src_w * a->c, a->kw * a->c);
    }
    run *last = runs - 1;
    for (int64_t block = 0; block < k->dst_w; block += longest * phases)
        for (int64_t phase = 0; phase < phases; phase++) {
            int64_t end = least(k->dst_w, block + longest * phases), first = block + phase;
            for (int64_t i = first; i < end; i += phases) {
                int64_t n = list_taps(cols, k->backward, i, a->kw, a->stride_w, a->pad_w,
                                      a->dilation_w, k->src_w);
                scale_taps(cols, n, a->c, a->c);
                if (i > first && n == last->col_count && (n == 0 || cols->w == last->cols->w)) {
                    last->count++;
                    continue;
                }
                *++last = (run){cols, n, i * a->c, 1};
                cols += n;
            }
        }
    k->run_count = last + 1 - runs;
    return 1;
}

#endif
