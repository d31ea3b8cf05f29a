/* Recurrent layers backward: the time loop from the end, which turns the gradient of the outputs
 * into those of the gates' sums. The gradients of weights are summed on the way (rnn_weight.h) or,
 * as those of inputs, products of these afterwards; see rnn.h. */
#include "gemm_pack.h"
#include "rnn_grad.h"
#include "rnn_weight.h"

enum { MOST_TASKS = 8 }; /* of a direction that sums gradients of weights */

typedef struct {
    const fnn_rnn_bwd_args *args;
    rnn_cut cut;
    int64_t gates, slots, hp;
    int64_t dgates_row;  /* elements from one row of a step's dgates to the next */
    int64_t tasks;       /* of each direction; its blocks are shared out among them */
    weight_sums weights; /* sums: of [direction][task] */
    T *packed;           /* weights of each direction, [chunk][gates * h][NR] */
    T *sums;             /* of dgates, [direction][block][slots][hp] */
    _Atomic int failed;
} backward_run;

/* A block of one direction: the gradient of the state, dh and dc, [m][hp]. */
typedef struct {
    backward_run *run;
    int64_t direction, first, m;
    T *dh, *dc, *sums;
    weight_sums *weights;
    rnn_fetch fetch;
} backward_block;

/* One step of one block. */
typedef struct {
    int64_t t;
    int64_t before; /* the step before in the direction's order, -1 at its begin */
    const T *dy, *gates, *cells, *y, *y_before, *cells_before;
    T *dgates, *kept; /* kept: their copy in memory, if there is one */
    const T *x;
} backward_step;

static void pack_task(void *ctx, int64_t task) {
    const backward_run *run = ctx;
    const fnn_rnn_bwd_args *a = run->args;
    int64_t chunks = ceil_div(a->h, NR), direction = task / chunks, j = task % chunks * NR;
    int64_t width = least(NR, a->h - j), k = run->gates * a->h;
    const T *w = direction ? a->w_hh_reverse : a->w_hh;
    pack(run->packed + k * (direction * run->hp + j), round_up(width, VL), width, k, w + j * k, k,
         1);
}

/* --- cells ----------------------------------------------------------------------------------- */

FNN_INLINE saved_row row_at(const backward_block *b, const backward_step *step, int64_t r) {
    const backward_run *run = b->run;
    const fnn_rnn_bwd_args *a = run->args;
    int64_t h = a->h, row = run->slots * h, y_row = run->cut.directions * h;
    int64_t sample = b->first + r, state = (b->direction * a->n + sample) * h;
    int first = step->before < 0 || !is_active(a->lengths, sample, step->before);
    return (saved_row){
        .active = is_active(a->lengths, sample, step->t),
        .first = first,
        .dy = at(step->dy, r * a->dy_ns),
        .gates = step->gates + r * row,
        .cells = step->cells + r * h,
        .y = step->y + r * y_row,
        .y_before = first ? at(a->h0, state) : step->y_before + r * y_row,
        .cells_before = first ? at(a->c0, state) : step->cells_before + r * h,
    };
}

/* `left` units of row r from j on. */
FNN_INLINE void units_as(int mode, const backward_block *b, const saved_row *s, int64_t r,
                         int64_t j, int64_t left, T *dgates, T *dfirst, T *kept) {
    const backward_run *run = b->run;
    int slots = (int)slots_of(mode);
    int64_t h = run->args->h, hp = run->hp;
    V d[MOST_SLOTS] = {{0}};
    if (s->active) cell_grad(mode, j, left, s, h, b->dh + r * hp + j, b->dc + r * hp + j, d);
#pragma GCC unroll 4
    for (int q = 0; q < slots; q++) {
        T *sum = b->sums + q * hp + j;
        v_store(sum, v_load(sum) + d[q]);
        v_store_upto(dgates + q * h + j, d[q], left);
        if (dfirst) v_store_upto(dfirst + q * h + j, d[q], left);
        if (kept) v_store_upto(kept + q * h + j, d[q], left);
    }
}

