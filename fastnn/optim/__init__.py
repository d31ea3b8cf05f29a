"""Optimizers and schedules under PyTorch's names; a Trainer attaches them to a model's parameters."""

from fastnn.optim.adam import LAMB, Adam, AdamW, NAdam
from fastnn.optim.adaptive import Adadelta, Adagrad, RMSprop
from fastnn.optim.combined import SequentialLR, Warmup
from fastnn.optim.group import Group
from fastnn.optim.optimizer import Optimizer
from fastnn.optim.plateau import ReduceLROnPlateau
from fastnn.optim.schedule import (
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    PolynomialLR,
    Schedule,
    StepLR,
)
from fastnn.optim.sgd import SGD, Lion

__all__ = [
    "LAMB",
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "ExponentialLR",
    "Group",
    "LambdaLR",
    "LinearLR",
    "Lion",
    "MultiStepLR",
    "NAdam",
    "OneCycleLR",
    "Optimizer",
    "PolynomialLR",
    "RMSprop",
    "ReduceLROnPlateau",
    "Schedule",
    "SequentialLR",
    "StepLR",
    "Warmup",
]
