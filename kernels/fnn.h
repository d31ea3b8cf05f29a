/* The kernel ABI: what a kernel is and how its arguments are named.
 *
 * A kernel is `int kernel(const args *)`. Its argument struct is declared once, by its entry in
 * def/; the same entry yields the struct (args.h, for the body), the enum, and the table of field
 * names (table.h, for the core, which fills arguments by name). Every field is eight bytes wide (a
 * pointer, an int64 or a double), so field i lies at byte 8*i and the core needs no offsets.
 *
 * Kernels trust their arguments: shapes, strides and alignment are checked when a plan is built.
 * They return a status; what depends on data (labels, indices, lengths) is checked before anything
 * is written.
 */
#ifndef FNN_H
#define FNN_H

#include <stddef.h>
#include <stdint.h>

enum fnn_status {
    FNN_OK = 0,
    FNN_BAD_LABEL = 1,
    FNN_BAD_INDEX = 2,
    FNN_NO_MEMORY = 3,
    FNN_FOREIGN = 4, /* a function from elsewhere failed and says why itself */
    FNN_BAD_LENGTH = 5,
};

/* Element types of user data; kernels compute in float32 or float64 only. */
enum fnn_dtype {
    FNN_F32,
    FNN_F64,
    FNN_U8,
    FNN_I8,
    FNN_I16,
    FNN_I32,
    FNN_I64,
};

/* Epilogue codes of gemm and conv, and of the pooling output. With v the sum so far:
 * an ACT writes act(v); a GRAD writes v * act'(.), taken from `saved`, the activation's output. */
enum fnn_act {
    FNN_ACT_NONE,
    FNN_ACT_RELU,
    FNN_ACT_SIGMOID,
    FNN_ACT_TANH,
    FNN_GRAD_RELU,
    FNN_GRAD_SIGMOID,
    FNN_GRAD_TANH,
};

enum fnn_reduce { FNN_SUM, FNN_REDUCE_MAX, FNN_REDUCE_MIN };

enum fnn_rnn { FNN_RNN_TANH, FNN_RNN_RELU, FNN_LSTM, FNN_GRU };

enum fnn_pool { FNN_POOL_MAX, FNN_POOL_MIN, FNN_POOL_AVG };

#endif
