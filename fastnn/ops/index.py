"""Indexing with ints and slices, and its inverse: a window shows a part of an array in place.

A window has one (start, step, count) for each dimension of the whole array; step 0 stands for an int
index, whose dimension disappears.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.graph import Array, Node, Shape, Value, apply
from fastnn.layout import CHANNELS_LAST, Ref
from fastnn.ops import elementwise as ew
from fastnn.ops.op import Example, Op, Spec, register
from fastnn.ops.shape import reshape

if TYPE_CHECKING:
    from fastnn.plan.builder import Builder

Window = tuple[tuple[int, int, int], ...]


def window_shape(window: Window) -> Shape:
    """The shape of what a window shows."""
    return tuple(count for _, step, count in window if step)


def window_ref(ref: Ref, window: Window) -> Ref:
    """The part of `ref` that a window shows; no element moves."""
    kept = [(s * step, n) for s, (_, step, n) in zip(ref.strides, window, strict=True) if step]
    first = sum(
        s * start for s, (start, _, n) in zip(ref.strides, window, strict=True) if n
    )  # an empty range may start past the end
    return Ref(
        ref.buffer,
        tuple(n for _, n in kept),
        tuple(s for s, _ in kept),
        ref.dtype,
        ref.offset + first * ref.dtype.itemsize,
    )


def _numpy_index(window: Window) -> tuple[Any, ...]:
    """The same window as NumPy's index: lists of positions keep it independent of slice rules."""
    index = np.ix_(*[[start + i * step for i in range(n)] for start, step, n in window])
    return tuple(i.astype(np.intp) for i in index)


@register
class Slice(Op):
    """The elements of x that a window shows; a view."""

    name = "slice"
    any_dtype = True
    window: Window = ()

    def infer(self, x: Value) -> list[Spec]:
        return [(window_shape(self.window), x.dtype)]

    def grad(self, node: Node, *douts: Value | None) -> Sequence[Value | None]:
        (x,) = node.inputs
        assert x is not None
        return [apply(Assemble(shape=x.shape, windows=(self.window,)), douts[0])]

    def lower(self, node: Node, b: Builder) -> None:
        (x,), (y,) = node.inputs, node.outputs
        assert x is not None
        b.alias(y, window_ref(b.elements(x), self.window))

    def reference(self, x: Array) -> Array:
        return np.asarray(x[_numpy_index(self.window)].reshape(window_shape(self.window)))

    @classmethod
    def examples(cls) -> Iterable[Example]:
        for window in (((1, 2, 2), (0, 1, 7)), ((3, -1, 4), (6, -3, 2)), ((2, 0, 1), (5, 1, 0))):
            yield Example(cls(window=window), (4, 7))
        yield Example(cls(window=((1, 0, 1), (0, 1, 3), (4, 0, 1), (1, 1, 33))), (2, 3, 5, 35))


@register
class Assemble(Op):
    """An array of `shape`: `fill` everywhere but in the windows, which hold the inputs in turn.

    The windows lie apart. Where they leave no gap, inputs are computed right where they belong if
    their windows lie densely in memory.
    """

    name = "assemble"
    any_dtype = True
    shape: Shape = ()
    windows: tuple[Window, ...] = ()
    fill: float = 0.0

    def infer(self, *pieces: Value) -> list[Spec]:
        for i, (x, window) in enumerate(zip(pieces, self.windows, strict=True)):
            if x.shape != window_shape(window):
                raise ValueError(f"{self.name}: piece {i}: {x.shape} is not {window_shape(window)}")
        return [(self.shape, pieces[0].dtype)]

    @property
    def is_full(self) -> bool:
        """True if the windows leave no gap."""
        return sum(math.prod(n for _, _, n in w) for w in self.windows) == math.prod(self.shape)

    def grad(self, node: Node, *douts: Value | None) -> Sequence[Value | None]:
        return [apply(Slice(window=w), douts[0]) for w in self.windows]

    def order(self, node: Node, b: Builder) -> tuple[int, ...]:
        """Channels-last for images; else with the dimension of single indices outermost, if any."""
        (y,) = node.outputs
        makers = (x.node.op for x in node.inputs if x is not None)
        if y.ndim == 4 and (b.image_consumer(y) or any(op.images for op in makers)):
            return CHANNELS_LAST
        single = [
            d
            for d, n in enumerate(self.shape)
            if n != 1 and all(window[d][2] == 1 for window in self.windows)
        ]
        return (*single, *(d for d in range(y.ndim) if d not in single))

    def prepare(self, node: Node, b: Builder) -> None:
        if self.is_full:
            out = b.new(node.outputs[0], self.order(node, b))
            for x, window in zip(node.inputs, self.windows, strict=True):
                assert x is not None
                b.wish(x, window_ref(out, window))

    def lower(self, node: Node, b: Builder) -> None:
        (y,) = node.outputs
        if self.is_full:
            out = b.ref(y)
        else:
            out = b.new(y, self.order(node, b))
            b.fill(out, self.fill)
        for x, window in zip(node.inputs, self.windows, strict=True):
            assert x is not None
            source, place = b.elements(x), window_ref(out, window)
            if (source.buffer, source.offset) != (place.buffer, place.offset) and x.size:
                b.copy(source, place)

    def reference(self, *pieces: Array) -> Array:
        y = np.full(self.shape, self.fill, pieces[0].dtype)
        for x, window in zip(pieces, self.windows, strict=True):
            y[_numpy_index(window)] = x.reshape([n for _, _, n in window])
        return y

    @classmethod
    def examples(cls) -> Iterable[Example]:
        for n in (1, 7, 16, 17, 33):
            both = (((0, 1, 3), (0, 1, n)), ((0, 1, 3), (n, 1, 2)))
            yield Example(cls(shape=(3, n + 2), windows=both), (3, n), (3, 2))
        stacked = tuple(((0, 1, 2), (i, 0, 1), (0, 1, 5)) for i in range(3))
        yield Example(cls(shape=(2, 3, 5), windows=stacked), *[(2, 5)] * 3)
        yield Example(cls(shape=(4, 9), windows=(((3, -2, 2), (1, 3, 3)),), fill=2.0), (2, 3))
        yield Example(cls(shape=(3, 4), windows=(((3, 1, 0), (0, 1, 4)),)), (0, 4))


