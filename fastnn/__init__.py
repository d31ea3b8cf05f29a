"""Neural networks on CPUs: compiled kernels under a thin Python layer.

import fastnn as fn; from fastnn import nn, optim, data, ops

Importing it loads the compiled core alone; every other part is loaded when its name is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fastnn._core import get_num_threads, isa, set_num_threads

if TYPE_CHECKING:
    from fastnn import data, explain, nn, ops, optim, plot, train
    from fastnn.nn.init import manual_seed
    from fastnn.ops.conv_algorithm import set_conv_algorithm
    from fastnn.ops.custom import custom_op
    from fastnn.perceptron import Perceptron
    from fastnn.train import History, Trainer, value_and_grad

__version__ = "0.1.0"

__all__ = [
    "History",
    "Perceptron",
    "Trainer",
    "custom_op",
    "data",
    "explain",
    "get_num_threads",
    "isa",
    "manual_seed",
    "nn",
    "ops",
    "optim",
    "plot",
    "set_conv_algorithm",
    "set_num_threads",
    "train",
    "value_and_grad",
]

_PARTS = ("data", "explain", "nn", "ops", "optim", "plot", "train")  # the public packages
_PLACES = {  # other public names: the module that has them
    "History": "fastnn.train",
    "Perceptron": "fastnn.perceptron",
    "Trainer": "fastnn.train",
    "custom_op": "fastnn.ops.custom",
    "manual_seed": "fastnn.nn.init",
    "set_conv_algorithm": "fastnn.ops.conv_algorithm",
    "value_and_grad": "fastnn.train",
}


def __getattr__(name: str) -> Any:
    if name in _PARTS:
        return import_module(f"fastnn.{name}")
    if name in _PLACES:
        value = globals()[name] = getattr(import_module(_PLACES[name]), name)
        return value
    raise AttributeError(f"module 'fastnn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
