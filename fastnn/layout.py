"""Where values lie: a Buffer is a run of bytes, a Ref is a strided window into one.

Views (transpose, broadcast, reshape where it can) are Refs onto the same Buffer and cost no step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastnn.graph import Shape

Strides = tuple[int, ...]
CHANNELS_LAST = (0, 2, 3, 1)  # an image's dimensions N, C, H, W from outermost to innermost


class Buffer:
    """nbytes of memory: in the arena (space None until placed) or at a fixed (space, offset).

    first and last are the numbers of the first and last step that touch it.
    """

    __slots__ = ("first", "label", "last", "nbytes", "offset", "space")

    def __init__(
        self, nbytes: int, label: str = "", space: int | None = None, offset: int = 0
    ) -> None:
        self.nbytes, self.label, self.space, self.offset = nbytes, label, space, offset
        self.first, self.last = -1, -1


class Ref:
    """A logical shape over a Buffer: byte offset and strides in elements, 0 where it broadcasts."""

    __slots__ = ("buffer", "dtype", "offset", "shape", "strides")

    def __init__(
        self, buffer: Buffer, shape: Shape, strides: Strides, dtype: np.dtype[Any], offset: int = 0
    ) -> None:
        self.buffer, self.shape, self.strides = buffer, shape, strides
        self.dtype, self.offset = dtype, offset

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def order(self) -> tuple[int, ...]:
        """Dimensions from the largest stride to the smallest (size-1 dimensions stay in place)."""
        kept = [d for d, n in enumerate(self.shape) if n != 1]
        slots = iter(sorted(kept, key=lambda d: -self.strides[d]))
        return tuple(next(slots) if n != 1 else d for d, n in enumerate(self.shape))

    def is_dense(self, order: Sequence[int]) -> bool:
        """True if the elements lie without gaps in this order of dimensions."""
        dense = dense_strides(self.shape, order)
        return all(
            n == 1 or have == want
            for n, have, want in zip(self.shape, self.strides, dense, strict=True)
        )

    def with_strides(self, shape: Shape, strides: Strides) -> Ref:
        """Another window from the same first element."""
        return Ref(self.buffer, shape, strides, self.dtype, self.offset)


def dense_strides(shape: Shape, order: Sequence[int]) -> Strides:
    """Strides in elements of a dense array whose dimensions lie in `order`, outermost first."""
    strides = [0] * len(shape)
    step = 1
    for d in reversed(order):
        strides[d] = step
        step *= shape[d]
    return tuple(strides)


def split_samples(ref: Ref, lanes: int) -> Ref:
    """Images (N, C, H, W) seen as (N / lanes, C, H, W, lanes)."""
    (n, *image), (step, *steps) = ref.shape, ref.strides
    return ref.with_strides((n // lanes, *image, lanes), (lanes * step, *steps, step))


def view_strides(ref: Ref, shape: Shape) -> Strides | None:
    """Strides that show `ref` with another shape of the same size, or None if a copy is needed.

    Each of the new dimensions has to lie within one run of old ones that are contiguous.
    """
    if ref.size == 0:
        return dense_strides(shape, range(len(shape)))
    dims, (steps,) = coalesce(ref.shape, ref.strides)
    runs = iter(zip(dims, steps, strict=True))
    strides, left, step = [], 1, 1  # of the run: elements not yet taken, distance of the last ones
    for n in shape:
        if left == 1 and n > 1:
            left, step = next(runs)
        if left % n:
            return None
        left //= n
        strides.append(step * left)
    return tuple(strides)


def coalesce(shape: Shape, *strides: Strides) -> tuple[list[int], list[list[int]]]:
    """Drop size-1 dimensions and merge neighbours that are contiguous in every operand."""
    dims: list[int] = []
    merged: list[list[int]] = [[] for _ in strides]
    for d, n in enumerate(shape):
        if n == 1:
            continue
        if dims and all(m[-1] == s[d] * n for m, s in zip(merged, strides, strict=True)):
            dims[-1] *= n
            for m, s in zip(merged, strides, strict=True):
                m[-1] = s[d]
        else:
            dims.append(n)
            for m, s in zip(merged, strides, strict=True):
                m.append(s[d])
    return dims, merged
