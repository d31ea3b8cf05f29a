"""Convolution layers over sequences and images, and transposed ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from fastnn import ops
from fastnn.nn.init import fan_in_uniform
from fastnn.nn.layers import positive
from fastnn.nn.module import Module, Parameter, value
from fastnn.ops.op import int_tuple
from fastnn.ops.pad import same_padding

Size = int | Sequence[int]
PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


class _Conv(Module):
    """Arguments, weight and bias that all convolutions have; `_dims` spatial dimensions.

    The weight starts uniform in +-1/sqrt(its elements per output of the forward convolution), the
    bias as well. Raises ValueError or TypeError naming the argument that does not fit.
    """

    _dims: ClassVar[int]
    transposed: ClassVar[bool] = False
    _function: ClassVar[Any]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size,
        dilation: Size,
        groups: int,
        bias: bool,
    ) -> None:
        name = type(self).__name__
        positive(name, in_channels=in_channels, out_channels=out_channels, groups=groups)
        if in_channels % groups or out_channels % groups:
            raise ValueError(
                f"{name}: groups: {groups} does not divide {in_channels} and {out_channels}"
            )
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = self._sizes("kernel_size", kernel_size)
        self.stride = self._sizes("stride", stride)
        self.dilation = self._sizes("dilation", dilation)
        first, second = in_channels, out_channels
        if not self.transposed:
            first, second = second, first
        shape = (first, second // groups, *self.kernel_size)
        fan_in = math.prod(shape[1:])
        # Kernel positions outermost, outputs innermost: as the kernels read it.
        order = (*range(2, 2 + self._dims), 1, 0)
        self.weight = Parameter(fan_in_uniform(shape, fan_in), order=order)
        self.bias = Parameter(fan_in_uniform((out_channels,), fan_in)) if bias else None

    def _sizes(self, name: str, size: Size, least: int = 1) -> tuple[int, ...]:
        return int_tuple(type(self).__name__, name, size, least, self._dims)

    def extra_repr(self) -> str:
        parts = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"]
        parts.append(f"stride={self.stride}")
        zeros, ones = (0,) * self._dims, (1,) * self._dims
        defaults = {"padding": zeros, "output_padding": zeros, "dilation": ones, "groups": 1}
        mine = {k: vars(self)[k] for k in defaults if k in vars(self)}
        parts += [f"{k}={v!r}" for k, v in mine.items() if v != defaults[k]]
        parts += [] if self.bias is not None else ["bias=False"]
        if vars(self).get("padding_mode", "zeros") != "zeros":
            parts.append(f"padding_mode={vars(self)['padding_mode']!r}")
        return ", ".join(parts)


class _Forward(_Conv):
    """Cross-correlation, with padding by numbers or by name."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size | str = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, dilation, groups, bias)
        name = type(self).__name__
        if padding_mode not in PADDING_MODES:
            raise ValueError(
                f"{name}: padding_mode: expected one of {PADDING_MODES}, got {padding_mode!r}"
            )
        if isinstance(padding, str) and padding not in ("same", "valid"):
            raise ValueError(f'{name}: padding: expected "same" or "valid", got {padding!r}')
        if padding == "same" and max(self.stride) > 1:
            raise ValueError(f'{name}: padding: "same" goes with stride 1 only, got {self.stride}')
        self.padding = padding if isinstance(padding, str) else self._sizes("padding", padding, 0)
        self.padding_mode = padding_mode

    def forward(self, x: Any) -> Any:
        padding: Any = self.padding
        if self.padding_mode != "zeros" and padding != "valid":
            x, padding = ops.pad(x, self._sides(), self.padding_mode), 0
        weight, bias = value(self.weight), value(self.bias)
        return type(self)._function(
            x, weight, bias, self.stride, padding, self.dilation, self.groups
        )

    def _sides(self) -> list[int]:
        """The padding as ops.pad takes it: from the last dimension on."""
        if self.padding == "same":
            sides = same_padding(self.kernel_size, self.dilation)
        else:
            sides = [(int(p), int(p)) for p in self.padding]
        return [n for side in reversed(sides) for n in side]


class Conv1d(_Forward):
    """1-D convolution of sequences (N, in_channels, L), as torch.nn.Conv1d.

    weight (out_channels, in_channels/groups, k), bias (out_channels,). padding: an int, "valid" or
    "same"; padding_mode: "zeros", "reflect", "replicate" or "circular".
    """

    _dims = 1
    _function = staticmethod(ops.conv1d)


class Conv2d(_Forward):
    """2-D convolution of images (N, in_channels, H, W), as torch.nn.Conv2d.

    weight (out_channels, in_channels/groups, kH, kW), bias (out_channels,). padding: an int, a pair,
    "valid" or "same"; padding_mode: "zeros", "reflect", "replicate" or "circular".
    """

    _dims = 2
    _function = staticmethod(ops.conv2d)


class _Transposed(_Conv):
    """The transpose of a convolution: from its outputs to its inputs."""

    transposed = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        output_padding: Size = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Size = 1,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, dilation, groups, bias)
        self.padding = self._sizes("padding", padding, 0)
        self.output_padding = self._sizes("output_padding", output_padding, 0)

    def forward(self, x: Any) -> Any:
        return type(self)._function(
            x,
            value(self.weight),
            value(self.bias),
            self.stride,
            self.padding,
            self.output_padding,
            self.groups,
            self.dilation,
        )


class ConvTranspose1d(_Transposed):
    """Transposed 1-D convolution of sequences (N, in_channels, L), as torch.nn.ConvTranspose1d.

    weight (in_channels, out_channels/groups, k), bias (out_channels,). The output is
    (L - 1) stride - 2 padding + dilation (k - 1) + output_padding + 1 long.
    """

    _dims = 1
    _function = staticmethod(ops.conv_transpose1d)


class ConvTranspose2d(_Transposed):
    """Transposed 2-D convolution of images (N, in_channels, H, W), as torch.nn.ConvTranspose2d.

    weight (in_channels, out_channels/groups, kH, kW), bias (out_channels,). The output has
    (H - 1) stride - 2 padding + dilation (kH - 1) + output_padding + 1 rows, columns likewise.
    """

    _dims = 2
    _function = staticmethod(ops.conv_transpose2d)