/* One row; within it all streams run on: what prefetches lines of itself follows them. */
FNN_INLINE void row_as(int mode, const backward_block *b, const backward_step *step, int64_t r) {
    const fnn_rnn_bwd_args *a = b->run->args;
    int64_t h = a->h, row = slots_of(mode) * h, state = b->direction * a->n + b->first + r;
    saved_row s = row_at(b, step, r);
    T *dgates = step->dgates + r * b->run->dgates_row;
    T *kept = step->kept ? step->kept + r * row : NULL;
    T *dfirst = s.active && s.first && a->dfirst ? (T *)a->dfirst + state * row : NULL;
    if (b->weights)
        collect_input(b->weights, r, s.active ? step->x + r * a->x_ns : NULL,
                      s.active ? s.y_before : NULL);
    for (int64_t j = 0; j < h; j += VL) {
        if (h - j >= VL)
            units_as(mode, b, &s, r, j, VL, dgates, dfirst, kept);
        else
            units_as(mode, b, &s, r, j, h - j, dgates, dfirst, kept);
    }
}

static void cells_grad(const backward_block *b, const backward_step *step) {
#define CELLS(mode)                                                                                \
    case mode:                                                                                     \
        for (int64_t r = 0; r < b->m; r++) row_as(mode, b, step, r);                               \
        break;
    switch (b->run->args->mode) {
        CELLS(FNN_RNN_TANH)
        CELLS(FNN_RNN_RELU)
        CELLS(FNN_LSTM)
        CELLS(FNN_GRU)
    }
#undef CELLS
}

/* --- the time loop --------------------------------------------------------------------------- */

/* dh += dgates w: through the sums' recurrent half. */
static void through_weights(backward_block *b, const backward_step *step) {
    const backward_run *run = b->run;
    const fnn_rnn_bwd_args *a = run->args;
    int64_t h = a->h, k = run->gates * h;
    /* The gates whose recurrent half has the gate's own slot come first. */
    int64_t plain = a->mode == FNN_GRU ? 2 * h : k;
    for (int64_t j = 0; j < h; j += NR) {
        int64_t ld = round_up(least(NR, h - j), VL);
        const T *packed = run->packed + k * (b->direction * run->hp + j);
        T *dh = b->dh + j;
        product(step->dgates, run->dgates_row, 1, b->m, plain, packed, ld, ld, dh, run->hp, 1,
                &b->fetch);
        if (plain < k)
            product(step->dgates + 3 * h, run->dgates_row, 1, b->m, k - plain, packed + plain * ld,
                    ld, ld, dh, run->hp, 1, &b->fetch);
    }
}

static backward_step step_at(const backward_block *b, int64_t s) {
    const backward_run *run = b->run;
    const fnn_rnn_bwd_args *a = run->args;
    int64_t t = b->direction ? a->steps - 1 - s : s, past = b->direction ? 1 : -1;
    int64_t row = (b->direction * a->steps + t) * a->n + b->first, width = run->slots * a->h;
    int64_t y_row = ((t * a->n + b->first) * run->cut.directions + b->direction) * a->h;
    const T *dy = a->dy_step < 0 || a->dy_step == t ? a->dy : NULL;
    backward_step step = {.t = t, .before = s == 0 ? -1 : t + past};
    step.dy = at(dy, t * a->dy_ts + b->first * a->dy_ns + b->direction * a->h);
    step.gates = at(a->gates, row * width);
    step.cells = at(a->cells, row * a->h);
    step.y = (const T *)a->y + y_row;
    step.y_before = step.y + past * a->n * run->cut.directions * a->h;
    step.cells_before = at(step.cells, past * a->n * a->h);
    T *dgates = a->dgates ? (T *)a->dgates + row * width : NULL;
    const weight_sums *w = b->weights;
    step.dgates = w ? w->dgates + w->filled * run->dgates_row : dgates;
    step.kept = w ? dgates : NULL;
    step.x = at(a->x, t * a->x_ts + b->first * a->x_ns);
    return step;
}

