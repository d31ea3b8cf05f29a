"""Reductions over any axes: sum, mean, max, min. Sums run in a fixed tree cut by shape."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fastnn.graph import Array, Node, Value, apply
from fastnn.layout import Ref
from fastnn.ops import elementwise as ew
from fastnn.ops.op import Example, Op, Spec, check_float, register
from fastnn.ops.shape import broadcast_to, reshape

if TYPE_CHECKING:
    from fastnn.plan.builder import Builder

CODES = ("sum", "max", "min")  # enum fnn_reduce


class Reduce(Op):
    """y = scale * reduction of x over `axes` (which disappear)."""

    code: ClassVar[str]
    axes: tuple[int, ...] = ()
    scale: float = 1.0

    def infer(self, x: Value) -> list[Spec]:
        dtype = check_float(self.name, x=x)
        if self.code != "sum" and any(x.shape[d] == 0 for d in self.axes):
            raise ValueError(f"{self.name}: x: no element to choose from in shape {x.shape}")
        return [(tuple(n for d, n in enumerate(x.shape) if d not in self.axes), dtype)]

    def lower(self, node: Node, b: Builder) -> None:
        (x,), (y,) = node.inputs, node.outputs
        assert x is not None
        ref = b.ref(x)
        order = ref.order
        if not ref.is_dense(order):
            order = tuple(range(x.ndim))
            ref = b.dense(x, order)
        kept = [d for d in order if d not in self.axes]
        rank = {d: i for i, d in enumerate(sorted(kept))}
        out = b.new(y, [rank[d] for d in kept])
        runs = _runs([(x.shape[d], d in self.axes) for d in order])
        _emit(b, ref, out, runs, CODES.index(self.code), self.scale)

    def reference(self, x: Array) -> Array:
        function: Any = {"sum": np.sum, "max": np.max, "min": np.min}[self.code]
        return np.asarray(self.scale * function(x, axis=self.axes))

    @classmethod
    def examples(cls) -> Iterable[Example]:
        for n in (1, 7, 15, 16, 17, 31, 32, 33):
            yield Example(cls(axes=(0,)), (n,))
            yield Example(cls(axes=(0,)), (5, n))
            yield Example(cls(axes=(1,)), (n, 5))
        yield Example(cls(axes=(0, 2)), (3, 4, 5))
        yield Example(cls(axes=(0, 1, 2, 3)), (2, 3, 4, 5))
        yield Example(cls(axes=(0, 2, 3), scale=0.5), (2, 3, 4, 5))


def _runs(dims: list[tuple[int, bool]]) -> list[tuple[int, bool]]:
    """Merge neighbours of one kind; size 1 joins anything."""
    runs: list[tuple[int, bool]] = []
    for n, reduced in dims:
        if runs and (n == 1 or runs[-1][1] == reduced):
            runs[-1] = (runs[-1][0] * n, runs[-1][1])
        elif runs and runs[-1][0] == 1:
            runs[-1] = (n, reduced)
        else:
            runs.append((n, reduced))
    return runs


def _emit(b: Builder, x: Ref, y: Ref, runs: list[tuple[int, bool]], op: int, scale: float) -> None:
    """One reduce step for each reduced run, the innermost first; the last one scales."""
    places = [i for i, (_, reduced) in enumerate(runs) if reduced]
    if not places:
        places, runs = [0], [(1, True), *runs]
    while places:
        i = places.pop()
        outer = int(np.prod([n for n, _ in runs[:i]], dtype=np.int64))
        inner = int(np.prod([n for n, _ in runs[i + 1 :]], dtype=np.int64))
        out = b.temp((outer, inner), y.dtype) if places else y
        last = scale if not places else 1.0
        b.step("reduce", x=x, y=out, outer=outer, len=runs[i][0], inner=inner, op=op, scale=last)
        del runs[i]
        x = out


@register
class Sum(Reduce):
    name = "sum"
    code = "sum"

    def grad(self, node: Node, *douts: Value | None) -> Sequence[Value | None]:
        (x,), (dy,) = node.inputs, douts
        assert x is not None
        return [_spread(ew.mul(dy, self.scale) if self.scale != 1.0 else dy, x, self.axes)]


class Choose(Reduce):
    """max and min: the gradient is shared evenly among equal elements, as torch.amax does."""

    def grad(self, node: Node, *douts: Value | None) -> Sequence[Value | None]:
        (x,), (y,), (dy,) = node.inputs, node.outputs, douts
        assert x is not None
        chosen = apply(ew.Equal(), x, _spread(y, x, self.axes))
        share = ew.div(dy, apply(Sum(axes=self.axes), chosen))
        return [ew.mul(chosen, _spread(share, x, self.axes))]

    @classmethod
    def examples(cls) -> Iterable[Example]:
        return (e for e in super().examples() if e.op.scale == 1.0)  # type: ignore[attr-defined]


@register
class Max(Choose):
    name = "max"
    code = "max"


@register
class Min(Choose):
    name = "min"
    code = "min"


def _spread(y: Any, x: Value, axes: tuple[int, ...]) -> Any:
    """A reduced value back over the shape of x."""
    kept = tuple(1 if d in axes else n for d, n in enumerate(x.shape))
    return broadcast_to(reshape(y, kept), x.shape)


def _axes(op: str, x: Any, axis: int | Sequence[int] | None) -> tuple[int, ...]:
    ndim = len(x.shape)
    if axis is None:
        return tuple(range(ndim))
    axes = [axis] if isinstance(axis, int) else list(axis)
    if any(not -ndim <= a < ndim for a in axes) or len({a % ndim for a in axes}) < len(axes):
        raise ValueError(f"{op}: axis: expected distinct axes of shape {x.shape}, got {axis}")
    return tuple(sorted(a % ndim for a in axes))


def _reduce(cls: type[Reduce], x: Any, axis: Any, keepdims: bool, scale: float = 1.0) -> Any:
    axes = _axes(cls.name, x, axis)
    y = apply(cls(axes=axes, scale=scale) if scale != 1.0 else cls(axes=axes), x)
    if not keepdims:
        return y
    return reshape(y, tuple(1 if d in axes else n for d, n in enumerate(x.shape)))


def sum(x: Any, axis: int | Sequence[int] | None = None, keepdims: bool = False) -> Any:
    """The sum over `axis` (all axes by default)."""
    return _reduce(Sum, x, axis, keepdims)


def mean(x: Any, axis: int | Sequence[int] | None = None, keepdims: bool = False) -> Any:
    """The mean over `axis` (all axes by default); NaN where there is nothing to average."""
    count = int(np.prod([x.shape[d] for d in _axes("mean", x, axis)], dtype=np.int64))
    return _reduce(Sum, x, axis, keepdims, 1.0 / count if count else float("nan"))


def var(
    x: Any, axis: int | Sequence[int] | None = None, correction: int = 1, keepdims: bool = False
) -> Any:
    """The variance over `axis`, divided by count - correction; 1 by default, as in PyTorch."""
    axes = _axes("var", x, axis)
    count = int(np.prod([x.shape[d] for d in axes], dtype=np.int64))
    off = ew.sub(x, mean(x, axes, keepdims=True))
    scale = 1.0 / (count - correction) if count > correction else float("nan")
    return _reduce(Sum, ew.square(off), axes, keepdims, scale)


def std(
    x: Any, axis: int | Sequence[int] | None = None, correction: int = 1, keepdims: bool = False
) -> Any:
    """The square root of the variance; see var."""
    return ew.sqrt(var(x, axis, correction, keepdims))


def max(x: Any, axis: int | Sequence[int] | None = None, keepdims: bool = False) -> Any:
    """The largest element over `axis`; NaN wins; equal ones share the gradient."""
    return _reduce(Max, x, axis, keepdims)


def min(x: Any, axis: int | Sequence[int] | None = None, keepdims: bool = False) -> Any:
    """The smallest element over `axis`; NaN wins; equal ones share the gradient."""
    return _reduce(Min, x, axis, keepdims)
