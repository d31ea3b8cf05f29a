/* The cells of recurrent layers backward: gradients of the gates' sums of a vector of units. */
#ifndef FNN_RNN_GRAD_H
#define FNN_RNN_GRAD_H

#include "rnn.h"

/* What one row reads of a step. y_before is null at a sample's first step without h0, as
 * cells_before without c0; a sample that has ended is not active. */
typedef struct {
    int active, first;
    const T *dy, *gates, *cells, *y, *y_before, *cells_before;
} saved_row;

FNN_INLINE const T *at(const T *base, int64_t offset) { return base ? base + offset : NULL; }
FNN_INLINE V load_or_zero(const T *p, int64_t offset, int64_t n) {
    return p ? v_load_upto(p + offset, n) : (V){0};
}

/* Gradients of the slots' sums in d, of `left` units from j on; dh becomes what passes beside the
 * recurrent product. */
FNN_INLINE void cell_grad(int mode, int64_t j, int64_t left, const saved_row *s, int64_t gap, T *dh,
                          T *dc, V *d) {
    V dout = v_load(dh) + load_or_zero(s->dy, j, left), beside = {0};
    const T *gates = s->gates + j;
    if (mode == FNN_LSTM) {
        V i = v_load_upto(gates, left), f = v_load_upto(gates + gap, left);
        V g = v_load_upto(gates + 2 * gap, left), o = v_load_upto(gates + 3 * gap, left);
        V out = gate_tanh(v_load_upto(s->cells + j, left));
        V dstate = v_load(dc) + dout * o * (1 - out * out);
        d[0] = dstate * g * (i * (1 - i));
        d[1] = dstate * load_or_zero(s->cells_before, j, left) * (f * (1 - f));
        d[2] = dstate * i * (1 - g * g);
        d[3] = dout * out * (o * (1 - o));
        v_store(dc, dstate * f);
    } else if (mode == FNN_GRU) {
        V r = v_load_upto(gates, left), z = v_load_upto(gates + gap, left);
        V n = v_load_upto(gates + 2 * gap, left), half = v_load_upto(gates + 3 * gap, left);
        d[1] = dout * (load_or_zero(s->y_before, j, left) - n) * (z * (1 - z));
        d[2] = dout * (1 - z) * (1 - n * n);
        d[0] = d[2] * half * (r * (1 - r));
        d[3] = d[2] * r;
        beside = dout * z;
    } else {
        V y = v_load_upto(s->y + j, left);
        d[0] = mode == FNN_RNN_TANH ? dout * (1 - y * y) : v_select(y > 0, dout, (V){0});
    }
    v_store(dh, beside);
}

#endif
