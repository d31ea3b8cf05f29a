"""Losses of numbers: squared and absolute errors, margins, logits and probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn.graph import apply
from fastnn.ops import elementwise as ew
from fastnn.ops.activation import Huber, softplus
from fastnn.ops.op import broadcast
from fastnn.ops.reduce import sum
from fastnn.ops.reduction import as_weight, check_reduction, reduce_loss

EPS = 1e-12  # added to squared lengths, as PyTorch does

Bce = ew.declare_binary(
    "bce_with_logits",
    "bce",
    lambda x, t: np.logaddexp(0, x) - x * t,
    lambda x, t, y, dy: (ew.mul(dy, ew.sub(ew.sigmoid(x), t)), ew.neg(ew.mul(dy, x))),
)
Xlogy = ew.declare_binary(
    "xlogy",
    "xlogy",
    lambda a, b: a * np.log(b),
    lambda a, b, y, dy: (ew.mul(dy, ew.log(b)), ew.mul(dy, ew.div(a, b))),
    positive=True,
)


def xlogy(x: Any, y: Any) -> Any:
    """x * log(y), and 0 where x is 0, broadcasting."""
    return apply(Xlogy(), x, y)


def _target(op: str, x: Any, target: Any) -> Any:
    """The target in x's dtype; ValueError if it has another shape."""
    if tuple(x.shape) != tuple(target.shape):
        raise ValueError(
            f"{op}: target: expected shape {tuple(x.shape)}, got {tuple(target.shape)}"
        )
    return as_weight(target, x)


def mse_loss(x: Any, target: Any, reduction: str = "mean") -> Any:
    """(x - target) ** 2; both of one shape. reduction: "mean", "sum" or "none"."""
    squares = ew.square(ew.sub(x, _target("mse_loss", x, target)))
    return reduce_loss("mse_loss", squares, reduction)


def l1_loss(x: Any, target: Any, reduction: str = "mean") -> Any:
    """|x - target|; both of one shape. reduction: "mean", "sum" or "none"."""
    return reduce_loss("l1_loss", ew.abs(ew.sub(x, _target("l1_loss", x, target))), reduction)


def huber_loss(x: Any, target: Any, reduction: str = "mean", delta: float = 1.0) -> Any:
    """d^2 / 2 of d = x - target, and delta (|d| - delta / 2) where |d| > delta. Huber, 1964.

    Both of one shape. reduction: "mean", "sum" or "none".
    """
    if not delta > 0:
        raise ValueError(f"huber_loss: delta: expected a positive number, got {delta!r}")
    d = ew.sub(x, _target("huber_loss", x, target))
    return reduce_loss("huber_loss", apply(Huber(alpha=float(delta)), d), reduction)


def smooth_l1_loss(x: Any, target: Any, reduction: str = "mean", beta: float = 1.0) -> Any:
    """huber_loss with delta = beta, divided by beta; |x - target| for beta = 0.

    Both of one shape. reduction: "mean", "sum" or "none".
    """
    if not beta >= 0:
        raise ValueError(f"smooth_l1_loss: beta: expected at least 0, got {beta!r}")
    if beta == 0:
        return l1_loss(x, target, reduction)
    d = ew.sub(x, _target("smooth_l1_loss", x, target))
    losses = apply(Huber(alpha=float(beta), beta=1.0 / beta), d)
    return reduce_loss("smooth_l1_loss", losses, reduction)


def binary_cross_entropy_with_logits(
    x: Any, target: Any, reduction: str = "mean", weight: Any = None, pos_weight: Any = None
) -> Any:
    """-target log(sigmoid(x)) - (1 - target) log(1 - sigmoid(x)), in nats, without overflow.

    x: logits; target: of its shape, 0 to 1. pos_weight: of the first term, weight: of the whole;
    both broadcast to x's shape. reduction: "mean", "sum" or "none".
    """
    op = "binary_cross_entropy_with_logits"
    target = _target(op, x, target)
    weight, pos_weight = as_weight(weight, x), as_weight(pos_weight, x)
    for name, w in (("weight", weight), ("pos_weight", pos_weight)):
        if w is not None and broadcast(op, tuple(x.shape), w.shape) != tuple(x.shape):
            raise ValueError(f"{op}: {name}: expected to broadcast to {x.shape}, got {w.shape}")
    if pos_weight is None:
        losses = apply(Bce(), x, target)
    else:
        first = ew.mul(ew.mul(target, pos_weight), softplus(ew.neg(x), threshold=np.inf))
        losses = ew.add(first, ew.mul(ew.sub(1.0, target), softplus(x, threshold=np.inf)))
    return reduce_loss(op, losses if weight is None else ew.mul(losses, weight), reduction)


def hinge_loss(x: Any, target: Any, reduction: str = "mean", margin: float = 1.0) -> Any:
    """max(0, margin - target * x) of scores x and labels -1 or 1 of one shape.

    reduction: "mean", "sum" or "none".
    """
    product = ew.mul(x, _target("hinge_loss", x, target))
    return reduce_loss("hinge_loss", ew.relu(ew.sub(float(margin), product)), reduction)


def kl_div(x: Any, target: Any, reduction: str = "mean", log_target: bool = False) -> Any:
    """target * (log(target) - x) of log-probabilities x: the divergence of x from the target.

    target: probabilities of x's shape, or their logarithms with log_target. reduction: "batchmean"
    (the sum over the number of rows: the divergence itself), "mean" (over all elements, as in
    PyTorch), "sum" or "none".
    """
    check_reduction("kl_div", reduction, "batchmean")
    target = _target("kl_div", x, target)
    if log_target:
        losses = ew.mul(ew.exp(target), ew.sub(target, x))
    else:
        losses = ew.sub(xlogy(target, target), ew.mul(target, x))
    if reduction == "batchmean":
        return ew.mul(sum(losses), 1.0 / max(1, x.shape[0]))
    return reduce_loss("kl_div", losses, reduction)


def cosine_embedding_loss(
    x1: Any, x2: Any, target: Any, reduction: str = "mean", margin: float = 0.0
) -> Any:
    """1 - cos(x1, x2) where target is 1, and max(0, cos(x1, x2) - margin) where it is -1.

    x1, x2 (N, D), target (N,). reduction: "mean", "sum" or "none".
    """
    op = "cosine_embedding_loss"
    if len(x1.shape) != 2 or tuple(x1.shape) != tuple(x2.shape):
        raise ValueError(f"{op}: x1, x2: expected both (N, D), got {x1.shape} and {x2.shape}")
    dot = sum(ew.mul(x1, x2), 1)
    lengths = ew.mul(*(ew.add(sum(ew.square(v), 1), EPS) for v in (x1, x2)))
    cos = ew.div(dot, ew.sqrt(lengths))
    like = ew.mul(ew.add(_target(op, cos, target), 1.0), 0.5)
    apart = ew.mul(ew.sub(1.0, like), ew.relu(ew.sub(cos, float(margin))))
    return reduce_loss(op, ew.add(ew.mul(like, ew.sub(1.0, cos)), apart), reduction)
