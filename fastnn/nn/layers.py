"""Layers without a file of their own: linear, shape, dropout, normalised input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from fastnn import ops
from fastnn.nn.init import fan_in_uniform
from fastnn.nn.module import Module, Parameter, value


def positive(layer: str, **sizes: int) -> None:
    """ValueError naming the first size that is not a positive int."""
    for name, n in sizes.items():
        if not isinstance(n, int) or isinstance(n, bool) or n < 1:
            raise ValueError(f"{layer}: {name}: expected a positive int, got {n!r}")


class Linear(Module):
    """y = x weight^T + bias: x (..., in_features), y (..., out_features).

    weight (out_features, in_features) and bias (out_features,) start uniform in +-1/sqrt(in_features).
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        positive("Linear", in_features=in_features, out_features=out_features)
        self.in_features, self.out_features = in_features, out_features
        self.weight = Parameter(fan_in_uniform((out_features, in_features), in_features))
        self.bias = Parameter(fan_in_uniform((out_features,), in_features)) if bias else None

    def forward(self, x: Any) -> Any:
        return ops.linear(x, value(self.weight), value(self.bias))

    def extra_repr(self) -> str:
        sizes = f"in_features={self.in_features}, out_features={self.out_features}"
        return f"{sizes}, bias={self.bias is not None}"


class Flatten(Module):
    """Merge the dimensions from start_dim to end_dim: all but the batch, by default.

    Raises ValueError for dimensions that x does not have, or in the wrong order.
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x: Any) -> Any:
        return ops.flatten(x, self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class _Dropout(Module):
    _function: ClassVar[Any]

    def __init__(self, p: float = 0.5) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"{type(self).__name__}: p: expected a probability, got {p!r}")
        self.p = float(p)

    def forward(self, x: Any) -> Any:
        return type(self)._function(x, self.p, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class Dropout(_Dropout):
    """In training, zero each element with probability p and scale the others by 1 / (1 - p).

    x of any shape; in inference x itself (Srivastava et al., 2014). Which elements depends on the
    trainer's seed and step alone. Raises ValueError unless 0 <= p <= 1.
    """

    _function = staticmethod(ops.dropout)


class Dropout2d(_Dropout):
    """In training, zero whole channels of x (N, C, ...) with probability p; otherwise as Dropout."""

    _function = staticmethod(ops.dropout2d)


class Identity(Module):
    """x itself."""

    def forward(self, x: Any) -> Any:
        return x


class Normalize(Module):
    """(x * scale - mean) / std for each channel: the first layer over images that stay uint8.

    mean, std: one float a channel. scale: what pixel values are multiplied by first, 1/255 by default.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], scale: float = 1 / 255) -> None:
        if len(mean) != len(std) or not mean:
            raise ValueError(f"Normalize: std: expected {len(mean)} numbers, got {len(std)}")
        if any(s == 0 for s in std):
            raise ValueError("Normalize: std: expected no zero")
        self.mean, self.std = tuple(map(float, mean)), tuple(map(float, std))
        self.scale = float(scale)

    def forward(self, x: Any) -> Any:
        return ops.normalize(x, self.mean, self.std, self.scale)

    def extra_repr(self) -> str:
        return f"mean={self.mean}, std={self.std}, scale={self.scale:.6g}"
