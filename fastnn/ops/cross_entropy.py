"""Cross entropy of logits, with integer labels or probabilities as targets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.graph import Array, Node, Seed, Value, apply
from fastnn.ops import elementwise as ew
from fastnn.ops.labelled import (
    Labelled,
    at_classes,
    classes_last,
    dense_or_none,
    onehot,
    reduction_attrs,
)
from fastnn.ops.nll import LabelWeights, Nll
from fastnn.ops.op import Example, Spec, StorageLeaf, register
from fastnn.ops.reduce import sum
from fastnn.ops.reduction import as_weight, reduce_loss
from fastnn.ops.shape import reshape
from fastnn.ops.softmax import log_softmax

if TYPE_CHECKING:
    from fastnn.plan.builder import Builder


@register
class CrossEntropy(Labelled):
    """weight * -log softmax(x)[label], and the log-sum-exp of each row.

    differentiated: with the gradient of the loss, as it is, as a third output. The kernel writes it on
    its way; it costs nothing where nobody reads it.
    """

    name = "cross_entropy"
    differentiated: bool = False

    def infer(self, x: Value, labels: Value, weight: Value | None = None) -> list[Spec]:
        dtype = self.check(x, labels, weight)
        specs: list[Spec] = [(labels.shape if self.per_row else (), dtype), (labels.shape, dtype)]
        return [*specs, (x.shape, dtype)] if self.differentiated else specs

    def grad(self, node: Node, *douts: Value | None) -> Sequence[Value | None]:
        x, labels, weight = (*node.inputs, None)[:3]
        dloss = douts[0]
        if self.differentiated and dloss is not None and _is_seed(dloss):
            return [node.outputs[2], None, None][: len(node.inputs)]
        attrs = {**vars(self)}
        attrs.pop("differentiated", None)
        op = CrossEntropyGrad(**attrs)
        dx = apply(op, x, labels, weight, node.outputs[1], dloss)
        return [dx, None, None][: len(node.inputs)]

    def lower(self, node: Node, b: Builder) -> None:
        x, labels, weight = (*node.inputs, None)[:3]
        loss, lse, *dx = node.outputs
        assert x is not None and labels is not None
        out, order = b.new(loss), classes_last(x.ndim)
        b.step(
            "xent_fwd",
            x=b.dense(x, order),
            labels=b.labels(labels),
            weight=dense_or_none(b, weight),
            lse=b.new(lse),
            losses=out if self.per_row else None,
            total=None if self.per_row else out,
            dx=b.new(dx[0], order) if dx and b.is_used(dx[0]) else None,
            **self.fields(x.shape),
        )

    def reference(self, x: Array, labels: Array, weight: Array | None = None) -> Any:
        classes, counts, scale = self.rows(labels, weight, x.dtype)
        top = x.max(1)
        lse = top + np.log(np.exp(x - np.expand_dims(top, 1)).sum(1))
        losses = counts * (lse - at_classes(x, classes))
        loss = losses if self.per_row else scale * losses.sum()
        if not self.differentiated:
            return loss, lse
        p = np.exp(x - np.expand_dims(lse, 1))
        return loss, lse, scale * np.expand_dims(counts, 1) * (p - onehot(classes, x.shape[1]))

    @classmethod
    def examples(cls) -> Iterable[Example]:
        for n in (1, 7, 15, 16, 17, 31, 32, 33):
            yield Example(cls(mean=True), (3, n), np.arange(3) % n)
            yield Example(cls(per_row=True), (n, 3), np.arange(n) % 3)
        for op, c in ((cls(mean=True, ignore_index=1), 5), (cls(per_row=True, ignore_index=1), 40)):
            labels = np.arange(24).reshape(2, 3, 4) % 3
            yield Example(op, (2, c, 3, 4), labels, np.linspace(0.5, 2, c))
        yield Example(cls(scale=0.5, differentiated=True), (9, 4), np.arange(9) % 4)


def _is_seed(value: Value) -> bool:
    """True for the 1 that a backward pass starts from."""
    return isinstance(value.node.op, StorageLeaf) and isinstance(value.node.op.storage, Seed)


@register
class CrossEntropyGrad(Labelled):
    """(softmax(x) - onehot(labels)) * scale * the row's weight * dloss."""

    name = "cross_entropy_grad"

    def infer(
        self, x: Value, labels: Value, weight: Value | None, lse: Value, dloss: Value
    ) -> list[Spec]:
        return [(x.shape, x.dtype)]

    def lower(self, node: Node, b: Builder) -> None:
        (x, labels, weight, lse, dloss), (dx,) = node.inputs, node.outputs
        assert x is not None and labels is not None and lse is not None and dloss is not None
        order = classes_last(x.ndim)
        b.step(
            "xent_bwd",
            x=b.dense(x, order),
            labels=b.labels(labels),
            weight=dense_or_none(b, weight),
            lse=b.dense(lse),
            dloss=b.dense(dloss),
            dx=b.new(dx, order),
            per_row=int(self.per_row),
            **self.fields(x.shape),
        )

    def reference(
        self, x: Array, labels: Array, weight: Array | None, lse: Array, dloss: Array
    ) -> Any:
        classes, counts, scale = self.rows(labels, weight, x.dtype)
        p = np.exp(x - np.expand_dims(lse, 1))
        factor = np.expand_dims(scale * counts * dloss, 1)
        return factor * (p - onehot(classes, x.shape[1]))

    @classmethod
    def examples(cls) -> Iterable[Example]:
        for n in (1, 7, 17, 33):
            yield Example(cls(mean=True), (3, n), np.arange(3) % n, None, (3,), ())
            yield Example(cls(per_row=True), (n, 3), np.arange(n) % 3, None, (n,), (n,))
        for n in (7, 17, 33):
            op = cls(mean=True, ignore_index=0)
            yield Example(op, (9, n), np.arange(9) % 3, np.linspace(0.5, 2, n), (9,), ())


