"""Convolution over sequences: conv2d over images of one row."""

from __future__ import annotations

from typing import Any

from fastnn.ops.conv import conv2d
from fastnn.ops.join import squeeze, unsqueeze
from fastnn.ops.op import check_ndim, int_tuple
from fastnn.ops.pad import named_padding

One = tuple[int]


def conv1d(
    x: Any,
    w: Any,
    b: Any = None,
    stride: int | One = 1,
    padding: int | One | str = 0,
    dilation: int | One = 1,
    groups: int = 1,
) -> Any:
    """1-D convolution (cross-correlation), as torch.nn.functional.conv1d.

    x (N, C, L), w (O, C/groups, k), b (O,) or None; returns (N, O, L'). Sizes, padding and errors are
    those of conv2d, which computes it over images of one row.
    """
    check_ndim("conv1d", "x", x, 3)
    check_ndim("conv1d", "weight", w, 3)
    (step,) = int_tuple("conv1d", "stride", stride, 1, 1)
    (gap,) = int_tuple("conv1d", "dilation", dilation, 1, 1)
    x, numbers = named_padding("conv1d", x, padding, w.shape[2:], (step,), (gap,))
    (edge,) = int_tuple("conv1d", "padding", numbers, 0, 1)
    y = conv2d(unsqueeze(x, 2), unsqueeze(w, 2), b, (1, step), (0, edge), (1, gap), groups)
    return squeeze(y, 2)
