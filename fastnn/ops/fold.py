"""Windows of images as columns of a matrix, and back: PyTorch's unfold and fold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.graph import Array, Node, Value, apply
from fastnn.ops.conv_shape import Pair
from fastnn.ops.op import Example, Op, Spec, check_float, check_ndim, int_tuple, register

if TYPE_CHECKING:
    from fastnn.plan.builder import Builder


class Windows(Op):
    """The geometry that both directions share: `size` of the image and its windows."""

    size: Pair = (1, 1)
    kernel: Pair = (1, 1)
    dilation: Pair = (1, 1)
    padding: Pair = (0, 0)
    stride: Pair = (1, 1)

    @property
    def counts(self) -> tuple[int, ...]:
        """Rows and columns of windows."""
        return tuple(
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, k, d, p, s in zip(
                self.size, self.kernel, self.dilation, self.padding, self.stride, strict=True
            )
        )

    def check(self) -> None:
        """ValueError if no window fits."""
        if min(self.counts) < 1:
            raise ValueError(f"{self.name}: kernel_size: {self.kernel} is larger than the image")

    def emit(self, b: Builder, x: Value, y: Value, planes: int) -> None:
        """The kernel of the op's name."""
        (ih, iw), (oh, ow), (kh, kw) = self.size, self.counts, self.kernel
        b.step(
            self.name,
            x=b.dense(x),
            y=b.new(y),
            **dict(planes=planes, ih=ih, iw=iw, oh=oh, ow=ow, kh=kh, kw=kw),
            **dict(stride_h=self.stride[0], stride_w=self.stride[1]),
            **dict(pad_h=self.padding[0], pad_w=self.padding[1]),
            **dict(dilation_h=self.dilation[0], dilation_w=self.dilation[1]),
        )

    def taps(self) -> Iterable[tuple[int, slice, slice]]:
        """For each tap its number and the rows and columns of the padded image that it meets."""
        (oh, ow), (sh, sw), (dh, dw) = self.counts, self.stride, self.dilation
        for i in range(self.kernel[0] * self.kernel[1]):
            r, s = divmod(i, self.kernel[1])
            rows = slice(r * dh, r * dh + sh * (oh - 1) + 1, sh)
            yield i, rows, slice(s * dw, s * dw + sw * (ow - 1) + 1, sw)


@register
class Im2col(Windows):
    """(N, C, H, W) -> (N, C kH kW, L): the pixel under each tap of each of L windows."""

    name = "im2col"

    def infer(self, x: Value) -> list[Spec]:
        self.check()
        rows = x.shape[1] * self.kernel[0] * self.kernel[1]
        return [((x.shape[0], rows, self.counts[0] * self.counts[1]), check_float(self.name, x=x))]

    def grad(self, node: Node, *douts: Value | None) -> Sequence[Value | None]:
        return [apply(Col2im(**vars(self)), douts[0])]

    def lower(self, node: Node, b: Builder) -> None:
        (x,) = node.inputs
        assert x is not None
        self.emit(b, x, node.outputs[0], x.shape[0] * x.shape[1])

    def reference(self, x: Array) -> Array:
        (ph, pw), (n, c) = self.padding, x.shape[:2]
        wide = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
        y = np.stack([wide[:, :, rows, cols] for _, rows, cols in self.taps()], 2)
        return y.reshape(n, c * self.kernel[0] * self.kernel[1], self.counts[0] * self.counts[1])

    @classmethod
    def examples(cls) -> Iterable[Example]:
        for op in _cases(cls):
            yield Example(op, (2, 3, *op.size))


@register
class Col2im(Windows):
    """(N, C kH kW, L) -> (N, C, H, W): each pixel the sum of the places im2col copies it to."""

    name = "col2im"

    def infer(self, x: Value) -> list[Spec]:
        self.check()
        taps, (oh, ow) = self.kernel[0] * self.kernel[1], self.counts
        if x.shape[1] % taps or x.shape[2] != oh * ow:
            raise ValueError(
                f"{self.name}: x: expected (N, a multiple of {taps}, {oh * ow}), got {x.shape}"
            )
        return [((x.shape[0], x.shape[1] // taps, *self.size), check_float(self.name, x=x))]

    def grad(self, node: Node, *douts: Value | None) -> Sequence[Value | None]:
        return [apply(Im2col(**vars(self)), douts[0])]

    def lower(self, node: Node, b: Builder) -> None:
        (x,), (y,) = node.inputs, node.outputs
        assert x is not None
        self.emit(b, x, y, y.shape[0] * y.shape[1])

    def reference(self, x: Array) -> Array:
        (h, w), (ph, pw) = self.size, self.padding
        taps = self.kernel[0] * self.kernel[1]
        parts = x.reshape(x.shape[0], -1, taps, *self.counts)
        y = np.zeros((x.shape[0], parts.shape[1], h + 2 * ph, w + 2 * pw), x.dtype)
        for i, rows, cols in self.taps():
            y[:, :, rows, cols] += parts[:, :, i]
        return y[:, :, ph : ph + h, pw : pw + w]

    @classmethod
    def examples(cls) -> Iterable[Example]:
        for op in _cases(cls):
            rows = 3 * op.kernel[0] * op.kernel[1]
            yield Example(op, (2, rows, op.counts[0] * op.counts[1]))


def _cases(cls: type[Windows]) -> Iterable[Windows]:
    yield cls(size=(5, 33), kernel=(3, 3), padding=(1, 1))
    yield cls(size=(7, 8), kernel=(2, 3), stride=(2, 3), padding=(1, 0))
    yield cls(size=(7, 8), kernel=(2, 2), dilation=(2, 3), padding=(2, 4), stride=(1, 2))


def _windows(op: str, **given: Any) -> dict[str, Any]:
    """The geometry's attributes from arguments of these names."""
    names = {"kernel_size": ("kernel", 1), "output_size": ("size", 1), "padding": ("padding", 0)}
    pairs = {}
    for name, value in given.items():
        attribute, least = names.get(name, (name, 1))
        pairs[attribute] = int_tuple(op, name, value, least, 2)
    return pairs


def im2col(
    x: Any,
    kernel_size: int | Pair,
    dilation: int | Pair = 1,
    padding: int | Pair = 0,
    stride: int | Pair = 1,
) -> Any:
    """The windows of x (N, C, H, W) as columns, (N, C kH kW, L), as torch.nn.functional.unfold.

    Raises ValueError or TypeError naming the argument that does not fit.
    """
    check_ndim("im2col", "x", x, 4)
    given = dict(kernel_size=kernel_size, dilation=dilation, padding=padding, stride=stride)
    return apply(Im2col(size=tuple(x.shape[2:]), **_windows("im2col", **given)), x)


def col2im(
    x: Any,
    output_size: int | Pair,
    kernel_size: int | Pair,
    dilation: int | Pair = 1,
    padding: int | Pair = 0,
    stride: int | Pair = 1,
) -> Any:
    """Columns x (N, C kH kW, L) summed back to images (N, C, *output_size), as torch's fold."""
    check_ndim("col2im", "x", x, 3)
    given = dict(kernel_size=kernel_size, dilation=dilation, padding=padding, stride=stride)
    return apply(Col2im(**_windows("col2im", output_size=output_size, **given)), x)
