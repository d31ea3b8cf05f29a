"""Pooling made of pool2d's ops: sequences, adaptive maxima, powers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastnn.graph import apply
from fastnn.ops import elementwise as ew
from fastnn.ops.conv import Pair, pair
from fastnn.ops.join import squeeze, unsqueeze
from fastnn.ops.op import check_ndim, int_tuple
from fastnn.ops.pool import Pool, adaptive_avg_pool2d, avg_pool2d, max_pool2d, min_pool2d

One = tuple[int]


def _row(op: str, function: Callable[..., Any], x: Any, sizes: dict[str, Any], **rest: Any) -> Any:
    """A 2-D pooling over x (N, C, L) as images of one row; sizes: name -> (value, least)."""
    check_ndim(op, "x", x, 3)
    pairs = {}
    for name, (value, least) in sizes.items():
        if value is not None:
            (n,) = int_tuple(op, name, value, least, 1)
            pairs[name] = (0 if name == "padding" else 1, n)
    return squeeze(function(unsqueeze(x, 2), **pairs, **rest), 2)


def max_pool1d(
    x: Any,
    kernel_size: int | One,
    stride: int | One | None = None,
    padding: int | One = 0,
    dilation: int | One = 1,
    ceil_mode: bool = False,
) -> Any:
    """The largest of each window of x (N, C, L), as torch.nn.functional.max_pool1d."""
    sizes = {"kernel_size": (kernel_size, 1), "stride": (stride, 1), "padding": (padding, 0)}
    sizes["dilation"] = (dilation, 1)
    return _row("max_pool1d", max_pool2d, x, sizes, ceil_mode=ceil_mode)


def min_pool1d(
    x: Any,
    kernel_size: int | One,
    stride: int | One | None = None,
    padding: int | One = 0,
    dilation: int | One = 1,
    ceil_mode: bool = False,
) -> Any:
    """The smallest of each window of x (N, C, L); otherwise as max_pool1d."""
    sizes = {"kernel_size": (kernel_size, 1), "stride": (stride, 1), "padding": (padding, 0)}
    sizes["dilation"] = (dilation, 1)
    return _row("min_pool1d", min_pool2d, x, sizes, ceil_mode=ceil_mode)


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


def adaptive_max_pool2d(x: Any, output_size: int | Pair) -> Any:
    """Maxima of windows that cut x (N, C, H, W) into output_size rows and columns.

    The windows are adaptive_avg_pool2d's; 1 is global max pooling.
    """
    size = pair("adaptive_max_pool2d", "output_size", output_size, 1)
    return apply(Pool(mode="max", adaptive=size), x)[0]


def adaptive_max_pool1d(x: Any, output_size: int | One) -> Any:
    """Maxima of output_size windows that cut x (N, C, L); 1 is global max pooling."""
    sizes = {"output_size": (output_size, 1)}
    return _row("adaptive_max_pool1d", adaptive_max_pool2d, x, sizes)


def lp_pool2d(
    x: Any,
    norm_type: float,
    kernel_size: int | Pair,
    stride: int | Pair | None = None,
    ceil_mode: bool = False,
) -> Any:
    """(sum of |x|^p)^(1/p) over each window of x (N, C, H, W) with p = norm_type > 0.

    As torch.nn.functional.lp_pool2d, which takes x^p without the bars: the same for even p, and for
    x >= 0. Where a window is all zero, so is the gradient.
    """
    if not norm_type > 0:
        raise ValueError(f"lp_pool2d: norm_type: expected a number > 0, got {norm_type!r}")
    kernel = pair("lp_pool2d", "kernel_size", kernel_size, 1)
    powers = ew.square(x) if norm_type == 2 else ew.pow(ew.abs(x), float(norm_type))
    means = avg_pool2d(powers, kernel, stride, 0, ceil_mode)
    sums = ew.mul(ew.relu(means), float(kernel[0] * kernel[1]))
    return ew.sqrt(sums) if norm_type == 2 else ew.pow(sums, 1.0 / norm_type)


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
