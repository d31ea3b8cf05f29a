"""Softmax and its logarithm over any dimension."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.graph import Array, Node, Value, apply
from fastnn.ops.op import Example, Op, Spec, check_float, register
from fastnn.ops.shape import permute

if TYPE_CHECKING:
    from fastnn.plan.builder import Builder


@register
class Softmax(Op):
    """Softmax, or its logarithm, over the last dimension."""

    name = "softmax"
    log: bool = False

    def infer(self, x: Value) -> list[Spec]:
        dtype = check_float(self.name, x=x)
        if x.ndim == 0 or x.shape[-1] == 0:
            raise ValueError(f"softmax: x: nothing to normalise over in shape {x.shape}")
        return [(x.shape, dtype)]

    def grad(self, node: Node, *douts: Value | None) -> Sequence[Value | None]:
        return [apply(SoftmaxGrad(log=self.log), node.outputs[0], douts[0])]

    def lower(self, node: Node, b: Builder) -> None:
        (x,), (y,) = node.inputs, node.outputs
        assert x is not None
        c = x.shape[-1]
        b.step("softmax_fwd", x=b.dense(x), y=b.new(y), n=x.size // c, c=c, log=int(self.log))

    def reference(self, x: Array) -> Any:
        shifted = x - x.max(-1, keepdims=True)
        log = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
        return log if self.log else np.exp(log)

    @classmethod
    def examples(cls) -> Iterable[Example]:
        for n in (1, 7, 15, 16, 17, 31, 32, 33):
            for log in (False, True):
                yield Example(cls(log=log), (3, n))
                yield Example(cls(log=log), (n, 3))


@register
class SoftmaxGrad(Op):
    """dx of softmax or log-softmax from its output and dy."""

    name = "softmax_grad"
    log: bool = False

    def infer(self, y: Value, dy: Value) -> list[Spec]:
        return [(y.shape, y.dtype)]

    def lower(self, node: Node, b: Builder) -> None:
        (y, dy), (dx,) = node.inputs, node.outputs
        assert y is not None and dy is not None
        c = y.shape[-1]
        sizes = {"n": y.size // c, "c": c, "log": int(self.log)}
        b.step("softmax_bwd", y=b.dense(y), dy=b.dense(dy), dx=b.new(dx), **sizes)

    def reference(self, y: Array, dy: Array) -> Any:
        if self.log:
            return dy - np.exp(y) * dy.sum(-1, keepdims=True)
        return y * (dy - (y * dy).sum(-1, keepdims=True))

    @classmethod
    def examples(cls) -> Iterable[Example]:
        for n in (1, 7, 17, 33):
            yield Example(cls(log=False), (3, n), (3, n))
            yield Example(cls(log=True), (n, 3), (n, 3))


def softmax(x: Any, dim: int = -1) -> Any:
    """exp(x) / sum(exp(x)) over `dim`; float32 or float64."""
    return _over(Softmax(), x, dim)


def log_softmax(x: Any, dim: int = -1) -> Any:
    """x - log(sum(exp(x))) over `dim`, without overflow."""
    return _over(Softmax(log=True), x, dim)


def _over(op: Softmax, x: Any, dim: int) -> Any:
    ndim = len(x.shape)
    if not -ndim <= dim < ndim:
        raise ValueError(f"softmax: dim: expected one of {ndim} dimensions, got {dim}")
    if dim % ndim == ndim - 1:
        return apply(op, x)
    order = [d for d in range(ndim) if d != dim % ndim] + [dim % ndim]
    return permute(apply(op, permute(x, order)), [int(i) for i in np.argsort(order)])
