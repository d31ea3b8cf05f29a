"""Transposed convolutions: conv2d's backward pass to its input, taken as a layer's forward pass."""

from __future__ import annotations

from typing import Any

from fastnn.graph import apply
from fastnn.ops import elementwise as ew
from fastnn.ops.conv1d import One
from fastnn.ops.conv_grad import Conv2dGradData
from fastnn.ops.conv_shape import Pair
from fastnn.ops.join import squeeze, unsqueeze
from fastnn.ops.op import check_ndim, int_tuple
from fastnn.ops.shape import reshape


def conv_transpose2d(
    x: Any,
    w: Any,
    b: Any = None,
    stride: int | Pair = 1,
    padding: int | Pair = 0,
    output_padding: int | Pair = 0,
    groups: int = 1,
    dilation: int | Pair = 1,
) -> Any:
    """Transposed 2-D convolution: conv2d's backward pass to its input.

    x (N, C, H, W), w (C, O/groups, kH, kW), b (O,) or None; returns (N, O, H', W') with
    H' = (H - 1) stride - 2 padding + dilation (kH - 1) + output_padding + 1. As
    torch.nn.functional.conv_transpose2d; output_padding is less than the stride or the dilation.
    Raises ValueError or TypeError naming the argument that does not fit.
    """
    name = "conv_transpose2d"
    check_ndim(name, "x", x, 4)
    check_ndim(name, "weight", w, 4)
    if x.shape[1] != w.shape[0]:
        raise ValueError(f"{name}: x: expected {w.shape[0]} channels, got shape {tuple(x.shape)}")
    if groups < 1 or w.shape[0] % groups:
        raise ValueError(f"{name}: groups: {groups} does not divide {w.shape[0]} channels")
    if b is not None and tuple(b.shape) != (w.shape[1] * groups,):
        raise ValueError(f"{name}: bias: expected ({w.shape[1] * groups},), got {tuple(b.shape)}")
    steps = int_tuple(name, "stride", stride, 1, 2)
    edges = int_tuple(name, "padding", padding, 0, 2)
    gaps = int_tuple(name, "dilation", dilation, 1, 2)
    extra = int_tuple(name, "output_padding", output_padding, 0, 2)
    geometry = list(zip(x.shape[2:], w.shape[2:], steps, edges, gaps, extra, strict=True))
    if any(e >= max(s, d) for _, _, s, _, d, e in geometry):
        raise ValueError(f"{name}: output_padding: expected less than stride or dilation: {extra}")
    size = tuple((n - 1) * s - 2 * p + d * (k - 1) + e + 1 for n, k, s, p, d, e in geometry)
    if min(size) < 1:
        raise ValueError(f"{name}: padding: leaves nothing of the output: {size}")
    op = Conv2dGradData(stride=steps, padding=edges, dilation=gaps, groups=groups, size=size)
    y = apply(op, x, w)
    return y if b is None else ew.add(y, reshape(b, (1, -1, 1, 1)))


def conv_transpose1d(
    x: Any,
    w: Any,
    b: Any = None,
    stride: int | One = 1,
    padding: int | One = 0,
    output_padding: int | One = 0,
    groups: int = 1,
    dilation: int | One = 1,
) -> Any:
    """Transposed 1-D convolution: x (N, C, L), w (C, O/groups, k); otherwise as conv_transpose2d."""
    name = "conv_transpose1d"
    check_ndim(name, "x", x, 3)
    check_ndim(name, "weight", w, 3)
    (step,) = int_tuple(name, "stride", stride, 1, 1)
    (edge,) = int_tuple(name, "padding", padding, 0, 1)
    (extra,) = int_tuple(name, "output_padding", output_padding, 0, 1)
    (gap,) = int_tuple(name, "dilation", dilation, 1, 1)
    x, w = unsqueeze(x, 2), unsqueeze(w, 2)
    return squeeze(conv_transpose2d(x, w, b, (1, step), (0, edge), (0, extra), groups, (1, gap)), 2)
