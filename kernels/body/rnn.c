/* Recurrent layers forward: all steps of one layer in one call; see rnn.h. */
#include "rnn_row.h"

typedef struct {
    const fnn_rnn_fwd_args *args;
    rnn_cut cut;
    rnn_packed as;
} forward_run;

/* A block of one direction. h and next are [m][hp], c too; sums are one chunk's or, of a single
 * row, all chunks'. */
typedef struct {
    const forward_run *run;
    int64_t direction, first, m;
    const T *packed, *bias; /* of this direction */
    T *h, *next, *c, *sums;
    rnn_fetch fetch;
} forward_block;

/* One step of one block: where its rows are. */
typedef struct {
    int64_t t;
    const T *x, *pre;
    T *y, *gates, *cells;
} forward_step;

/* --- cells ----------------------------------------------------------------------------------- */

/* `width` units of one sample, at most a chunk: where they are. A slot's sums are `stride` from the
 * one's before, its biases hp and its saved gates `gap`. Nothing is saved where gates and cells are
 * null. */
typedef struct {
    int64_t width, stride, hp, gap;
    const T *sums, *bias, *h;
    T *next, *c, *y, *gates, *cells;
} cell_units;

FNN_INLINE void save_gate(const cell_units *u, int64_t gate, int64_t j, V x) {
    if (u->gates) v_store_upto(u->gates + gate * u->gap + j, x, u->width - j);
}

/* A vector's cell up to its last function, whose argument it gives; s: its slots. */
FNN_INLINE V cell_begin(int mode, const cell_units *u, int64_t j, V *s) {
    int slots = (int)slots_of(mode);
#pragma GCC unroll 4
    for (int q = 0; q < slots; q++)
        s[q] = v_load(u->sums + q * u->stride + j) + v_load(u->bias + q * u->hp + j);
    if (mode == FNN_GRU) {
        gate_functions(2, 2, s); /* r, z */
        save_gate(u, 0, j, s[0]);
        save_gate(u, 1, j, s[1]);
        save_gate(u, 3, j, s[3]);
        return s[2] + s[0] * s[3];
    }
    if (mode != FNN_LSTM) return s[0];
    V at[] = {s[0], s[1], s[3], s[2]}; /* i, f, o, g */
    gate_functions(3, 4, at);
    s[0] = at[0], s[1] = at[1], s[2] = at[3], s[3] = at[2];
#pragma GCC unroll 4
    for (int q = 0; q < MOST_SLOTS; q++) save_gate(u, q, j, s[q]);
    V state = s[1] * v_load(u->c + j) + s[0] * s[2];
    v_store(u->c + j, state);
    if (u->cells) v_store_upto(u->cells + j, state, u->width - j);
    return state;
}

/* The rest, from the last function's value. */
FNN_INLINE void cell_end(int mode, const cell_units *u, int64_t j, const V *s, V x) {
    if (mode == FNN_LSTM) {
        x *= s[3];
    } else if (mode == FNN_GRU) {
        save_gate(u, 2, j, x);
        x += s[1] * (v_load(u->h + j) - x);
    }
    v_store(u->next + j, x);
    v_store_upto(u->y + j, x, u->width - j);
}

/* `count` vectors from unit j on, together: the last function waits for all that is before. */
FNN_INLINE void cell(int mode, const cell_units *u, int64_t j, int count) {
    V s[NV][MOST_SLOTS], x[NV];
#pragma GCC unroll 4
    for (int v = 0; v < count; v++) x[v] = cell_begin(mode, u, j + v * VL, s[v]);
    if (mode == FNN_RNN_RELU)
        for (int v = 0; v < count; v++) x[v] = v_relu(x[v]);
    else
        gate_functions(0, count, x);
#pragma GCC unroll 4
    for (int v = 0; v < count; v++) cell_end(mode, u, j + v * VL, s[v], x[v]);
}

/* A sample that has ended keeps its state; what it puts out is zero. */
FNN_INLINE void ended(int mode, const cell_units *u, int64_t j) {
    V zero = {0};
    v_store(u->next + j, v_load(u->h + j));
    v_store_upto(u->y + j, zero, u->width - j);
    if (mode >= FNN_LSTM)
        for (int q = 0; q < MOST_SLOTS; q++) save_gate(u, q, j, zero);
    if (mode == FNN_LSTM && u->cells) v_store_upto(u->cells + j, zero, u->width - j);
}

