"""Perceptron: it learns what a line separates, by the textbook's steps, and says so where none does."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastnn as fn
from fastnn.perceptron import ConvergenceWarning

SQUARE = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])


def by_hand(x: Any, y: Any, epochs: int) -> tuple[Any, int]:
    """Weights with the bias last, and epochs, of the rule as it is taught, for labels 0 and 1."""
    w = np.zeros(x.shape[1] + 1)
    epoch, mistakes = 0, 1
    while mistakes and epoch < epochs:
        epoch, mistakes = epoch + 1, 0
        for row, label in zip(np.c_[x, np.ones(len(x))], 2 * y - 1, strict=True):
            if label * (w @ row) <= 0:
                w, mistakes = w + label * row, mistakes + 1
    return w, epoch


@pytest.mark.parametrize("name,y", [("and", [0, 0, 0, 1]), ("or", [0, 1, 1, 1])])
def test_logic_gates_as_by_hand(name: str, y: list[int]) -> None:
    p = fn.Perceptron().fit(SQUARE, np.array(y))
    w, epochs = by_hand(SQUARE, np.array(y), 100)
    assert p.converged_ and p.n_iter_ == epochs
    np.testing.assert_array_equal(np.append(p.coef_, p.intercept_), w)
    assert p.score(SQUARE, y) == 1.0


def test_xor_is_said_to_be_inseparable() -> None:
    p = fn.Perceptron()
    with pytest.warns(ConvergenceWarning, match="not linearly separable"):
        p.fit(SQUARE, [0, 1, 1, 0])
    assert not p.converged_ and p.n_iter_ < 50


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_learns_every_separable_problem(data: st.DataObject) -> None:
    """Integer points on both sides of a plane, in any order, with two classes or more."""
    d, k = data.draw(st.integers(1, 4)), data.draw(st.integers(2, 4))
    seed = data.draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    planes = rng.integers(-5, 6, (k, d + 1))
    x = rng.integers(-9, 10, (60, d))
    scores = np.sort(np.c_[x, np.ones(60, int)] @ planes.T, 1)
    y = (np.c_[x, np.ones(60, int)] @ planes.T).argmax(1)
    clear = scores[:, -1] > scores[:, -2]
    x, y = x[clear], y[clear]
    if len(np.unique(y)) < 2:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        p = fn.Perceptron(max_iter=10**6).fit(x, np.array(list("abcd"))[y])
    assert p.converged_ and p.score(x, np.array(list("abcd"))[y]) == 1.0
    assert p.coef_.shape == ((1 if len(np.unique(y)) == 2 else len(np.unique(y))), d)


def test_a_limit_on_epochs_says_what_it_proves() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((40, 3)), rng.integers(0, 2, 40)
    with pytest.warns(ConvergenceWarning, match="after 50 epochs .* margin of at most"):
        p = fn.Perceptron(max_iter=50).fit(x, y)
    assert p.n_iter_ == 50 and not p.converged_


def test_options() -> None:
    y = np.array([0, 0, 0, 1])
    one, half = fn.Perceptron().fit(SQUARE, y), fn.Perceptron(eta0=0.5).fit(SQUARE, y)
    np.testing.assert_array_equal(half.coef_, 0.5 * one.coef_)
    x = np.array([[1.0, 2.0], [-2.0, -1.0]])
    through = fn.Perceptron(fit_intercept=False).fit(x, [5, 7])
    assert through.intercept_ == 0 and list(through.predict(x)) == [5, 7]


ERRORS: list[tuple[Any, type[Exception], str]] = [
    (lambda: fn.Perceptron(max_iter=0), ValueError, "max_iter"),
    (lambda: fn.Perceptron(eta0=0), ValueError, "eta0"),
    (lambda: fn.Perceptron().fit(SQUARE, [0, 1]), ValueError, "y: expected one label"),
    (lambda: fn.Perceptron().fit(SQUARE, [1] * 4), ValueError, "at least two classes"),
    (lambda: fn.Perceptron().fit([[np.nan], [1]], [0, 1]), ValueError, "x: expected finite"),
    (lambda: fn.Perceptron().fit([1, 2], [0, 1]), ValueError, r"x: expected shape \(n, d\)"),
    (lambda: fn.Perceptron().fit([["a"]], [0]), TypeError, "x: expected an array of numbers"),
    (lambda: fn.Perceptron().predict(SQUARE), RuntimeError, "fit first"),
]


@pytest.mark.parametrize("call,error,words", ERRORS)
def test_errors_name_the_argument(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()
