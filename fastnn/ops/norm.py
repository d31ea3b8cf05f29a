"""Batch normalisation over images or rows (Ioffe and Szegedy, 2015), training and inference."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.graph import Array, Node, Value, apply
from fastnn.ops import elementwise as ew
from fastnn.ops.epilogue import act_code, finish
from fastnn.ops.op import Example, Op, Spec, check_float, check_ndim, register
from fastnn.ops.reduce import sum as sum_
from fastnn.ops.shape import reshape

if TYPE_CHECKING:
    from fastnn.plan.builder import Builder


class Norm(Op):
    """Checks and layout that training and inference share. act is set by plans only."""

    images = True
    eps: float = 1e-5
    act: str = ""

    @staticmethod
    def order(x: Value) -> tuple[int, ...]:
        """Channels innermost."""
        return (0, *range(2, x.ndim), 1)

    def check(self, x: Value, **vectors: Value | None) -> np.dtype[Any]:
        """x is (N, C), (N, C, L) or (N, C, H, W), every vector (C,)."""
        check_ndim("batch_norm", "x", x, 2, 3, 4)
        for name, v in vectors.items():
            if v is not None and v.shape != x.shape[1:2]:
                raise ValueError(f"batch_norm: {name}: expected {x.shape[1:2]}, got {v.shape}")
        return check_float("batch_norm", x=x, **vectors)


def _column(v: Array, x: Array) -> Array:
    return v.reshape(1, -1, *[1] * (x.ndim - 2))


def _axes(x: Any) -> tuple[int, ...]:
    return (0, *range(2, x.ndim))


@register
class BatchNormTrain(Norm):
    """y, mean, biased variance and 1 / sqrt(variance + eps) of the batch.

    Inputs x, gamma, beta, residual (added before act).
    """

    name = "batch_norm_train"
    wants_moments = True

    def infer(
        self,
        x: Value,
        gamma: Value | None = None,
        beta: Value | None = None,
        residual: Value | None = None,
    ) -> list[Spec]:
        dtype = self.check(x, weight=gamma, bias=beta)
        if x.size // max(1, x.shape[1]) < 2:
            raise ValueError(f"batch_norm: x: one value per channel when training, in {x.shape}")
        return [(x.shape, dtype), *[(x.shape[1:2], dtype)] * 3]

    def grad(self, node: Node, *douts: Value | None) -> Sequence[Value | None]:
        x, gamma, beta = (*node.inputs, None, None)[:3]
        if any(d is not None for d in douts[1:]):
            raise NotImplementedError("batch_norm: no gradient flows through the statistics")
        _, mean, _, rstd = node.outputs
        dx, dgamma, dbeta = apply(BatchNormGrad(eps=self.eps), x, douts[0], mean, rstd, gamma)
        grads = [dx, None if gamma is None else dgamma, None if beta is None else dbeta, None]
        return grads[: len(node.inputs)]

    def lower(self, node: Node, b: Builder) -> None:
        x, gamma, beta, residual = (*node.inputs, None, None, None)[:4]
        assert x is not None
        y, mean, var, rstd = node.outputs
        order, moments = self.order(x), b.moments.get(x)
        source = b.dense(x, order)
        later = b.fused and self.act == "relu" and residual is None and b.are_scaling(y)
        b.step(
            "bn_fwd",
            x=source,
            gamma=None if gamma is None else b.dense(gamma),
            beta=None if beta is None else b.dense(beta),
            residual=None if residual is None else b.dense(residual, order),
            moments=moments,
            parts=0 if moments is None else moments.size // (1 + 2 * x.shape[1]),
            y=None if later else b.new(y, order),
            table=b.leave_scaled(y, source) if later else None,
            mean=b.new(mean),
            var=b.new(var),
            rstd=b.new(rstd),
            rows=x.size // x.shape[1],
            c=x.shape[1],
            act=act_code(self.act, False),
            eps=self.eps,
        )

    def reference(
        self, x: Array, gamma: Array | None = None, beta: Array | None = None, residual: Any = None
    ) -> Any:
        mean, var = x.mean(_axes(x)), x.var(_axes(x))
        y = BatchNormApply(eps=self.eps, act=self.act).reference(
            x, mean, var, gamma, beta, residual
        )
        return y, mean, var, 1 / np.sqrt(var + self.eps)

    @classmethod
    def examples(cls) -> Iterable[Example]:
        for n in (1, 7, 15, 16, 17, 31, 32, 33):
            yield Example(cls(), (2, n, 3, 4), (n,), (n,))
            yield Example(cls(), (n + 1, 3), (3,), (3,))
        yield Example(cls(eps=0.1), (5, 4))
        yield Example(cls(), (3, 4, 7), (4,), (4,))
        yield Example(cls(act="relu"), (5, 4), (4,), (4,), (5, 4))


@register
class BatchNormGrad(Norm):
    """dx, dgamma, dbeta from x, dy, mean, rstd, gamma and, where a ReLU followed, its output."""

    name = "batch_norm_grad"
    wants_sums = True

    def infer(
        self,
        x: Value,
        dy: Value,
        mean: Value,
        rstd: Value,
        gamma: Value | None = None,
        saved: Value | None = None,
    ) -> list[Spec]:
        return [(x.shape, x.dtype), (mean.shape, x.dtype), (mean.shape, x.dtype)]

    def lower(self, node: Node, b: Builder) -> None:
        x, dy, mean, rstd, gamma, saved = (*node.inputs, None, None)[:6]
        dx, dgamma, dbeta = node.outputs
        assert x is not None and dy is not None and mean is not None and rstd is not None
        results: dict[str, Any] = dict(
            mean=b.dense(mean),
            rstd=b.dense(rstd),
            gamma=None if gamma is None else b.dense(gamma),
            dgamma=b.new(dgamma) if b.is_used(dgamma) else None,
            dbeta=b.new(dbeta) if b.is_used(dbeta) else None,
        )
        order, pooled = self.order(x), b.postponed(dy)
        source = b.dense(x, order)
        if pooled is not None:
            self._lower_pooled(pooled, b, x=source, dx=dx, **results)
            return
        sums, of = b.sums.get(dy, (None, None)) if saved is None else (None, None)
        if of is not source:
            sums = None
        b.step(
            "bn_bwd",
            x=source,
            sums=sums,
            parts=0 if sums is None else sums.size // (1 + 2 * x.shape[1]),
            dy=b.dense(dy, order),
            saved=None if saved is None else b.dense(saved, order),
            dx=b.new(dx, order) if b.is_used(dx) else None,
            rows=x.size // x.shape[1],
            c=x.shape[1],
            **results,
        )

    def _lower_pooled(self, pooled: Node, b: Builder, dx: Value, **refs: Any) -> None:
        """The same from what the gradient of 2x2 max pooling, which is dy, is made of."""
        dy, idx, saved = (*pooled.inputs, None)[:3]
        assert dy is not None and idx is not None
        n, c, oh, ow = dy.shape
        b.step(
            "bn_pool_bwd",
            dy=b.channels_last(dy),
            idx=b.channels_last(idx),
            saved=None if saved is None else b.channels_last(saved),
            dx=b.new(dx, self.order(dx)) if b.is_used(dx) else None,
            **dict(n=n, oh=oh, ow=ow, c=c),
            **refs,
        )

    def spreads(self, node: Node, b: Builder, lanes: bool) -> bool:
        x, saved = node.inputs[0], (*node.inputs, None, None)[5]
        assert x is not None
        even = x.ndim == 4 and x.shape[2] % 2 == x.shape[3] % 2 == 0
        return b.fused and even and not lanes and saved is None

    def reference(
        self,
        x: Array,
        dy: Array,
        mean: Array,
        rstd: Array,
        gamma: Array | None = None,
        saved: Array | None = None,
    ) -> Any:
        if saved is not None:
            dy = dy * (saved > 0)
        hat = (x - _column(mean, x)) * _column(rstd, x)
        dgamma, dbeta = (dy * hat).sum(_axes(x)), dy.sum(_axes(x))
        count = x.size // x.shape[1]
        inner = dy - _column(dbeta, x) / count - hat * _column(dgamma, x) / count
        dx = inner * _column(rstd, x)
        return dx if gamma is None else dx * _column(gamma, x), dgamma, dbeta

    @classmethod
    def examples(cls) -> Iterable[Example]:
        for n in (1, 7, 16, 17, 33):
            yield Example(cls(), (2, n, 3, 4), (2, n, 3, 4), (n,), (n,), (n,))
        yield Example(cls(), (5, 3), (5, 3), (3,), (3,), None, (5, 3))


@register
class BatchNormApply(Norm):
    """y = act((x - mean) / sqrt(var + eps) * gamma + beta + residual) with given statistics."""

    name = "batch_norm_apply"

    def infer(
        self,
        x: Value,
        mean: Value,
        var: Value,
        gamma: Value | None = None,
        beta: Value | None = None,
        residual: Value | None = None,
    ) -> list[Spec]:
        dtype = self.check(x, running_mean=mean, running_var=var, weight=gamma, bias=beta)
        return [(x.shape, dtype)]

    def grad(self, node: Node, *douts: Value | None) -> Sequence[Value | None]:
        """The statistics are constants: an affine map."""
        x, mean, var, gamma, beta = (*node.inputs, None, None)[:5]
        (dy,) = douts
        assert x is not None and mean is not None and var is not None and dy is not None
        column = (1, -1, *[1] * (x.ndim - 2))
        rstd = reshape(ew.reciprocal(ew.sqrt(ew.add(var, self.eps))), column)
        hat = ew.mul(ew.sub(x, reshape(mean, column)), rstd)
        dx = ew.mul(dy, rstd if gamma is None else ew.mul(rstd, reshape(gamma, column)))
        dgamma = None if gamma is None else sum_(ew.mul(dy, hat), _axes(x))
        dbeta = None if beta is None else sum_(dy, _axes(x))
        return [dx, None, None, dgamma, dbeta, None][: len(node.inputs)]

    def lower(self, node: Node, b: Builder) -> None:
        x, mean, var, gamma, beta, residual = (*node.inputs, None, None, None)[:6]
        assert x is not None and mean is not None and var is not None
        order = self.order(x)
        b.step(
            "bn_apply",
            x=b.dense(x, order),
            mean=b.dense(mean),
            var=b.dense(var),
            gamma=None if gamma is None else b.dense(gamma),
            beta=None if beta is None else b.dense(beta),
            residual=None if residual is None else b.dense(residual, order),
            y=b.new(node.outputs[0], order),
            rows=x.size // max(1, x.shape[1]),
            c=x.shape[1],
            act=act_code(self.act, False),
            eps=self.eps,
        )

    def reference(
        self,
        x: Array,
        mean: Array,
        var: Array,
        gamma: Array | None = None,
        beta: Array | None = None,
        residual: Array | None = None,
    ) -> Any:
        y = (x - _column(mean, x)) / np.sqrt(_column(var, x) + self.eps)
        y = y if gamma is None else y * _column(gamma, x)
        y = y if beta is None else y + _column(beta, x)
        return finish(y if residual is None else y + residual, self.act, None)

    @classmethod
    def examples(cls) -> Iterable[Example]:
        for n in (1, 7, 16, 17, 33):
            yield Example(cls(), (2, n, 3, 4), (n,), (n,), (n,), (n,), positive=True)
        yield Example(cls(eps=0.1), (5, 3), (3,), (3,), positive=True)
        yield Example(cls(act="relu"), (5, 3), (3,), (3,), None, None, (5, 3), positive=True)


def batch_norm(
    x: Any,
    running_mean: Any = None,
    running_var: Any = None,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    eps: float = 1e-5,
) -> Any:
    """Normalise each channel of x (N, C, ...): (x - mean) / sqrt(var + eps) * weight + bias.

    training: with the batch's own mean and biased variance; else with the running ones, which must be
    given. Vectors are (C,). Raises ValueError naming what does not fit.
    """
    if training:
        return apply(BatchNormTrain(eps=float(eps)), x, weight, bias)[0]
    if running_mean is None or running_var is None:
        raise ValueError("batch_norm: running_mean, running_var: expected unless training=True")
    return apply(BatchNormApply(eps=float(eps)), x, running_mean, running_var, weight, bias)
