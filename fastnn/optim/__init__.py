"""Optimizers under PyTorch's names; a Trainer attaches them to a model's parameters."""

from fastnn.optim.adam import LAMB, Adam, AdamW, NAdam
from fastnn.optim.adaptive import Adadelta, Adagrad, RMSprop
from fastnn.optim.optimizer import Optimizer
from fastnn.optim.sgd import SGD, Lion

__all__ = [
    "LAMB",
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Lion",
    "NAdam",
    "Optimizer",
    "RMSprop",
]
