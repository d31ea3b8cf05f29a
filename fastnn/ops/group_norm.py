"""Group norm (Wu and He, 2018): the channels of each sample normalised group by group."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.graph import Array, Node, Value, apply
from fastnn.ops.layer_norm import Normalisation
from fastnn.ops.op import Example, Op, Spec, check_float, register

if TYPE_CHECKING:
    from fastnn.plan.builder import Builder


class Grouped(Op):
    """What both passes share: x (N, C, ...) with its channels innermost in memory."""

    images = True
    groups: int = 1

    @staticmethod
    def order(x: Value) -> tuple[int, ...]:
        """Channels innermost."""
        return (0, *range(2, x.ndim), 1)

    def sizes(self, x: Value) -> dict[str, int]:
        """The kernels' integers."""
        return dict(n=x.shape[0], hw=math.prod(x.shape[2:]), c=x.shape[1], groups=self.groups)

    def hat(self, x: Array, mean: Array, rstd: Array) -> Array:
        """x normalised, by groups: (N, groups, elements)."""
        rows = x.reshape(x.shape[0], self.groups, -1)
        return (rows - mean[..., None]) * rstd[..., None]


def _column(v: Array, x: Array) -> Array:
    return v.reshape(1, -1, *[1] * (x.ndim - 2))


@register
class GroupNorm(Grouped, Normalisation):
    """y, and mean and 1 / sqrt(variance + eps) of each sample's groups (N, groups)."""

    name = "group_norm"
    eps: float = 1e-5

    def infer(self, x: Value, gamma: Value | None = None, beta: Value | None = None) -> list[Spec]:
        if x.ndim < 2:
            raise ValueError(f"{self.name}: x: expected (N, C, ...), got shape {x.shape}")
        if x.shape[1] % self.groups:
            raise ValueError(
                f"{self.name}: num_groups: {self.groups} does not divide {x.shape[1]} channels"
            )
        for name, v in (("weight", gamma), ("bias", beta)):
            if v is not None and v.shape != x.shape[1:2]:
                raise ValueError(f"{self.name}: {name}: expected {x.shape[1:2]}, got {v.shape}")
        dtype = check_float(self.name, x=x, weight=gamma, bias=beta)
        return [(x.shape, dtype), *[((x.shape[0], self.groups), dtype)] * 2]

    def backward(self) -> Op:
        return GroupNormGrad(groups=self.groups)

    def lower(self, node: Node, b: Builder) -> None:
        x, gamma, beta = (*node.inputs, None, None)[:3]
        y, mean, rstd = node.outputs
        assert x is not None
        b.step(
            "group_norm_fwd",
            x=b.dense(x, self.order(x)),
            gamma=None if gamma is None else b.dense(gamma),
            beta=None if beta is None else b.dense(beta),
            y=b.new(y, self.order(x)),
            mean=b.new(mean) if b.is_used(mean) else None,
            rstd=b.new(rstd) if b.is_used(rstd) else None,
            **self.sizes(x),
            eps=self.eps,
        )

    def reference(self, x: Array, gamma: Array | None = None, beta: Array | None = None) -> Any:
        rows = x.reshape(x.shape[0], self.groups, -1)
        mean, rstd = rows.mean(2), 1 / np.sqrt(rows.var(2) + self.eps)
        y = self.hat(x, mean, rstd).reshape(x.shape)
        y = y if gamma is None else y * _column(gamma, x)
        return y if beta is None else y + _column(beta, x), mean, rstd

    @classmethod
    def examples(cls) -> Iterable[Example]:
        for c, groups in ((1, 1), (6, 3), (16, 4), (34, 2), (33, 33)):
            yield Example(cls(groups=groups), (2, c, 3, 4), (c,), (c,))
        yield Example(cls(groups=2, eps=0.1), (3, 8))
        yield Example(cls(groups=2), (3, 4, 7), (4,), (4,))


@register
class GroupNormGrad(Grouped):
    """dx, dgamma and dbeta of group_norm from x, dy, the statistics and gamma."""

    name = "group_norm_grad"

    def infer(
        self, x: Value, dy: Value, mean: Value, rstd: Value, gamma: Value | None = None
    ) -> list[Spec]:
        return [(x.shape, x.dtype), *[(x.shape[1:2], x.dtype)] * 2]

    def lower(self, node: Node, b: Builder) -> None:
        x, dy, mean, rstd, gamma = (*node.inputs, None)[:5]
        dx, dgamma, dbeta = node.outputs
        assert x is not None and dy is not None and mean is not None and rstd is not None
        b.step(
            "group_norm_bwd",
            x=b.dense(x, self.order(x)),
            dy=b.dense(dy, self.order(x)),
            mean=b.dense(mean),
            rstd=b.dense(rstd),
            gamma=None if gamma is None else b.dense(gamma),
            dx=b.new(dx, self.order(x)) if b.is_used(dx) else None,
            dgamma=b.new(dgamma) if b.is_used(dgamma) else None,
            dbeta=b.new(dbeta) if b.is_used(dbeta) else None,
            **self.sizes(x),
        )

    def reference(
        self, x: Array, dy: Array, mean: Array, rstd: Array, gamma: Array | None = None
    ) -> Any:
        hat = self.hat(x, mean, rstd)
        g = (dy if gamma is None else dy * _column(gamma, x)).reshape(hat.shape)
        inner = g - g.mean(2, keepdims=True) - hat * (g * hat).mean(2, keepdims=True)
        axes = (0, *range(2, x.ndim))
        sums = (dy * hat.reshape(x.shape)).sum(axes), dy.sum(axes)
        return (inner * rstd[..., None]).reshape(x.shape), *sums

    @classmethod
    def examples(cls) -> Iterable[Example]:
        for c, groups in ((1, 1), (6, 3), (16, 4), (34, 2)):
            x, stats = (2, c, 3, 4), (2, groups)
            yield Example(cls(groups=groups), x, x, stats, stats, (c,))
        yield Example(cls(groups=2), (3, 8), (3, 8), (3, 2), (3, 2))


def group_norm(
    x: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Any:
    """(x - mean) / sqrt(var + eps) * weight + bias over each of num_groups groups of channels.

    x (N, C, ...), weight and bias (C,), as torch.nn.functional.group_norm. Raises ValueError naming
    what does not fit.
    """
    if num_groups < 1:
        raise ValueError(f"group_norm: num_groups: expected at least 1, got {num_groups}")
    return apply(GroupNorm(groups=int(num_groups), eps=float(eps)), x, weight, bias)[0]
