"""The plans that a Trainer runs: a training step, a training epoch, evaluation and prediction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.graph import Shape, Storage, Value
from fastnn.layout import Ref
from fastnn.nn.module import Module, Parameter
from fastnn.nn.run import Traced, model_dtype, plans_of
from fastnn.ops.embedding import touched_rows
from fastnn.plan.plan import Plan, space
from fastnn.train.grad import Differentiated, Loss, call_model
from fastnn.train.rows import Spec, leaves
from fastnn.train.tally import Tally

if TYPE_CHECKING:
    from fastnn.optim.optimizer import Optimizer
    from fastnn.optim.slab import Slab


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
    """A plan over batches of `size` rows: the loss, and with `trained` a step of the optimizer.

    rows=None: the batch is bound as it is, and the loss is returned. Else it is taken from arrays of
    so many rows, by index where `shuffled`, and loss and metrics add to the sums of `tally`; the
    array "output" takes the outputs, row by row, where a metric asks for them. accumulate: the optimizer
    steps with the mean of the gradients of several batches, when its scalars say that none is left.
    """

    def __init__(
        self,
        model: Module,
        loss: Loss,
        tally: Tally,
        specs: tuple[Spec, ...],
        size: int,
        trained: tuple[Slab, Optimizer] | None = None,
        rows: int | None = None,
        shuffled: bool = False,
        accumulate: bool = False,
        debug: bool = False,
    ) -> None:
        self.size, self.weighted = size, False
        self.sums: list[Storage] = []  # of each summed metric
        self._touched: dict[
            Parameter, tuple[Value, Value]
        ] = {}  # rows of sparse parameters, and sums
        self.kept: tuple[Shape, Any] | None = None  # shape of a row and dtype of "output"
        inputs = leaves(specs, size)
        observe = tally.observe if rows is not None else lambda output, y: ()
        with Mode(model, trained is not None):
            parts = Differentiated(model, loss, inputs, trained is not None, observe)
        self.traced = parts.traced
        self.plan = Plan(model_dtype(model).itemsize * 8, plans_of(model).arena, debug)
        self.strides: dict[int, int] = {}
        self._bind(inputs, rows, shuffled)
        if trained is not None:
            slab, optimizer = trained
            self.plan.builder.trains = True
            self.plan.builder.hyper_size = optimizer.hyper_size
            hyper = self.plan.builder.hyper()
            self.strides[space(hyper.buffer)] = hyper.buffer.nbytes
            self._store(parts, slab)
            self.plan.updates(self.traced.updates)
        if rows is None:
            self.plan.output(parts.loss)
            now = self.plan.compute(self._touched_values())
        else:
            now = self._accumulate(parts, inputs["y"], tally)
        if trained is not None:
            self._update(slab, optimizer, accumulate, now)
        self.plan.build()

    def _bind(self, inputs: Mapping[str, Value], rows: int | None, shuffled: bool) -> None:
        self._labels: dict[str, str] = {"output 0": "loss" if rows is None else "output"}
        for i, name in enumerate(inputs):
            self._labels[f"input {i}"] = self._labels[f"rows {i}"] = name
        index = None
        if shuffled:
            buffer = self.plan.builder.array("index", 8 * self.size, np.int64)
            index = Ref(buffer, (self.size,), (1,), np.dtype(np.int64))
            self.strides[space(buffer)] = 8 * self.size
        for leaf in inputs.values():
            if rows is None:
                self.plan.input(leaf)
                continue
            moving = self.plan.rows(leaf, rows if shuffled else self.size, index)
            if not shuffled:
                self.strides[moving] = leaf.size * leaf.dtype.itemsize

    def _store(self, parts: Differentiated, slab: Slab) -> None:
        """Have the gradients written to the slab, or kept as the rows touched."""
        for name, p, grad in parts.pairs():
            if grad is None:
                continue
            if not p.sparse:
                self.plan.store(grad, slab.grad(p))
                continue
            touched = touched_rows(grad)
            if touched is None:
                raise ValueError(
                    f"{name}: a sparse parameter can only be looked up in, with one padding_idx: "
                    "expected sparse=False for this model"
                )
            self._touched[p] = touched

    def _touched_values(self) -> list[Value]:
        return [v for values in self._touched.values() for v in values]

    def _accumulate(self, parts: Differentiated, y: Value, tally: Tally) -> dict[Value, Value]:
        b = self.plan.builder
        self.weighted = parts.weighted is not None
        losses = [parts.loss] if parts.weighted is None else list(parts.weighted)
        if tally.collects:
            self.kept = parts.output.shape[1:], parts.output.dtype
            moving = self.plan.output(parts.output)
            self.strides[moving] = parts.output.size * parts.output.dtype.itemsize
        observed = [v for values in parts.observed for v in values]
        now = self.plan.compute([*losses, *observed, *self._touched_values()])
        b.label("sums")
        total = b.storage(tally.loss)
        for i, value in enumerate(losses):
            acc = Ref(total.buffer, (1,), (1,), total.dtype, total.offset + 8 * i)
            weight = 1.0 if self.weighted else float(self.size)
            b.step("accumulate", x=b.dense(now[value]), acc=acc, weight=weight)
        self.sums = tally.storages(parts.output)
        for metric, values, sums in zip(tally.summed, parts.observed, self.sums, strict=True):
            metric.lower(b, [now[v] for v in values], y, b.storage(sums))
        return now

    def _update(
        self, slab: Slab, optimizer: Optimizer, accumulate: bool, now: Mapping[Value, Value]
    ) -> None:
        """The optimizer's step at the end of the plan, after the last of its micro-batches."""
        b, grads = self.plan.builder, slab.grads
        touched = {p: (b.ref(now[r]), b.ref(now[g])) for p, (r, g) in self._touched.items()}
        if accumulate and touched:
            raise ValueError("accumulate: expected 1 with a sparse parameter")
        if accumulate:
            b.label("micro-batch")
            grads = slab.means
            g, mean = slab.whole_grad(b, slab.grads), slab.whole_grad(b, grads)
            b.step("grad_mean", g=g, hyper=b.hyper(), mean=mean, n=g.size)
        b.label(type(optimizer).__name__)
        optimizer.lower(b, slab, grads, touched)

    def arrays(self, given: Mapping[str, Any]) -> tuple[Any, ...]:
        """What the program binds, in its order, from x, y, ..., index, hyper, output and loss."""
        labels = self.plan.builder.array_labels
        return tuple(given[self._labels.get(label, label)] for label in labels)


class PredictPlan:
    """A plan from consecutive rows of x (and lengths) to rows of the output."""

    def __init__(self, model: Module, specs: tuple[Spec, ...], size: int) -> None:
        inputs = leaves(specs, size)

        def forward(*values: Value) -> Any:
            return call_model(model, dict(zip(inputs, values, strict=True)))

        with Mode(model, False):
            traced = Traced(forward, list(inputs.values()), model_dtype(model))
        output = traced.output
        if not isinstance(output, Value) or output.shape[:1] != (size,):
            raise ValueError(f"predict: expected one output row for each input row, got {output}")
        self.plan = Plan(model_dtype(model).itemsize * 8, plans_of(model).arena)
        self.shape, self.dtype = output.shape[1:], output.dtype
        self.strides = {
            self.plan.rows(leaf, size, None): leaf.size * leaf.dtype.itemsize
            for leaf in inputs.values()
        }
        self.strides[self.plan.output(output)] = output.size * output.dtype.itemsize
        self.plan.compute()
        self.plan.build()
