"""Normalisation layers: batch, layer, group and RMS norm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from fastnn import ops
from fastnn.graph import Value, apply, count_batch, update
from fastnn.nn.layers import positive
from fastnn.nn.module import Buffer, Module, Parameter, value
from fastnn.ops.norm import BatchNormTrain


class _BatchNorm(Module):
    """Normalise each channel by the batch's statistics in training, by running ones in inference.

    running = (1 - momentum) * running + momentum * batch, the variance unbiased, as in PyTorch.
    """

    _ndims: ClassVar[tuple[int, ...]]

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
    ) -> None:
        positive(type(self).__name__, num_features=num_features)
        self.num_features, self.eps, self.momentum = num_features, float(eps), float(momentum)
        zeros, ones = np.zeros(num_features, np.float32), np.ones(num_features, np.float32)
        self.weight = Parameter(ones) if affine else None
        self.bias = Parameter(zeros) if affine else None
        self.running_mean = Buffer(zeros) if track_running_stats else None
        self.running_var = Buffer(ones) if track_running_stats else None
        count = np.zeros((), np.int64)
        self.num_batches_tracked = Buffer(count) if track_running_stats else None

    def forward(self, x: Any) -> Any:
        if x.ndim not in self._ndims:
            raise ValueError(
                f"{type(self).__name__}: x: expected {' or '.join(map(str, self._ndims))} "
                f"dimensions, got {x.shape}"
            )
        weight, bias = value(self.weight), value(self.bias)
        if not self.training and self.running_mean is not None:
            mean, var = value(self.running_mean), value(self.running_var)
            return ops.batch_norm(x, mean, var, weight, bias, eps=self.eps)
        y, mean, var, _ = apply(BatchNormTrain(eps=self.eps), x, weight, bias)
        if self.training and self.running_mean is not None:
            self._track(x, mean, var)
        return y

    def _track(self, x: Value, mean: Value, var: Value) -> None:
        assert self.running_mean is not None and self.running_var is not None
        count = x.size // x.shape[1]
        update(self.running_mean, mean, self.momentum)
        update(self.running_var, var, self.momentum, count / (count - 1))
        count_batch(self)

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}, momentum={self.momentum}"


class BatchNorm2d(_BatchNorm):
    """Batch normalisation of images (N, C, H, W), as torch.nn.BatchNorm2d (Ioffe and Szegedy, 2015).

    y = (x - mean) / sqrt(var + eps) * weight + bias for each channel: in training with the batch's own
    mean and variance, which running_mean and running_var follow by `momentum`; in inference with those.
    weight, bias, running_mean, running_var (C,). Raises ValueError for another number of dimensions.
    """

    _ndims = (4,)


class BatchNorm1d(_BatchNorm):
    """Batch normalisation of rows (N, C) or sequences (N, C, L); otherwise as BatchNorm2d."""

    _ndims = (2, 3)


def _sizes(layer: str, normalized_shape: int | Sequence[int]) -> tuple[int, ...]:
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if not shape or not all(isinstance(n, int) and n > 0 for n in shape):
        raise ValueError(
            f"{layer}: normalized_shape: expected positive ints, got {normalized_shape!r}"
        )
    return shape


class LayerNorm(Module):
    """Normalise over the last dimensions, normalized_shape, as torch.nn.LayerNorm.

    y = (x - mean) / sqrt(var + eps) * weight + bias (Ba, Kiros and Hinton, 2016); weight and bias have
    normalized_shape.
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
    ) -> None:
        self.normalized_shape = _sizes("LayerNorm", normalized_shape)
        self.eps = float(eps)
        ones = np.ones(self.normalized_shape, np.float32)
        self.weight = Parameter(ones) if elementwise_affine else None
        self.bias = Parameter(0 * ones) if elementwise_affine and bias else None

    def forward(self, x: Any) -> Any:
        weight, bias = value(self.weight), value(self.bias)
        return ops.layer_norm(x, self.normalized_shape, weight, bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}"


class RMSNorm(Module):
    """Divide by the root of the mean square over the last dimensions, as torch.nn.RMSNorm.

    y = x / sqrt(mean(x^2) + eps) * weight (Zhang and Sennrich, 2019); eps: by default the spacing of
    the dtype at 1.
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
    ) -> None:
        self.normalized_shape = _sizes("RMSNorm", normalized_shape)
        self.eps = None if eps is None else float(eps)
        ones = np.ones(self.normalized_shape, np.float32)
        self.weight = Parameter(ones) if elementwise_affine else None

    def forward(self, x: Any) -> Any:
        return ops.rms_norm(x, self.normalized_shape, value(self.weight), self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}"


class GroupNorm(Module):
    """Normalise each of num_groups groups of channels of a sample, as torch.nn.GroupNorm.

    x (N, num_channels, ...); weight and bias (num_channels,) (Wu and He, 2018).
    """

    def __init__(
        self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True
    ) -> None:
        positive("GroupNorm", num_groups=num_groups, num_channels=num_channels)
        if num_channels % num_groups:
            raise ValueError(f"GroupNorm: num_groups: {num_groups} does not divide {num_channels}")
        self.num_groups, self.num_channels, self.eps = num_groups, num_channels, float(eps)
        ones = np.ones(num_channels, np.float32)
        self.weight = Parameter(ones) if affine else None
        self.bias = Parameter(0 * ones) if affine else None

    def forward(self, x: Any) -> Any:
        if x.ndim < 2 or x.shape[1] != self.num_channels:
            raise ValueError(
                f"GroupNorm: x: expected {self.num_channels} channels, got shape {x.shape}"
            )
        weight, bias = value(self.weight), value(self.bias)
        return ops.group_norm(x, self.num_groups, weight, bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}"
