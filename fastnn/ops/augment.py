"""Random changes of images and inputs: one kernel call each, drawn from a counter-based generator.

Every op draws eight words of Philox4x32-10 (Salmon et al., 2011) for each sample, from (seed, step,
key, sample's place in the batch): the same numbers at any thread count. fastnn.data.augment has the
modules that use them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.graph import Array, Node, Value
from fastnn.layout import CHANNELS_LAST
from fastnn.ops.op import Example, Op, Spec, check_float, check_ndim, register

if TYPE_CHECKING:
    from fastnn.plan.builder import Builder

BORDERS = ("constant", "edge", "reflect")  # codes of the warp kernel
MAX_SIDE = 1 << 15  # pixels; places in a turned image are 32-bit


def _given(**numbers: Any) -> dict[str, Any]:
    """Numbers of a kernel call, a line at a time."""
    return numbers


@register
class Warp(Op):
    """Flip, window and rotation of images (N, C, H, W) in one gather, see kernels/body/warp.c.

    size: of the output, () for the input's. rows, columns: lowest and highest offset of the window.
    angles: lowest and highest, in radians.
    """

    name = "warp"
    images = True
    key_number: int = 0
    size: tuple[int, ...] = ()
    rows: tuple[int, int] = (0, 0)
    columns: tuple[int, int] = (0, 0)
    angles: tuple[float, float] = (0.0, 0.0)
    hflip: float = 0.0
    vflip: float = 0.0
    bilinear: bool = False
    border: str = "constant"
    fill: float = 0.0

    def infer(self, x: Value) -> list[Spec]:
        check_ndim(self.name, "x", x, 4)
        if max(x.shape[2:]) > MAX_SIDE:
            raise ValueError(f"warp: x: expected sides of at most {MAX_SIDE}, got {x.shape}")
        return [((*x.shape[:2], *(self.size or x.shape[2:])), check_float(self.name, x=x))]

    def lower(self, node: Node, b: Builder) -> None:
        (x,), (y,) = node.inputs, node.outputs
        assert x is not None
        n, c, h, w = x.shape
        b.step(
            "warp",
            x=b.channels_last(x),
            hyper=b.hyper(),
            y=b.new(y, CHANNELS_LAST),
            **_given(n=n, c=c, ih=h, iw=w, oh=y.shape[2], ow=y.shape[3], key=self.key_number),
            **_given(row_lo=self.rows[0], row_hi=self.rows[1]),
            **_given(column_lo=self.columns[0], column_hi=self.columns[1]),
            **_given(angle_lo=self.angles[0], angle_hi=self.angles[1]),
            **_given(hflip=self.hflip, vflip=self.vflip, fill=self.fill),
            **_given(bilinear=int(self.bilinear), border=BORDERS.index(self.border)),
        )

    def reference(self, x: Array) -> Array:
        """Where nothing is left to chance and nothing is turned."""
        (h, w), (row, column) = self.size or x.shape[2:], (self.rows[0], self.columns[0])
        far = max(abs(row), abs(column)) + max(h, w)
        around = ((0, 0), (0, 0), (far, far), (far, far))
        if self.border == "constant":
            x = np.pad(x, around, constant_values=self.fill)
        else:
            x = np.pad(x, around, mode=self.border)  # type: ignore[call-overload]
        y = x[:, :, far + row : far + row + h, far + column : far + column + w]
        y = y[:, :, :, ::-1] if self.hflip else y
        return y[:, :, ::-1] if self.vflip else y

    @classmethod
    def examples(cls) -> Iterable[Example]:
        yield Example(cls(hflip=1.0), (3, 1, 4, 17))
        yield Example(cls(vflip=1.0, hflip=1.0), (2, 3, 5, 4))
        moved = dict(size=(6, 3), rows=(-2, -2), columns=(3, 3))
        for border in BORDERS:
            yield Example(cls(border=border, fill=2.0, hflip=1.0, **moved), (2, 2, 5, 4))
        yield Example(cls(rows=(9, 9), columns=(-9, -9), fill=0.5), (2, 1, 4, 4))


@register
class Erase(Op):
    """With probability p, a rectangle of each image (N, C, H, W) becomes `value`."""

    name = "erase"
    images = True
    key_number: int = 0
    p: float = 0.5
    area: tuple[float, float] = (0.02, 0.33)
    ratio: tuple[float, float] = (0.3, 3.3)
    side: int = 0
    value: float = 0.0

    def infer(self, x: Value) -> list[Spec]:
        check_ndim(self.name, "x", x, 4)
        return [(x.shape, check_float(self.name, x=x))]

    def lower(self, node: Node, b: Builder) -> None:
        (x,), (y,) = node.inputs, node.outputs
        assert x is not None
        n, c, h, w = x.shape
        b.step(
            "erase",
            x=b.channels_last(x),
            hyper=b.hyper(),
            y=b.new(y, CHANNELS_LAST),
            **_given(n=n, c=c, h=h, w=w, key=self.key_number, size=self.side, p=self.p),
            **_given(area_lo=self.area[0], area_hi=self.area[1]),
            **_given(ratio_lo=self.ratio[0], ratio_hi=self.ratio[1], value=self.value),
        )

    def reference(self, x: Array) -> Array:
        """Where the rectangle is nothing or all."""
        return x if self.p == 0 else np.full_like(x, self.value)

    @classmethod
    def examples(cls) -> Iterable[Example]:
        yield Example(cls(p=0.0), (2, 3, 4, 5))
        yield Example(cls(p=1.0, area=(1.0, 1.0), ratio=(1.0, 1.0), value=0.25), (2, 3, 4, 4))


class _Flat(Op):
    """An op on each sample's numbers, whatever their order."""

    key_number: int = 0

    def infer(self, x: Value) -> list[Spec]:
        return [(x.shape, check_float(self.name, x=x))]

    def numbers(self, x: Value) -> dict[str, Any]:
        """The kernel's numbers."""
        raise NotImplementedError

    def lower(self, node: Node, b: Builder) -> None:
        (x,), (y,) = node.inputs, node.outputs
        assert x is not None
        order = b.ref(x).order
        ref = b.dense(x, order if order[:1] == (0,) else None)
        out = b.new(y, ref.order)
        b.step(self.name, x=ref, hyper=b.hyper(), y=out, **self.numbers(x))


