"""Comparisons, where, variance and products of vectors, symbolic and on arrays, against NumPy."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import pytest

import fastnn as fn
from fastnn import nn, ops
from fastnn.nn.module import value

COMPARISONS = {
    "greater": operator.gt,
    "less": operator.lt,
    "greater_equal": operator.ge,
    "less_equal": operator.le,
    "equal": operator.eq,
    "not_equal": operator.ne,
}


class Function(nn.Module):
    """A function of x plus a trainable shift."""

    def __init__(self, function: Any, shape: tuple[int, ...]) -> None:
        self.shift = nn.Parameter(np.zeros(shape))
        self.function = function

    def forward(self, x: Any) -> Any:
        return self.function(x + value(self.shift))


@pytest.mark.parametrize("name", COMPARISONS)
def test_comparisons_are_numpys(name: str) -> None:
    compare = COMPARISONS[name]
    a = np.array([[1.0, 2.0, np.nan, -0.0], [np.inf, -np.inf, 3.0, 1.0]])
    b = np.array([1.0, 2.5, 3.0, 0.0])
    want = compare(a, b).astype(float)
    np.testing.assert_array_equal(getattr(ops, name)(a, b), want)
    model = Function(lambda v: compare(v, b), a.shape).double()
    np.testing.assert_array_equal(model(a), want)
    number = Function(lambda v: compare(v, 1.0) + 2.0 * compare(1.0, v), a.shape).double()
    np.testing.assert_array_equal(number(a), compare(a, 1.0) + 2.0 * compare(1.0, a))


def test_where_chooses_without_a_trace_of_the_other() -> None:
    x = np.array([-2.0, -1.0, 0.0, 4.0])
    model = Function(lambda v: ops.where(v > 0, ops.sqrt(v) * 3.0, 0.5), x.shape).double()
    np.testing.assert_array_equal(model(x), [0.5, 0.5, 0.5, 6.0])
    model = Function(lambda v: ops.where(v > 0, v * v, v * 3.0), x.shape).double()
    _, grads = fn.value_and_grad(model, lambda o, t: (o * t).sum())(x, np.ones(4))
    np.testing.assert_array_equal(grads["shift"], [3.0, 3.0, 3.0, 8.0])
    eager = ops.where(np.array([True, False]), np.array([1.0, np.nan]), np.array([np.inf, 2.0]))
    np.testing.assert_array_equal(eager, [1.0, 2.0])


def test_nothing_flows_through_a_comparison() -> None:
    x = np.array([-1.0, 2.0])
    model = Function(lambda v: (v > 0) * v, x.shape).double()
    _, grads = fn.value_and_grad(model, lambda o, t: (o * t).sum())(x, np.ones(2))
    np.testing.assert_array_equal(grads["shift"], [0.0, 1.0])


@pytest.mark.parametrize("axis", [None, 0, (0, 2)])
def test_variance(axis: Any) -> None:
    x = np.random.default_rng(0).standard_normal((3, 4, 5)) + 10
    np.testing.assert_allclose(ops.var(x, axis), x.var(axis, ddof=1), rtol=1e-12)
    np.testing.assert_allclose(
        ops.std(x, axis, correction=0, keepdims=True), x.std(axis, keepdims=True), rtol=1e-12
    )


SHAPES = [
    ((3,), (3,)),
    ((3,), (2, 3, 4)),
    ((2, 5, 3), (3,)),
    ((2, 1, 5, 3), (4, 3, 2)),
    ((0, 3), (3, 2)),
]


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_matmul_broadcasts_as_numpys(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    a, b = (np.random.default_rng(i).standard_normal(s) for i, s in enumerate(shapes))
    np.testing.assert_allclose(ops.matmul(a, b), a @ b, rtol=1e-12, atol=1e-12)
    model = Function(lambda v: v @ b, a.shape).double()
    np.testing.assert_allclose(model(a), a @ b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("axis", [None, 0, 1, -1])
def test_argmax_and_argmin(axis: int | None) -> None:
    x = np.random.default_rng(0).integers(0, 4, (3, 5, 4)).astype(float)  # with equals
    np.testing.assert_array_equal(ops.argmax(x, axis), x.argmax(axis))
    np.testing.assert_array_equal(ops.argmin(x, axis, keepdims=True), x.argmin(axis, keepdims=True))
    model = Function(lambda v: ops.argmax(v, axis), x.shape).double()
    np.testing.assert_array_equal(model(x), x.argmax(axis))