/* The cells of `width` units from j on, of all rows. Within a row all streams run on: what
 * prefetches lines of itself follows them. */
FNN_INLINE void units_as(int mode, const forward_block *b, const forward_step *step, int64_t j,
                         int64_t width, const T *sums) {
    const forward_run *run = b->run;
    const fnn_rnn_fwd_args *a = run->args;
    int64_t h = a->h, hp = run->as.hp, row = slots_of(mode) * h, y_row = run->cut.directions * h;
    for (int64_t r = 0; r < b->m; r++, sums += NR) {
        cell_units u = {.width = width, .stride = b->m * NR, .hp = hp, .gap = h};
        u.sums = sums, u.bias = b->bias + j, u.h = b->h + r * hp + j;
        u.next = b->next + r * hp + j, u.c = b->c + r * hp + j, u.y = step->y + r * y_row + j;
        u.gates = step->gates ? step->gates + r * row + j : NULL;
        u.cells = step->cells ? step->cells + r * h + j : NULL;
        if (!is_active(a->lengths, b->first + r, step->t))
            for (int64_t v = 0; v < width; v += VL) ended(mode, &u, v);
        else if (width == NR)
            cell(mode, &u, 0, NV);
        else
            for (int64_t v = 0; v < width; v += VL) cell(mode, &u, v, 1);
    }
}

