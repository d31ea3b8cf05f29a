"""Comparisons and choices: 1 where something holds and 0 elsewhere, in the floats' own type.

Nothing is ever trained through a comparison: its gradient is none, as in PyTorch.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn.graph import Storage, Value, apply
from fastnn.ops import elementwise as ew

Keep: type[ew.Binary] = ew.declare_binary(
    "keep",
    "relu_grad",
    lambda c, x: np.where(c > 0, x, 0 * np.ones_like(x)),
    lambda c, x, y, dy: (None, apply(Keep(), c, dy)),
)  # x where c > 0, else 0, whatever x is there


def _pair(a: Any, b: Any) -> tuple[Any, Any]:
    """Both sides, a number or an array of another type taking the other's dtype."""
    symbolic = (Value, Storage)
    if not isinstance(a, symbolic) and isinstance(b, (*symbolic, np.ndarray)):
        a = np.asarray(a, b.dtype) if b.dtype.kind == "f" else a
    if not isinstance(b, symbolic) and isinstance(a, (*symbolic, np.ndarray)):
        b = np.asarray(b, a.dtype) if a.dtype.kind == "f" else b
    return a, b


def greater(a: Any, b: Any) -> Any:
    """1 where a > b, else 0, broadcasting; 0 where either is NaN."""
    return apply(ew.Greater(), *_pair(a, b))


def less(a: Any, b: Any) -> Any:
    """1 where a < b, else 0, broadcasting; 0 where either is NaN."""
    return greater(b, a)


def equal(a: Any, b: Any) -> Any:
    """1 where a == b, else 0, broadcasting; 0 where either is NaN."""
    return apply(ew.Equal(), *_pair(a, b))


def not_equal(a: Any, b: Any) -> Any:
    """1 where a != b, else 0, broadcasting; 1 where either is NaN."""
    return ew.sub(1.0, equal(a, b))


def greater_equal(a: Any, b: Any) -> Any:
    """1 where a >= b, else 0, broadcasting; 0 where either is NaN."""
    return ew.add(greater(a, b), equal(a, b))


def less_equal(a: Any, b: Any) -> Any:
    """1 where a <= b, else 0, broadcasting; 0 where either is NaN."""
    return greater_equal(b, a)


def where(condition: Any, a: Any, b: Any) -> Any:
    """a where `condition` is not 0, else b, broadcasting.

    What is not chosen may be NaN or infinite, and gets 0 as its gradient.
    """
    floats = [v for v in (a, b, condition) if getattr(v, "dtype", np.dtype(bool)).kind == "f"]
    if not floats:
        raise TypeError("where: a, b: expected float32 or float64 in one of them at least")
    dtype = floats[0].dtype
    condition, a, b = (
        v if isinstance(v, (Value, Storage)) else np.asarray(v, dtype) for v in (condition, a, b)
    )
    no = equal(condition, 0.0)
    return ew.add(apply(Keep(), ew.sub(1.0, no), a), apply(Keep(), no, b))
