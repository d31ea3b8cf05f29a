"""What the losses of integer labels share: checks, the labels' weights, and the kernels' numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.graph import Array, Value
from fastnn.ops.op import Op, check_float
from fastnn.ops.reduction import check_reduction

if TYPE_CHECKING:
    from fastnn.layout import Ref
    from fastnn.plan.builder import Builder


class Labelled(Op):
    """Base of the ops over x (N, C, ...), labels (N, ...) and, if given, a weight (C,) of the classes.

    A row counts its label's weight, and nothing where the label is ignore_index. per_row: a loss each,
    else `scale` times their sum, divided by the sum of the weights for a mean.
    """

    integer_inputs = (1,)
    per_row: bool = False
    mean: bool = False
    ignore_index: int = -100
    scale: float = 1.0

    def check(self, x: Value, labels: Value, weight: Value | None) -> np.dtype[Any]:
        """The dtype, once shapes and dtypes fit."""
        if len(x.shape) < 2:
            raise ValueError(f"{self.name}: x: expected (N, C, ...), got shape {x.shape}")
        if labels.dtype.kind not in "iu":
            raise TypeError(f"{self.name}: labels: expected integers, got {labels.dtype}")
        rows = (x.shape[0], *x.shape[2:])
        if labels.shape != rows:
            raise ValueError(f"{self.name}: labels: expected shape {rows}, got {labels.shape}")
        if weight is not None and weight.shape != x.shape[1:2]:
            raise ValueError(
                f"{self.name}: weight: expected shape {x.shape[1:2]}, got {weight.shape}"
            )
        return check_float(self.name, x=x, weight=weight)

    def fields(self, shape: Sequence[int]) -> dict[str, Any]:
        """The kernels' numbers for x of this shape."""
        return {
            "n": int(np.prod(shape, dtype=np.int64)) // max(1, shape[1]),
            "c": shape[1],
            "ignore": self.ignore_index,
            "mean": int(self.mean),
            "scale": self.scale,
        }

    def rows(self, labels: Array, weight: Array | None, dtype: Any) -> tuple[Array, Array, float]:
        """In NumPy: classes (0 where ignored), what the rows count, and the scale."""
        keep = labels != self.ignore_index
        classes = np.where(keep, labels, 0)
        counts = keep * (np.ones(1, dtype) if weight is None else weight[classes])
        return classes, counts, self.scale / counts.sum() if self.mean else self.scale


def classes_last(ndim: int) -> tuple[int, ...]:
    """Classes innermost."""
    return (0, *range(2, ndim), 1)


def dense_or_none(b: Builder, value: Value | None) -> Ref | None:
    """Where an optional value lies without gaps."""
    return None if value is None else b.dense(value)


def at_classes(x: Array, classes: Array) -> Any:
    """In NumPy: x (N, C, ...) at each of the classes (N, ...)."""
    return np.take_along_axis(x, np.expand_dims(classes, 1), 1)[:, 0]


def onehot(classes: Array, c: int) -> Any:
    """In NumPy: 1 at each of the classes (N, ...), in (N, c, ...)."""
    return np.moveaxis(np.eye(c)[classes], -1, 1)


def reduction_attrs(op: str, reduction: str, ignore_index: int) -> dict[str, Any]:
    """The attributes of a Labelled op; ValueError for another reduction."""
    check_reduction(op, reduction)
    attrs: dict[str, Any] = {"none": {"per_row": True}, "mean": {"mean": True}, "sum": {}}[
        reduction
    ]
    return attrs if ignore_index == -100 else {**attrs, "ignore_index": int(ignore_index)}
