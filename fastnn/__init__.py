"""Neural networks on CPUs: compiled kernels under a thin Python layer.

import fastnn as fn; from fastnn import nn, optim, data, ops
"""

from fastnn import data, nn, ops, optim
from fastnn._core import get_num_threads, isa, set_num_threads
from fastnn.nn.init import manual_seed
from fastnn.ops.conv_algorithm import set_conv_algorithm
from fastnn.train import History, Trainer, value_and_grad

__version__ = "0.1.0"

__all__ = [
    "History",
    "Trainer",
    "data",
    "get_num_threads",
    "isa",
    "manual_seed",
    "nn",
    "ops",
    "optim",
    "set_conv_algorithm",
    "set_num_threads",
    "value_and_grad",
]
