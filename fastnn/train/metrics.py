"""Metrics: numbers beside the loss, exact over batches of any size.

Most are sums that the plan keeps while it runs; the others are computed by NumPy from all outputs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastnn import ops
from fastnn.graph import Array, Value
from fastnn.layout import Ref
from fastnn.plan.builder import Builder


class Metric:
    """Base: sums that a plan adds to for each batch, and the number that they come to.

    `name` is the key in the history. values() says what to compute for a batch, within the trace;
    lower() emits the steps that add it to `size()` sums in float64; result() takes the sums over
    all batches.
    """

    name = "metric"

    def size(self, output: Value) -> int:
        """The number of sums."""
        return 1

    def values(self, output: Value, target: Value) -> Sequence[Value]:
        """What lower() reads; ValueError for an output and a target that do not fit."""
        raise NotImplementedError

    def lower(self, b: Builder, values: Sequence[Value], target: Value, acc: Ref) -> None:
        """Emit the steps that add a batch to the sums."""
        raise NotImplementedError

    def result(self, sums: Array, rows: int) -> Any:
        """The metric over all `rows` that were summed."""
        raise NotImplementedError

    def __repr__(self) -> str:
        numbers = ", ".join(f"{k}={v!r}" for k, v in vars(self).items() if k != "name")
        return f"{type(self).__name__}({numbers})"


class Collected(Metric):
    """A metric of all outputs and targets at once: function(output, target), both with n rows."""

    def __init__(self, function: Callable[[Array, Array], Any], name: str = "") -> None:
        self.function = function
        self.name = name or getattr(function, "__name__", type(function).__name__)

    def size(self, output: Value) -> int:
        return 0

    def values(self, output: Value, target: Value) -> Sequence[Value]:
        return ()


class _Classes(Metric):
    """Base of those that compare the predicted class with integer labels.

    Scores (N, C, d1, ...) for labels (N, d1, ...): the largest of C wins, the first of equals. One
    score a label, (N,) or (N, 1) or the labels' shape: class 1 above `threshold`, by default 0, the
    border for logits. Labels outside the classes (an ignore_index) count nowhere.
    """

    def __init__(self, threshold: float = 0.0) -> None:
        self.threshold = float(threshold)

    def values(self, output: Value, target: Value) -> Sequence[Value]:
        shape, labels = output.shape, target.shape
        if shape in (labels, (*labels, 1)) and output.size:
            return (ops.reshape(output, (target.size, 1)),)
        if (
            target.dtype.kind not in "iu"
            or len(shape) < 2
            or shape[1] < 2
            or shape[:1] + shape[2:] != labels
        ):
            raise ValueError(
                f"metrics: {self.name}: expected scores (N, C, ...) and integer labels (N, ...), "
                f"got {shape} and {target.dtype} {labels}"
            )
        if len(shape) > 2:
            output = ops.permute(output, (0, *range(2, len(shape)), 1))
        return (ops.reshape(output, (target.size, shape[1])),)


class Accuracy(_Classes):
    """The share of labels that are the predicted class, or among the k best scores.

    threshold: for one score a label, what lies above is class 1 (0 for logits, 0.5 for
    probabilities).
    """

    def __init__(self, k: int = 1, threshold: float = 0.0, name: str = "") -> None:
        if not isinstance(k, int) or k < 1:
            raise ValueError(f"k: expected an int of at least 1, got {k!r}")
        super().__init__(threshold)
        self.k = k
        self.name = name or ("accuracy" if k == 1 else f"top{k}")

    def size(self, output: Value) -> int:
        return 2

    def lower(self, b: Builder, values: Sequence[Value], target: Value, acc: Ref) -> None:
        n, c = values[0].shape
        b.step(
            "count_correct",
            x=b.dense(values[0]),
            labels=b.labels(target),
            acc=acc,
            n=n,
            c=c,
            k=self.k,
            threshold=self.threshold,
        )

    def result(self, sums: Array, rows: int) -> float:
        return float(sums[0] / sums[1]) if sums[1] else float("nan")


class ConfusionMatrix(_Classes):
    """Counts (C, C): row = label, column = predicted class."""

    def __init__(self, threshold: float = 0.0, name: str = "confusion_matrix") -> None:
        super().__init__(threshold)
        self.name = name

    def size(self, output: Value) -> int:
        classes = output.shape[1] if output.ndim > 1 else 1
        return max(2, classes) ** 2

    def lower(self, b: Builder, values: Sequence[Value], target: Value, acc: Ref) -> None:
        n, c = values[0].shape
        x, labels = b.dense(values[0]), b.labels(target)
        b.step("count_confusion", x=x, labels=labels, acc=acc, n=n, c=c, threshold=self.threshold)

    def result(self, sums: Array, rows: int) -> Any:
        classes = round(len(sums) ** 0.5)
        return sums.reshape(classes, classes).astype(np.int64)


class _FromConfusion(ConfusionMatrix):
    """Base of precision, recall and F1.

    average: "binary" is class 1's alone; "macro" the mean over the classes that occur as label or as
    prediction; "weighted" the same by number of labels; "micro" takes all classes' counts together.
    By default binary for two classes, else macro. 0 where there is nothing to divide by.
    """

    def __init__(self, average: str | None = None, threshold: float = 0.0, name: str = "") -> None:
        if average not in (None, "binary", "macro", "micro", "weighted"):
            raise ValueError(
                f"average: expected 'binary', 'macro', 'micro', 'weighted' or None, got {average!r}"
            )
        super().__init__(threshold, name or type(self).__name__.lower())
        self.average = average

    def score(self, hit: Any, labelled: Any, predicted: Any) -> Any:
        """The score of a class from its numbers of hits, labels and predictions."""
        raise NotImplementedError

    def result(self, sums: Array, rows: int) -> float:
        counts = super().result(sums, rows)
        hit, labelled, predicted = np.diag(counts), counts.sum(1), counts.sum(0)
        average = self.average or ("binary" if len(counts) == 2 else "macro")
        if average == "micro":
            return float(self.score(hit.sum(), labelled.sum(), predicted.sum()))
        scores = self.score(hit, labelled, predicted)
        if average == "binary":
            return float(scores[1])
        weights = labelled if average == "weighted" else labelled + predicted > 0
        return float(np.average(scores, weights=weights)) if weights.any() else 0.0


class Precision(_FromConfusion):
    __doc__ = f"Hits among the predictions of a class.\n\n{_FromConfusion.__doc__}"

    def score(self, hit: Any, labelled: Any, predicted: Any) -> Any:
        return hit / np.maximum(predicted, 1)


class Recall(_FromConfusion):
    __doc__ = f"Hits among the labels of a class.\n\n{_FromConfusion.__doc__}"

    def score(self, hit: Any, labelled: Any, predicted: Any) -> Any:
        return hit / np.maximum(labelled, 1)


class F1(_FromConfusion):
    __doc__ = f"The harmonic mean of precision and recall of a class.\n\n{_FromConfusion.__doc__}"

    def score(self, hit: Any, labelled: Any, predicted: Any) -> Any:
        return 2 * hit / np.maximum(labelled + predicted, 1)


class MAE(Metric):
    """The mean of |output - target|, both of one shape."""

    name = "mae"

    def values(self, output: Value, target: Value) -> Sequence[Value]:
        if output.shape != target.shape:
            raise ValueError(f"metrics: mae: expected {output.shape} targets, got {target.shape}")
        return (ops.mean(ops.abs(ops.sub(output, target))),)

    def lower(self, b: Builder, values: Sequence[Value], target: Value, acc: Ref) -> None:
        b.step("accumulate", x=b.dense(values[0]), acc=acc, weight=float(target.shape[0]))

    def result(self, sums: Array, rows: int) -> float:
        return float(sums[0]) / rows


def r2(output: Array, target: Array) -> float:
    """1 - squared error / variance, the mean over columns: the coefficient of determination.

    Both of one shape (n, ...). A column that never varies counts 1 if all of it is right, else 0.
    """
    if output.shape != target.shape:
        raise ValueError(f"metrics: r2: expected {output.shape} targets, got {target.shape}")
    p, t = (a.reshape(len(a), -1).astype(np.float64) for a in (output, target))
    error, variance = ((p - t) ** 2).sum(0), ((t - t.mean(0)) ** 2).sum(0)
    varies = variance > 0
    scores = np.where(varies, 1 - error / np.where(varies, variance, 1), error == 0)
    return float(scores.mean())


def auc(output: Array, target: Array) -> float:
    """The area under the ROC curve: how often a row of the class scores above one that is not.

    Ties count half (Mann and Whitney, 1947). One score a row, (n,) or (n, 1), or two, whose
    difference is taken, for labels 0 and 1; with C > 2 scores the mean over the classes, each against
    the rest by its own score. Classes without rows or without others are left out; NaN if all are.
    """
    if target.size != len(output) or output.ndim > 2:
        raise ValueError(
            f"metrics: auc: expected scores (N,) or (N, C) and labels (N,), got {output.shape} "
            f"and {target.shape}"
        )
    scores, labels = output.reshape(len(output), -1).astype(np.float64), target.reshape(-1)
    if scores.shape[1] == 2:
        scores = scores[:, 1:] - scores[:, :1]
    classes = [1] if scores.shape[1] == 1 else range(scores.shape[1])
    areas = [_area(s, labels == c) for s, c in zip(scores.T, classes, strict=True)]
    known = [a for a in areas if a is not None]
    return float(np.mean(known)) if known else float("nan")


def _area(score: Array, positive: Array) -> float | None:
    hits = int(positive.sum())
    others = len(positive) - hits
    if not hits or not others:
        return None
    if np.isnan(score).any():
        return float("nan")
    _, place, count = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[place]  # the mean rank of equal ones, from 1
    return float((rank[positive].sum() - hits * (hits + 1) / 2) / (hits * others))


NAMED: dict[str, Callable[[], Metric]] = {
    "accuracy": Accuracy,
    "precision": Precision,
    "recall": Recall,
    "f1": F1,
    "confusion_matrix": ConfusionMatrix,
    "mae": MAE,
    "r2": lambda: Collected(r2),
    "auc": lambda: Collected(auc),
}


def as_metric(metric: Any) -> Metric:
    """A Metric from its name, or from a function of all outputs and targets."""
    if isinstance(metric, Metric):
        return metric
    if isinstance(metric, str):
        top = re.fullmatch(r"top([1-9]\d*)", metric)
        if top:
            return Accuracy(int(top[1]))
        if metric in NAMED:
            return NAMED[metric]()
    elif callable(metric):
        return Collected(metric)
    names = ", ".join([*NAMED, "top5"])
    raise ValueError(f"metrics: expected names ({names}), functions or Metrics, got {metric!r}")
