"""The plans that a Trainer runs: a training step, a training epoch, evaluation and prediction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.graph import Array, Storage, Value, input_value
from fastnn.layout import Ref
from fastnn.nn.module import Module
from fastnn.nn.run import Traced, model_dtype, plans_of
from fastnn.plan.builder import HYPER_SIZE, Builder
from fastnn.plan.plan import Plan, space
from fastnn.train.grad import Differentiated, Loss

if TYPE_CHECKING:
    from fastnn.optim.optimizers import Optimizer
    from fastnn.optim.slab import Slab

METRICS = ("accuracy",)


class Mode:
    """While inside, the model traces in training or inference mode; its own flags come back after."""

    def __init__(self, model: Module, training: bool) -> None:
        self.model, self.training = model, training

    def __enter__(self) -> None:
        self.before = [(m, m.training) for m in self.model.modules()]
        self.model.train(self.training)

    def __exit__(self, *error: object) -> None:
        for module, training in self.before:
            if module.training != training:
                module.training = training


class BatchPlan:
    """A plan over (x, y) of one batch size, with the sums of loss and metrics on the side."""

    def __init__(
        self,
        model: Module,
        loss: Loss,
        metrics: Sequence[str],
        sums: Storage,
        shapes: tuple[tuple[int, ...], tuple[int, ...]],
        dtypes: tuple[Any, Any],
        trained: tuple[Slab, Optimizer] | None = None,
        rows: int | None = None,
        shuffled: bool = False,
        debug: bool = False,
    ) -> None:
        self.batch = shapes[0][0]
        leaves = [input_value(n, s, d) for n, s, d in zip("xy", shapes, dtypes, strict=True)]
        with Mode(model, trained is not None):
            parts = Differentiated(model, loss, leaves[0], leaves[1], trained is not None)
        self.traced = parts.traced
        self.plan = Plan(model_dtype(model).itemsize * 8, plans_of(model).arena, debug)
        self.strides: dict[int, int] = {}
        b = self.plan.builder
        self._bind(leaves, rows, shuffled)
        if trained is not None:
            hyper = b.hyper()
            self.strides[space(hyper.buffer)] = 8 * HYPER_SIZE
            slab, optimizer = trained
            for _, p, grad in parts.pairs():
                if grad is not None:
                    self.plan.store(grad, slab.grad(p))
            self.plan.updates(self.traced.updates)
        if rows is None:
            self.plan.output(parts.loss)
        now = self.plan.compute([parts.loss, parts.output])
        if rows is not None:
            self._accumulate(b, now[parts.loss], now[parts.output], leaves[1], metrics, sums)
        if trained is not None:
            b.label(type(optimizer).__name__)
            optimizer.lower(b, slab)
        self.plan.build()

    def _bind(self, leaves: Sequence[Value], rows: int | None, shuffled: bool) -> None:
        if rows is None:
            for leaf in leaves:
                self.plan.input(leaf)
            return
        index = None
        if shuffled:
            buffer = self.plan.builder.array("index", 8 * self.batch, np.int64)
            index = Ref(buffer, (self.batch,), (1,), np.dtype(np.int64))
            self.strides[space(buffer)] = 8 * self.batch
        for leaf in leaves:
            moving = self.plan.rows(leaf, rows if shuffled else self.batch, index)
            if not shuffled:
                self.strides[moving] = leaf.size * leaf.dtype.itemsize

    def _accumulate(
        self,
        b: Builder,
        loss: Value,
        output: Value,
        y: Value,
        metrics: Sequence[str],
        sums: Storage,
    ) -> None:
        b.label("sums")
        total = b.storage(sums)
        b.step("accumulate", x=b.dense(loss), acc=total, weight=float(self.batch))
        for i, _ in enumerate(metrics, 1):
            check_accuracy(output, y)
            acc = Ref(total.buffer, (1,), (1,), total.dtype, 8 * i)
            labels = b.labels(y)
            n, c = output.shape
            b.step("count_correct", x=b.dense(output), labels=labels, acc=acc, n=n, c=c)

    def arrays(self, **given: Array | None) -> tuple[Any, ...]:
        """What the program binds, in its order, from x, y, index, hyper and loss."""
        names = {"rows 0": "x", "rows 1": "y", "input 0": "x", "input 1": "y", "output 0": "loss"}
        return tuple(given[names.get(label, label)] for label in self.plan.builder.array_labels)


def check_accuracy(output: Value, y: Value) -> None:
    """ValueError unless a class is predicted from scores (N, C) for integer labels (N,)."""
    if len(output.shape) != 2 or len(y.shape) != 1 or y.dtype.kind not in "iu":
        raise ValueError(
            "metrics: accuracy: expected scores (N, C) and integer labels (N,), "
            f"got {output.shape} and {y.dtype} {y.shape}"
        )


class PredictPlan:
    """A plan from consecutive rows of x to rows of the output."""

    def __init__(self, model: Module, shape: tuple[int, ...], dtype: Any) -> None:
        leaf = input_value("x", shape, dtype)
        with Mode(model, False):
            traced = Traced(lambda x: model(x), [leaf], model_dtype(model))
        output = traced.output
        if not isinstance(output, Value) or output.shape[:1] != shape[:1]:
            raise ValueError(f"predict: expected one output row for each input row, got {output}")
        self.plan = Plan(model_dtype(model).itemsize * 8, plans_of(model).arena)
        self.shape, self.dtype = output.shape[1:], output.dtype
        row = self.plan.rows(leaf, shape[0], None)
        out = self.plan.output(output)
        self.strides = {
            row: leaf.size * leaf.dtype.itemsize,
            out: output.size * output.dtype.itemsize,
        }
        self.plan.compute()
        self.plan.build()


def new_sums(metrics: Sequence[str]) -> Storage:
    """Room for the sum of losses and of each metric; ValueError for an unknown one."""
    for metric in metrics:
        if metric not in METRICS:
            raise ValueError(f"metrics: expected some of {METRICS}, got {metric!r}")
    return Storage(np.zeros(1 + len(metrics)))
