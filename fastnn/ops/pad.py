"""Padding: more elements around an array, constant or taken from it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np

from fastnn.graph import apply
from fastnn.ops.index import Assemble, Window, take_window
from fastnn.ops.shape import broadcast_to

MODES = ("constant", "reflect", "replicate", "circular")
# Where a stretch of the result starts, how long it is, and the range of x that it shows, which is
# repeated where it is shorter.
Stretch = tuple[int, int, tuple[int, int, int]]


def pad(x: Any, pad: Sequence[int], mode: str = "constant", value: float = 0.0) -> Any:
    """x with more elements at its ends, as torch.nn.functional.pad.

    pad: (left, right) of the last dimension, then (top, bottom) of the one before, ...; a negative
    number takes elements away (constant only). mode: "constant" (all of them `value`), "reflect"
    (mirrored, the edge once: at most size - 1), "replicate" (the edge again), "circular" (from the
    other end: at most size). Raises ValueError or TypeError naming what does not fit.
    """
    sides = _sides(x, pad)
    if mode not in MODES:
        raise ValueError(f"pad: mode: expected one of {MODES}, got {mode!r}")
    if not any(before or after for before, after in sides):
        return x
    if mode == "constant":
        return _constant(x, sides, float(value))
    stretches = [
        _stretches(mode, d, n, *sides[d]) if any(sides[d]) else [(0, n, (0, 1, n))]
        for d, n in enumerate(x.shape)
    ]
    windows, pieces = [], []
    for parts in product(*stretches):
        piece = take_window(x, tuple(source for _, _, source in parts))
        shape = tuple(n for _, n, _ in parts)
        pieces.append(piece if tuple(piece.shape) == shape else broadcast_to(piece, shape))
        windows.append(tuple((start, 1, n) for start, n, _ in parts))
    total = tuple(n + sum(side) for n, side in zip(x.shape, sides, strict=True))
    return apply(Assemble(shape=total, windows=tuple(windows)), *pieces)


def _sides(x: Any, pad: Sequence[int]) -> list[tuple[int, int]]:
    """(before, after) for each dimension of x."""
    numbers = list(pad)
    if len(numbers) % 2 or len(numbers) > 2 * len(x.shape):
        raise ValueError(f"pad: pad: expected up to {len(x.shape)} pairs, got {pad}")
    if not all(isinstance(n, (int, np.integer)) for n in numbers):
        raise TypeError(f"pad: pad: expected ints, got {pad}")
    pairs = [(int(a), int(b)) for a, b in zip(numbers[::2], numbers[1::2], strict=True)]
    return [(0, 0)] * (len(x.shape) - len(pairs)) + pairs[::-1]


def _constant(x: Any, sides: Sequence[tuple[int, int]], value: float) -> Any:
    kept: list[tuple[int, int, int]] = []
    for n, (before, after) in zip(x.shape, sides, strict=True):
        kept.append((max(0, -before), 1, n - max(0, -before) - max(0, -after)))
    total = tuple(n + sum(side) for n, side in zip(x.shape, sides, strict=True))
    if min(n for _, _, n in kept) < 0 or min(total) < 0:
        raise ValueError(f"pad: pad: takes more away than there is in shape {tuple(x.shape)}")
    x = take_window(x, tuple(kept))
    if tuple(x.shape) == total:
        return x
    window: Window = tuple(
        (max(0, before), 1, n) for n, (before, _) in zip(x.shape, sides, strict=True)
    )
    return apply(Assemble(shape=total, windows=(window,), fill=value), x)


def _stretches(mode: str, dim: int, n: int, before: int, after: int) -> list[Stretch]:
    """Before, x itself, after: for one dimension of size n."""
    most = {"reflect": n - 1, "circular": n, "replicate": max(before, after)}[mode]
    if min(before, after) < 0 or max(before, after) > most or n < 1:
        raise ValueError(f"pad: pad: {mode} allows 0 to {most} in dimension {dim} of size {n}")
    first, last = {
        "reflect": ((before, -1, before), (n - 2, -1, after)),
        "circular": ((n - before, 1, before), (0, 1, after)),
        "replicate": ((0, 1, 1), (n - 1, 1, 1)),
    }[mode]
    parts = [(0, before, first), (before, n, (0, 1, n)), (before + n, after, last)]
    return [p for p in parts if p[1]]


def same_padding(kernel: Sequence[int], dilation: Sequence[int]) -> list[tuple[int, int]]:
    """(before, after) for each dimension that keep its size; an odd one goes to the end."""
    spans = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    return [(span // 2, span - span // 2) for span in spans]


def named_padding(
    op: str,
    x: Any,
    padding: Any,
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
) -> tuple[Any, Any]:
    """x and its padding in numbers, "valid" and "same" resolved; where no number can say it, x is
    padded itself."""
    if not isinstance(padding, str):
        return x, padding
    if padding == "valid":
        return x, 0
    if padding != "same":
        raise ValueError(f'{op}: padding: expected ints, "valid" or "same", got {padding!r}')
    if any(s != 1 for s in stride):
        raise ValueError(f'{op}: padding: "same" goes with stride 1 only, got {tuple(stride)}')
    sides = same_padding(kernel, dilation)
    if all(a == b for a, b in sides):
        return x, tuple(a for a, _ in sides)
    more = [n for a, b in reversed(sides) for n in (0, b - a)]
    return pad(x, more), tuple(a for a, _ in sides)