/* This step's products fetch what the next one's cells read and write. */
static void fetch_at(backward_block *b, int64_t s) {
    const backward_run *run = b->run;
    const fnn_rnn_bwd_args *a = run->args;
    backward_step next = step_at(b, s);
    int64_t states = b->m * a->h, gates = run->slots * states;
    if (next.before >= 0) {
        fetch_also(&b->fetch, next.cells_before, states);
        if (run->cut.directions == 1) fetch_also(&b->fetch, next.y_before, states);
    }
    if (!b->weights && next.dgates != next.gates) fetch_also(&b->fetch, next.dgates, gates);
    fetch_also(&b->fetch, next.gates, gates);
    fetch_within(&b->fetch, ceil_div(a->h, NR) * depth_of(b->m, run->gates * a->h));
}

static void backward_steps(backward_block *b) {
    const fnn_rnn_bwd_args *a = b->run->args;
    weight_sums *weights = b->weights;
    for (int64_t s = a->steps - 1; s >= 0; s--) {
        if (weights && weights->filled + b->m > weights->room) multiply_collected(weights);
        backward_step step = step_at(b, s);
        cells_grad(b, &step);
        if (weights) weights->filled += b->m;
        b->fetch.count = 0;
        if (s > 0) fetch_at(b, s - 1);
        if (s > 0 || a->dh0) through_weights(b, &step);
    }
}

static void backward_rows(backward_block *b, int64_t block) {
    backward_run *run = b->run;
    const fnn_rnn_bwd_args *a = run->args;
    b->first = block * run->cut.rows;
    b->m = least(run->cut.rows, a->n - b->first);
    int64_t states = (b->direction * a->n + b->first) * a->h;
    b->sums = run->sums + (b->direction * run->cut.blocks + block) * run->slots * run->hp;
    memset(b->sums, 0, (size_t)(run->slots * run->hp) * sizeof(T));
    load_rows(b->dh, run->hp, at(a->dhn, states), b->m, a->h);
    load_rows(b->dc, run->hp, at(a->dcn, states), b->m, a->h);
    backward_steps(b);
    store_rows(a->dh0 ? (T *)a->dh0 + states : NULL, b->dh, run->hp, b->m, a->h);
    store_rows(a->dc0 ? (T *)a->dc0 + states : NULL, b->dc, run->hp, b->m, a->h);
}

static void backward_task(void *ctx, int64_t task) {
    backward_run *run = ctx;
    weight_sums weights = run->weights;
    int64_t states = run->cut.rows * run->hp, share = task % run->tasks;
    int64_t collect = weights.room ? collected_size(&weights) : 0;
    backward_block b = {.run = run, .direction = task / run->tasks};
    b.dh = fnn_scratch((size_t)(2 * states + collect) * sizeof(T));
    if (!b.dh) {
        run->failed = 1;
        return;
    }
    b.dc = b.dh + states;
    if (weights.room) {
        weights.dgates = b.dc + states;
        weights.inputs = weights.dgates + weights.room * run->dgates_row;
        weights.sums += task * sums_size(&weights);
        b.weights = &weights;
    }
    __auto_type before = flush_denormals();
    for (int64_t block = share * run->cut.blocks / run->tasks;
         block < (share + 1) * run->cut.blocks / run->tasks; block++)
        backward_rows(&b, block);
    if (weights.room) multiply_collected(&weights);
    restore_denormals(before);
}

/* --- sums of all tasks ----------------------------------------------------------------------- */

