"""value_and_grad: a model's loss and its gradients as plain arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastnn.autodiff import gradients
from fastnn.graph import Array, Value, input_value, storage_value
from fastnn.nn.module import Module, Parameter
from fastnn.nn.run import Traced, as_array, model_dtype, plans_of
from fastnn.plan.plan import Plan

Loss = Callable[[Any, Any], Any]


class Differentiated:
    """Output, loss and gradients of a model for symbolic x and y."""

    def __init__(self, model: Module, loss: Loss, x: Value, y: Value, trained: bool = True) -> None:
        self.parameters = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        if not trained:
            self.parameters = []
        self.traced = Traced(
            lambda a, b: self._forward(model, loss, a, b), [x, y], model_dtype(model)
        )
        self.output, self.loss, self.grads = self.traced.output

    def _forward(self, model: Module, loss: Loss, x: Value, y: Value) -> Any:
        output = model(x)
        value = loss(output, y)
        if not isinstance(value, Value) or value.shape != ():
            shown = value.shape if isinstance(value, Value) else type(value).__name__
            raise ValueError(f"loss: expected one number for a batch, got {shown}")
        wanted = [storage_value(p) for _, p in self.parameters]
        return output, value, gradients(value, wanted) if wanted else []

    def pairs(self) -> Sequence[tuple[str, Parameter, Value | None]]:
        """(name, parameter, gradient or None where the loss does not depend on it)."""
        return [(n, p, g) for (n, p), g in zip(self.parameters, self.grads, strict=True)]


def value_and_grad(
    model: Module, loss: Loss
) -> Callable[[Any, Any], tuple[float, dict[str, Array]]]:
    """A function (x, y) -> (loss, {parameter name: gradient}) for a model and a loss.

    loss: a module such as nn.CrossEntropyLoss(), or any function of (output, target) written with
    fastnn.ops and operators that gives one number. Gradients have PyTorch's shapes and are new arrays;
    frozen parameters are left out. The model runs in the mode that it is in. The function raises
    ValueError for shapes that do not fit and labels out of range.
    """

    def run(x: Any, y: Any) -> tuple[float, dict[str, Array]]:
        arrays = [as_array("x", x), as_array("y", y)]
        key = ("grad", loss, *[(a.shape, a.dtype.char) for a in arrays])
        call = plans_of(model).get(key, lambda: _Grad(model, loss, arrays))
        return call(arrays)  # type: ignore[no-any-return]

    return run


class _Grad:
    def __init__(self, model: Module, loss: Loss, arrays: Sequence[Array]) -> None:
        x, y = (input_value(n, a.shape, a.dtype) for n, a in zip("xy", arrays, strict=True))
        parts = Differentiated(model, loss, x, y)
        self.traced = parts.traced
        self.plan = Plan(model_dtype(model).itemsize * 8, plans_of(model).arena)
        self.plan.input(x)
        self.plan.input(y)
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

    def __call__(self, arrays: Sequence[Array]) -> tuple[float, dict[str, Array]]:
        self.calls += 1
        value, *grads = self.plan(*arrays, hyper=np.array([self.calls, 0.0, 0.0, 0.0]))
        self.traced.count(1)
        named = dict(zip(self.names, grads, strict=True))
        return float(value), {**named, **{n: np.zeros(*spec) for n, spec in self.zeros.items()}}
