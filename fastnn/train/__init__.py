"""Training: Trainer, callbacks, metrics, History, value_and_grad."""

from fastnn.train.callbacks import (
    Callback,
    CSVLogger,
    EarlyStopping,
    ModelCheckpoint,
    TensorBoard,
)
from fastnn.train.checkpoint import CheckpointError
from fastnn.train.grad import value_and_grad
from fastnn.train.history import History
from fastnn.train.metrics import Metric
from fastnn.train.stop_on_nan import StopOnNaN
from fastnn.train.trainer import Trainer

__all__ = [
    "CSVLogger",
    "Callback",
    "CheckpointError",
    "EarlyStopping",
    "History",
    "Metric",
    "ModelCheckpoint",
    "StopOnNaN",
    "TensorBoard",
    "Trainer",
    "value_and_grad",
]
