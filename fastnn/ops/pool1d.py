"""Pooling over sequences: the 2-D poolings over images of one row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastnn.ops.conv1d import One
from fastnn.ops.join import squeeze, unsqueeze
from fastnn.ops.lp_pool import lp_pool2d
from fastnn.ops.op import check_ndim, int_tuple
from fastnn.ops.pool import (
    adaptive_avg_pool2d,
    adaptive_max_pool2d,
    avg_pool2d,
    max_pool2d,
    min_pool2d,
)


def _row(op: str, function: Callable[..., Any], x: Any, sizes: dict[str, Any], **rest: Any) -> Any:
    """A 2-D pooling over x (N, C, L) as images of one row; sizes: name -> (value, least)."""
    check_ndim(op, "x", x, 3)
    pairs = {}
    for name, (value, least) in sizes.items():
        if value is not None:
            (n,) = int_tuple(op, name, value, least, 1)
            pairs[name] = (0 if name == "padding" else 1, n)
    return squeeze(function(unsqueeze(x, 2), **pairs, **rest), 2)


def _extreme(
    mode: str,
    x: Any,
    kernel_size: int | One,
    stride: int | One | None,
    padding: int | One,
    dilation: int | One,
    ceil_mode: bool,
) -> Any:
    sizes = {"kernel_size": (kernel_size, 1), "stride": (stride, 1)}
    sizes |= {"padding": (padding, 0), "dilation": (dilation, 1)}
    function = max_pool2d if mode == "max" else min_pool2d
    return _row(f"{mode}_pool1d", function, x, sizes, ceil_mode=ceil_mode)


def max_pool1d(
    x: Any,
    kernel_size: int | One,
    stride: int | One | None = None,
    padding: int | One = 0,
    dilation: int | One = 1,
    ceil_mode: bool = False,
) -> Any:
    """The largest of each window of x (N, C, L), as torch.nn.functional.max_pool1d."""
    return _extreme("max", x, kernel_size, stride, padding, dilation, ceil_mode)


def min_pool1d(
    x: Any,
    kernel_size: int | One,
    stride: int | One | None = None,
    padding: int | One = 0,
    dilation: int | One = 1,
    ceil_mode: bool = False,
) -> Any:
    """The smallest of each window of x (N, C, L); otherwise as max_pool1d."""
    return _extreme("min", x, kernel_size, stride, padding, dilation, ceil_mode)


def avg_pool1d(
    x: Any,
    kernel_size: int | One,
    stride: int | One | None = None,
    padding: int | One = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Any:
    """The mean of each window of x (N, C, L), as torch.nn.functional.avg_pool1d."""
    sizes = {"kernel_size": (kernel_size, 1), "stride": (stride, 1), "padding": (padding, 0)}
    rest = {"ceil_mode": ceil_mode, "count_include_pad": count_include_pad}
    return _row("avg_pool1d", avg_pool2d, x, sizes, **rest)


def adaptive_avg_pool1d(x: Any, output_size: int | One) -> Any:
    """Means of output_size windows that cut x (N, C, L); 1 is global average pooling."""
    sizes = {"output_size": (output_size, 1)}
    return _row("adaptive_avg_pool1d", adaptive_avg_pool2d, x, sizes)


def adaptive_max_pool1d(x: Any, output_size: int | One) -> Any:
    """Maxima of output_size windows that cut x (N, C, L); 1 is global max pooling."""
    sizes = {"output_size": (output_size, 1)}
    return _row("adaptive_max_pool1d", adaptive_max_pool2d, x, sizes)


def lp_pool1d(
    x: Any,
    norm_type: float,
    kernel_size: int | One,
    stride: int | One | None = None,
    ceil_mode: bool = False,
) -> Any:
    """(sum of |x|^p)^(1/p) over each window of x (N, C, L); otherwise as lp_pool2d."""
    sizes = {"kernel_size": (kernel_size, 1), "stride": (stride, 1)}
    rest = {"norm_type": norm_type, "ceil_mode": ceil_mode}
    return _row("lp_pool1d", lp_pool2d, x, sizes, **rest)