static void weight_row_task(void *ctx, int64_t task) {
    const backward_run *run = ctx;
    const fnn_rnn_bwd_args *a = run->args;
    weight_sums w = run->weights;
    int64_t rows = w.c + w.h, direction = task / rows, i = task % rows;
    T *dw_ih = direction ? a->dw_ih_reverse : a->dw_ih;
    T *dw_hh = direction ? a->dw_hh_reverse : a->dw_hh;
    T *out = i < w.c ? dw_ih : dw_hh;
    w.sums += direction * run->tasks * sums_size(&w);
    if (out) add_weight_row(&w, run->tasks, i, out + (i < w.c ? i : i - w.c) * run->gates * w.h);
}

static void add_sums(const backward_run *run) {
    const fnn_rnn_bwd_args *a = run->args;
    for (int64_t d = 0; d < run->cut.directions; d++)
        for (int64_t q = 0; q < run->slots; q++) {
            T *out = (T *)a->dbias + (d * run->slots + q) * a->h;
            for (int64_t j = 0; j < a->h; j += VL) {
                V sum = {0};
                for (int64_t i = 0; i < run->cut.blocks; i++) {
                    int64_t block = d * run->cut.blocks + i;
                    sum += v_load(run->sums + (block * run->slots + q) * run->hp + j);
                }
                v_store_upto(out + j, sum, a->h - j);
            }
        }
}

/* Elements of the work buffer: panels, sums of dgates, sums of the weights' gradients. */
static int64_t backward_sizes(const fnn_rnn_bwd_args *a, backward_run *run) {
    *run = (backward_run){.args = a,
                          .cut = cut_rnn(a->directions, a->n),
                          .gates = gates_of(a->mode),
                          .slots = slots_of(a->mode),
                          .hp = round_up(a->h, VL)};
    run->tasks = run->cut.blocks;
    run->dgates_row = run->slots * a->h;
    if (a->c && a->n > 0) {
        run->tasks = least(run->cut.blocks, MOST_TASKS);
        int64_t all = run->cut.rows * a->steps * ceil_div(run->cut.blocks, run->tasks);
        int64_t room = run->cut.rows > COLLECTED ? run->cut.rows : COLLECTED;
        run->weights = (weight_sums){.mode = a->mode,
                                     .slots = run->slots,
                                     .c = a->c,
                                     .h = a->h,
                                     .hp = run->hp,
                                     .room = least(room, all)};
        run->dgates_row = collected_row(&run->weights);
    }
    int64_t sums = run->weights.room ? a->directions * run->tasks * sums_size(&run->weights) : 0;
    return a->directions * run->hp * (run->gates * a->h + run->cut.blocks * run->slots) + sums;
}

int FNN_SYM(rnn_bwd)(const fnn_rnn_bwd_args *a) {
    if (!lengths_fit(a->lengths, a->n, a->steps)) return FNN_BAD_LENGTH;
    backward_run run;
    backward_sizes(a, &run);
    int64_t panels = a->directions * run.hp * run.gates * a->h;
    run.packed = a->work;
    run.sums = run.packed + panels;
    run.weights.sums = run.sums + a->directions * run.cut.blocks * run.slots * run.hp;
    fnn_parallel(a->directions * ceil_div(a->h, NR), (double)panels * 0.3, pack_task, &run);
    double products = (double)a->n * (double)a->steps * (double)(panels / (VL * 4));
    fnn_parallel(a->directions * run.tasks, a->c ? 2 * products : products, backward_task, &run);
    if (run.failed) return FNN_NO_MEMORY;
    if (a->dbias) add_sums(&run);
    if (run.weights.room) {
        double sums = (double)(a->directions * run.tasks * sums_size(&run.weights));
        fnn_parallel(a->directions * (a->c + a->h), sums * 0.1, weight_row_task, &run);
    }
    return FNN_OK;
}

int64_t FNN_SYM(rnn_bwd_size)(const fnn_rnn_bwd_args *a) {
    backward_run run;
    return backward_sizes(a, &run) * (int64_t)sizeof(T);
}
