"""Ops that only show an array differently; they are views and cost no step where they can be."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.graph import Array, Node, Shape, Value, apply
from fastnn.layout import dense_strides, view_strides
from fastnn.ops.elementwise import expand, unbroadcast
from fastnn.ops.op import Example, Op, Spec, broadcast, register

if TYPE_CHECKING:
    from fastnn.plan.builder import Builder


@register
class Reshape(Op):
    """The same elements, in row-major order, under another shape."""

    name = "reshape"
    any_dtype = True
    shape: Shape = ()

    def infer(self, x: Value) -> list[Spec]:
        if int(np.prod(self.shape, dtype=np.int64)) != x.size:
            raise ValueError(f"reshape: shape: {x.shape} does not fit into {self.shape}")
        return [(self.shape, x.dtype)]

    def grad(self, node: Node, *douts: Value | None) -> Sequence[Value | None]:
        assert node.inputs[0] is not None
        return [reshape(douts[0], node.inputs[0].shape)]

    def lower(self, node: Node, b: Builder) -> None:
        (x,), (y,) = node.inputs, node.outputs
        assert x is not None
        ref = b.elements(x)
        strides = view_strides(ref, y.shape)
        if strides is None:
            ref = b.dense(x)
            strides = dense_strides(y.shape, range(y.ndim))
        b.alias(y, ref.with_strides(y.shape, strides))

    def reference(self, x: Array) -> Array:
        return x.reshape(self.shape)

    @classmethod
    def examples(cls) -> Iterable[Example]:
        yield Example(cls(shape=(6, 5)), (2, 3, 5))
        yield Example(cls(shape=(2, 15)), (2, 3, 5, 1))
        yield Example(cls(shape=(1,)), ())


@register
class Permute(Op):
    """Dimensions in another order: output dimension i is input dimension dims[i]."""

    name = "permute"
    any_dtype = True
    dims: tuple[int, ...] = ()

    def infer(self, x: Value) -> list[Spec]:
        if sorted(self.dims) != list(range(x.ndim)):
            raise ValueError(f"permute: dims: expected each of 0..{x.ndim - 1} once: {self.dims}")
        return [(tuple(x.shape[d] for d in self.dims), x.dtype)]

    def grad(self, node: Node, *douts: Value | None) -> Sequence[Value | None]:
        return [permute(douts[0], [int(i) for i in np.argsort(self.dims)])]

    def lower(self, node: Node, b: Builder) -> None:
        (x,), (y,) = node.inputs, node.outputs
        assert x is not None
        ref = b.elements(x)
        b.alias(y, ref.with_strides(y.shape, tuple(ref.strides[d] for d in self.dims)))

    def reference(self, x: Array) -> Any:
        return x.transpose(self.dims)

    @classmethod
    def examples(cls) -> Iterable[Example]:
        yield Example(cls(dims=(1, 0)), (17, 33))
        yield Example(cls(dims=(2, 0, 3, 1)), (2, 3, 4, 5))


@register
class BroadcastTo(Op):
    """NumPy's broadcast to a given shape."""

    name = "broadcast_to"
    any_dtype = True
    shape: Shape = ()

    def infer(self, x: Value) -> list[Spec]:
        if broadcast(self.name, x.shape, self.shape) != self.shape:
            raise ValueError(f"broadcast_to: shape: {x.shape} does not broadcast to {self.shape}")
        return [(self.shape, x.dtype)]

    def grad(self, node: Node, *douts: Value | None) -> Sequence[Value | None]:
        assert node.inputs[0] is not None
        return [unbroadcast(douts[0], node.inputs[0])]

    def lower(self, node: Node, b: Builder) -> None:
        (x,), (y,) = node.inputs, node.outputs
        assert x is not None
        b.alias(y, expand(b.elements(x), y.shape))

    def reference(self, x: Array) -> Array:
        return np.broadcast_to(x, self.shape)

    @classmethod
    def examples(cls) -> Iterable[Example]:
        yield Example(cls(shape=(5, 17)), (17,))
        yield Example(cls(shape=(2, 3, 4)), (3, 1))


def reshape(x: Any, *shape: Any) -> Any:
    """x under another shape, in row-major order; one size may be -1. ValueError if it does not fit."""
    sizes = tuple(shape[0]) if len(shape) == 1 and not isinstance(shape[0], int) else shape
    if sizes.count(-1) > 1:
        raise ValueError(f"reshape: shape: at most one size may be -1, got {sizes}")
    if -1 in sizes:
        rest = int(np.prod([n for n in sizes if n != -1], dtype=np.int64))
        total = int(np.prod(x.shape, dtype=np.int64))
        missing = total // rest if rest else 0
        sizes = tuple(missing if n == -1 else n for n in sizes)
    return apply(Reshape(shape=tuple(int(n) for n in sizes)), x)


def flatten(x: Any, start_dim: int = 1, end_dim: int = -1) -> Any:
    """Merge the dimensions from start_dim to end_dim into one; the batch is kept by default.

    Raises ValueError for dimensions that x does not have, or in the wrong order.
    """
    n = len(x.shape)
    if not n:
        return reshape(x, (1,))
    for name, d in (("start_dim", start_dim), ("end_dim", end_dim)):
        if not -n <= d < n:
            raise ValueError(f"flatten: {name}: {d} lies outside shape {tuple(x.shape)}")
    first, last = start_dim % n, end_dim % n
    if first > last:
        raise ValueError(f"flatten: end_dim: {end_dim} comes before start_dim {start_dim}")
    merged = math.prod(x.shape[first : last + 1])
    return reshape(x, (*x.shape[:first], merged, *x.shape[last + 1 :]))


def permute(x: Any, dims: Sequence[int]) -> Any:
    """x with its dimensions in the order `dims`, as torch.permute."""
    order = tuple(d % len(x.shape) for d in dims)
    if isinstance(x, Value) and isinstance(x.node.op, Permute):  # two in a row are one, or none
        order, x = tuple(x.node.op.dims[d] for d in order), x.node.inputs[0]
        if order == tuple(range(len(order))):
            return x
    return apply(Permute(dims=order), x)


def transpose(x: Any, dim0: int = -2, dim1: int = -1) -> Any:
    """x with two dimensions exchanged, the last two by default."""
    dims = list(range(len(x.shape)))
    dims[dim0], dims[dim1] = dims[dim1], dims[dim0]
    return permute(x, dims)


def broadcast_to(x: Any, shape: Sequence[int]) -> Any:
    """x repeated to `shape` by NumPy's rules."""
    return apply(BroadcastTo(shape=tuple(shape)), x)
