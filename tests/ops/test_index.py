"""Symbolic indexing, concatenation and what belongs to them, against NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastnn as fn
from fastnn import nn, ops
from fastnn._core import Memory
from fastnn.graph import Array, input_value
from fastnn.nn.module import value
from fastnn.plan.plan import Plan
from fastnn.train.grad import Differentiated


class Function(nn.Module):
    """A function of x plus a trainable shift, so that its gradient comes out."""

    def __init__(self, function: Callable[[Any], Any], shape: tuple[int, ...]) -> None:
        self.shift = nn.Parameter(np.zeros(shape, np.float32))
        self.function = function

    def forward(self, x: Any) -> Any:
        return self.function(x + value(self.shift))


KEYS: list[Any] = [
    2,
    -1,
    (slice(None), 0),
    (slice(None), slice(1, -1)),
    (slice(None, None, -1), slice(None, None, 2)),
    (Ellipsis, slice(4, None, -2)),
    (slice(None), -1, Ellipsis),
    (None, slice(1, 3), None, 2, Ellipsis, None),
    (slice(3, 1),),
    (slice(1, 99), np.int64(1), slice(-2, None)),
    (1, 2, 3),
    Ellipsis,
]


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_getitem_is_numpys(key: Any) -> None:
    x = np.random.default_rng(0).standard_normal((4, 3, 5))
    model = Function(lambda v: v[key] * 2.0, x.shape).double()
    np.testing.assert_array_equal(model(x), x[key] * 2)
    weight = np.random.default_rng(1).standard_normal(x[key].shape)
    _, grads = fn.value_and_grad(model, lambda o, t: (o * t).sum())(x, weight)
    want = np.zeros_like(x)
    want[key] = 2 * weight
    np.testing.assert_array_equal(grads["shift"], want)


JOINS: list[tuple[str, Callable[[Any, Any], Any]]] = [
    ("cat", lambda x, f: f([x, x[:, :1], x * 2.0], 1)),
    ("cat0", lambda x, f: f([x[1:], x * 3.0, x[:1] * 2.0])),
    ("empty", lambda x, f: f([x[:0], x, x[:, :, ::-1]], 0)),
]


@pytest.mark.parametrize("case", JOINS, ids=[name for name, _ in JOINS])
def test_concat_is_numpys(case: tuple[str, Callable[[Any, Any], Any]]) -> None:
    x = np.random.default_rng(0).standard_normal((4, 3, 5))
    model = Function(lambda v: case[1](v, ops.concat), x.shape).double()
    np.testing.assert_array_equal(model(x), case[1](x, lambda xs, axis=0: np.concatenate(xs, axis)))


@pytest.mark.parametrize("dim", [0, 1, 2, -1])
def test_stack_split_and_their_gradients(dim: int) -> None:
    x = np.random.default_rng(0).standard_normal((4, 7))
    doubled = Function(
        lambda v: ops.stack([part.sum(1) * 2.0 for part in ops.split(v, 3, 1)], min(dim, 1)),
        x.shape,
    ).double()
    parts = [2 * p.sum(1) for p in np.split(x, [3, 6], 1)]
    np.testing.assert_allclose(doubled(x), np.stack(parts, min(dim, 1)), rtol=1e-14)
    pairs = Function(lambda v: ops.stack([v, v * 2.0], dim), x.shape).double()
    np.testing.assert_array_equal(pairs(x), np.stack([x, 2 * x], dim))
    _, grads = fn.value_and_grad(pairs, lambda o, t: (o * t).sum())(x, np.ones_like(pairs(x)))
    np.testing.assert_array_equal(grads["shift"], np.full_like(x, 3.0))


def test_sizes_of_pieces() -> None:
    x = np.arange(10.0)
    assert [p.shape[0] for p in ops.chunk(x, 4)] == [3, 3, 3, 1]
    assert [p.shape[0] for p in ops.split(x, [1, 0, 9])] == [1, 0, 9]
    assert ops.squeeze(x.reshape(1, 10, 1)).shape == (10,)
    assert ops.squeeze(x.reshape(1, 10, 1), -1).shape == (1, 10)
    assert ops.unsqueeze(x, -1).shape == (10, 1)


class Unrolled(nn.Module):
    """A recurrence over x (N, T, C) written out step by step."""

    def __init__(self) -> None:
        self.cell = nn.Linear(8, 4)

    def forward(self, x: Any) -> Any:
        h = x[:, 0, :4] * 0.0
        steps = []
        for t in range(x.shape[1]):
            h = ops.tanh(self.cell(ops.concat([x[:, t], h], 1)))
            steps.append(h)
        return ops.stack(steps, 1)


def test_a_recurrence_written_out() -> None:
    model = Unrolled().double()
    x = np.random.default_rng(0).standard_normal((5, 6, 4))
    w, b = (s.astype(float) for s in model.state_dict().values())
    h, want = np.zeros((5, 4)), []
    for t in range(6):
        h = np.tanh(np.concatenate([x[:, t], h], 1) @ w.T + b)
        want.append(h)
    np.testing.assert_allclose(model(x), np.stack(want, 1), rtol=1e-12)


def steps_of(model: nn.Module, shape: tuple[int, ...], grad: bool = False) -> list[str]:
    """The kernels of a model's plan, or of its loss and gradient."""
    x = input_value("x", shape, np.dtype(np.float32))
    y = input_value("y", (), np.dtype(np.float32))
    parts = Differentiated(model, lambda o, t: (o * o).sum() * t, {"x": x, "y": y})
    plan = Plan(32, Memory(0))
    plan.input(x)
    plan.input(y)
    for v in (
        [parts.loss, *(g for _, _, g in parts.pairs() if g is not None)] if grad else [parts.loss]
    ):
        plan.output(v)
    plan.compute()
    return [step.kernel for step in plan.builder.steps]


