/* Weights for one direction, as conv.c's tiles read them.
 *
 * Each group has panels of NR output channels (conv.h): [kh][kw][in][width], the padding zero. For
 * backward-data the input is k and the output c, and kw runs backwards, so that with unit stride
 * the taps of one kernel row read dy in rising order. Depthwise weights stay as they are; those of
 * conv_planar.c and conv_gather.c have layouts of their own.
 */
#include "conv.h"

typedef struct {
    const fnn_conv_pack_args *a;
    int64_t in, out, panels; /* of one group */
} pack_job;

static int is_planar(const fnn_conv_pack_args *a) {
    return !a->direction && conv_is_planar(a->k, a->stride_h, a->stride_w, a->groups);
}

static int is_gathered(const fnn_conv_pack_args *a) {
    return a->direction && conv_is_gathered(a->k, a->c, a->kh, a->kw, a->dilation_w, a->groups);
}

static pack_job pack_plan(const fnn_conv_pack_args *a) {
    int64_t c = a->c / a->groups, k = a->k / a->groups;
    pack_job job = {a, a->direction ? k : c, a->direction ? c : k, 0};
    job.panels = conv_panels(job.out);
    return job;
}

/* One kernel position forward: rows of w, cut to the panel. */
static void pack_rows(T *out, const T *w, int64_t ld, int64_t in, int64_t width, int64_t cols) {
    for (int64_t i = 0; i < in; i++, out += width, w += ld) {
        memcpy(out, w, (size_t)cols * sizeof(T));
        for (int64_t j = cols; j < width; j++) out[j] = 0;
    }
}

/* One kernel position transposed: out[i, j] = w[j, i]; w's rows are read in turn, a piece at a time
 * so that the panel's piece stays in L1. */
static void pack_columns(T *out, const T *w, int64_t ld, int64_t in, int64_t width, int64_t cols) {
    enum { PIECE = 64 };
    for (int64_t i0 = 0; i0 < in; i0 += PIECE) {
        int64_t i1 = least(in, i0 + PIECE);
        for (int64_t j = 0; j < cols; j++)
            for (int64_t i = i0; i < i1; i++) out[i * width + j] = w[j * ld + i];
        for (int64_t i = i0; i < i1; i++)
            for (int64_t j = cols; j < width; j++) out[i * width + j] = 0;
    }
}

static void pack_panel(void *ctx, int64_t task) {
    const pack_job *job = ctx;
    const fnn_conv_pack_args *a = job->a;
    int64_t group = task / job->panels, panel = task % job->panels, taps = a->kh * a->kw;
    int64_t first = panel * NR, cols = least(NR, job->out - first);
    int64_t width = conv_panel_vectors(job->out, panel) * VL;
    T *out = (T *)a->packed + (group * conv_padded(job->out) + first) * taps * job->in;
    const T *w = a->w;
    int64_t c = a->c / a->groups, k = a->k / a->groups;
    for (int64_t r = 0; r < a->kh; r++)
        for (int64_t s = 0; s < a->kw; s++, out += job->in * width) {
            int64_t tap = r * a->kw + (a->direction ? a->kw - 1 - s : s);
            const T *from = w + tap * c * a->k + group * k;
            if (a->direction)
                pack_columns(out, from + first * a->k, a->k, job->in, width, cols);
            else
                pack_rows(out, from + first, a->k, job->in, width, cols);
        }
}

int64_t FNN_SYM(conv_pack_size)(const fnn_conv_pack_args *a) {
    int64_t taps = a->kh * a->kw;
    if (conv_is_depthwise(a->groups, a->c, a->k)) return taps * a->c * (int64_t)sizeof(T);
    if (is_planar(a)) return FNN_SYM(conv_planar_size)(a);
    if (is_gathered(a)) return FNN_SYM(conv_gather_size)(a);
    pack_job job = pack_plan(a);
    return a->groups * conv_padded(job.out) * taps * job.in * (int64_t)sizeof(T);
}

int FNN_SYM(conv_pack)(const fnn_conv_pack_args *a) {
    if (conv_is_depthwise(a->groups, a->c, a->k)) {
        memcpy(a->packed, a->w, (size_t)(a->kh * a->kw * a->c) * sizeof(T));
        return FNN_OK;
    }
    if (is_planar(a)) {
        FNN_SYM(conv_planar_pack)(a);
        return FNN_OK;
    }
    if (is_gathered(a)) {
        FNN_SYM(conv_gather_pack)(a);
        return FNN_OK;
    }
    pack_job job = pack_plan(a);
    double cost = (double)a->kh * (double)a->kw * (double)a->c * (double)job.out;
    fnn_parallel(a->groups * job.panels, cost * (a->direction ? 0.5 : 0.1), pack_panel, &job);
    return FNN_OK;
}
