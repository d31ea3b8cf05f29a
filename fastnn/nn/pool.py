"""Pooling layers over sequences (N, C, L) and images (N, C, H, W)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from fastnn import ops
from fastnn.nn.module import Module
from fastnn.ops.op import int_tuple

Size = int | Sequence[int]


class _Pool(Module):
    """Windows of kernel_size every `stride` elements, kernel_size by default."""

    _dims: ClassVar[int]
    _function: ClassVar[Any]

    def __init__(self, kernel_size: Size, stride: Size | None = None) -> None:
        self.kernel_size = self._sizes("kernel_size", kernel_size)
        self.stride = self.kernel_size if stride is None else self._sizes("stride", stride)

    def _sizes(self, name: str, size: Size, least: int = 1) -> tuple[int, ...]:
        return int_tuple(type(self).__name__, name, size, least, self._dims)

    def extra_repr(self) -> str:
        parts = [f"kernel_size={self.kernel_size}", f"stride={self.stride}"]
        parts += [f"{k}={vars(self)[k]}" for k in ("padding", "norm_type") if k in vars(self)]
        return ", ".join(parts)


class _ExtremePool(_Pool):
    """What max and min pooling share."""

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__(kernel_size, stride)
        self.padding = self._sizes("padding", padding, 0)
        self.dilation = self._sizes("dilation", dilation)
        self.ceil_mode = bool(ceil_mode)

    def forward(self, x: Any) -> Any:
        return type(self)._function(
            x, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode
        )


class MaxPool1d(_ExtremePool):
    """The largest of each window of sequences (N, C, L), as torch.nn.MaxPool1d."""

    _dims, _function = 1, staticmethod(ops.max_pool1d)


class MaxPool2d(_ExtremePool):
    """The largest of each window of images (N, C, H, W), as torch.nn.MaxPool2d.

    kernel_size, stride (kernel_size by default), padding (at most half of the kernel) and dilation: an
    int or a pair; ceil_mode: a window that only begins inside counts too. NaN wins, padding never does.
    """

    _dims, _function = 2, staticmethod(ops.max_pool2d)


class MinPool1d(_ExtremePool):
    """The smallest of each window of sequences (N, C, L); arguments as MaxPool1d's."""

    _dims, _function = 1, staticmethod(ops.min_pool1d)


class MinPool2d(_ExtremePool):
    """The smallest of each window of images (N, C, H, W); arguments as MaxPool2d's."""

    _dims, _function = 2, staticmethod(ops.min_pool2d)


class _AvgPool(_Pool):
    """The mean of each window."""

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__(kernel_size, stride)
        self.padding = self._sizes("padding", padding, 0)
        self.ceil_mode, self.count_include_pad = bool(ceil_mode), bool(count_include_pad)

    def forward(self, x: Any) -> Any:
        return type(self)._function(
            x,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
        )


class AvgPool1d(_AvgPool):
    """The mean of each window of sequences (N, C, L), as torch.nn.AvgPool1d."""

    _dims, _function = 1, staticmethod(ops.avg_pool1d)


class AvgPool2d(_AvgPool):
    """The mean of each window of images (N, C, H, W), as torch.nn.AvgPool2d.

    Sizes as MaxPool2d's. count_include_pad: the zeros of the padding count in the mean.
    """

    _dims, _function = 2, staticmethod(ops.avg_pool2d)


class _LPPool(_Pool):
    """(sum of |x|^p)^(1/p) over each window, p = norm_type."""

    def __init__(
        self,
        norm_type: float,
        kernel_size: Size,
        stride: Size | None = None,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__(kernel_size, stride)
        if not norm_type > 0:
            raise ValueError(
                f"{type(self).__name__}: norm_type: expected a number > 0, got {norm_type!r}"
            )
        self.norm_type, self.ceil_mode = float(norm_type), bool(ceil_mode)

    def forward(self, x: Any) -> Any:
        return type(self)._function(
            x, self.norm_type, self.kernel_size, self.stride, self.ceil_mode
        )


class LPPool1d(_LPPool):
    """(sum of |x|^p)^(1/p) over each window of sequences (N, C, L), as torch.nn.LPPool1d."""

    _dims, _function = 1, staticmethod(ops.lp_pool1d)


class LPPool2d(_LPPool):
    """(sum of |x|^p)^(1/p) over each window of images (N, C, H, W), p = norm_type > 0.

    As torch.nn.LPPool2d for even p and for x >= 0; see ops.lp_pool2d.
    """

    _dims, _function = 2, staticmethod(ops.lp_pool2d)


class _AdaptivePool(Module):
    """Windows that cut the input into output_size pieces a dimension; 1 is global pooling."""

    _dims: ClassVar[int]
    _function: ClassVar[Any]

    def __init__(self, output_size: Size) -> None:
        self.output_size = int_tuple(type(self).__name__, "output_size", output_size, 1, self._dims)

    def forward(self, x: Any) -> Any:
        return type(self)._function(x, self.output_size)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveAvgPool1d(_AdaptivePool):
    """Means of output_size windows that cut sequences (N, C, L); 1 is global pooling."""

    _dims, _function = 1, staticmethod(ops.adaptive_avg_pool1d)


class AdaptiveAvgPool2d(_AdaptivePool):
    """Means of windows that cut images (N, C, H, W) into output_size rows and columns.

    1 is global average pooling; the windows are those of torch.nn.AdaptiveAvgPool2d.
    """

    _dims, _function = 2, staticmethod(ops.adaptive_avg_pool2d)


class AdaptiveMaxPool1d(_AdaptivePool):
    """Maxima of output_size windows that cut sequences (N, C, L); 1 is global pooling."""

    _dims, _function = 1, staticmethod(ops.adaptive_max_pool1d)


class AdaptiveMaxPool2d(_AdaptivePool):
    """Maxima of windows that cut images (N, C, H, W) into output_size rows and columns.

    1 is global max pooling; the windows are those of torch.nn.AdaptiveMaxPool2d.
    """

    _dims, _function = 2, staticmethod(ops.adaptive_max_pool2d)