def test_pieces_are_computed_where_they_belong() -> None:
    stacked = Function(lambda v: ops.stack([(v[i] * 2.0).tanh() for i in range(3)], 1), (3, 8, 5))
    assert "copy" not in steps_of(stacked, (3, 8, 5))
    joined = Function(lambda v: ops.concat([ops.exp(v), ops.tanh(v)]), (4, 3))
    assert "copy" not in steps_of(joined, (4, 3))


def test_gradients_of_slices_go_side_by_side() -> None:
    model = Function(lambda v: ops.concat([ops.tanh(v[i]) * float(i) for i in range(4)]), (4, 6))
    kernels = steps_of(model, (4, 6), grad=True)
    assert "copy" not in kernels and "fill" not in kernels


class Labels(nn.Module):
    """Scores of x whose loss is taken on a part of integer labels."""

    def __init__(self) -> None:
        self.linear = nn.Linear(3, 4)

    def forward(self, x: Any) -> Any:
        return self.linear(x)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64"])
def test_integers_stay_integers_until_they_are_read(dtype: str) -> None:
    model = Labels().double()
    x = np.random.default_rng(0).integers(0, 9, (5, 2, 3)).astype(dtype)
    y = np.random.default_rng(1).integers(0, 4, (5, 2)).astype(dtype)
    by_hand: list[float] = []
    for t in range(2):
        z = model(x[:, t].astype(float))
        by_hand += list(np.log(np.exp(z).sum(1)) - z[np.arange(5), y[:, t]])

    def loss(scores: Any, labels: Any) -> Any:
        one = ops.cross_entropy(scores[:, 0], labels[:, 0]) + ops.cross_entropy(
            scores[:, 1], labels[:, 1]
        )
        both = ops.cross_entropy(scores.reshape(-1, 4), labels.reshape(-1))
        return one * 0.25 + both * 0.5

    got, _ = fn.value_and_grad(model, loss)(x, y)
    np.testing.assert_allclose(got, np.mean(by_hand), rtol=1e-12)
    part = Function(lambda v: v, (1,)).double()
    part.forward = lambda v: v[:, 0]  # type: ignore[method-assign]
    np.testing.assert_array_equal(part(x), x[:, 0].astype(np.float64))


ERRORS: list[tuple[Callable[[Array], Any], type[Exception], str]] = [
    (lambda x: Function(lambda v: v[3], (3, 4))(x), IndexError, "dimension 0 of size 3"),
    (lambda x: Function(lambda v: v[0, 0, 0], (3, 4))(x), IndexError, "2 dimensions"),
    (lambda x: Function(lambda v: v[[0, 1]], (3, 4))(x), TypeError, "expected ints, slices"),
    (lambda x: Function(lambda v: v[v], (3, 4))(x), TypeError, "expected ints, slices"),
    (lambda x: ops.concat([x, x[:, :2]]), ValueError, r"xs\[1\]"),
    (lambda x: ops.concat([]), ValueError, "at least one"),
    (lambda x: ops.stack([x, x[:2]]), ValueError, r"xs\[1\]"),
    (lambda x: ops.split(x, [1, 1]), ValueError, "sum up to 3"),
    (lambda x: ops.concat([x], dim=2), ValueError, "dim: expected"),
]


@pytest.mark.parametrize("call,error,words", ERRORS)
def test_errors(call: Callable[[Array], Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call(np.zeros((3, 4), np.float32))
