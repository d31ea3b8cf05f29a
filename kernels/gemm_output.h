/* What a matrix product reads, and what becomes of its sums. */
#ifndef FNN_GEMM_OUTPUT_H
#define FNN_GEMM_OUTPUT_H

#include "epilogue.h"
#include "vec.h"

/* Strides in elements between rows and between columns. */
typedef struct {
    const T *at;
    int64_t rs, cs;
} matrix;

/* Where sums go, and what is done to them on the way. */
typedef struct {
    T *c;
    const T *bias, *residual, *saved;
    int64_t c_rs, residual_rs, saved_rs;
    T beta;
    int act;
} output;

/* Sums may be written (beta = 0) or added (beta = 1) to c as they are. */
FNN_INLINE int is_plain(const output *o) {
    return !o->bias && !o->residual && o->act == FNN_ACT_NONE && (o->beta == 0 || o->beta == 1);
}

FNN_INLINE void finish_as(int act, const output *o, int64_t row, int64_t col, int64_t rows,
                          int64_t cols, const T *sums, int64_t sums_rs) {
    for (int64_t i = row; i < row + rows; i++, sums += sums_rs) {
        T *c = o->c + i * o->c_rs + col;
        for (int64_t j = 0; j < cols; j += VL) {
            int64_t left = cols - j;
            V sum = v_load_upto(sums + j, left), saved = {0};
            if (o->beta != 0) sum += o->beta * v_load_upto(c + j, left);
            if (o->bias) sum += v_load_upto(o->bias + col + j, left);
            if (o->residual) sum += v_load_upto(o->residual + i * o->residual_rs + col + j, left);
            if (epilogue_reads_saved(act))
                saved = v_load_upto(o->saved + i * o->saved_rs + col + j, left);
            v_store_upto(c + j, epilogue(act, sum, saved), left);
        }
    }
}

/* Takes rows x cols finished sums to their place at (row, col). */
static void finish(const output *o, int64_t row, int64_t col, int64_t rows, int64_t cols,
                   const T *sums, int64_t sums_rs) {
#define FINISH(act)                                                                                \
    case act:                                                                                      \
        finish_as(act, o, row, col, rows, cols, sums, sums_rs);                                    \
        break;
    switch (o->act) {
        FINISH(FNN_ACT_NONE)
        FINISH(FNN_ACT_RELU)
        FINISH(FNN_ACT_SIGMOID)
        FINISH(FNN_ACT_TANH)
        FINISH(FNN_GRAD_RELU)
        FINISH(FNN_GRAD_SIGMOID)
        FINISH(FNN_GRAD_TANH)
    }
#undef FINISH
}

/* The output of one step through k: what was given is added first, the activation comes last. */
static output step_output(const output *o, int first, int last) {
    output step = *o;
    if (!first) {
        step.bias = step.residual = NULL;
        step.beta = 1;
    }
    if (!last) step.act = FNN_ACT_NONE;
    return step;
}

#endif
