"""The perceptron (Rosenblatt, 1958): threshold units that learn by their mistakes."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from fastnn import _core
from fastnn.graph import Array

WORK = 10**9  # multiplications and additions that fit may take by default
CALL = 10**7  # those of one call of the kernel, between two looks at Ctrl-C


class ConvergenceWarning(UserWarning):
    """A fit ended before every sample was classified right."""


class Perceptron:
    """Linear threshold units, trained by the perceptron learning rule in float64.

    Two classes: one unit, which says the second class where w x + b > 0; on a mistake
    w += eta0 * (+-1) * x. More classes: one unit each, the largest score wins; on a mistake the
    label's unit moves to x and the winner away from it (Kesler). Samples are taken in their order and
    weights start at 0, so that the same data give the same weights.

    fit ends with the first epoch without a mistake, which comes if the classes are linearly separable
    (Novikoff, 1962). It also ends where the weights of an epoch come back, which proves (but for
    rounding) that no weights are right, and after max_iter epochs (None: as many as 10^9
    multiplications allow, at least 100). Both leave converged_ False and warn with a
    ConvergenceWarning that says why.

    Attributes after fit: classes_ (k,), coef_ (1 or k, d), intercept_ (1 or k,), n_iter_ (epochs),
    n_mistakes_ (updates), converged_.
    """

    def __init__(
        self, max_iter: int | None = None, fit_intercept: bool = True, eta0: float = 1.0
    ) -> None:
        if max_iter is not None and (not isinstance(max_iter, int) or max_iter < 1):
            raise ValueError(f"max_iter: expected a positive int or None, got {max_iter!r}")
        if not 0 < eta0 < np.inf:
            raise ValueError(f"eta0: expected a positive number, got {eta0!r}")
        self.max_iter, self.fit_intercept, self.eta0 = max_iter, bool(fit_intercept), float(eta0)

    def fit(self, x: Any, y: Any) -> Perceptron:
        """Learn from x (n, d), numbers, and y (n,), labels of any type with at least two values.

        Returns itself. Raises ValueError and TypeError naming the argument.
        """
        x = _rows(x)
        y = np.asarray(y)
        if y.shape != x.shape[:1] or not len(x):
            raise ValueError(f"y: expected one label for each of {len(x)} rows, got {y.shape}")
        classes, labels = np.unique(y, return_inverse=True)
        if len(classes) < 2:
            raise ValueError(f"y: expected at least two classes, got {classes.tolist()}")
        units = 1 if len(classes) == 2 else len(classes)
        weights = np.zeros((units, x.shape[1] + 1))
        epoch = units * x.size + 1
        most = self.max_iter or max(100, WORK // epoch)
        state = self._learn(x, labels.astype(np.int64), weights, most, max(1, CALL // epoch))
        self.classes_ = classes
        self.coef_, self.intercept_ = weights[:, :-1].copy(), weights[:, -1].copy()
        self.n_iter_, self.n_mistakes_ = int(state[0]), int(state[1])
        self.converged_ = state[2] == 0
        if not self.converged_:
            warnings.warn(self._why(x, weights, bool(state[3])), ConvergenceWarning, stacklevel=2)
        return self

    def _learn(self, x: Array, labels: Array, weights: Array, most: int, each: int) -> Array:
        """Run the kernel to its end; returns its state."""
        state, saved = np.zeros(4, np.int64), np.zeros_like(weights)
        while state[0] < most:
            epochs = min(each, most - int(state[0]))
            arrays = {"x": x, "y": labels, "w": weights, "saved": saved, "state": state}
            sizes = {"n": len(x), "d": x.shape[1], "classes": len(weights), "epochs": epochs}
            options = {"bias": int(self.fit_intercept), "rate": self.eta0}
            _core.call("perceptron", 64, **arrays, **sizes, **options)
            if state[2] == 0 or state[3]:
                break
        return state

    def _why(self, x: Array, weights: Array, cycle: bool) -> str:
        if cycle:
            return (
                f"the classes are not linearly separable: the weights after epoch {self.n_iter_} are "
                "those of an earlier one again"
            )
        # For any unit weights u: u w >= margin * mistakes, so that margin <= |w| / mistakes.
        margin = np.linalg.norm(weights) / self.eta0 / self.n_mistakes_
        return (
            f"not converged after {self.n_iter_} epochs and {self.n_mistakes_} mistakes: if the "
            f"classes are linearly separable at all, then with a margin of at most {margin:.2g}, "
            f"where the longest sample has {np.linalg.norm(x, axis=1).max():.2g}"
        )

    def decision_function(self, x: Any) -> Array:
        """Scores: (n,) for two classes, else (n, k)."""
        self._check_fitted()
        x = _rows(x)
        if x.shape[1] != self.coef_.shape[1]:
            raise ValueError(f"x: expected {self.coef_.shape[1]} columns, got shape {x.shape}")
        scores: Array = x @ self.coef_.T + self.intercept_
        return scores[:, 0] if scores.shape[1] == 1 else scores

    def predict(self, x: Any) -> Array:
        """The class of each row of x (n, d)."""
        scores = self.decision_function(x)
        chosen = (scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(1)
        labels: Array = self.classes_[chosen]
        return labels

    def score(self, x: Any, y: Any) -> float:
        """The part of the rows of x whose class is y's."""
        predicted, y = self.predict(x), np.asarray(y)
        if predicted.shape != y.shape:
            raise ValueError(f"y: expected shape {predicted.shape}, got {y.shape}")
        return float(np.mean(predicted == y))

    def _check_fitted(self) -> None:
        if not hasattr(self, "coef_"):
            raise RuntimeError("Perceptron: call fit first")

    def __repr__(self) -> str:
        numbers = f"max_iter={self.max_iter}, fit_intercept={self.fit_intercept}"
        return f"Perceptron({numbers}, eta0={self.eta0})"


def _rows(x: Any) -> Array:
    """Finite numbers (n, d) as float64."""
    array = np.asarray(x)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"x: expected an array of numbers, got {array.dtype}")
    array = np.ascontiguousarray(array, np.float64)
    if array.ndim != 2 or not array.shape[1]:
        raise ValueError(f"x: expected shape (n, d), got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError("x: expected finite numbers, got NaN or infinity")
    return array
