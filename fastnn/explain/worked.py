"""backprop: one step of gradient descent written out, number by number."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from fastnn import ops
from fastnn.autodiff import gradients
from fastnn.explain.trace import outputs_of
from fastnn.graph import Array, Value, input_value
from fastnn.nn.container import Sequential
from fastnn.nn.layers import Linear
from fastnn.nn.module import Module
from fastnn.nn.run import Traced, model_dtype, plans_of
from fastnn.plan.plan import Plan

Loss = Callable[[Any, Any], Any]


class _Layer(NamedTuple):
    """A layer with its input and output, the loss's gradient by both, and its own derivative."""

    module: Module
    x: Array
    y: Array
    dx: Array
    dy: Array
    slope: Array  # d y / d x, where each output depends on its own input alone


def backprop(
    model: Sequential, x: Any, y: Any, loss: Loss | None = None, lr: float = 0.5, digits: int = 6
) -> dict[str, Array]:
    """Print one step of gradient descent for one sample, as it is done by hand.

    model: an nn.Sequential of Linear layers and elementwise activations; x (inputs,), y (outputs,).
    It prints the weighted sums and activations of each layer, the loss, then backwards the partial
    derivatives of the loss E by every activation, weighted sum and weight, and the weights after a step
    of learning rate lr. loss: a function of (output, target), by default E = 1/2 sum (output -
    target)^2; digits: significant ones. Returns the new weights under their state_dict keys; the model
    is not changed. TypeError for another model, ValueError for shapes that do not fit.
    """
    if not isinstance(model, Sequential):
        raise TypeError(f"model: expected an nn.Sequential, got {type(model).__name__}")
    dtype = model_dtype(model)
    x, y = (np.atleast_1d(np.asarray(a, dtype)) for a in (x, y))
    if x.ndim != 1 or y.ndim != 1:
        raise ValueError(f"x, y: expected one sample each, got shapes {x.shape} and {y.shape}")
    layers, value = _computed(model, x, y, loss or _half_squares)
    page = _Page(digits)
    print("\n".join(page.lines(layers, y, value, lr, loss is None)))
    return _updated(layers, lr)


def _half_squares(output: Any, target: Any) -> Any:
    return ops.mul(ops.sum(ops.square(ops.sub(output, target))), 0.5)


def _computed(model: Sequential, x: Array, y: Array, loss: Loss) -> tuple[list[_Layer], float]:
    """Every layer's numbers, from one plan of the model, and the loss."""
    modules = list(model)
    dtype = model_dtype(model)
    leaf, target = input_value("x", (1, *x.shape), dtype), input_value("y", (1, *y.shape), dtype)
    with outputs_of(modules) as found:

        def forward(a: Value, b: Value) -> Any:
            start = ops.reshape(a, a.shape)
            output = model(start)
            if output.shape != b.shape:
                raise ValueError(f"y: expected shape {output.shape[1:]}, got {y.shape}")
            values = [start, *(found[id(m)] for m in modules)]
            error = loss(output, b)
            slopes = [gradients(ops.sum(after), [before])[0] for before, after in pairwise(values)]
            return values, gradients(error, values), slopes, error

        values, grads, slopes, error = Traced(forward, [leaf, target], dtype).output
    wanted = [*values, *grads, *slopes]
    if None in wanted:
        raise ValueError("loss: it does not depend on every layer's output")
    plan = Plan(8 * dtype.itemsize, plans_of(model).arena)
    plan.input(leaf)
    plan.input(target)
    for value in (*wanted, error):
        plan.output(value)
    plan.compute()
    *numbers, total = plan.build()(x[None], y[None])
    rows = [a[0] for a in numbers]
    n = len(values)
    inner, outer, own = rows[:n], rows[n : 2 * n], rows[2 * n :]
    layers = [
        _Layer(m, inner[i], inner[i + 1], outer[i], outer[i + 1], own[i])
        for i, m in enumerate(modules)
    ]
    return layers, float(total)


def _updated(layers: list[_Layer], lr: float) -> dict[str, Array]:
    state: dict[str, Array] = {}
    for i, layer in enumerate(layers):
        if isinstance(layer.module, Linear):
            weight = layer.module.weight.data
            state[f"{i}.weight"] = weight - lr * np.outer(layer.dy, layer.x).astype(weight.dtype)
            if layer.module.bias is not None:
                state[f"{i}.bias"] = layer.module.bias.data - lr * layer.dy
    return state


