/* The functions of the elementwise kernels, each listed once: for their codes, names and loops. */
#ifndef FNN_FUNCTIONS_H
#define FNN_FUNCTIONS_H

/* clang-format off */

/* y = f(x), with numbers alpha and beta where f has them. affine: alpha * x + beta. heaviside: 0 or
 * 1, alpha at 0. */
#define FNN_UNARY_OPS(OP) \
    OP(NEG) OP(ABS) OP(SQUARE) OP(SQRT) OP(EXP) OP(LOG) OP(RELU) OP(SIGMOID) OP(TANH) OP(SIGN) \
    OP(RECIPROCAL) OP(AFFINE) OP(HEAVISIDE)

/* The same, and unary_grad knows their slopes f'(x). threshold: x > alpha ? x : beta. hardtanh: x
 * between alpha and beta. leaky_relu: alpha x below 0. elu: beta * (x, alpha * expm1(x) below 0).
 * softplus: log(1 + exp(alpha x)) / alpha, x where alpha x > beta. huber: beta * (x^2 / 2, linear
 * from |x| = alpha on). */
#define FNN_CURVES(OP) \
    OP(ERF) OP(THRESHOLD) OP(HARDTANH) OP(LEAKY_RELU) OP(ELU) OP(GELU) OP(GELU_TANH) OP(SILU) \
    OP(MISH) OP(SOFTPLUS) OP(SOFTSIGN) OP(HARDSIGMOID) OP(HARDSWISH) OP(HUBER)

/* y = f(a, b). greater, equal: 1 or 0. The GRADs take a = the activation's output and b = dy:
 * relu: b where a > 0; sigmoid: b a (1 - a); tanh: b (1 - a a). prelu: b a where a <= 0;
 * prelu_slope: 1, b where a <= 0. bce: max(a, 0) - a b + log(1 + exp(-|a|)). xlogy: a log(b), 0
 * where a = 0. */
#define FNN_BINARY_OPS(OP) \
    OP(ADD) OP(SUB) OP(MUL) OP(DIV) OP(MAX) OP(MIN) OP(POW) OP(GREATER) OP(EQUAL) \
    OP(RELU_GRAD) OP(SIGMOID_GRAD) OP(TANH_GRAD) OP(PRELU) OP(PRELU_SLOPE) OP(BCE) OP(XLOGY)

/* clang-format on */

#define FNN_NAME(op) FNN_##op,
enum fnn_unary { FNN_UNARY_OPS(FNN_NAME) FNN_CURVES(FNN_NAME) FNN_UNARY_COUNT };
enum fnn_binary { FNN_BINARY_OPS(FNN_NAME) FNN_BINARY_COUNT };
#undef FNN_NAME

/* dispatch.c: "NEG", "ABS"... by their codes. */
extern const char *const fnn_unary_names[FNN_UNARY_COUNT];
extern const char *const fnn_binary_names[FNN_BINARY_COUNT];

#endif
