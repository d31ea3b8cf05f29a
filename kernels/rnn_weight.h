/* Gradients of a recurrent layer's weights, summed while the gates' gradients are in the cache.
 *
 * A task keeps what its products read, of about COLLECTED rows of samples and steps: the layer's
 * input and the state before, [row][c + h], and the gates' gradients, from which the time loop goes
 * on too. When there is no room for another step these are multiplied and added to the task's own
 * sums, in panels of a chunk of one slot, [panel][c + h][ld]; those of all tasks are added in their
 * order at the end.
 */
#ifndef FNN_RNN_WEIGHT_H
#define FNN_RNN_WEIGHT_H

#include "rnn.h"

enum { COLLECTED = 128 };

typedef struct {
    int64_t mode, slots, c, h, hp;
    int64_t room, filled; /* rows */
    T *inputs, *dgates, *sums;
    int add; /* to sums that there are */
} weight_sums;

FNN_INLINE int64_t chunk_ld(int64_t h, int64_t j) { return round_up(least(NR, h - j), VL); }

/* Elements from one row of gates' gradients to the next: a panel's last vector may end behind a
 * row, and a panel's rows do not all fall on the same places of the L1 cache. */
FNN_INLINE int64_t collected_row(const weight_sums *w) { return w->slots * w->h + NR; }

/* Elements of the sums of one task, and of what it collects. */
FNN_INLINE int64_t sums_size(const weight_sums *w) { return w->slots * w->hp * (w->c + w->h); }
FNN_INLINE int64_t collected_size(const weight_sums *w) {
    return w->room * (collected_row(w) + w->c + w->h);
}

/* A row of this step: x and the state before, either null for zeros. */
static inline void collect_input(const weight_sums *w, int64_t row, const T *x, const T *before) {
    T *to = w->inputs + (w->filled + row) * (w->c + w->h);
    size_t bytes = sizeof(T);
    x ? memcpy(to, x, bytes * (size_t)w->c) : memset(to, 0, bytes * (size_t)w->c);
    to += w->c;
    before ? memcpy(to, before, bytes * (size_t)w->h) : memset(to, 0, bytes * (size_t)w->h);
}

/* Add what was collected to the sums. */
static inline void multiply_collected(weight_sums *w) {
    int64_t rows = w->c + w->h;
    for (int64_t slot = 0; slot < w->slots; slot++) {
        /* A GRU's last two slots are the new gate's halves, from the input and from the state. */
        int64_t first = w->mode == FNN_GRU && slot == 3 ? w->c : 0;
        int64_t last = w->mode == FNN_GRU && slot == 2 ? w->c : rows;
        for (int64_t j = 0; j < w->h; j += NR) {
            int64_t ld = chunk_ld(w->h, j), at = slot * w->hp + j;
            const T *dgates = w->dgates + slot * w->h + j;
            product(w->inputs + first, 1, rows, last - first, w->filled, dgates, collected_row(w),
                    ld, w->sums + rows * at + first * ld, ld, w->add, NULL);
        }
    }
    w->filled = 0, w->add = 1;
}

/* One row of a weight's gradient, [gates * h]: row i of x and state, over the tasks' sums. */
static inline void add_weight_row(const weight_sums *w, int64_t tasks, int64_t i, T *out) {
    int64_t rows = w->c + w->h, gates = gates_of(w->mode), size = sums_size(w);
    for (int64_t gate = 0; gate < gates; gate++) {
        int64_t slot = i < w->c ? gate : state_slot(w->mode, gate);
        for (int64_t j = 0; j < w->h; j += VL) {
            int64_t chunk = j / NR * NR, ld = chunk_ld(w->h, chunk);
            const T *from = w->sums + rows * (slot * w->hp + chunk) + i * ld + j - chunk;
            V sum = v_load(from);
            for (int64_t task = 1; task < tasks; task++) sum += v_load(from + task * size);
            v_store_upto(out + gate * w->h + j, sum, w->h - j);
        }
    }
}

#endif
