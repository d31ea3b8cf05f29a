/* The epilogue of gemm, conv and pooling: an activation, or the product with one's derivative.
 *
 * `act` is a fnn_act. Hand it over as a constant (a switch outside of the loops over an inlined
 * body) so that the switch below folds away.
 */
#ifndef FNN_EPILOGUE_H
#define FNN_EPILOGUE_H

#include "vmath.h"

/* act(sum); for the GRAD codes sum * act', where saved = act's output. NaN propagates. */
FNN_INLINE V epilogue(int64_t act, V sum, V saved) {
    switch (act) {
    case FNN_ACT_RELU:
        return v_relu(sum);
    case FNN_ACT_SIGMOID:
        return v_sigmoid(sum);
    case FNN_ACT_TANH:
        return v_tanh(sum);
    case FNN_GRAD_RELU:
        return v_select(saved > 0, sum, (V){0});
    case FNN_GRAD_SIGMOID:
        return sum * (saved * (1 - saved));
    case FNN_GRAD_TANH:
        return sum * (1 - saved * saved);
    default:
        return sum;
    }
}

/* Whether this code reads `saved`. */
FNN_INLINE int epilogue_reads_saved(int64_t act) { return act >= FNN_GRAD_RELU; }

#endif
