"""What the three passes of a convolution share: its geometry."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

import numpy as np

from fastnn.graph import Array, Shape
from fastnn.ops.op import Op, int_tuple

Pair = tuple[int, int]
C = TypeVar("C", bound="Conv")


class Conv(Op):
    """What the three passes share: the geometry."""

    images = True
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    @property
    def geometry(self) -> dict[str, Any]:
        """The attributes that all three passes have."""
        names = ("stride", "padding", "dilation", "groups")
        return {name: getattr(self, name) for name in names}

    def output_size(self, x: Shape, w: Shape) -> Pair:
        """Height and width of the output: floor((i + 2p - d(k - 1) - 1) / s) + 1."""
        h, v = (
            (x[2 + i] + 2 * self.padding[i] - self.dilation[i] * (w[2 + i] - 1) - 1)
            // self.stride[i]
            + 1
            for i in (0, 1)
        )
        return h, v

    def fields(self, x: Shape, w: Shape, y: Shape) -> dict[str, int]:
        """The kernels' integers, from the logical shapes of input, weight and output."""
        (n, c, ih, iw), (k, _, kh, kw), (oh, ow) = x, w, y[2:]
        return {
            **dict(n=n, c=c, ih=ih, iw=iw, k=k, oh=oh, ow=ow),
            **dict(kh=kh, kw=kw, groups=self.groups),
            **dict(pad_h=self.padding[0], pad_w=self.padding[1]),
            **dict(stride_h=self.stride[0], stride_w=self.stride[1]),
            **dict(dilation_h=self.dilation[0], dilation_w=self.dilation[1]),
        }

    def macs(self, w: Shape, y: Shape) -> int:
        """Multiply-adds, those with padding counted."""
        return int(np.prod(y, dtype=np.int64)) * w[1] * w[2] * w[3]


def padded(x: Array, padding: Pair) -> Array:
    """Zeros around the images."""
    (ph, pw) = padding
    return np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))


def taps(op: Conv, x: Array, w: Shape, oh: int, ow: int) -> Iterable[Any]:
    """For each group and kernel position: the window of padded x it meets, and its output channels."""
    (sh, sw), (dh, dw) = op.stride, op.dilation
    cg, kg = w[1], w[0] // op.groups
    for g in range(op.groups):
        outs = slice(g * kg, (g + 1) * kg)
        for r in range(w[2]):
            for s in range(w[3]):
                rows = slice(r * dh, r * dh + sh * (oh - 1) + 1, sh)
                cols = slice(s * dw, s * dw + sw * (ow - 1) + 1, sw)
                yield x[:, g * cg : (g + 1) * cg, rows, cols], (r, s), g, outs


def cases(cls: type[C]) -> Iterable[tuple[C, Shape, Shape]]:
    """Geometries and tails: op, shape of x, shape of w."""
    for n in (1, 7, 15, 16, 17, 31, 32, 33):
        yield cls(padding=(1, 1)), (2, n, 4, 5), (3, n, 3, 3)
        yield cls(padding=(1, 1)), (2, 3, 4, 5), (n, 3, 3, 3)
        yield cls(), (1, 2, 2, n + 1), (3, 2, 2, 2)
    yield cls(stride=(2, 2), padding=(1, 1)), (2, 3, 7, 8), (5, 3, 3, 3)
    yield cls(stride=(3, 2), padding=(2, 0)), (2, 3, 9, 8), (5, 3, 5, 1)
    yield cls(dilation=(2, 3), padding=(2, 3)), (2, 3, 7, 8), (5, 3, 3, 3)
    yield cls(stride=(2, 1), dilation=(1, 2)), (1, 2, 7, 9), (4, 2, 2, 3)
    yield cls(stride=(3, 3)), (2, 4, 7, 7), (6, 4, 1, 1)
    for n in (1, 17):
        yield cls(), (2, n, 4, 5), (3, n, 1, 1)
        yield cls(), (2, 3, 4, 5), (n, 3, 1, 1)
    yield cls(groups=2, padding=(1, 1)), (2, 6, 5, 5), (4, 3, 3, 3)
    yield cls(groups=17, padding=(1, 1)), (2, 17, 5, 5), (17, 1, 3, 3)
    yield cls(groups=3, stride=(2, 2), padding=(1, 1)), (2, 3, 6, 6), (6, 1, 3, 3)
    yield cls(padding=(3, 3), stride=(2, 2)), (1, 3, 11, 12), (4, 3, 7, 7)


def pair(op: str, name: str, value: Any, least: int) -> Pair:
    """An int or a pair of ints of at least `least`, as a pair; ValueError or TypeError otherwise."""
    first, second = int_tuple(op, name, value, least, 2)
    return first, second
