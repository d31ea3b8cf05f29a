"""Resizing of images and sequences: nearest neighbours and linear interpolation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.graph import Array, Node, Value, apply
from fastnn.layout import CHANNELS_LAST
from fastnn.ops.conv_shape import Pair
from fastnn.ops.join import squeeze, unsqueeze
from fastnn.ops.op import Example, Op, Spec, check_float, int_tuple, register

if TYPE_CHECKING:
    from fastnn.plan.builder import Builder

MODES = {"nearest": (3, 4), "linear": (3,), "bilinear": (4,)}  # and their numbers of dimensions


class Resize(Op):
    """From `size` to `target` rows and columns. steps: input pixels an output pixel advances by."""

    images = True
    size: Pair = (1, 1)
    target: Pair = (1, 1)
    steps: tuple[float, float] = (1.0, 1.0)
    linear: bool = False
    align_corners: bool = False

    def taps(self, d: int) -> tuple[Array, Array, Array]:
        """For each output row (d = 0) or column (1): two inputs, and the part of the second."""
        n, at = self.size[d], np.arange(self.target[d])
        if not self.linear:
            low = np.minimum(np.floor(at * self.steps[d]).astype(np.int64), n - 1)
            return low, low, np.zeros(len(at))
        shift = 0.0 if self.align_corners else 0.5
        place = np.maximum((at + shift) * self.steps[d] - shift, 0.0)
        low = np.minimum(place.astype(np.int64), n - 1)
        return low, np.minimum(low + 1, n - 1), np.where(low < n - 1, place - low, 0.0)

    def matrix(self, d: int) -> Array:
        """The same as a matrix (outputs, inputs)."""
        low, high, part = self.taps(d)
        weights = np.zeros((self.target[d], self.size[d]))
        np.add.at(weights, (np.arange(len(low)), low), 1 - part)
        np.add.at(weights, (np.arange(len(low)), high), part)
        return weights

    def emit(self, b: Builder, kernel: str, x: Value, y: Value) -> None:
        """The step of either direction."""
        tables: dict[str, Any] = {}
        for d, name in enumerate(("row", "col")):
            low, high, part = self.taps(d)
            tables[f"{name}_low"], tables[f"{name}_high"] = b.constant(low), b.constant(high)
            tables[f"{name}_part"] = b.constant(part.astype(b.dtype))
        (ih, iw), (oh, ow) = self.size, self.target
        b.step(
            kernel,
            x=b.channels_last(x),
            y=b.new(y, CHANNELS_LAST),
            **tables,
            **dict(n=x.shape[0], c=x.shape[1], ih=ih, iw=iw, oh=oh, ow=ow),
        )


@register
class Upsample(Resize):
    """(N, C, *size) -> (N, C, *target)."""

    name = "upsample"

    def infer(self, x: Value) -> list[Spec]:
        return [((*x.shape[:2], *self.target), check_float(self.name, x=x))]

    def grad(self, node: Node, *douts: Value | None) -> Sequence[Value | None]:
        return [apply(UpsampleGrad(**vars(self)), douts[0])]

    def lower(self, node: Node, b: Builder) -> None:
        assert node.inputs[0] is not None
        self.emit(b, "upsample_fwd", node.inputs[0], node.outputs[0])

    def reference(self, x: Array) -> Array:
        return np.asarray(np.einsum("ih,jw,nchw->ncij", self.matrix(0), self.matrix(1), x))

    @classmethod
    def examples(cls) -> Iterable[Example]:
        for op, c in _cases(cls):
            yield Example(op, (2, c, *op.size))


@register
class UpsampleGrad(Resize):
    """dx of upsample from dy."""

    name = "upsample_grad"

    def infer(self, dy: Value) -> list[Spec]:
        return [((*dy.shape[:2], *self.size), dy.dtype)]

    def lower(self, node: Node, b: Builder) -> None:
        assert node.inputs[0] is not None
        self.emit(b, "upsample_bwd", node.inputs[0], node.outputs[0])

    def reference(self, dy: Array) -> Array:
        return np.asarray(np.einsum("ih,jw,ncij->nchw", self.matrix(0), self.matrix(1), dy))

    @classmethod
    def examples(cls) -> Iterable[Example]:
        for op, c in _cases(cls):
            yield Example(op, (2, c, *op.target))


def _cases(cls: type[Resize]) -> Iterable[tuple[Resize, int]]:
    for c in (1, 7, 16, 33, 65):
        yield cls(size=(3, 4), target=(6, 8), steps=(0.5, 0.5)), c
        yield cls(size=(3, 4), target=(6, 8), steps=(0.5, 0.5), linear=True), c
    yield cls(size=(5, 4), target=(3, 7), steps=(5 / 3, 4 / 7)), 3
    steps = (4 / 2, 3 / 6)
    yield cls(size=(5, 4), target=(3, 7), steps=steps, linear=True, align_corners=True), 3


def interpolate(
    x: Any,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool = False,
) -> Any:
    """x (N, C, L) or (N, C, H, W) resized to `size`, or by scale_factor (one of the two is given).

    mode: "nearest", "linear" (sequences) or "bilinear" (images). align_corners: the first and last
    elements keep their values, and steps are (n - 1) / (m - 1) instead of n / m. As
    torch.nn.functional.interpolate. Raises ValueError or TypeError naming what does not fit.
    """
    if mode not in MODES:
        raise ValueError(f"interpolate: mode: expected one of {tuple(MODES)}, got {mode!r}")
    if len(x.shape) not in MODES[mode]:
        raise ValueError(
            f"interpolate: x: {mode} expects {' or '.join(map(str, MODES[mode]))} dimensions, "
            f"got shape {tuple(x.shape)}"
        )
    if align_corners and mode == "nearest":
        raise ValueError("interpolate: align_corners: nearest neighbours have no such choice")
    lengths = tuple(x.shape[2:])
    target, steps = _target(lengths, size, scale_factor)
    if align_corners:
        steps = tuple(
            (n - 1) / (m - 1) if m > 1 else 0.0 for n, m in zip(lengths, target, strict=True)
        )
    if len(lengths) == 1:
        image = Upsample(
            size=(1, *lengths),
            target=(1, *target),
            steps=(1.0, *steps),
            linear=mode != "nearest",
            align_corners=align_corners,
        )
        return squeeze(apply(image, unsqueeze(x, 2)), 2)
    return apply(
        Upsample(
            size=lengths,
            target=target,
            steps=steps,
            linear=mode != "nearest",
            align_corners=align_corners,
        ),
        x,
    )


def _target(
    lengths: tuple[int, ...], size: Any, scale_factor: Any
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Output sizes, and input elements per output element."""
    count = len(lengths)
    if (size is None) == (scale_factor is None):
        raise ValueError("interpolate: size, scale_factor: expected one of the two")
    if min(lengths) < 1:
        raise ValueError(f"interpolate: x: nothing to resize in sizes {lengths}")
    if size is not None:
        target = int_tuple("interpolate", "size", size, 1, count)
        return target, tuple(n / m for n, m in zip(lengths, target, strict=True))
    alone = isinstance(scale_factor, (int, float))
    factors = (scale_factor,) * count if alone else tuple(scale_factor)
    if len(factors) != count or not all(f > 0 and math.isfinite(f) for f in factors):
        raise ValueError(f"interpolate: scale_factor: expected {count} > 0, got {scale_factor}")
    target = tuple(math.floor(n * f) for n, f in zip(lengths, factors, strict=True))
    if min(target) < 1:
        raise ValueError(f"interpolate: scale_factor: {scale_factor} leaves nothing of {lengths}")
    return target, tuple(1 / f for f in factors)
