/* Packing the weights of recurrent layers for the forward time loop; see rnn.h. */
#include "gemm_pack.h"
#include "rnn.h"

typedef struct {
    const fnn_rnn_pack_args *args;
    rnn_packed as;
} pack_run;

/* The panel of one direction, chunk and gate: the input's weights, then the state's. */
static void pack_task(void *ctx, int64_t task) {
    const pack_run *run = ctx;
    const fnn_rnn_pack_args *a = run->args;
    int64_t gates = run->as.gates, gate = task % gates, chunks = ceil_div(a->h, NR);
    int64_t direction = task / gates / chunks, j = task / gates % chunks * NR;
    int64_t width = least(NR, a->h - j), ld = round_up(width, VL), row = gates * a->h;
    const T *w_ih = direction ? a->w_ih_reverse : a->w_ih;
    const T *w_hh = direction ? a->w_hh_reverse : a->w_hh;
    T *to = (T *)a->packed + direction * direction_size(run->as);
    to += (gates * j + gate * ld) * run->as.depth;
    int64_t at = gate * a->h + j;
    if (a->c) pack(to, ld, width, a->c, w_ih + at, 1, row);
    pack(to + a->c * ld, ld, width, a->h, w_hh + at, 1, row);
}

static void add_biases(const pack_run *run, int64_t direction) {
    const fnn_rnn_pack_args *a = run->args;
    const T *b_ih = direction ? a->b_ih_reverse : a->b_ih;
    const T *b_hh = direction ? a->b_hh_reverse : a->b_hh;
    int64_t hp = run->as.hp;
    T *to = (T *)a->packed + direction * direction_size(run->as) + panels_size(run->as);
    memset(to, 0, (size_t)(run->as.slots * hp) * sizeof(T));
    for (int64_t gate = 0; gate < run->as.gates; gate++)
        for (int64_t j = 0; j < a->h; j++) {
            if (b_ih) to[gate * hp + j] += b_ih[gate * a->h + j];
            if (b_hh) to[state_slot(a->mode, gate) * hp + j] += b_hh[gate * a->h + j];
        }
}

int FNN_SYM(rnn_pack)(const fnn_rnn_pack_args *a) {
    pack_run run = {a, packed_as(a->mode, a->c, a->h)};
    double cost = (double)(a->directions * panels_size(run.as)) * 0.3;
    fnn_parallel(a->directions * run.as.gates * ceil_div(a->h, NR), cost, pack_task, &run);
    for (int64_t d = 0; d < a->directions; d++) add_biases(&run, d);
    return FNN_OK;
}

int64_t FNN_SYM(rnn_pack_size)(const fnn_rnn_pack_args *a) {
    return a->directions * direction_size(packed_as(a->mode, a->c, a->h)) * (int64_t)sizeof(T);
}
