"""The first step of a plan: user data of any dtype becomes float, normalised, in the wanted layout."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.graph import Array, Node, Value, apply, traced_dtype
from fastnn.ops import elementwise as ew
from fastnn.ops.op import Example, Input, Op, Spec, register

if TYPE_CHECKING:
    from fastnn.plan.builder import Builder


@register
class Load(Op):
    """float(x) * scale[c] + shift[c] of an Input (N, C, ...); without scale, the plain numbers."""

    name = "load"
    integer_inputs = (0,)
    dtype: str = "float32"
    scale: tuple[float, ...] = ()
    shift: tuple[float, ...] = ()

    def infer(self, x: Value) -> list[Spec]:
        if self.scale and (x.ndim < 2 or x.shape[1] != len(self.scale)):
            raise ValueError(f"normalize: x: expected {len(self.scale)} channels, got {x.shape}")
        return [(x.shape, self.dtype)]

    def grad(self, node: Node, *douts: Value | None) -> Sequence[Value | None]:
        return [None]

    def lower(self, node: Node, b: Builder) -> None:
        (x,), (y,) = node.inputs, node.outputs
        assert x is not None
        constants = [b.constant(np.asarray(v, self.dtype)) for v in (self.scale, self.shift) if v]
        b.take(x, y, *constants)

    def reference(self, x: Array) -> Array:
        column = (1, -1, *[1] * (x.ndim - 2))
        y = x.astype(self.dtype)
        if self.scale:
            y = y * np.reshape(self.scale, column) + np.reshape(self.shift, column)
        return y

    @classmethod
    def examples(cls) -> Iterable[Example]:
        rng = np.random.default_rng(2)
        for n in (1, 7, 16, 17, 33):
            pixels = rng.integers(0, 255, (3, 2, 1, n), np.uint8)
            yield Example(cls(dtype="float64"), pixels)
            yield Example(cls(dtype="float64", scale=(0.5, 2.0), shift=(-1.0, 3.0)), pixels)


def convert(x: Value, dtype: Any) -> Value:
    """An Input of another dtype as float."""
    result: Value = apply(Load(dtype=np.dtype(dtype).name), x)
    return result


def normalize(
    x: Any, mean: Sequence[float], std: Sequence[float], scale: float = 1 / 255, dtype: Any = None
) -> Any:
    """(x * scale - mean) / std for each channel of x (N, C, H, W), of any number type.

    dtype: of the result, by default the model's; outside of a model float32, or a float input's own.
    """
    dtype = dtype or traced_dtype() or (x.dtype if x.dtype.kind == "f" else np.float32)
    dtype = np.dtype(dtype)
    factor = tuple(scale / s for s in std)
    shift = tuple(-m / s for m, s in zip(mean, std, strict=True))
    if isinstance(x, Value) and not isinstance(x.node.op, Input):
        column = (1, -1, *[1] * (x.ndim - 2))
        factors, shifts = (np.reshape(v, column).astype(dtype) for v in (factor, shift))
        return ew.add(ew.mul(x, factors), shifts)
    return apply(Load(dtype=dtype.name, scale=factor, shift=shift), x)
