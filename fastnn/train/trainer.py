"""Trainer: fits a model to arrays; one compiled call per step, or per progress tick in fit."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from fastnn.graph import Array, changes
from fastnn.nn.module import Module
from fastnn.nn.run import as_array, plans_of
from fastnn.optim.optimizers import Optimizer
from fastnn.optim.slab import Slab
from fastnn.plan.builder import HYPER_SIZE
from fastnn.train.grad import Loss
from fastnn.train.history import History
from fastnn.train.interrupt import Interrupt
from fastnn.train.plans import BatchPlan, PredictPlan, new_sums
from fastnn.train.progress import Progress

Schedule = Callable[[Array], Any]
TICK_SECONDS = 0.1  # between two looks at the clock, the bar and Ctrl-C


class Trainer:
    """Trains `model` to minimise `loss` with `optimizer`.

    loss: a module or a function of (output, target) that gives one number for a batch. metrics: names
    that fit and evaluate report beside the loss ("accuracy"). seed: of the shuffling and of dropout,
    0 <= seed < 2**53. The model's parameters move into one block of memory.
    """

    def __init__(
        self,
        model: Module,
        loss: Loss,
        optimizer: Optimizer,
        metrics: Sequence[str] = (),
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
        self.metrics = tuple(metrics)
        self.seed = int(seed)
        self.steps = 0  # optimizer steps done
        self.epochs = 0  # epochs done by fit
        self._sums = new_sums(self.metrics)
        self._hyper = np.zeros(HYPER_SIZE)
        self._hyper[1] = self.seed
        self._step_plans: dict[Any, BatchPlan] = {}
        self._seen = -1
        self._slab: Slab | None = None
        self._states: dict[tuple[int, str], Array] = {}
        self._loss_out: Array = np.zeros(())
        self._make_slab()

    # --- one step ---

    def step(self, x: Any, y: Any) -> float:
        """One optimizer step on one batch; returns the batch's loss before it.

        x (N, ...), y (N, ...) as the loss wants it. Raises ValueError for shapes that do not fit and
        labels out of range; the model is then unchanged.
        """
        if self._seen != changes():
            self._step_plans.clear()
            self._make_slab()
            self._seen = changes()
        if type(x) is not np.ndarray or type(y) is not np.ndarray:
            x, y = as_array("x", x), as_array("y", y)
        key = (x.shape, y.shape, x.dtype, y.dtype)
        plan = self._step_plans.get(key)
        if plan is None:
            x, y = as_array("x", x), as_array("y", y)
            plan = self._step_plan(x, y)
            if key == (x.shape, y.shape, x.dtype, y.dtype):
                self._step_plans[key] = plan
        if not (x.flags.c_contiguous and y.flags.c_contiguous):
            x, y = as_array("x", x), as_array("y", y)
        hyper = self._hyper
        hyper[0] = self.steps + 1
        hyper[2] = self.optimizer.lr
        plan.plan.execute((x, y, hyper, self._loss_out))
        self.steps += 1
        if plan.traced.counters:
            plan.traced.count(1)
        return float(self._loss_out)

    def _step_plan(self, x: Array, y: Array) -> BatchPlan:
        plan = self._plan("step", len(x), x, y, training=True)
        self._seen = changes()
        return plan

    # --- whole data sets ---

    def fit(
        self,
        x: Any,
        y: Any,
        epochs: int = 1,
        batch_size: int = 32,
        validation_data: tuple[Any, Any] | None = None,
        shuffle: bool = True,
        progress: bool = True,
        schedule: Schedule | None = None,
    ) -> History:
        """Train for `epochs` passes over (x, y); the last, smaller batch is trained on too.

        x (n, ...), y (n, ...): arrays of any number type; uint8 images stay uint8. Each epoch's order
        depends on the trainer's seed and the number of epochs done. validation_data is evaluated after
        each epoch. schedule: from the part of this call's steps that is done, an array of numbers from
        0 to 1, to factors of the optimizer's learning rate (lambda t: 1 - t decays it linearly to 0).
        Ctrl-C ends it between two steps: the history says so. Raises ValueError naming the
        argument that does not fit.
        """
        x, y = _pair(x, y)
        if validation_data is not None:
            validation_data = _pair(*validation_data, names=("validation x", "validation y"))
        _at_least("epochs", epochs, 0)
        _at_least("batch_size", batch_size, 1)
        self._make_slab()
        total = epochs * -(-len(x) // min(batch_size, len(x)))
        self._rates = _Rates(self.optimizer, schedule, self.steps, total)
        history = History()
        shown = Progress(self.epochs + epochs, len(x), progress)
        with Interrupt() as interrupt:
            try:
                while len(history.seconds) < epochs and not interrupt.raised:
                    shown.start(self.epochs)
                    start = time.perf_counter()
                    values = self._epoch(x, y, min(batch_size, len(x)), shuffle, shown, interrupt)
                    seconds = time.perf_counter() - start
                    if interrupt.raised:
                        break
                    if validation_data is not None:
                        result = self.evaluate(*validation_data)
                        values.update({f"val_{k}": v for k, v in result.items()})
                    history.append(values, seconds)
                    shown.finish(self.epochs, values, seconds)
                    self.epochs += 1
            finally:
                shown.close()
        history.interrupted = interrupt.raised
        return history

    def _epoch(
        self, x: Array, y: Array, batch: int, shuffle: bool, shown: Progress, interrupt: Interrupt
    ) -> dict[str, float]:
        order = np.arange(len(x))
        if shuffle:
            key = np.array([self.seed, self.epochs], np.uint64)
            np.random.Generator(np.random.Philox(key=key)).shuffle(order)
        self._sums.array[...] = 0
        done, ticks = 0, 1
        while done < len(x) and not interrupt.raised:
            left = (len(x) - done) // batch
            size = batch if left else len(x) - done
            iterations = max(1, min(left, ticks))
            plan = self._plan("fit", size, x, y, training=True, shuffled=True)
            start = time.perf_counter()
            self._run(plan, x, y, order[done:], iterations)
            seconds = (time.perf_counter() - start) / iterations
            ticks = max(1, min(int(TICK_SECONDS / max(seconds, 1e-9)), 16 * iterations))
            done += iterations * size
            shown.advance(iterations * size, float(self._sums.array[0]) / done)
        return self._means(done)

    def _run(self, plan: BatchPlan, x: Array, y: Array, order: Array, iterations: int) -> None:
        hyper = np.empty((iterations, HYPER_SIZE))
        hyper[:] = self._hyper
        hyper[:, 0] = np.arange(self.steps + 1, self.steps + 1 + iterations)
        hyper[:, 2] = self._rates(hyper[:, 0])
        arrays = plan.arrays(x=x, y=y, index=order, hyper=hyper)
        plan.plan.execute(arrays, iterations, plan.strides)
        self.steps += iterations
        plan.traced.count(iterations)

    def _means(self, count: int) -> dict[str, float]:
        sums = self._sums.array / max(1, count)
        return dict(zip(("loss", *self.metrics), map(float, sums), strict=True))

    def evaluate(self, x: Any, y: Any, batch_size: int = 256) -> dict[str, float]:
        """{"loss": mean loss, each metric} over (x, y), in inference mode, exact over uneven batches."""
        x, y = _pair(x, y)
        _at_least("batch_size", batch_size, 1)
        self._sums.array[...] = 0
        for start, size, iterations in _batches(len(x), batch_size):
            plan = self._plan("evaluate", size, x, y, training=False)
            stop = start + size * iterations
            arrays = plan.arrays(x=x[start:stop], y=y[start:stop])
            plan.plan.execute(arrays, iterations, plan.strides)
        return self._means(len(x))

    def predict(self, x: Any, batch_size: int = 256) -> Array:
        """The model's output for each row of x (n, ...), in inference mode."""
        x = as_array("x", x)
        _at_least("batch_size", batch_size, 1)
        if not x.ndim or not len(x):
            raise ValueError(f"x: expected at least one row, got shape {x.shape}")
        out: Array | None = None
        for start, size, iterations in _batches(len(x), batch_size):
            key = ("predict", size, x.shape[1:], x.dtype.char)
            shape = (size, *x.shape[1:])
            plan = plans_of(self.model).get(key, partial(PredictPlan, self.model, shape, x.dtype))
            if out is None:
                out = np.empty((len(x), *plan.shape), plan.dtype)
            stop = start + size * iterations
            plan.plan.execute((x[start:stop], out[start:stop]), iterations, plan.strides)
        assert out is not None
        return out

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
        metrics: Sequence[str] = (),
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

    def _make_slab(self) -> Slab:
        """The block of the parameters that are trained now; the states of those that stay are kept."""
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        old = self._slab
        if old is None or not old.owns(parameters):
            slab = Slab(parameters, self.optimizer.state_names())
            for p in slab.parameters:
                for name in slab.states if old is not None and p in old.parameters else ():
                    slab.state(name, p)[...] = self._states[id(p), name]
            self._slab = slab
            self._states = {
                (id(p), name): slab.state(name, p) for p in slab.parameters for name in slab.states
            }
        assert self._slab is not None
        if self._loss_out.dtype != self._slab.dtype:
            self._loss_out = np.zeros((), self._slab.dtype)
        return self._slab

    def _plan(
        self, kind: str, size: int, x: Array, y: Array, training: bool, shuffled: bool = False
    ) -> BatchPlan:
        slab = self._make_slab()
        rows = None if kind == "step" else len(x) if shuffled else size
        key = (kind, id(self), size, rows, x.shape[1:], y.shape[1:], x.dtype.char, y.dtype.char)

        def make() -> BatchPlan:
            return BatchPlan(
                self.model,
                self.loss,
                self.metrics if kind != "step" else (),
                self._sums,
                ((size, *x.shape[1:]), (size, *y.shape[1:])),
                (x.dtype, y.dtype),
                (slab, self.optimizer) if training else None,
                rows,
                shuffled,
            )

        plan: BatchPlan = plans_of(self.model).get(key, make)
        return plan

    def print_plan(self, x: Any, y: Any) -> None:
        """Print the steps of one training step on a batch (x, y)."""
        x, y = _pair(x, y)
        print(self._plan("step", len(x), x, y, training=True).plan)


