"""Operations that compute on arrays at once and record on symbolic values.

Everything here takes float32 or float64 NumPy arrays of PyTorch's shapes and returns new arrays; inside
a model's forward the same functions take and return symbolic values.
"""

from fastnn.ops.conv import conv2d
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
from fastnn.ops.index import getitem
from fastnn.ops.join import chunk, concat, split, squeeze, stack, unsqueeze
from fastnn.ops.load import normalize
from fastnn.ops.loss import cross_entropy, log_softmax, mse_loss, softmax
from fastnn.ops.matmul import linear, matmul
from fastnn.ops.norm import batch_norm
from fastnn.ops.pool import adaptive_avg_pool2d, avg_pool2d, max_pool2d, min_pool2d
from fastnn.ops.random import dropout
from fastnn.ops.reduce import max, mean, min, sum
from fastnn.ops.rnn import recurrent
from fastnn.ops.shape import broadcast_to, flatten, permute, reshape, transpose

cat = concat

__all__ = [
    "abs",
    "adaptive_avg_pool2d",
    "add",
    "avg_pool2d",
    "batch_norm",
    "broadcast_to",
    "cat",
    "chunk",
    "concat",
    "conv2d",
    "cross_entropy",
    "custom_op",
    "div",
    "dropout",
    "embedding",
    "exp",
    "flatten",
    "getitem",
    "linear",
    "log",
    "log_softmax",
    "matmul",
    "max",
    "max_pool2d",
    "maximum",
    "mean",
    "min",
    "min_pool2d",
    "minimum",
    "mse_loss",
    "mul",
    "neg",
    "normalize",
    "permute",
    "pow",
    "reciprocal",
    "recurrent",
    "relu",
    "reshape",
    "sigmoid",
    "sign",
    "softmax",
    "split",
    "sqrt",
    "square",
    "squeeze",
    "stack",
    "sub",
    "sum",
    "tanh",
    "transpose",
    "unsqueeze",
]
