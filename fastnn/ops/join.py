"""Taking arrays apart and putting them together along a dimension."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastnn.graph import apply
from fastnn.ops.index import Assemble, Window, full, take_window
from fastnn.ops.shape import reshape


def dimension(op: str, dim: int, ndim: int) -> int:
    """A dimension counted from either end, as one from the front; ValueError outside."""
    if not isinstance(dim, (int, np.integer)) or not -ndim <= dim < ndim:
        raise ValueError(f"{op}: dim: expected an int from {-ndim} to {ndim - 1}, got {dim!r}")
    return int(dim) % ndim


def _along(shape: Sequence[int], dim: int, start: int, step: int, count: int) -> Window:
    """The window of a range of one dimension."""
    window = list(full(tuple(shape)))
    window[dim] = (start, step, count)
    return tuple(window)


def concat(xs: Sequence[Any], dim: int = 0) -> Any:
    """The arrays one after the other along `dim`; their other sizes agree. As torch.cat.

    Raises ValueError if there is none, or naming the one that does not fit.
    """
    xs = list(xs)
    if not xs:
        raise ValueError("concat: xs: expected at least one array")
    first = tuple(xs[0].shape)
    dim = dimension("concat", dim, len(first))
    windows, at = [], 0
    for i, x in enumerate(xs):
        shape = tuple(x.shape)
        if len(shape) != len(first) or any(
            n != m for d, (n, m) in enumerate(zip(shape, first, strict=True)) if d != dim
        ):
            raise ValueError(f"concat: xs[{i}]: {shape} does not go with {first} along dim {dim}")
        windows.append(_along(shape, dim, at, 1, shape[dim]))
        at += shape[dim]
    total = (*first[:dim], at, *first[dim + 1 :])
    return apply(Assemble(shape=total, windows=tuple(windows)), *xs)


def stack(xs: Sequence[Any], dim: int = 0) -> Any:
    """Arrays of one shape along a new dimension `dim`. As torch.stack.

    Raises ValueError if there is none, or naming the one of another shape.
    """
    xs = list(xs)
    if not xs:
        raise ValueError("stack: xs: expected at least one array")
    first = tuple(xs[0].shape)
    dim = dimension("stack", dim, len(first) + 1)
    for i, x in enumerate(xs):
        if tuple(x.shape) != first:
            raise ValueError(f"stack: xs[{i}]: expected shape {first}, got {tuple(x.shape)}")
    shape = (*first[:dim], len(xs), *first[dim:])
    windows = tuple(_along(shape, dim, i, 0, 1) for i in range(len(xs)))
    return apply(Assemble(shape=shape, windows=windows), *xs)


def split(x: Any, split_size: int | Sequence[int], dim: int = 0) -> tuple[Any, ...]:
    """Views of x cut along `dim` into pieces of split_size, or of the sizes given. As torch.split.

    The last piece is smaller where split_size does not divide. Raises ValueError for sizes that do
    not sum up to x's.
    """
    dim = dimension("split", dim, len(x.shape))
    n = x.shape[dim]
    if isinstance(split_size, (int, np.integer)):
        if split_size < 1:
            raise ValueError(f"split: split_size: expected at least 1, got {split_size}")
        sizes = [min(int(split_size), n - at) for at in range(0, n, int(split_size))] or [0]
    else:
        sizes = [int(s) for s in split_size]
        if sum(sizes) != n or min(sizes, default=0) < 0:
            raise ValueError(f"split: split_size: {sizes} does not sum up to {n}")
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return tuple(
        take_window(x, _along(x.shape, dim, at, 1, size))
        for at, size in zip(starts, sizes, strict=True)
    )


def chunk(x: Any, chunks: int, dim: int = 0) -> tuple[Any, ...]:
    """x in at most `chunks` views of equal size along `dim`, the last one smaller. As torch.chunk."""
    if chunks < 1:
        raise ValueError(f"chunk: chunks: expected at least 1, got {chunks}")
    size = x.shape[dimension("chunk", dim, len(x.shape))]
    return split(x, max(1, -(-size // chunks)), dim)


def unsqueeze(x: Any, dim: int) -> Any:
    """x with a new dimension of size 1 at `dim`."""
    shape = list(x.shape)
    shape.insert(dimension("unsqueeze", dim, len(shape) + 1), 1)
    return reshape(x, tuple(shape))


def squeeze(x: Any, dim: int | Sequence[int] | None = None) -> Any:
    """x without the dimensions `dim` that have size 1, by default all that do."""
    ndim = len(x.shape)
    dims = range(ndim) if dim is None else [dim] if isinstance(dim, (int, np.integer)) else dim
    gone = {dimension("squeeze", d, ndim) for d in dims}
    kept = tuple(n for d, n in enumerate(x.shape) if n != 1 or d not in gone)
    return x if kept == tuple(x.shape) else reshape(x, kept)
