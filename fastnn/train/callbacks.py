"""Callbacks: what fit tells while it trains, and the ones that everybody needs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.graph import Array
from fastnn.train.history import is_number

if TYPE_CHECKING:
    from fastnn.train.history import History
    from fastnn.train.trainer import Trainer


class Callback:
    """Base: override what you need. `trainer.stop(reason)` ends the fit, after a tick or an epoch."""

    def on_fit_begin(self, trainer: Trainer) -> None:
        """Before the first epoch."""

    def on_epoch_begin(self, trainer: Trainer) -> None:
        """Before an epoch; trainer.epochs are done."""

    def on_tick_begin(self, trainer: Trainer) -> None:
        """Before a call of the core: some batches of an epoch, or one where batches are given."""

    def on_tick(self, trainer: Trainer, values: Mapping[str, Any]) -> None:
        """After a call of the core, some ten times a second; "loss" is the epoch's mean so far."""

    def on_epoch_end(self, trainer: Trainer, values: Mapping[str, Any]) -> None:
        """After an epoch and its validation: what the history gets; trainer.epochs counts it."""

    def on_fit_end(self, trainer: Trainer, history: History) -> None:
        """After the last epoch, also after Ctrl-C and stop(), but not after an error."""


class _Watching(Callback):
    """Base of those that look for the best value of one quantity.

    monitor: a key of the history. mode: "min", "max", or by default "max" for accuracy, topk,
    precision, recall, f1, auc and r2, and "min" for all else. NaN is never better.
    """

    def __init__(self, monitor: str, mode: str | None, min_delta: float = 0.0) -> None:
        if mode not in (None, "min", "max"):
            raise ValueError(f"mode: expected 'min', 'max' or None, got {mode!r}")
        if not min_delta >= 0:
            raise ValueError(f"min_delta: expected at least 0, got {min_delta!r}")
        name = monitor.removeprefix("val_")
        grows = ("accuracy", "top", "precision", "recall", "f1", "auc", "r2")
        self.monitor, self.min_delta = monitor, float(min_delta)
        self.sign = 1 if (mode or ("max" if name.startswith(grows) else "min")) == "max" else -1
        self.best: float | None = None

    def improved(self, values: Mapping[str, Any]) -> bool:
        """True, and the new best kept, if this epoch's value is better by more than min_delta."""
        if self.monitor not in values or not is_number(values[self.monitor]):
            known = ", ".join(k for k, v in values.items() if is_number(v))
            raise ValueError(f"monitor: expected one of {known}, got {self.monitor!r}")
        value = float(values[self.monitor])
        if np.isnan(value):
            return False
        if self.best is None or self.sign * (value - self.best) > self.min_delta:
            self.best = value
            return True
        return False


class EarlyStopping(_Watching):
    """Ends the fit once `monitor` has not become better for `patience` epochs.

    Better is: by more than min_delta. restore_best_weights: the model ends with the parameters and
    buffers of its best epoch. `best` and `best_epoch` (counted from 1) tell which it was.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        patience: int = 10,
        min_delta: float = 0.0,
        mode: str | None = None,
        restore_best_weights: bool = True,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        if not isinstance(patience, int) or patience < 1:
            raise ValueError(f"patience: expected an int of at least 1, got {patience!r}")
        self.patience, self.restore_best_weights = patience, restore_best_weights

    def on_fit_begin(self, trainer: Trainer) -> None:
        self.best, self.best_epoch = None, trainer.epochs
        self._weights: dict[str, Array] = {}

    def on_epoch_end(self, trainer: Trainer, values: Mapping[str, Any]) -> None:
        if self.improved(values):
            self.best_epoch = trainer.epochs
            if self.restore_best_weights:
                self._weights = trainer.model.state_dict()
        elif trainer.epochs - self.best_epoch >= self.patience:
            trainer.stop(f"{self.monitor} was best in epoch {self.best_epoch}: {self.best:.6g}")

    def on_fit_end(self, trainer: Trainer, history: History) -> None:
        if self._weights:
            trainer.model.load_state_dict(self._weights)
            self._weights = {}


class ModelCheckpoint(_Watching):
    """Saves the trainer after each epoch, or with `monitor` after each epoch that is the best so far.

    path: may hold {epoch} and the history's keys, as in "run-{epoch:03d}-{val_loss:.3f}.safetensors";
    without them the file is replaced. See Trainer.save.
    """

    def __init__(
        self, path: str | os.PathLike[str], monitor: str | None = None, mode: str | None = None
    ) -> None:
        super().__init__(monitor or "", mode)
        self.path = os.fspath(path)

    def on_epoch_end(self, trainer: Trainer, values: Mapping[str, Any]) -> None:
        if self.monitor and not self.improved(values):
            return
        try:
            path = self.path.format(epoch=trainer.epochs, **values)
        except (KeyError, IndexError, ValueError) as error:
            names = ", ".join(["epoch", *values])
            raise ValueError(f"path: expected only {{}} of {names}, got {self.path!r}") from error
        trainer.save(path)


class CSVLogger(Callback):
    """Writes one line an epoch: epoch, then the history's numbers; comma-separated, with a header.

    append: go on in a file that is there (its header must be the same); else it is replaced when the
    fit begins. Each line is on the disk when the next epoch begins.
    """

    def __init__(self, path: str | os.PathLike[str], append: bool = False) -> None:
        self.path, self.append = os.fspath(path), append

    def on_fit_begin(self, trainer: Trainer) -> None:
        self._keys: list[str] | None = None
        if self.append and os.path.exists(self.path):
            import csv

            with open(self.path, newline="") as file:
                self._keys = next(csv.reader(file), None)
        elif os.path.exists(self.path):
            os.remove(self.path)

    def on_epoch_end(self, trainer: Trainer, values: Mapping[str, Any]) -> None:
        import csv

        row = {"epoch": trainer.epochs, **{k: v for k, v in values.items() if is_number(v)}}
        if self._keys is not None and list(row) != self._keys:
            raise ValueError(
                f"{self.path}: expected columns {', '.join(row)}, its header has "
                f"{', '.join(self._keys)}"
            )
        with open(self.path, "a", newline="") as file:
            writer = csv.writer(file)
            if self._keys is None:
                self._keys = list(row)
                writer.writerow(self._keys)
            writer.writerow(row.values())


class TensorBoard(Callback):
    """Writes the history's numbers, epoch by epoch, for TensorBoard; needs the `tensorboard` extra.

    Training and validation are two runs, `train` and `validation`, under log_dir, so that both curves
    of a quantity stand in one chart.
    """

    def __init__(self, log_dir: str | os.PathLike[str]) -> None:
        self.log_dir = os.fspath(log_dir)

    def on_fit_begin(self, trainer: Trainer) -> None:
        try:
            from tensorboard.summary import Writer
        except ImportError as error:
            raise ImportError(
                "TensorBoard needs tensorboard: pip install 'fastnn-cpu[tensorboard]'"
            ) from error
        self._new = Writer
        self._writers: dict[str, Any] = {}

    def on_epoch_end(self, trainer: Trainer, values: Mapping[str, Any]) -> None:
        for key, value in values.items():
            if not is_number(value):
                continue
            run = "validation" if key.startswith("val_") else "train"
            if run not in self._writers:
                self._writers[run] = self._new(os.path.join(self.log_dir, run))
            self._writers[run].add_scalar(key.removeprefix("val_"), value, step=trainer.epochs)
        for writer in self._writers.values():
            writer.flush()

    def on_fit_end(self, trainer: Trainer, history: History) -> None:
        for writer in self._writers.values():
            writer.close()
