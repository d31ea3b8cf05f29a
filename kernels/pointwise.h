/* Functions of one number, and their slopes: enum fnn_unary, on vectors.
 *
 * Hand `op` over as a constant (a loop of its own for each op over an inlined body), so that the
 * switches fold away. NaN propagates.
 */
#ifndef FNN_POINTWISE_H
#define FNN_POINTWISE_H

#include "functions.h"
#include "gelu.h"

/* max(x, 0) + log(1 + exp(-|x|)). */
FNN_INLINE V v_softplus(V x) { return v_relu(x) + v_log1p(v_exp(-v_abs(x))); }

/* With w = exp(2x) + 2 exp(x): tanh(softplus(x)) = w / (w + 2), which is 1 from x = 20 on. */
typedef struct {
    V value, slope;
} fnn_mish;

FNN_INLINE fnn_mish v_mish_gate(V x) {
    V z = v_select(x > 20, v_set1(20), x), e = v_exp(z), w = e * (e + (T)2), inverse = 1 / (w + 2);
    return (fnn_mish){w * inverse, (T)4 * e * (e + (T)1) * inverse * inverse * z};
}

/* 2 sqrt(2 / pi) (x + 0.044715 x^3): half of it is the argument of tanh in gelu_tanh, and
 * (1 + tanh(u / 2)) / 2 = sigmoid(u). From |x| = 10 on the sigmoid is 0 or 1. */
FNN_INLINE V v_gelu_argument(V x) {
    V z = v_clamp(x, -10, 10);
    return z * (z * z * (T)0.07135481627260025 + (T)1.5957691216057308);
}

FNN_INLINE V pointwise(int op, V x, T a, T b) {
    V zero = {0}, one = v_set1(1);
    switch (op) {
    case FNN_NEG:
        return -x;
    case FNN_ABS:
        return v_abs(x);
    case FNN_SQUARE:
        return x * x;
    case FNN_SQRT:
        return v_sqrt(x);
    case FNN_EXP:
        return v_exp(x);
    case FNN_LOG:
        return v_log(x);
    case FNN_RELU:
        return v_relu(x);
    case FNN_SIGMOID:
        return v_sigmoid(x);
    case FNN_TANH:
        return v_tanh(x);
    case FNN_SIGN:
        return v_select(x > zero, one, v_select(x < zero, -one, v_select(x == zero, zero, x)));
    case FNN_RECIPROCAL:
        return one / x;
    case FNN_AFFINE:
        return a * x + b;
    case FNN_HEAVISIDE:
        return v_select(x > zero, one, v_select(x < zero, zero, v_select(x == zero, v_set1(a), x)));
    case FNN_ERF:
        return v_erf(x);
    case FNN_THRESHOLD:
        return v_select(x <= a, v_set1(b), x);
    case FNN_HARDTANH:
        return v_clamp(x, a, b);
    case FNN_LEAKY_RELU:
        return v_select(x > 0, x, a * x);
    case FNN_ELU:
        return b * v_select(x > 0, x, a * v_expm1(x));
    case FNN_GELU:
        return v_gelu(x);
    case FNN_GELU_TANH:
        return x * v_sigmoid(v_gelu_argument(x));
    case FNN_SILU:
        return x * v_sigmoid(x);
    case FNN_MISH:
        return x * v_mish_gate(x).value;
    case FNN_SOFTPLUS:
        return v_select(x * a > b, x, v_softplus(x * a) * (1 / a));
    case FNN_SOFTSIGN:
        return x / (one + v_abs(x));
    case FNN_HARDSIGMOID:
        return v_clamp(x + (T)3, 0, 6) * (T)(1. / 6);
    case FNN_HARDSWISH:
        return x * (v_clamp(x + (T)3, 0, 6) * (T)(1. / 6));
    default: { /* FNN_HUBER */
        V size = v_abs(x);
        return b * v_select(size > a, a * (size - a / 2), x * x * (T)0.5);
    }
    }
}

/* The derivative with respect to x, for enum fnn_unary from FNN_ERF on. At a kink it is that of the
 * flatter side. */
FNN_INLINE V pointwise_slope(int op, V x, T a, T b) {
    V zero = {0}, one = v_set1(1);
    switch (op) {
    case FNN_ERF:
        return v_exp(-x * x) * (T)1.1283791670955126;
    case FNN_THRESHOLD:
        return v_select(x <= a, zero, one);
    case FNN_HARDTANH:
        return v_select((x > a) & (x < b), one, zero);
    case FNN_LEAKY_RELU:
        return v_select(x > 0, one, v_set1(a));
    case FNN_ELU:
        return v_select(x > 0, v_set1(b), a * b * v_exp(x));
    case FNN_GELU:
        return v_gelu_slope(x);
    case FNN_GELU_TANH: {
        V s = v_sigmoid(v_gelu_argument(x)), z = v_clamp(x, -10, 10);
        return s +
               s * (one - s) * z * (z * z * (T)(3 * 0.07135481627260025) + (T)1.5957691216057308);
    }
    case FNN_SILU: {
        V s = v_sigmoid(x);
        return s + x * s * (one - s);
    }
    case FNN_MISH: {
        fnn_mish gate = v_mish_gate(x);
        return gate.value + gate.slope;
    }
    case FNN_SOFTPLUS:
        return v_select(x * a > b, one, v_sigmoid(x * a));
    case FNN_SOFTSIGN: {
        V inverse = one / (one + v_abs(x));
        return inverse * inverse;
    }
    case FNN_HARDSIGMOID:
        return v_select((x > -3) & (x < 3), v_set1((T)(1. / 6)), zero);
    case FNN_HARDSWISH:
        return v_select(x <= -3, zero, v_select(x >= 3, one, x * (T)(1. / 3) + (T)0.5));
    default: /* FNN_HUBER */
        return b * v_clamp(x, -a, a);
    }
}

#endif
