"""Models traced for their inner values: outputs of layers, and gradients with respect to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from fastnn import ops
from fastnn.autodiff import gradients
from fastnn.graph import Array, Value, input_value
from fastnn.nn.module import Module
from fastnn.nn.run import Traced, as_array, model_dtype, plans_of
from fastnn.plan.plan import Plan
from fastnn.train.plans import Mode


@contextmanager
def outputs_of(layers: Sequence[Module]) -> Iterator[dict[int, Value]]:
    """While inside, what each layer returns is noted under its id (the last of several calls)."""
    found: dict[int, Value] = {}

    def noting(layer: Module) -> Callable[..., Any]:
        forward = layer.forward

        def wrapped(*inputs: Any) -> Any:
            found[id(layer)] = result = forward(*inputs)
            return result

        return wrapped

    try:
        for layer in layers:
            object.__setattr__(layer, "forward", noting(layer))
        yield found
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)


class ScoreGradient:
    """A plan from (x, weights) to output, a layer's output and the gradient of sum(weights * output).

    The gradient is with respect to the layer's output, or without a layer to x itself. The model is
    taken in inference mode. x (N, ...) of the model's dtype, output and weights (N, classes).
    """

    def __init__(self, model: Module, shape: tuple[int, ...], layer: Module | None = None) -> None:
        dtype = model_dtype(model)
        x = input_value("x", shape, dtype)
        self.plan = Plan(8 * dtype.itemsize, plans_of(model).arena)
        layers = [] if layer is None else [layer]
        with Mode(model, False), outputs_of(layers) as found:

            def forward(leaf: Value) -> Any:
                start = ops.reshape(leaf, leaf.shape)  # not a leaf, so that all depends on it
                output = model(start)
                if not isinstance(output, Value) or output.ndim != 2:
                    raise ValueError(f"model: expected scores (N, classes), got {output!r}")
                weights = input_value("weights", output.shape, output.dtype)
                inner = start if layer is None else found.get(id(layer))
                if inner is None:
                    raise ValueError("layer: the model's forward does not call it")
                (grad,) = gradients(ops.sum(ops.mul(output, weights)), [inner])
                return weights, output, inner, grad

            weights, output, inner, grad = Traced(forward, [x], dtype).output
        if grad is None:
            raise ValueError("model: its output does not depend on the input")
        for leaf in (x, weights):
            self.plan.input(leaf)
        for value in (output, inner, grad):
            self.plan.output(value)
        self.plan.compute()
        self.plan.build()

    def __call__(self, x: Array, weights: Array) -> tuple[Array, Array, Array]:
        output, inner, grad = self.plan(x, np.ascontiguousarray(weights, x.dtype))
        return output, inner, grad


def score_gradient(model: Module, x: Array, layer: Module | None = None) -> ScoreGradient:
    """The plan for x, kept with the model's others."""
    key = ("score gradient", x.shape, id(layer))
    plan: ScoreGradient = plans_of(model).get(key, lambda: ScoreGradient(model, x.shape, layer))
    return plan


def scores(model: Module, x: Array) -> Array:
    """The model's output for x in inference mode."""
    with Mode(model, False):
        output: Array = model(x)
    if output.ndim != 2:
        raise ValueError(f"model: expected scores (N, classes), got shape {output.shape}")
    return output


def prepared(model: Module, x: Any) -> Array:
    """x as an array of the model's dtype; ValueError unless it is a batch."""
    if not isinstance(model, Module):
        raise TypeError(f"model: expected a Module, got {type(model).__name__}")
    array = as_array("x", x).astype(model_dtype(model))
    if array.ndim < 2 or not len(array):
        raise ValueError(f"x: expected a batch (N, ...), got shape {array.shape}")
    return array


def chosen(output: Array, target: Any) -> Array:
    """One-hot rows of the target classes, by default those with the highest scores."""
    rows, classes = output.shape
    index = output.argmax(1) if target is None else np.broadcast_to(np.asarray(target), (rows,))
    if index.dtype.kind not in "iu" or index.min() < 0 or index.max() >= classes:
        raise ValueError(f"target: expected classes from 0 to {classes - 1}, got {target!r}")
    hot: Array = np.eye(classes)[index]
    return hot