def accumulate(total: Value, more: Value) -> Value:
    """total + more; gradients of windows that lie apart are put side by side instead."""
    first, second = total.node.op, more.node.op
    if (
        isinstance(first, Assemble)
        and isinstance(second, Assemble)
        and first.fill == second.fill == 0.0
        and all(_apart(v, w) for v in first.windows for w in second.windows)
    ):
        op = Assemble(shape=first.shape, windows=first.windows + second.windows)
        joined: Value = apply(op, *total.node.inputs, *more.node.inputs)
        return joined
    result: Value = ew.add(total, more)
    return result


def _apart(v: Window, w: Window) -> bool:
    """True if it is plain that two windows share no element."""
    for (a, s, n), (b, t, m) in zip(v, w, strict=True):
        a_last, b_last = a + s * (n - 1), b + t * (m - 1)
        if n == 0 or m == 0 or max(a, a_last) < min(b, b_last) or max(b, b_last) < min(a, a_last):
            return True
        if s == t and abs(s) > 1 and (a - b) % s:
            return True
    return False


def full(shape: Shape) -> Window:
    """The window that shows all of an array."""
    return tuple((0, 1, n) for n in shape)


def take_window(x: Any, window: Window) -> Any:
    """The part of x that a window shows; x itself if that is all of it."""
    return x if window == full(x.shape) else apply(Slice(window=window), x)


def getitem(x: Any, key: Any) -> Any:
    """x[key] by NumPy's basic indexing: ints, slices (any step), Ellipsis and None; a view.

    Raises IndexError for an int outside and for too many indices, TypeError for anything else.
    """
    keys = key if isinstance(key, tuple) else (key,)
    dots = [i for i, k in enumerate(keys) if k is Ellipsis]
    used = sum(k is not None and k is not Ellipsis for k in keys)
    if len(dots) > 1 or used > len(x.shape):
        raise IndexError(f"index: {len(x.shape)} dimensions in shape {x.shape}, got {key!r}")
    at = dots[0] if dots else len(keys)
    rest = [slice(None)] * (len(x.shape) - used)
    window: list[tuple[int, int, int]] = []
    shape: list[int] = []  # with the new dimensions of None
    for k in (*keys[:at], *rest, *keys[at + 1 :]):
        if k is None:
            shape.append(1)
            continue
        window.append(_range(k, x.shape[len(window)], len(window)))
        if window[-1][1]:
            shape.append(window[-1][2])
    y = take_window(x, tuple(window))
    return y if None not in keys else reshape(y, tuple(shape))


def _range(key: Any, n: int, dim: int) -> tuple[int, int, int]:
    """(start, step, count) of one index into a dimension of size n."""
    if isinstance(key, slice):
        start, stop, step = key.indices(n)
        return start, step, len(range(start, stop, step))
    if isinstance(key, (int, np.integer)) and not isinstance(key, bool):
        if not -n <= key < n:
            raise IndexError(f"index: {key} lies outside dimension {dim} of size {n}")
        return int(key) % n, 0, 1
    raise TypeError(f"index: expected ints, slices, Ellipsis or None, got {key!r}")
