"""Power averages over windows, made of elementwise ops and avg_pool2d."""

from __future__ import annotations

from typing import Any

from fastnn.ops import elementwise as ew
from fastnn.ops.conv_shape import Pair, pair
from fastnn.ops.pool import avg_pool2d


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
