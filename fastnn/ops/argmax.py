"""Positions of extremes, found by pooling over one window that spans the axis."""

from __future__ import annotations

from typing import Any

from fastnn.graph import apply
from fastnn.ops.join import dimension
from fastnn.ops.pool import Pool
from fastnn.ops.shape import permute, reshape


def _position(name: str, mode: str, x: Any, axis: int | None, keepdims: bool) -> Any:
    shape = tuple(x.shape)
    if 0 in shape:
        raise ValueError(f"{name}: x: no element to choose from in shape {shape}")
    if axis is None:
        flat, kept = reshape(x, (1, 1, -1, 1)), (1,) * len(shape) if keepdims else ()
    else:
        d = dimension(name, axis, len(shape))
        rest = [i for i in range(len(shape)) if i != d]
        flat = reshape(permute(x, [*rest, d]), (-1, 1, shape[d], 1))
        kept = tuple(1 if i == d else shape[i] for i in range(len(shape)) if keepdims or i != d)
    return reshape(apply(Pool(mode=mode, adaptive=(1, 1)), flat)[1], kept)


def argmax(x: Any, axis: int | None = None, keepdims: bool = False) -> Any:
    """Where the largest element lies along `axis`, by default in all of x in row-major order.

    The first of equals, NaN before all; integers. Raises ValueError where there is no element.
    """
    return _position("argmax", "max", x, axis, keepdims)


def argmin(x: Any, axis: int | None = None, keepdims: bool = False) -> Any:
    """Where the smallest element lies along `axis`; otherwise as argmax."""
    return _position("argmin", "min", x, axis, keepdims)
