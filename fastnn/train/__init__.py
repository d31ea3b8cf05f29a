"""Training: Trainer, History, value_and_grad."""

from fastnn.train.checkpoint import CheckpointError
from fastnn.train.grad import value_and_grad
from fastnn.train.history import History
from fastnn.train.trainer import Trainer

__all__ = ["CheckpointError", "History", "Trainer", "value_and_grad"]
