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
from fastnn.train.metrics import F1, MAE, Accuracy, ConfusionMatrix, Metric, Precision, Recall
from fastnn.train.stop_on_nan import StopOnNaN
from fastnn.train.trainer import Trainer

__all__ = [
    "F1",
    "MAE",
    "Accuracy",
    "CSVLogger",
    "Callback",
    "CheckpointError",
    "ConfusionMatrix",
    "EarlyStopping",
    "History",
    "Metric",
    "ModelCheckpoint",
    "Precision",
    "Recall",
    "StopOnNaN",
    "TensorBoard",
    "Trainer",
    "value_and_grad",
]