class _Page:
    """The lines of a worked example."""

    def __init__(self, digits: int) -> None:
        self.digits = digits

    def number(self, value: float) -> str:
        """With the wanted digits; in parentheses if negative."""
        text = f"{value:.{self.digits}g}"
        return f"({text})" if text.startswith("-") else text

    def lines(
        self, layers: list[_Layer], y: Array, value: float, lr: float, squares: bool
    ) -> Iterator[str]:
        """The whole page."""
        yield self.row("input", "x", layers[0].x)
        yield self.row("target", "t", y)
        yield "\nForward"
        names = self.layer_names(layers)
        for i, layer in enumerate(layers):
            yield f" layer {i}: {layer.module!r}"
            yield from self.forward(layer, names[i + 1])
        yield "\nLoss"
        yield "  E = " + self.error(layers[-1].y, y, value, squares)
        yield "\nBackward"
        output = names[-1]
        for k, d in enumerate(layers[-1].dy):
            how = self.difference(layers[-1].y[k], y[k], f"{output}{k + 1}", k) if squares else ""
            yield f"  dE/d{output}{k + 1} = {how}{self.number(d)}"
        for i in reversed(range(len(layers))):
            yield f" layer {i}: {layers[i].module!r}"
            yield from self.backward(layers[i], names[i], names[i + 1], first=i == 0)
        yield f"\nWeights after a step of learning rate {lr:g}"
        for i, layer in enumerate(layers):
            if isinstance(layer.module, Linear):
                yield f" layer {i}: {layer.module!r}"
                yield from self.update(layer, lr)

    @staticmethod
    def layer_names(layers: list[_Layer]) -> list[str]:
        """x for the inputs; z1_, a1_ for the first Linear's weighted sums and their activations."""
        names, count = ["x"], 0
        for layer in layers:
            linear = isinstance(layer.module, Linear)
            count += linear
            mark = "'" * (not linear and names[-1][0] == "a")  # two activations in a row
            names.append(f"z{count}_" if linear else f"a{count}{mark}_")
        return names

    def row(self, label: str, name: str, values: Array) -> str:
        """One named number after the other."""
        numbers = "  ".join(f"{name}{k} = {v:.{self.digits}g}" for k, v in enumerate(values, 1))
        return f"{label:<8}{numbers}"

    def error(self, output: Array, target: Array, value: float, squares: bool) -> str:
        """1/2 ((o1 - t1)^2 + ...) = E, or E alone for another loss."""
        if not squares:
            return self.number(value)
        pairs = zip(output, target, strict=True)
        terms = " + ".join(f"({self.number(o)} - {self.number(t)})^2" for o, t in pairs)
        return f"1/2 [{terms}] = {self.number(value)}"

    def difference(self, output: float, target: float, name: str, k: int) -> str:
        """o - t of half the squared error."""
        return f"{name} - t{k + 1} = {self.number(output)} - {self.number(target)} = "

    def forward(self, layer: _Layer, name: str) -> Iterator[str]:
        """z = w x + b, or a = f(z)."""
        module = layer.module
        if not isinstance(module, Linear):
            for k, (before, after) in enumerate(zip(layer.x, layer.y, strict=True), 1):
                function = type(module).__name__.lower()
                yield f"  {name}{k} = {function}({before:.{self.digits}g}) = {self.number(after)}"
            return
        for k, row in enumerate(module.weight.data):
            terms = [
                f"{self.number(w)}*{self.number(v)}" for w, v in zip(row, layer.x, strict=True)
            ]
            if module.bias is not None:
                terms.append(self.number(module.bias.data[k]))
            yield f"  {name}{k + 1} = {' + '.join(terms)} = {self.number(layer.y[k])}"

    def backward(self, layer: _Layer, before: str, after: str, first: bool) -> Iterator[str]:
        """The chain rule through a layer."""
        module = layer.module
        if not isinstance(module, Linear):
            for k, (dy, slope, dx) in enumerate(
                zip(layer.dy, layer.slope, layer.dx, strict=True), 1
            ):
                yield f"  d{after}{k}/d{before}{k} = {self.number(slope)}"
                yield (
                    f"  dE/d{before}{k} = dE/d{after}{k} * d{after}{k}/d{before}{k} = "
                    f"{self.number(dy)} * {self.number(slope)} = {self.number(dx)}"
                )
            return
        for k, dy in enumerate(layer.dy, 1):
            for j, v in enumerate(layer.x, 1):
                yield (
                    f"  dE/dw{k}{j} = dE/d{after}{k} * {before}{j} = "
                    f"{self.number(dy)} * {self.number(v)} = {self.number(dy * v)}"
                )
            if module.bias is not None:
                yield f"  dE/db{k} = dE/d{after}{k} = {self.number(dy)}"
        for j in range(0 if first else len(layer.x)):
            column = module.weight.data[:, j]
            pairs = zip(layer.dy, column, strict=True)
            terms = " + ".join(f"{self.number(d)}*{self.number(w)}" for d, w in pairs)
            yield f"  dE/d{before}{j + 1} = {terms} = {self.number(layer.dx[j])}"

    def update(self, layer: _Layer, lr: float) -> Iterator[str]:
        """w - lr dE/dw."""
        assert isinstance(layer.module, Linear)
        for k, row in enumerate(layer.module.weight.data):
            for j, w in enumerate(row):
                yield self.step(f"w{k + 1}{j + 1}", w, lr, layer.dy[k] * layer.x[j])
            if layer.module.bias is not None:
                yield self.step(f"b{k + 1}", layer.module.bias.data[k], lr, layer.dy[k])

    def step(self, name: str, value: float, lr: float, grad: float) -> str:
        """One weight's new value."""
        after = self.number(value - lr * grad)
        return f"  {name} = {self.number(value)} - {lr:g} * {self.number(grad)} = {after}"