class _Rates:
    """The learning rates of steps, numbered from 1, of one fit."""

    def __init__(
        self, optimizer: Optimizer, schedule: Schedule | None, first: int, total: int
    ) -> None:
        self.optimizer, self.schedule, self.first, self.total = optimizer, schedule, first, total

    def __call__(self, steps: Array) -> Any:
        if self.schedule is None:
            return self.optimizer.lr
        factors = np.asarray(self.schedule((steps - 1 - self.first) / self.total))
        if factors.shape not in ((), steps.shape) or not np.all(factors >= 0):
            raise ValueError(f"schedule: expected factors of at least 0, got {factors}")
        return self.optimizer.lr * factors


def _pair(x: Any, y: Any, names: tuple[str, str] = ("x", "y")) -> tuple[Array, Array]:
    x, y = as_array(names[0], x), as_array(names[1], y)
    if not x.ndim or not y.ndim or len(x) != len(y):
        raise ValueError(f"{names[1]}: expected as many rows as x {x.shape}, got {y.shape}")
    if not len(x):
        raise ValueError(f"{names[0]}: expected at least one row, got shape {x.shape}")
    return x, y


def _at_least(name: str, value: Any, least: int) -> None:
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name}: expected an int of at least {least}, got {value!r}")


def _batches(rows: int, batch: int) -> list[tuple[int, int, int]]:
    """(first row, batch size, number of batches): the full ones, then the rest."""
    full = rows // batch
    parts = [(0, batch, full)] if full else []
    if rows % batch:
        parts.append((full * batch, rows % batch, 1))
    return parts
