"""What all losses share: their reduction to one number, and weights in the dtype of x."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn.graph import Value
from fastnn.ops.reduce import mean, sum


def as_weight(weight: Any, x: Any) -> Any:
    """Weights in x's dtype."""
    return weight if weight is None or isinstance(weight, Value) else np.asarray(weight, x.dtype)


def check_reduction(op: str, reduction: str, *more: str) -> None:
    """ValueError unless it is "mean", "sum", "none" or one of `more`."""
    known = ("mean", "sum", "none", *more)
    if reduction not in known:
        raise ValueError(f"{op}: reduction: expected one of {known}, got {reduction!r}")


def reduce_loss(op: str, losses: Any, reduction: str) -> Any:
    """The mean or sum of all losses, or they themselves."""
    check_reduction(op, reduction)
    return losses if reduction == "none" else (mean if reduction == "mean" else sum)(losses)
