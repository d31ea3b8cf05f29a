"""Batch normalisation (Ioffe and Szegedy, 2015)."""

from __future__ import annotations

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

    ndims: ClassVar[tuple[int, ...]]

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
        if x.ndim not in self.ndims:
            raise ValueError(
                f"{type(self).__name__}: x: expected {self.ndims[0]} dimensions, got {x.shape}"
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
    """Over images (N, C, H, W)."""

    ndims = (4,)


class BatchNorm1d(_BatchNorm):
    """Over rows (N, C)."""

    ndims = (2,)