def cross_entropy(
    x: Any,
    target: Any,
    reduction: str = "mean",
    weight: Any = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> Any:
    """-log softmax(x)[target] over the classes of logits x (N, C, ...), in nats.

    target: integer labels (N, ...), or probabilities of x's shape, whose loss is the sum of
    -target * log softmax(x). weight (C,): of the classes. ignore_index: a label whose rows do not
    count. label_smoothing: the part of the target that is spread evenly over the classes.
    reduction: "mean" (for labels over the sum of their weights), "sum" or "none" (a loss a row,
    (N, ...)). Raises ValueError and TypeError naming the argument; other labels outside 0..C-1 raise
    ValueError when the loss is computed.
    """
    if not 0 <= label_smoothing <= 1:
        raise ValueError(
            f"cross_entropy: label_smoothing: expected 0 to 1, got {label_smoothing!r}"
        )
    weight = as_weight(weight, x)
    if target.dtype.kind == "f" and tuple(target.shape) == tuple(x.shape):
        return _soft(x, target, reduction, weight, label_smoothing)
    attrs = reduction_attrs("cross_entropy", reduction, ignore_index)
    if not label_smoothing:
        if not attrs.get("per_row") and isinstance(x, Value):
            attrs["differentiated"] = True
        return apply(CrossEntropy(**attrs), x, target, weight)[0]
    logs = log_softmax(x, 1)
    plain = apply(Nll(**attrs), logs, target, weight)
    even = _smooth(logs, target, reduction, weight, ignore_index)
    return ew.add(ew.mul(plain, 1 - label_smoothing), ew.mul(even, label_smoothing))


def _smooth(logs: Any, target: Any, reduction: str, weight: Any, ignore_index: int) -> Any:
    """The loss of an even target, as the labels' rows count."""
    c = logs.shape[1]
    weights = np.ones(c, logs.dtype) if weight is None else weight
    rows = ew.mul(sum(ew.mul(logs, _column(weights, logs)), 1), -1.0 / c)
    ones = apply(LabelWeights(ignore_index=ignore_index), np.ones(c, logs.dtype), target)
    rows = ew.mul(rows, ones)
    if reduction == "none":
        return rows
    counts = apply(LabelWeights(ignore_index=ignore_index), weights, target)
    return sum(rows) if reduction == "sum" else ew.div(sum(rows), sum(counts))


def _soft(x: Any, target: Any, reduction: str, weight: Any, smoothing: float) -> Any:
    if smoothing:
        target = ew.add(ew.mul(target, 1 - smoothing), smoothing / x.shape[1])
    terms = ew.mul(log_softmax(x, 1), target)
    if weight is not None:
        terms = ew.mul(terms, _column(weight, x))
    return reduce_loss("cross_entropy", ew.neg(sum(terms, 1)), reduction)


def _column(weight: Any, x: Any) -> Any:
    """(C,) as it broadcasts over x (N, C, ...)."""
    return reshape(weight, (-1, *[1] * (len(x.shape) - 2)))
