"""Layers that change sizes: Unflatten, Upsample and padding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from fastnn import ops
from fastnn.nn.module import Module
from fastnn.ops.op import int_tuple

Size = int | Sequence[int]


class Unflatten(Module):
    """Dimension `dim` as several, unflattened_size, of which one may be -1. As torch.nn.Unflatten."""

    def __init__(self, dim: int, unflattened_size: Sequence[int]) -> None:
        if not isinstance(dim, int) or isinstance(dim, bool):
            raise TypeError(f"Unflatten: dim: expected an int, got {dim!r}")
        self.dim, self.unflattened_size = dim, tuple(int(n) for n in unflattened_size)

    def forward(self, x: Any) -> Any:
        if not -x.ndim <= self.dim < x.ndim:
            raise ValueError(f"Unflatten: dim: {self.dim} lies outside shape {x.shape}")
        d, sizes = self.dim % x.ndim, list(self.unflattened_size)
        if -1 in sizes:
            rest = math.prod(n for n in sizes if n != -1)
            sizes[sizes.index(-1)] = x.shape[d] // rest if rest else 0
        if math.prod(sizes) != x.shape[d] or min(sizes, default=1) < 0:
            raise ValueError(
                f"Unflatten: unflattened_size: {self.unflattened_size} does not multiply to the "
                f"{x.shape[d]} of dimension {self.dim}"
            )
        return ops.reshape(x, (*x.shape[:d], *sizes, *x.shape[d + 1 :]))

    def extra_repr(self) -> str:
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"


class Upsample(Module):
    """Sequences or images resized to `size` or by scale_factor, as torch.nn.Upsample.

    mode: "nearest", "linear" (N, C, L) or "bilinear" (N, C, H, W); see ops.interpolate.
    """

    def __init__(
        self,
        size: Size | None = None,
        scale_factor: float | Sequence[float] | None = None,
        mode: str = "nearest",
        align_corners: bool = False,
    ) -> None:
        if (size is None) == (scale_factor is None):
            raise ValueError("Upsample: size, scale_factor: expected one of the two")
        self.size = tuple(size) if isinstance(size, Sequence) else size
        self.scale_factor = (
            tuple(scale_factor) if isinstance(scale_factor, Sequence) else scale_factor
        )
        self.mode, self.align_corners = mode, bool(align_corners)

    def forward(self, x: Any) -> Any:
        return ops.interpolate(x, self.size, self.scale_factor, self.mode, self.align_corners)

    def extra_repr(self) -> str:
        given = f"size={self.size}" if self.size else f"scale_factor={self.scale_factor}"
        return f"{given}, mode={self.mode!r}"


class _Pad(Module):
    """padding: one number for all sides, or (left, right, top, bottom), as in PyTorch."""

    _dims: ClassVar[int] = 2
    mode: ClassVar[str] = "constant"
    value: float = 0.0

    def __init__(self, padding: Size) -> None:
        least = -(2**31) if self.mode == "constant" else 0
        self.padding = int_tuple(type(self).__name__, "padding", padding, least, 2 * self._dims)

    def forward(self, x: Any) -> Any:
        if x.ndim != 2 + self._dims:
            raise ValueError(
                f"{type(self).__name__}: x: expected {2 + self._dims} dimensions, got {x.shape}"
            )
        return ops.pad(x, self.padding, self.mode, self.value)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class ZeroPad1d(_Pad):
    """Zeros before and after sequences (N, C, L); padding: an int, or (left, right).

    Negative numbers take elements away.
    """

    _dims = 1


class ZeroPad2d(_Pad):
    """Zeros around images (N, C, H, W); padding: an int, or (left, right, top, bottom).

    Negative numbers take elements away.
    """


class ConstantPad2d(_Pad):
    """`value` around images (N, C, H, W); padding as ZeroPad2d's."""

    def __init__(self, padding: Size, value: float) -> None:
        super().__init__(padding)
        self.value = float(value)


class ReflectionPad2d(_Pad):
    """Images (N, C, H, W) mirrored at their edges, which are not repeated.

    padding: an int, or (left, right, top, bottom), less than the image's size. ValueError otherwise.
    """

    mode = "reflect"


class ReplicationPad2d(_Pad):
    """Images (N, C, H, W) with their edges repeated; padding: an int, or (left, right, top, bottom)."""

    mode = "replicate"


class CircularPad2d(_Pad):
    """Images (N, C, H, W) continued from their other end.

    padding: an int, or (left, right, top, bottom), at most the image's size. ValueError otherwise.
    """

    mode = "circular"
