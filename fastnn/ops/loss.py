"""Softmax and the losses over it; the mean squared error."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.graph import Array, Node, Value, apply
from fastnn.ops import elementwise as ew
from fastnn.ops.op import Example, Op, Spec, check_float, check_ndim, register
from fastnn.ops.reduce import mean, sum
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


@register
class CrossEntropy(Op):
    """scale * the sum (or, per_row, each) of -log softmax(x)[label], and the log-sum-exp of each row."""

    name = "cross_entropy"
    integer_inputs = (1,)
    per_row: bool = False
    scale: float = 1.0

    def infer(self, x: Value, labels: Value) -> list[Spec]:
        dtype = check_float(self.name, x=x)
        check_ndim(self.name, "x", x, 2)
        if labels.dtype.kind not in "iu":
            raise TypeError(f"cross_entropy: labels: expected integers, got {labels.dtype}")
        if labels.shape != x.shape[:1]:
            raise ValueError(
                f"cross_entropy: labels: expected shape {x.shape[:1]}, got {labels.shape}"
            )
        return [(labels.shape if self.per_row else (), dtype), (labels.shape, dtype)]

    def grad(self, node: Node, *douts: Value | None) -> Sequence[Value | None]:
        (x, labels), (_, lse) = node.inputs, node.outputs
        op = CrossEntropyGrad(per_row=self.per_row, scale=self.scale)
        return [apply(op, x, labels, lse, douts[0]), None]

    def lower(self, node: Node, b: Builder) -> None:
        (x, labels), (loss, lse) = node.inputs, node.outputs
        assert x is not None and labels is not None
        out = b.new(loss)
        b.step(
            "xent_fwd",
            x=b.dense(x),
            labels=b.labels(labels),
            lse=b.new(lse),
            losses=out if self.per_row else None,
            total=None if self.per_row else out,
            n=x.shape[0],
            c=x.shape[1],
            scale=self.scale,
        )

    def reference(self, x: Array, labels: Array) -> Any:
        top = x.max(-1)
        lse = top + np.log(np.exp(x - top[:, None]).sum(-1))
        losses = self.scale * (lse - x[np.arange(len(x)), labels])
        return (losses if self.per_row else losses.sum()), lse

    @classmethod
    def examples(cls) -> Iterable[Example]:
        for n in (1, 7, 15, 16, 17, 31, 32, 33):
            yield Example(cls(scale=0.5), (3, n), np.arange(3) % n)
            yield Example(cls(per_row=True), (n, 3), np.arange(n) % 3)


@register
class CrossEntropyGrad(Op):
    """(softmax(x) - onehot(labels)) * scale * dloss."""

    name = "cross_entropy_grad"
    integer_inputs = (1,)
    per_row: bool = False
    scale: float = 1.0

    def infer(self, x: Value, labels: Value, lse: Value, dloss: Value) -> list[Spec]:
        return [(x.shape, x.dtype)]

    def lower(self, node: Node, b: Builder) -> None:
        (x, labels, lse, dloss), (dx,) = node.inputs, node.outputs
        assert x is not None and labels is not None and lse is not None and dloss is not None
        b.step(
            "xent_bwd",
            x=b.dense(x),
            labels=b.labels(labels),
            lse=b.dense(lse),
            dloss=b.dense(dloss),
            dx=b.new(dx),
            n=x.shape[0],
            c=x.shape[1],
            per_row=int(self.per_row),
            scale=self.scale,
        )

    def reference(self, x: Array, labels: Array, lse: Array, dloss: Array) -> Any:
        p = np.exp(x - lse[:, None])
        p[np.arange(len(x)), labels] -= 1
        return p * self.scale * np.reshape(dloss, (-1, 1))

    @classmethod
    def examples(cls) -> Iterable[Example]:
        for n in (1, 7, 17, 33):
            yield Example(cls(scale=0.5), (3, n), np.arange(3) % n, (3,), ())
            yield Example(cls(per_row=True), (n, 3), np.arange(n) % 3, (n,), (n,))


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


def cross_entropy(x: Any, labels: Any, reduction: str = "mean") -> Any:
    """Negative log-likelihood of integer labels (N,) under the softmax of logits x (N, C), in nats.

    reduction: "mean", "sum" or "none" (one loss a row). Labels outside 0..C-1 raise ValueError when the
    loss is computed.
    """
    if reduction == "none":
        return apply(CrossEntropy(per_row=True), x, labels)[0]
    return apply(CrossEntropy(scale=_scale("cross_entropy", reduction, x.shape[:1])), x, labels)[0]


def _scale(op: str, reduction: str, shape: tuple[int, ...]) -> float:
    if reduction not in ("mean", "sum"):
        raise ValueError(f"{op}: reduction: expected 'mean', 'sum' or 'none', got {reduction!r}")
    count = int(np.prod(shape, dtype=np.int64))
    return 1.0 / count if reduction == "mean" and count else 1.0


def mse_loss(x: Any, target: Any, reduction: str = "mean") -> Any:
    """The mean (or sum, or each) of (x - target) ** 2; both of one shape."""
    if tuple(x.shape) != tuple(target.shape):
        raise ValueError(f"mse_loss: target: expected shape {x.shape}, got {target.shape}")
    _ = _scale("mse_loss", reduction, x.shape) if reduction != "none" else 0
    squares = ew.square(ew.sub(x, target))
    return {"mean": mean, "sum": sum, "none": lambda v: v}[reduction](squares)
