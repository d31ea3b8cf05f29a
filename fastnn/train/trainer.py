"""Trainer: fits a model to arrays; one compiled call per step, or per progress tick in fit."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.graph import Array, changes
from fastnn.nn.module import Module
from fastnn.nn.run import as_array, model_dtype, plans_of
from fastnn.optim.optimizer import Optimizer
from fastnn.optim.schedule import Schedule
from fastnn.optim.slab import Slab
from fastnn.plan.outer import HYPER_SIZE
from fastnn.train.callbacks import Callback
from fastnn.train.fit import Fit
from fastnn.train.grad import Loss
from fastnn.train.history import History
from fastnn.train.infer import evaluate, predict, validation
from fastnn.train.plans import BatchPlan
from fastnn.train.prefetch import Prefetch
from fastnn.train.rates import AnySchedule, MicroBatches, Rates, remember
from fastnn.train.rows import Rows, Spec
from fastnn.train.source import BatchSource, make_source, none_beside_batches
from fastnn.train.tally import Tally

if TYPE_CHECKING:
    from fastnn.train.find_lr import LRCurve


class Trainer:
    """Trains `model` to minimise `loss` with `optimizer`.

    loss: a module or a function of (output, target) that gives one number for a batch. metrics: what
    fit and evaluate report beside the loss: "accuracy", "top5" (any k), "precision", "recall", "f1",
    "confusion_matrix", "mae", "r2", "auc", a Metric such as train.F1("macro"), or functions of all
    (outputs, targets). seed: of the shuffling and of dropout, 0 <= seed < 2**53. The model's
    parameters move into one block of memory.
    """

    def __init__(
        self,
        model: Module,
        loss: Loss,
        optimizer: Optimizer,
        metrics: Sequence[Any] = (),
        seed: int = 0,
    ) -> None:
        if not isinstance(model, Module):
            raise TypeError(f"model: expected a Module, got {type(model).__name__}")
        if not callable(loss):
            raise TypeError(f"loss: expected a Module or function, got {type(loss).__name__}")
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer: expected an Optimizer, got {type(optimizer).__name__}")
        if not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**53:
            raise ValueError(f"seed: expected an integer from 0 to 2**53 - 1, got {seed!r}")
        self.model, self.loss, self.optimizer = model, loss, optimizer
        self.seed = int(seed)
        self.steps = 0  # optimizer steps done
        self.epochs = 0  # epochs done by fit
        self.running: Fit | None = None
        self._tally = Tally(metrics)
        self.metrics = self._tally.metrics
        self._hyper = np.zeros(optimizer.hyper_size)
        self._hyper[1] = self.seed
        self._step_plans: dict[Any, BatchPlan] = {}
        self._seen = -1
        self._slab: Slab | None = None
        self._schedule: Schedule | None = None  # the last fit's
        self._schedule_state: Any = None  # a checkpoint's, for the next fit
        self._loss_out: Array = np.zeros(())
        self._make_slab()

    # --- one step ---

    def step(self, x: Any, y: Any, *, lengths: Any = None, sample_weight: Any = None) -> float:
        """One optimizer step on one batch; returns the batch's loss before it.

        x (N, ...), y (N, ...) as the loss wants it; lengths and sample_weight are fit's. Raises
        ValueError for shapes that do not fit and labels out of range; the model is then unchanged.
        """
        if self._seen != changes():
            self._step_plans.clear()
            self._make_slab()
            self._seen = changes()
        if type(x) is not np.ndarray or type(y) is not np.ndarray:
            x, y = as_array("x", x), as_array("y", y)
        extra: tuple[Array, ...] = ()
        if lengths is not None or sample_weight is not None:
            x, y, *more = self._rows(x, y, lengths, sample_weight)
            extra = tuple(more)
        key = (x.shape, y.shape, x.dtype, y.dtype, lengths is None, sample_weight is None)
        plan = self._step_plans.get(key)
        if plan is None:
            rows = self._rows(x, y, lengths, sample_weight)
            plan = self._plan("step", len(rows), rows.specs, True, None)
            self._seen = changes()
            x, y = rows.arrays["x"], rows.arrays["y"]
            if key[:4] == (x.shape, y.shape, x.dtype, y.dtype):
                self._step_plans[key] = plan
        if not (x.flags.c_contiguous and y.flags.c_contiguous):
            x, y = as_array("x", x), as_array("y", y)
        hyper = self._hyper
        hyper[0] = self.steps + 1
        hyper[2] = self.optimizer.lr
        if self.optimizer.groups:
            hyper[HYPER_SIZE:] = self.optimizer.rates()[1:]
        plan.plan.execute((x, y, *extra, hyper, self._loss_out))
        self.steps += 1
        if plan.traced.counters:
            plan.traced.count(1)
        return float(self._loss_out)

    # --- whole data sets ---

    def fit(
        self,
        x: Any,
        y: Any = None,
        epochs: int = 1,
        batch_size: int = 32,
        validation_data: tuple[Any, Any] | None = None,
        shuffle: bool = True,
        progress: bool = True,
        schedule: AnySchedule | None = None,
        *,
        accumulate: int = 1,
        lengths: Any = None,
        sample_weight: Any = None,
        class_weight: Any = None,
        validation_split: float = 0.0,
        callbacks: Sequence[Callback] = (),
    ) -> History:
        """Train for `epochs` passes over (x, y); the last, smaller batch is trained on too.

        x (n, ...), y (n, ...): arrays of any number type; uint8 images stay uint8. Each epoch's order
        depends on the trainer's seed and the number of epochs done. validation_data is evaluated after
        each epoch: (x, y), or a mapping with evaluate's arguments. schedule: one of fastnn.optim, or a
        function from the part of this call's steps that is done, an array of numbers from 0 to 1, to
        factors of the learning rates (lambda t: 1 - t decays them linearly to 0). accumulate: so many
        batches make one optimizer step, with the mean of their gradients by rows; the last step of an
        epoch has those that are left.

        lengths: (n,), of the sequences x (n, T, ...), each from 1 to T; model.forward takes them as
        `lengths`. sample_weight: (n,), at least 0: a batch's loss is sum(w * l) / sum(w) over the
        losses l of its rows (reduction="none"), and so is the epoch's; metrics count every row once.
        class_weight: the same by label, a mapping, an array or "balanced"; both multiply.

        validation_split: a share of the rows, chosen by the trainer's seed and stratified by integer
        labels, is evaluated after each epoch instead of trained on. callbacks: see Callback.

        x without y: anything that yields batches in every epoch, (x, y) or mappings with x, y,
        lengths and sample_weight; a thread reads it ahead. Before each epoch its `set_epoch`, if it
        has one, is told the number of epochs done. Memory-mapped arrays are read by a thread too, and
        give the same bits as arrays in memory.

        Ctrl-C ends it between two steps: the history says so. Raises ValueError and TypeError naming
        the argument that does not fit.
        """
        _at_least("epochs", epochs, 0)
        _at_least("batch_size", batch_size, 1)
        _at_least("accumulate", accumulate, 1)
        source, held = make_source(
            self,
            x,
            y,
            batch_size,
            shuffle,
            class_weight,
            validation_split,
            lengths=lengths,
            sample_weight=sample_weight,
        )
        validate = None
        if held is not None or validation_data is not None:
            validate = validation(self, held, validation_data)
        self._make_slab()
        micro = MicroBatches(accumulate, source.steps)
        coming = None if micro.steps is None else epochs * micro.steps
        rates = Rates(self.optimizer, schedule, (self.steps, self.epochs), (coming, epochs))
        remember(self, schedule)
        self.running = Fit(self, source, epochs, rates, micro, progress, validate, callbacks)
        try:
            return self.running.run()
        finally:
            self.running = None

    def stop(self, reason: str = "") -> None:
        """End the fit that runs, after this tick or epoch; for callbacks. history.stopped says why."""
        if self.running is not None:
            self.running.stopping = True
            self.running.history.stopped = reason

    def evaluate(
        self,
        x: Any,
        y: Any = None,
        batch_size: int = 256,
        *,
        lengths: Any = None,
        sample_weight: Any = None,
    ) -> dict[str, Any]:
        """{"loss": mean loss, each metric} over (x, y), in inference mode, exact over uneven batches.

        Takes x, y, lengths, sample_weight and batches as fit does; the loss is its weighted mean.
        """
        _at_least("batch_size", batch_size, 1)
        if y is not None:
            return evaluate(self, [self._rows(x, y, lengths, sample_weight)], batch_size)
        none_beside_batches(lengths=lengths, sample_weight=sample_weight)
        source = BatchSource(self, x)
        with closing(Prefetch(source.blocks())) as blocks:
            return evaluate(self, (rows for rows, _ in blocks), batch_size)

    def find_lr(
        self,
        x: Any,
        y: Any,
        batch_size: int = 32,
        start: float = 1e-6,
        end: float = 10.0,
        steps: int = 100,
        *,
        lengths: Any = None,
        sample_weight: Any = None,
    ) -> LRCurve:
        """The learning-rate range test (Smith, 2017): train while the rate grows from start to end.

        Returns the losses by rate and a rate to begin with (`.suggestion`, `.plot()`); ends early
        where the loss diverges. Model, optimizer and counts are then as they were before.
        """
        from fastnn.train.find_lr import find_lr

        _at_least("batch_size", batch_size, 1)
        _at_least("steps", steps, 3)
        if not 0 < start < end < float("inf"):
            raise ValueError(f"start, end: expected 0 < start < end, got {start!r} and {end!r}")
        rows = self._rows(x, y, lengths, sample_weight)
        return find_lr(self, rows, batch_size, start, end, steps)

    def predict(self, x: Any, batch_size: int = 256, *, lengths: Any = None) -> Array:
        """The model's output for each row of x (n, ...), in inference mode.

        lengths: of the sequences x (n, T, ...), see fit.
        """
        _at_least("batch_size", batch_size, 1)
        return predict(self, self._rows(x, None, lengths), batch_size)

    def averaged_weights(self) -> AbstractContextManager[None]:
        """While inside, the model has the averaged weights of an optimizer with ema_decay.

        Without one, and before the first step, nothing happens. Training inside is not meant:
        `with trainer.averaged_weights(): state = model.state_dict()`.
        """
        if not self.steps or self.optimizer.ema_decay is None:
            return nullcontext()
        return self._make_slab().swapped("ema")

    # --- checkpoints ---

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a checkpoint, one safetensors file, from which `resume` continues bit for bit.

        It holds the model's state, the optimizer's and the counts of steps and epochs. The file is
        written beside its place and renamed: it is there whole or not at all. Raises ImportError
        without the `files` extra, and OSError.
        """
        from fastnn.train.checkpoint import save

        save(self, path)

    @classmethod
    def resume(
        cls,
        path: str | os.PathLike[str],
        model: Module,
        loss: Loss,
        optimizer: Optimizer,
        metrics: Sequence[Any] = (),
    ) -> Trainer:
        """A trainer that goes on where the one that wrote `path` was; its seed and lr are restored.

        model, loss, optimizer: made as they were made for that one; the optimizer's class and
        numbers (but lr) must be the same. A fit that Ctrl-C ended within an epoch starts that epoch
        again. Raises CheckpointError, a ValueError naming path and key, for a damaged or foreign
        file and for another model or optimizer; FileNotFoundError; ImportError without the `files`
        extra. The model is then unchanged.
        """
        from fastnn.train.checkpoint import Checkpoint

        checkpoint = Checkpoint(path)
        trainer = cls(model, loss, optimizer, metrics, checkpoint.seed)
        checkpoint.check(trainer)
        checkpoint.restore(trainer)
        return trainer

    # --- plans ---

    def _rows(self, x: Any, y: Any, lengths: Any = None, sample_weight: Any = None) -> Rows:
        return Rows.check(x, y, lengths, sample_weight, model_dtype(self.model))

    def _make_slab(self) -> Slab:
        """The block of the parameters that are trained now; the states of those that stay are kept."""
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        if self._slab is None or not self._slab.owns(parameters):
            named = self.model.named_parameters()
            self._slab = self.optimizer.attach(named, self._slab, self.steps)
        if self._loss_out.dtype != self._slab.dtype:
            self._loss_out = np.zeros((), self._slab.dtype)
        return self._slab

    def _plan(
        self,
        kind: str,
        size: int,
        specs: tuple[Spec, ...],
        training: bool,
        rows: int | None,
    ) -> BatchPlan:
        slab = self._make_slab()
        trained = (slab, self.optimizer) if training else None
        shuffled = kind == "fit"
        micro = self.running.micro.every > 1 if self.running and kind != "step" else False

        def make() -> BatchPlan:
            return BatchPlan(
                self.model, self.loss, self._tally, specs, size, trained, rows, shuffled, micro
            )

        key = (kind, id(self), size, rows, specs, micro)
        plan: BatchPlan = plans_of(self.model).get(key, make)
        return plan

    def print_plan(self, x: Any, y: Any) -> None:
        """Print the steps of one training step on a batch (x, y)."""
        rows = self._rows(x, y)
        print(self._plan("step", len(rows), rows.specs, True, None).plan)


def _at_least(name: str, value: Any, least: int) -> None:
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name}: expected an int of at least {least}, got {value!r}")
