"""Layer norm (Ba, Kiros and Hinton, 2016) and RMS norm (Zhang and Sennrich, 2019), over rows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.graph import Array, Node, Value, apply
from fastnn.ops.op import Example, Op, Spec, check_float, register
from fastnn.ops.shape import reshape

if TYPE_CHECKING:
    from fastnn.plan.builder import Builder


class Normalisation(Op):
    """Base of the norms from x, gamma and beta (None where they are missing) to y, mean and rstd."""

    def backward(self) -> Op:
        """The op from x, dy, mean, rstd and gamma to dx, dgamma and dbeta."""
        raise NotImplementedError

    def grad(self, node: Node, *douts: Value | None) -> Sequence[Value | None]:
        x, gamma, beta = (*node.inputs, None, None)[:3]
        if any(d is not None for d in douts[1:]):
            raise NotImplementedError(f"{self.name}: no gradient flows through the statistics")
        _, mean, rstd = node.outputs
        dx, dgamma, dbeta = apply(self.backward(), x, douts[0], mean, rstd, gamma)
        grads = [dx, None if gamma is None else dgamma, None if beta is None else dbeta]
        return grads[: len(node.inputs)]


@register
class LayerNorm(Normalisation):
    """y, mean and 1 / sqrt(variance + eps) of each row of x (n, c); gamma, beta (c,).

    rms: without the mean, which then counts as 0.
    """

    name = "layer_norm"
    eps: float = 1e-5
    rms: bool = False

    def infer(self, x: Value, gamma: Value | None = None, beta: Value | None = None) -> list[Spec]:
        dtype = check_float(self.name, x=x, weight=gamma, bias=beta)
        return [(x.shape, dtype), *[(x.shape[:1], dtype)] * 2]

    def backward(self) -> Op:
        return LayerNormGrad(rms=self.rms)

    def lower(self, node: Node, b: Builder) -> None:
        x, gamma, beta = (*node.inputs, None, None)[:3]
        y, mean, rstd = node.outputs
        assert x is not None
        b.step(
            "layer_norm_fwd",
            x=b.dense(x),
            gamma=None if gamma is None else b.dense(gamma),
            beta=None if beta is None else b.dense(beta),
            y=b.new(y),
            mean=b.new(mean) if b.is_used(mean) else None,
            rstd=b.new(rstd) if b.is_used(rstd) else None,
            n=x.shape[0],
            c=x.shape[1],
            rms=int(self.rms),
            eps=self.eps,
        )

    def reference(self, x: Array, gamma: Array | None = None, beta: Array | None = None) -> Any:
        mean = np.zeros(len(x)) if self.rms else x.mean(1)
        rstd = 1 / np.sqrt(((x - mean[:, None]) ** 2).mean(1) + self.eps)
        y = (x - mean[:, None]) * rstd[:, None]
        y = y if gamma is None else y * gamma
        return y if beta is None else y + beta, mean, rstd

    @classmethod
    def examples(cls) -> Iterable[Example]:
        for n in (1, 7, 16, 17, 33):
            yield Example(cls(), (3, n), (n,), (n,))
            yield Example(cls(rms=True, eps=1e-3), (3, n), (n,))
        yield Example(cls(eps=0.1), (n, 5))


@register
class LayerNormGrad(Op):
    """dx, dgamma and dbeta of layer_norm from x, dy, the statistics and gamma."""

    name = "layer_norm_grad"
    rms: bool = False

    def infer(
        self, x: Value, dy: Value, mean: Value, rstd: Value, gamma: Value | None = None
    ) -> list[Spec]:
        return [(x.shape, x.dtype), *[(x.shape[1:], x.dtype)] * 2]

    def lower(self, node: Node, b: Builder) -> None:
        x, dy, mean, rstd, gamma = (*node.inputs, None)[:5]
        dx, dgamma, dbeta = node.outputs
        assert x is not None and dy is not None and mean is not None and rstd is not None
        b.step(
            "layer_norm_bwd",
            x=b.dense(x),
            dy=b.dense(dy),
            mean=b.dense(mean),
            rstd=b.dense(rstd),
            gamma=None if gamma is None else b.dense(gamma),
            dx=b.new(dx) if b.is_used(dx) else None,
            dgamma=b.new(dgamma) if b.is_used(dgamma) else None,
            dbeta=b.new(dbeta) if b.is_used(dbeta) else None,
            n=x.shape[0],
            c=x.shape[1],
            rms=int(self.rms),
        )

    def reference(
        self, x: Array, dy: Array, mean: Array, rstd: Array, gamma: Array | None = None
    ) -> Any:
        center = 0.0 if self.rms else mean[:, None]
        hat = (x - center) * rstd[:, None]
        g = dy if gamma is None else dy * gamma
        inner = g - hat * (g * hat).mean(1, keepdims=True)
        inner = inner if self.rms else inner - g.mean(1, keepdims=True)
        return inner * rstd[:, None], (dy * hat).sum(0), dy.sum(0)

    @classmethod
    def examples(cls) -> Iterable[Example]:
        for n in (1, 7, 16, 17, 33):
            yield Example(cls(), (3, n), (3, n), (3,), (3,), (n,))
            yield Example(cls(rms=True), (n, 5), (n, 5), (n,), (n,))


def layer_norm(
    x: Any,
    normalized_shape: Sequence[int],
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
) -> Any:
    """(x - mean) / sqrt(var + eps) * weight + bias over the last dimensions, normalized_shape.

    As torch.nn.functional.layer_norm; weight and bias have normalized_shape. Raises ValueError naming
    what does not fit.
    """
    return _rows("layer_norm", x, normalized_shape, weight, bias, LayerNorm(eps=float(eps)))


def rms_norm(
    x: Any, normalized_shape: Sequence[int], weight: Any = None, eps: float | None = None
) -> Any:
    """x / sqrt(mean(x^2) + eps) * weight over the last dimensions, as torch.nn.functional.rms_norm.

    eps: by default the spacing of x's dtype at 1. Raises ValueError naming what does not fit.
    """
    least = np.finfo(x.dtype).eps if x.dtype.kind == "f" else np.finfo(np.float32).eps
    op = LayerNorm(eps=float(least if eps is None else eps), rms=True)
    return _rows("rms_norm", x, normalized_shape, weight, None, op)


def _rows(op: str, x: Any, shape: Sequence[int], weight: Any, bias: Any, norm: LayerNorm) -> Any:
    shape = tuple(shape)
    if not shape or tuple(x.shape[-len(shape) :]) != shape:
        raise ValueError(f"{op}: x: expected the last sizes {shape}, got shape {tuple(x.shape)}")
    for name, v in (("weight", weight), ("bias", bias)):
        if v is not None and tuple(v.shape) != shape:
            raise ValueError(f"{op}: {name}: expected shape {shape}, got {tuple(v.shape)}")
    c = math.prod(shape)
    rows = reshape(x, (math.prod(x.shape[: -len(shape)]), c))
    vectors = [None if v is None else reshape(v, (c,)) for v in (weight, bias)]
    return reshape(apply(norm, rows, *vectors)[0], tuple(x.shape))
