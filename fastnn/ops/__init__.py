"""Operations that compute on arrays at once and record on symbolic values.

Everything here takes float32 or float64 NumPy arrays of PyTorch's shapes and returns new arrays; inside
a model's forward the same functions take and return symbolic values.
"""

from fastnn.ops.activation import (
    elu,
    erf,
    gelu,
    hardsigmoid,
    hardswish,
    hardtanh,
    heaviside,
    leaky_relu,
    mish,
    prelu,
    relu6,
    selu,
    silu,
    softplus,
    softsign,
    threshold,
)
from fastnn.ops.argmax import argmax, argmin
from fastnn.ops.compare import equal, greater, greater_equal, less, less_equal, not_equal, where
from fastnn.ops.conv import conv2d
from fastnn.ops.conv1d import conv1d
from fastnn.ops.conv_transpose import conv_transpose1d, conv_transpose2d
from fastnn.ops.cross_entropy import cross_entropy
from fastnn.ops.custom import custom_op
from fastnn.ops.elementwise import (
    abs,
    add,
    div,
    exp,
    log,
    maximum,
    minimum,
    mul,
    neg,
    pow,
    reciprocal,
    relu,
    sigmoid,
    sign,
    sqrt,
    square,
    sub,
    tanh,
)
from fastnn.ops.embedding import embedding
from fastnn.ops.fold import col2im, im2col
from fastnn.ops.group_norm import group_norm
from fastnn.ops.index import getitem
from fastnn.ops.join import chunk, concat, split, squeeze, stack, unsqueeze
from fastnn.ops.layer_norm import layer_norm, rms_norm
from fastnn.ops.load import normalize
from fastnn.ops.loss import (
    binary_cross_entropy_with_logits,
    cosine_embedding_loss,
    hinge_loss,
    huber_loss,
    kl_div,
    l1_loss,
    mse_loss,
    smooth_l1_loss,
    xlogy,
)
from fastnn.ops.lp_pool import lp_pool2d
from fastnn.ops.matmul import linear, matmul
from fastnn.ops.nll import multi_margin_loss, nll_loss
from fastnn.ops.norm import batch_norm
from fastnn.ops.pad import pad
from fastnn.ops.pool import (
    adaptive_avg_pool2d,
    adaptive_max_pool2d,
    avg_pool2d,
    max_pool2d,
    min_pool2d,
)
from fastnn.ops.pool1d import (
    adaptive_avg_pool1d,
    adaptive_max_pool1d,
    avg_pool1d,
    lp_pool1d,
    max_pool1d,
    min_pool1d,
)
from fastnn.ops.random import dropout, dropout2d
from fastnn.ops.reduce import max, mean, min, std, sum, var
from fastnn.ops.rnn import recurrent
from fastnn.ops.shape import broadcast_to, flatten, permute, reshape, transpose
from fastnn.ops.softmax import log_softmax, softmax
from fastnn.ops.upsample import interpolate

cat = concat

__all__ = [
    "abs",
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "add",
    "argmax",
    "argmin",
    "avg_pool1d",
    "avg_pool2d",
    "batch_norm",
    "binary_cross_entropy_with_logits",
    "broadcast_to",
    "cat",
    "chunk",
    "col2im",
    "concat",
    "conv1d",
    "conv2d",
    "conv_transpose1d",
    "conv_transpose2d",
    "cosine_embedding_loss",
    "cross_entropy",
    "custom_op",
    "div",
    "dropout",
    "dropout2d",
    "elu",
    "embedding",
    "equal",
    "erf",
    "exp",
    "flatten",
    "gelu",
    "getitem",
    "greater",
    "greater_equal",
    "group_norm",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "heaviside",
    "hinge_loss",
    "huber_loss",
    "im2col",
    "interpolate",
    "kl_div",
    "l1_loss",
    "layer_norm",
    "leaky_relu",
    "less",
    "less_equal",
    "linear",
    "log",
    "log_softmax",
    "lp_pool1d",
    "lp_pool2d",
    "matmul",
    "max",
    "max_pool1d",
    "max_pool2d",
    "maximum",
    "mean",
    "min",
    "min_pool1d",
    "min_pool2d",
    "minimum",
    "mish",
    "mse_loss",
    "mul",
    "multi_margin_loss",
    "neg",
    "nll_loss",
    "normalize",
    "not_equal",
    "pad",
    "permute",
    "pow",
    "prelu",
    "reciprocal",
    "recurrent",
    "relu",
    "relu6",
    "reshape",
    "rms_norm",
    "selu",
    "sigmoid",
    "sign",
    "silu",
    "smooth_l1_loss",
    "softmax",
    "softplus",
    "softsign",
    "split",
    "sqrt",
    "square",
    "squeeze",
    "stack",
    "std",
    "sub",
    "sum",
    "tanh",
    "threshold",
    "transpose",
    "unsqueeze",
    "var",
    "where",
    "xlogy",
]