@register
class Jitter(_Flat):
    """contrast * (brightness * x - m) + m, both factors drawn for each sample, m its mean after the
    first."""

    name = "jitter"
    brightness: tuple[float, float] = (1.0, 1.0)
    contrast: tuple[float, float] = (1.0, 1.0)

    def numbers(self, x: Value) -> dict[str, Any]:
        (dark, bright), (flat, steep) = self.brightness, self.contrast
        n = x.shape[0] if x.shape else 1
        sizes = dict(n=n, size=x.size // max(1, n), key=self.key_number)
        return dict(
            **sizes, brightness_lo=dark, brightness_hi=bright, contrast_lo=flat, contrast_hi=steep
        )

    def reference(self, x: Array) -> Array:
        x = x * self.brightness[0]
        middle = x.mean(tuple(range(1, x.ndim)), keepdims=True)
        result: Array = self.contrast[0] * (x - middle) + middle
        return result

    @classmethod
    def examples(cls) -> Iterable[Example]:
        for shape in ((1, 1), (2, 3, 4, 5), (5, 33)):
            yield Example(cls(brightness=(1.5, 1.5), contrast=(0.25, 0.25)), shape)


@register
class Noise(_Flat):
    """x + mean + sigma * a normal number for each element (Box and Muller, 1958)."""

    name = "noise"
    mean: float = 0.0
    sigma: float = 0.1

    def grad(self, node: Node, *douts: Value | None) -> Sequence[Value | None]:
        return [douts[0]]

    def numbers(self, x: Value) -> dict[str, Any]:
        return dict(n=x.size, key=self.key_number, mean=self.mean, sigma=self.sigma)

    def reference(self, x: Array) -> Array:
        return x + self.mean

    @classmethod
    def examples(cls) -> Iterable[Example]:
        for shape in ((), (7,), (2, 3, 65)):
            yield Example(cls(mean=0.5, sigma=0.0), shape)


@register
class MixShare(Op):
    """One beta(alpha, alpha) number for the batch, of x's dtype: mixup's lambda."""

    name = "mix_share"
    key_number: int = 0
    alpha: float = 0.2

    def infer(self, x: Value) -> list[Spec]:
        return [((), check_float(self.name, x=x))]

    def grad(self, node: Node, *douts: Value | None) -> Sequence[Value | None]:
        return [None]

    def lower(self, node: Node, b: Builder) -> None:
        out = b.new(node.outputs[0])
        b.step("mix_share", hyper=b.hyper(), y=out, key=self.key_number, alpha=self.alpha)

    @classmethod
    def examples(cls) -> Iterable[Example]:
        return ()  # random: tests/data/test_augment.py states its properties
