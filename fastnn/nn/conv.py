"""Convolution layers."""

from __future__ import annotations

from typing import Any

from fastnn import ops
from fastnn.nn.init import fan_in_uniform
from fastnn.nn.layers import positive
from fastnn.nn.module import Module, Parameter, value
from fastnn.ops.conv import Pair, pair
from fastnn.ops.conv_algorithm import WEIGHT_ORDER


class Conv2d(Module):
    """2-D convolution of images (N, in_channels, H, W), as torch.nn.Conv2d.

    weight (out_channels, in_channels/groups, kH, kW) and bias (out_channels,) start uniform in
    +-1/sqrt(in_channels/groups * kH * kW). Raises ValueError for sizes that do not fit.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Pair,
        stride: int | Pair = 1,
        padding: int | Pair = 0,
        dilation: int | Pair = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        positive("Conv2d", in_channels=in_channels, out_channels=out_channels, groups=groups)
        if in_channels % groups or out_channels % groups:
            raise ValueError(
                f"Conv2d: groups: {groups} does not divide {in_channels} and {out_channels}"
            )
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = pair("Conv2d", "kernel_size", kernel_size, 1)
        self.stride = pair("Conv2d", "stride", stride, 1)
        self.padding = pair("Conv2d", "padding", padding, 0)
        self.dilation = pair("Conv2d", "dilation", dilation, 1)
        shape = (out_channels, in_channels // groups, *self.kernel_size)
        fan_in = shape[1] * shape[2] * shape[3]
        self.weight = Parameter(fan_in_uniform(shape, fan_in), order=WEIGHT_ORDER)
        self.bias = Parameter(fan_in_uniform((out_channels,), fan_in)) if bias else None

    def forward(self, x: Any) -> Any:
        return ops.conv2d(
            x,
            value(self.weight),
            value(self.bias),
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
        )

    def extra_repr(self) -> str:
        parts = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"]
        parts.append(f"stride={self.stride}")
        defaults = {"padding": (0, 0), "dilation": (1, 1), "groups": 1}
        parts += [f"{k}={vars(self)[k]}" for k, v in defaults.items() if vars(self)[k] != v]
        return ", ".join(parts + ([] if self.bias is not None else ["bias=False"]))
