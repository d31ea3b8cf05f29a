"""Pooling of images: max, min, average and adaptive average, with PyTorch's padding and ceil mode."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.graph import Array, Node, Shape, Value, apply
from fastnn.layout import CHANNELS_LAST
from fastnn.ops.conv_shape import Pair, pair
from fastnn.ops.op import Example, Op, Spec, check_float, check_ndim, register

if TYPE_CHECKING:
    from fastnn.plan.builder import Builder

MODES = ("max", "min", "avg")  # enum fnn_pool


class PoolBase(Op):
    """The geometry that forward and backward share."""

    images = True
    mode: str = "max"
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    ceil_mode: bool = False
    count_include_pad: bool = True
    adaptive: Pair | None = None  # the output size

    def fields(self, x: Shape, y: Shape, lanes: int = 0) -> dict[str, int]:
        """The kernels' integers. Samples as lanes are channels, and channels are samples."""
        n, c = (x[0] * x[1] // lanes, lanes) if lanes else x[:2]
        return {
            **dict(n=n, c=c, ih=x[2], iw=x[3], oh=y[2], ow=y[3]),
            **dict(kh=self.kernel[0], kw=self.kernel[1]),
            **dict(stride_h=self.stride[0], stride_w=self.stride[1]),
            **dict(pad_h=self.padding[0], pad_w=self.padding[1]),
            **dict(dilation_h=self.dilation[0], dilation_w=self.dilation[1]),
            "mode": MODES.index(self.mode),
            "adaptive": int(self.adaptive is not None),
            "count_include_pad": int(self.count_include_pad),
        }

    @property
    def halves(self) -> bool:
        plain = self.padding == (0, 0) and self.dilation == (1, 1) and self.adaptive is None
        windows = self.kernel == self.stride == (2, 2) and not self.ceil_mode
        return self.mode == "max" and plain and windows

    def output_size(self, size: Pair) -> Pair:
        """Rows and columns of the output; the last window must start inside the image or left pad."""
        if self.adaptive is not None:
            return self.adaptive
        h, w = (self._length(size[i], i) for i in (0, 1))
        return h, w

    def _length(self, n: int, i: int) -> int:
        pad, step = self.padding[i], self.stride[i]
        span = n + 2 * pad - self.dilation[i] * (self.kernel[i] - 1) - 1
        if not self.ceil_mode:
            return span // step + 1
        length = -(-span // step) + 1
        return length - 1 if (length - 1) * step >= n + pad else length

    def windows(self, size: Pair) -> Iterator[tuple[int, int, list[int], list[int], int]]:
        """For each output: its row and column, the input rows and columns it covers, the divisor."""
        oh, ow = self.output_size(size)
        for i in range(oh):
            for j in range(ow):
                rows, row_span = self._window(i, size[0], oh, 0)
                cols, col_span = self._window(j, size[1], ow, 1)
                yield i, j, rows, cols, row_span * col_span

    def _window(self, i: int, n: int, outputs: int, d: int) -> tuple[list[int], int]:
        if self.adaptive is not None:
            inside = list(range(i * n // outputs, -(-(i + 1) * n // outputs)))
            return inside, len(inside)
        start = i * self.stride[d] - self.padding[d]
        cells = [start + t * self.dilation[d] for t in range(self.kernel[d])]
        inside = [t for t in cells if 0 <= t < n]
        spanned = len([t for t in cells if t < n + self.padding[d]])
        return inside, spanned if self.count_include_pad else len(inside)


@register
class Pool(PoolBase):
    """y, and for max and min the flat int32 position of the chosen element of each window."""

    name = "pool"
    shrinks = True

    def infer(self, x: Value) -> list[Spec]:
        dtype = check_float(f"{self.mode}_pool2d", x=x)
        check_ndim(f"{self.mode}_pool2d", "x", x, 4)
        h, w = x.shape[2:]
        size = self.output_size((h, w))
        if min(size) < 1 or min(h, w) < 1:
            raise ValueError(f"{self.mode}_pool2d: x: {x.shape} is smaller than the window")
        spec: Spec = ((*x.shape[:2], *size), dtype)
        return [spec] if self.mode == "avg" else [spec, (spec[0], np.int32)]

    def grad(self, node: Node, *douts: Value | None) -> Sequence[Value | None]:
        (x,) = node.inputs
        assert x is not None
        op = PoolGrad(**vars(self), size=x.shape[2:])
        return [apply(op, douts[0], *node.outputs[1:])]

    def lower(self, node: Node, b: Builder) -> None:
        (x,), (y, *rest) = node.inputs, node.outputs
        assert x is not None
        lanes = b.vector if b.in_lanes(x) else 0
        new = b.new_lanes if lanes else partial(b.new, order=CHANNELS_LAST)
        source, table = (b.lanes(x), None) if lanes else b.scaled(x)
        b.step(
            "pool_fwd",
            x=source,
            table=table,
            y=new(y),
            idx=new(rest[0]) if rest and b.is_used(rest[0]) else None,
            act=0,
            **self.fields(x.shape, y.shape, lanes),
        )

    def scales(self, node: Node, value: Value, b: Any) -> bool:
        return self.mode == "max"

    def reference(self, x: Array) -> Any:
        size = x.shape[2:]
        y = np.zeros((*x.shape[:2], *self.output_size(size)), x.dtype)
        idx = np.zeros(y.shape, np.int32)
        for i, j, rows, cols, divisor in self.windows(size):
            window = x[:, :, rows][:, :, :, cols].reshape(*x.shape[:2], -1)
            if self.mode == "avg":
                y[:, :, i, j] = window.sum(-1) / divisor
                continue
            best = window.argmax(-1) if self.mode == "max" else window.argmin(-1)
            y[:, :, i, j] = np.take_along_axis(window, best[..., None], -1)[..., 0]
            flat = np.add.outer(np.asarray(rows) * size[1], cols).ravel()
            idx[:, :, i, j] = flat[best]
        return y if self.mode == "avg" else (y, idx)

    @classmethod
    def examples(cls) -> Iterable[Example]:
        for op, x in _cases(cls):
            yield Example(op, x)


@register
class PoolGrad(PoolBase):
    """dx of a pooling from dy, the positions (max, min), and y if a ReLU stood before it."""

    name = "pool_grad"
    size: Pair = (1, 1)

    def infer(self, dy: Value, idx: Value | None = None, saved: Value | None = None) -> list[Spec]:
        return [((*dy.shape[:2], *self.size), dy.dtype)]

    def lower(self, node: Node, b: Builder) -> None:
        dy, idx, saved = (*node.inputs, None, None)[:3]
        (dx,) = node.outputs
        assert dy is not None
        lanes = b.vector if (b.meets_lanes(dx) if idx is None else b.in_lanes(idx)) else 0
        reader = b.only_reader(dx)
        if self.halves and reader is not None and reader.op.spreads(reader, b, lanes > 0):
            b.postpone(node)
            return
        place = b.lanes if lanes else b.channels_last
        b.step(
            "pool_bwd",
            dy=place(dy),
            idx=None if idx is None else place(idx),
            saved=None if saved is None else place(saved),
            dx=b.new_lanes(dx) if lanes else b.new(dx, CHANNELS_LAST),
            **self.fields(dx.shape, dy.shape, lanes),
        )

    def reference(self, dy: Array, idx: Array | None = None, saved: Array | None = None) -> Array:
        if saved is not None:
            dy = dy * (saved > 0)
        dx = np.zeros((*dy.shape[:2], self.size[0] * self.size[1]), dy.dtype)
        n, c = np.indices(dy.shape[:2])
        for i, j, rows, cols, divisor in self.windows(self.size):
            if idx is not None:
                np.add.at(dx, (n, c, idx[:, :, i, j]), dy[:, :, i, j])
            else:
                flat = np.add.outer(np.asarray(rows, int) * self.size[1], cols).ravel()
                dx[:, :, flat.astype(int)] += dy[:, :, i, j, None] / divisor
        return dx.reshape(*dy.shape[:2], *self.size)

    @classmethod
    def examples(cls) -> Iterable[Example]:
        rng = np.random.default_rng(1)
        for op, x in _cases(Pool):
            assert isinstance(op, Pool)
            y = op.reference(rng.standard_normal(x))
            dy, idx = (y.shape, None) if op.mode == "avg" else (y[0].shape, y[1])
            yield Example(cls(**vars(op), size=x[2:]), dy, idx)
            if op.mode == "max":
                yield Example(cls(**vars(op), size=x[2:]), dy, idx, dy)


def _cases(cls: type[Pool]) -> Iterable[tuple[Pool, Shape]]:
    for n in (1, 7, 15, 16, 17, 31, 32, 33):
        yield cls(kernel=(2, 2), stride=(2, 2)), (2, n, 4, 6)
    for mode in MODES:
        yield cls(mode=mode, kernel=(3, 2), stride=(2, 2), padding=(1, 1)), (2, 5, 7, 8)
        yield cls(mode=mode, kernel=(3, 3), stride=(1, 1), padding=(1, 1)), (1, 17, 5, 5)
        yield cls(mode=mode, kernel=(3, 3), stride=(2, 2), ceil_mode=True), (2, 3, 8, 8)
        args = {"kernel": (2, 3), "stride": (3, 2), "padding": (1, 1), "ceil_mode": True}
        yield cls(mode=mode, **args), (2, 3, 7, 8)
    yield cls(kernel=(2, 2), stride=(1, 2), dilation=(2, 3)), (2, 3, 7, 8)
    yield cls(mode="avg", kernel=(3, 3), padding=(1, 1), count_include_pad=False), (2, 3, 5, 5)
    for size in ((1, 1), (2, 3), (7, 7)):
        yield cls(mode="avg", adaptive=size), (2, 5, 7, 8)
    yield cls(mode="max", adaptive=(2, 3)), (2, 17, 7, 8)


def _pool(
    mode: str,
    x: Any,
    kernel_size: int | Pair,
    stride: int | Pair | None,
    padding: int | Pair,
    dilation: int | Pair = 1,
    **attrs: Any,
) -> Any:
    name = f"{mode}_pool2d"
    kernel = pair(name, "kernel_size", kernel_size, 1)
    pads = pair(name, "padding", padding, 0)
    if any(2 * p > k for p, k in zip(pads, kernel, strict=True)):
        raise ValueError(f"{name}: padding: expected at most half of kernel_size {kernel}: {pads}")
    op = Pool(
        mode=mode,
        kernel=kernel,
        stride=kernel if stride is None else pair(name, "stride", stride, 1),
        padding=pads,
        dilation=pair(name, "dilation", dilation, 1),
        **attrs,
    )
    y = apply(op, x)
    return y if mode == "avg" else y[0]


def max_pool2d(
    x: Any,
    kernel_size: int | Pair,
    stride: int | Pair | None = None,
    padding: int | Pair = 0,
    dilation: int | Pair = 1,
    ceil_mode: bool = False,
) -> Any:
    """The largest of each window, as torch.nn.functional.max_pool2d; NaN wins, padding never does.

    x (N, C, H, W); stride is kernel_size by default. ValueError names what does not fit.
    """
    return _pool("max", x, kernel_size, stride, padding, dilation, ceil_mode=ceil_mode)


def min_pool2d(
    x: Any,
    kernel_size: int | Pair,
    stride: int | Pair | None = None,
    padding: int | Pair = 0,
    dilation: int | Pair = 1,
    ceil_mode: bool = False,
) -> Any:
    """The smallest of each window; otherwise as max_pool2d."""
    return _pool("min", x, kernel_size, stride, padding, dilation, ceil_mode=ceil_mode)


def avg_pool2d(
    x: Any,
    kernel_size: int | Pair,
    stride: int | Pair | None = None,
    padding: int | Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Any:
    """The mean of each window, as torch.nn.functional.avg_pool2d; x (N, C, H, W)."""
    return _pool(
        "avg",
        x,
        kernel_size,
        stride,
        padding,
        ceil_mode=ceil_mode,
        count_include_pad=count_include_pad,
    )


def adaptive_avg_pool2d(x: Any, output_size: int | Pair) -> Any:
    """Means of windows that cut x (N, C, H, W) into output_size rows and columns.

    Window i spans floor(i H / h) to ceil((i + 1) H / h), as torch.nn.functional's. (1, 1) is global
    average pooling.
    """
    return _adaptive("avg", x, output_size)


def adaptive_max_pool2d(x: Any, output_size: int | Pair) -> Any:
    """Maxima of windows that cut x (N, C, H, W) into output_size rows and columns.

    The windows are adaptive_avg_pool2d's; (1, 1) is global max pooling.
    """
    return _adaptive("max", x, output_size)[0]


def _adaptive(mode: str, x: Any, output_size: int | Pair) -> Any:
    size = pair(f"adaptive_{mode}_pool2d", "output_size", output_size, 1)
    return apply(Pool(mode=mode, adaptive=size), x)