/* The cell over a chunk's sums. */
static void cells(const forward_block *b, const forward_step *step, int64_t j, const T *sums) {
    int64_t width = least(NR, b->run->args->h - j);
#define CELLS(mode)                                                                                \
    case mode:                                                                                     \
        if (width == NR)                                                                           \
            units_as(mode, b, step, j, NR, sums);                                                  \
        else                                                                                       \
            units_as(mode, b, step, j, width, sums);                                               \
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

/* A chunk's sums: the input's half, computed here or before, and the state's. */
static void chunk_sums(forward_block *b, const forward_step *step, int64_t j) {
    const rnn_packed *as = &b->run->as;
    const fnn_rnn_fwd_args *a = b->run->args;
    int64_t size = b->m * NR, ld = round_up(least(NR, a->h - j), VL), row = as->slots * a->h;
    for (int64_t gate = 0; gate < as->gates; gate++) {
        const T *panel = b->packed + (as->gates * j + gate * ld) * as->depth;
        T *sums = b->sums + gate * size;
        if (a->c) {
            product(step->x, a->x_ns, 1, b->m, a->c, panel, ld, ld, sums, NR, 0, &b->fetch);
        } else {
            const T *pre = step->pre + gate * a->h + j;
            for (int64_t r = 0; r < b->m; r++, pre += row)
                for (int64_t v = 0; v < ld; v += VL)
                    v_store(sums + r * NR + v, v_load_upto(pre + v, a->h - j - v));
        }
        int64_t slot = state_slot(a->mode, gate);
        product(b->h, as->hp, 1, b->m, a->h, panel + a->c * ld, ld, ld, b->sums + slot * size, NR,
                slot == gate, &b->fetch);
    }
}

/* All chunks' sums of a single row, [chunk][slot][NR]. */
static void row_sums(const forward_block *b, const forward_step *step) {
    const rnn_packed *as = &b->run->as;
    const fnn_rnn_fwd_args *a = b->run->args;
    memset(b->sums, 0, (size_t)(as->slots * round_up(a->h, NR)) * sizeof(T));
    if (a->c)
        row_product(as, a->h, 0, a->c, step->x, b->packed, b->sums, 2);
    else
        for (int64_t gate = 0; gate < as->gates; gate++)
            for (int64_t j = 0; j < a->h; j += VL)
                v_store(b->sums + (j / NR * as->slots + gate) * NR + j % NR,
                        v_load_upto(step->pre + gate * a->h + j, a->h - j));
    row_product(as, a->h, a->c, a->h, b->h, b->packed, b->sums, state_slot(a->mode, 2));
}

static forward_step step_at(const forward_block *b, int64_t t) {
    const forward_run *run = b->run;
    const fnn_rnn_fwd_args *a = run->args;
    int64_t row = (b->direction * a->steps + t) * a->n + b->first, width = run->as.slots * a->h;
    forward_step s = {.t = t};
    if (a->x) s.x = (const T *)a->x + t * a->x_ts + b->first * a->x_ns;
    if (a->pre) s.pre = (const T *)a->pre + row * width;
    if (a->gates) s.gates = (T *)a->gates + row * width;
    if (a->cells) s.cells = (T *)a->cells + row * a->h;
    s.y = (T *)a->y + ((t * a->n + b->first) * run->cut.directions + b->direction) * a->h;
    return s;
}

/* This step's products fetch what the next one's cells read and write. */
static void fetch_at(forward_block *b, int64_t t) {
    const forward_run *run = b->run;
    const fnn_rnn_fwd_args *a = run->args;
    forward_step next = step_at(b, t);
    int64_t states = b->m * a->h, gates = run->as.slots * states;
    fetch_also(&b->fetch, next.cells, states);
    if (run->cut.directions == 1) fetch_also(&b->fetch, next.y, states);
    fetch_also(&b->fetch, next.gates, gates);
    if (next.pre != next.gates) fetch_also(&b->fetch, next.pre, gates);
    fetch_within(&b->fetch, ceil_div(a->h, NR) * run->as.gates * depth_of(b->m, a->c + a->h));
}

static void forward_steps(forward_block *b) {
    const fnn_rnn_fwd_args *a = b->run->args;
    for (int64_t s = 0; s < a->steps; s++) {
        forward_step step = step_at(b, b->direction ? a->steps - 1 - s : s);
        b->fetch.count = 0;
        if (b->m > 1 && s + 1 < a->steps) fetch_at(b, b->direction ? step.t - 1 : step.t + 1);
        if (b->m == 1) row_sums(b, &step);
        for (int64_t j = 0; j < a->h; j += NR) {
            if (b->m > 1) chunk_sums(b, &step, j);
            cells(b, &step, j, b->m > 1 ? b->sums : b->sums + j * b->run->as.slots);
        }
        T *h = b->h;
        b->h = b->next, b->next = h;
    }
}

typedef struct {
    forward_run run;
    _Atomic int failed;
} forward_job;

static void forward_task(void *ctx, int64_t task) {
    forward_job *job = ctx;
    const forward_run *run = &job->run;
    const fnn_rnn_fwd_args *a = run->args;
    forward_block b = {.run = run,
                       .direction = task / run->cut.blocks,
                       .first = task % run->cut.blocks * run->cut.rows};
    b.m = least(run->cut.rows, a->n - b.first);
    b.packed = (const T *)a->packed + b.direction * direction_size(run->as);
    b.bias = b.packed + panels_size(run->as);
    int64_t size = b.m * run->as.hp, states = (b.direction * a->n + b.first) * a->h;
    int64_t sums = run->as.slots * (b.m > 1 ? b.m * NR : round_up(a->h, NR));
    b.h = fnn_scratch((size_t)(3 * size + sums) * sizeof(T));
    if (!b.h) {
        job->failed = 1;
        return;
    }
    b.next = b.h + size, b.c = b.next + size, b.sums = b.c + size;
    load_rows(b.h, run->as.hp, a->h0 ? (const T *)a->h0 + states : NULL, b.m, a->h);
    memset(b.next, 0, (size_t)size * sizeof(T));
    load_rows(b.c, run->as.hp, a->c0 ? (const T *)a->c0 + states : NULL, b.m, a->h);
    forward_steps(&b);
    store_rows(a->hn ? (T *)a->hn + states : NULL, b.h, run->as.hp, b.m, a->h);
    store_rows(a->cn ? (T *)a->cn + states : NULL, b.c, run->as.hp, b.m, a->h);
}

int FNN_SYM(rnn_fwd)(const fnn_rnn_fwd_args *a) {
    if (!lengths_fit(a->lengths, a->n, a->steps)) return FNN_BAD_LENGTH;
    forward_job job = {.run = {.args = a,
                               .cut = cut_rnn(a->directions, a->n),
                               .as = packed_as(a->mode, a->c, a->h)}};
    rnn_cut cut = job.run.cut;
    double products = (double)(a->directions * panels_size(job.run.as)) / (VL * 4);
    double cost = products * (double)a->n * (double)a->steps + 1e5;
    fnn_parallel(cut.directions * cut.blocks, cost, forward_task, &job);
    return job.failed ? FNN_NO_MEMORY : FNN_OK;
}
