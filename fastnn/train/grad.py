"""value_and_grad: a model's loss and its gradients as plain arrays."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from fastnn import ops
from fastnn.autodiff import gradients
from fastnn.graph import Array, Value, input_value, storage_value
from fastnn.nn.module import Module, Parameter
from fastnn.nn.run import Traced, as_array, model_dtype, plans_of
from fastnn.plan.plan import Plan
from fastnn.train.rows import check_lengths

Loss = Callable[..., Any]  # of (output, target)


class Differentiated:
    """Output, loss and gradients of a model for the symbolic inputs of a batch.

    inputs: "x" and "y" and, where there are any, "lengths" for forward and "sample_weight" for the
    loss. observe: a function of (output, y) that gives values to compute beside them. With weights,
    `weighted` holds the sums of weight * loss and of weight.
    """

    def __init__(
        self,
        model: Module,
        loss: Loss,
        inputs: Mapping[str, Value],
        trained: bool = True,
        observe: Callable[[Value, Value], Any] = lambda output, y: (),
    ) -> None:
        self.parameters = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        if not trained:
            self.parameters = []
        self.weighted: tuple[Value, Value] | None = None
        self.observed: Any = ()

        def forward(*leaves: Value) -> Any:
            given = dict(zip(inputs, leaves, strict=True))
            output = call_model(model, given)
            value = self._loss(loss, output, given)
            wanted = [storage_value(p) for _, p in self.parameters]
            self.observed = observe(output, given["y"])
            return output, value, gradients(value, wanted) if wanted else []

        self.traced = Traced(forward, list(inputs.values()), model_dtype(model))
        self.output, self.loss, self.grads = self.traced.output

    def _loss(self, loss: Loss, output: Any, given: Mapping[str, Value]) -> Value:
        if "sample_weight" in given:
            value, *sums = weighted_loss(loss, output, given["y"], given["sample_weight"])
            self.weighted = (sums[0], sums[1])
        else:
            value = loss(output, given["y"])
        if not isinstance(value, Value) or value.shape != ():
            shown = value.shape if isinstance(value, Value) else type(value).__name__
            raise ValueError(f"loss: expected one number for a batch, got {shown}")
        return value

    def pairs(self) -> Sequence[tuple[str, Parameter, Value | None]]:
        """(name, parameter, gradient or None where the loss does not depend on it)."""
        return [(n, p, g) for (n, p), g in zip(self.parameters, self.grads, strict=True)]


def call_model(model: Module, given: Mapping[str, Value]) -> Any:
    """model(x), or model.forward(x, lengths=lengths); ValueError if its forward takes none."""
    if "lengths" not in given:
        return model(given["x"])
    forward: Callable[..., Any] = model.forward
    parameters = inspect.signature(forward).parameters
    if "lengths" not in parameters:
        raise ValueError(
            f"lengths: expected a model whose forward takes `lengths`, got "
            f"{type(model).__name__}.forward({', '.join(parameters)})"
        )
    return forward(given["x"], lengths=given["lengths"])


def weighted_loss(loss: Loss, output: Any, y: Value, weight: Value) -> tuple[Any, Value, Value]:
    """sum(w * l) / sum(w) over the losses l of the rows; also both sums.

    A loss with reduction="sum" gives sum(w * l). What a row has more than one loss for is averaged. A
    batch whose weights are all 0 has loss 0 and no gradients.
    """
    losses = per_row(loss)(output, y)
    if not isinstance(losses, Value) or losses.shape[:1] != weight.shape:
        shown = losses.shape if isinstance(losses, Value) else type(losses).__name__
        raise ValueError(f"loss: sample_weight needs one number a row, got {shown}")
    if losses.ndim > 1:
        losses = ops.mean(losses, tuple(range(1, losses.ndim)))
    summed, weights = ops.sum(ops.mul(losses, weight)), ops.sum(weight)
    if getattr(loss, "reduction", "mean") == "sum":
        return summed, summed, weights
    least = float(np.finfo(weights.dtype).tiny)
    return ops.div(summed, ops.maximum(weights, least)), summed, weights


def per_row(loss: Loss) -> Loss:
    """The same loss with reduction="none": of a module, or of a function that takes `reduction`."""
    if isinstance(loss, Module):
        if not hasattr(loss, "reduction"):
            return loss
        single = copy.copy(loss)
        vars(single)["reduction"] = "none"  # a copy for one trace: no plan depends on it
        return single
    try:
        known = "reduction" in inspect.signature(loss).parameters
    except (TypeError, ValueError):
        known = False
    return partial(loss, reduction="none") if known else loss


def value_and_grad(model: Module, loss: Loss) -> Callable[..., tuple[float, dict[str, Array]]]:
    """A function (x, y, lengths=None) -> (loss, {parameter name: gradient}) of a model and a loss.

    loss: a module such as nn.CrossEntropyLoss(), or any function of (output, target) written with
    fastnn.ops and operators that gives one number. Gradients have PyTorch's shapes and are new arrays,
    dense ones of sparse parameters too; frozen parameters are left out. The model runs in the mode
    that it is in. lengths: (N,), each from 1 to T, handed to model.forward(x, lengths=...). The function
    raises ValueError for shapes that do not fit and for labels and lengths out of range.
    """

    def run(x: Any, y: Any, lengths: Any = None) -> tuple[float, dict[str, Array]]:
        arrays = {"x": as_array("x", x), "y": as_array("y", y)}
        if lengths is not None:
            arrays["lengths"] = check_lengths(lengths, arrays["x"].shape)
        key = ("grad", loss, *[(a.shape, a.dtype.char) for a in arrays.values()])
        call = plans_of(model).get(key, lambda: _Grad(model, loss, arrays))
        return call(arrays.values())  # type: ignore[no-any-return]

    return run


class _Grad:
    def __init__(self, model: Module, loss: Loss, arrays: Mapping[str, Array]) -> None:
        inputs = {n: input_value(n, a.shape, a.dtype) for n, a in arrays.items()}
        parts = Differentiated(model, loss, inputs)
        self.traced = parts.traced
        self.plan = Plan(model_dtype(model).itemsize * 8, plans_of(model).arena)
        self.plan.builder.trains = True
        for leaf in inputs.values():
            self.plan.input(leaf)
        self.plan.output(parts.loss)
        self.names = [n for n, _, g in parts.pairs() if g is not None]
        self.zeros = {n: (p.shape, p.dtype) for n, p, g in parts.pairs() if g is None}
        for _, _, grad in parts.pairs():
            if grad is not None:
                self.plan.output(grad)
        self.plan.updates(self.traced.updates)
        self.plan.compute()
        self.plan.build()
        self.calls = 0

    def __call__(self, arrays: Iterable[Array]) -> tuple[float, dict[str, Array]]:
        self.calls += 1
        value, *grads = self.plan(*arrays, hyper=np.array([self.calls, 0.0, 0.0, 0.0]))
        self.traced.count(1)
        named = dict(zip(self.names, grads, strict=True))
        return float(value), {**named, **{n: np.zeros(*spec) for n, spec in self.zeros.items()}}
