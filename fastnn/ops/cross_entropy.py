"""Losses of integer labels: cross entropy of logits, negative log-likelihood of log-probabilities."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.graph import Array, Node, Seed, Value, apply
from fastnn.ops import elementwise as ew
from fastnn.ops.op import Example, Op, Spec, StorageLeaf, check_float, register
from fastnn.ops.reduce import mean, sum
from fastnn.ops.shape import reshape
from fastnn.ops.softmax import log_softmax

if TYPE_CHECKING:
    from fastnn.layout import Ref
    from fastnn.plan.builder import Builder


class Labelled(Op):
    """Base of the ops over x (N, C, ...), labels (N, ...) and, if given, a weight (C,) of the classes.

    A row counts its label's weight, and nothing where the label is ignore_index. per_row: a loss each,
    else `scale` times their sum, divided by the sum of the weights for a mean.
    """

    integer_inputs = (1,)
    per_row: bool = False
    mean: bool = False
    ignore_index: int = -100
    scale: float = 1.0

    def check(self, x: Value, labels: Value, weight: Value | None) -> np.dtype[Any]:
        """The dtype, once shapes and dtypes fit."""
        if len(x.shape) < 2:
            raise ValueError(f"{self.name}: x: expected (N, C, ...), got shape {x.shape}")
        if labels.dtype.kind not in "iu":
            raise TypeError(f"{self.name}: labels: expected integers, got {labels.dtype}")
        rows = (x.shape[0], *x.shape[2:])
        if labels.shape != rows:
            raise ValueError(f"{self.name}: labels: expected shape {rows}, got {labels.shape}")
        if weight is not None and weight.shape != x.shape[1:2]:
            raise ValueError(
                f"{self.name}: weight: expected shape {x.shape[1:2]}, got {weight.shape}"
            )
        return check_float(self.name, x=x, weight=weight)

    def fields(self, shape: Sequence[int]) -> dict[str, Any]:
        """The kernels' numbers for x of this shape."""
        return {
            "n": int(np.prod(shape, dtype=np.int64)) // max(1, shape[1]),
            "c": shape[1],
            "ignore": self.ignore_index,
            "mean": int(self.mean),
            "scale": self.scale,
        }

    def rows(self, labels: Array, weight: Array | None, dtype: Any) -> tuple[Array, Array, float]:
        """In NumPy: classes (0 where ignored), what the rows count, and the scale."""
        keep = labels != self.ignore_index
        classes = np.where(keep, labels, 0)
        counts = keep * (np.ones(1, dtype) if weight is None else weight[classes])
        return classes, counts, self.scale / counts.sum() if self.mean else self.scale


def _order(ndim: int) -> tuple[int, ...]:
    """Classes innermost."""
    return (0, *range(2, ndim), 1)


def _dense(b: Builder, value: Value | None) -> Ref | None:
    return None if value is None else b.dense(value)


def _at(x: Array, classes: Array) -> Any:
    return np.take_along_axis(x, np.expand_dims(classes, 1), 1)[:, 0]


def _onehot(classes: Array, c: int) -> Any:
    return np.moveaxis(np.eye(c)[classes], -1, 1)


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
        out, order = b.new(loss), _order(x.ndim)
        b.step(
            "xent_fwd",
            x=b.dense(x, order),
            labels=b.labels(labels),
            weight=_dense(b, weight),
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
        losses = counts * (lse - _at(x, classes))
        loss = losses if self.per_row else scale * losses.sum()
        if not self.differentiated:
            return loss, lse
        p = np.exp(x - np.expand_dims(lse, 1))
        return loss, lse, scale * np.expand_dims(counts, 1) * (p - _onehot(classes, x.shape[1]))

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
        order = _order(x.ndim)
        b.step(
            "xent_bwd",
            x=b.dense(x, order),
            labels=b.labels(labels),
            weight=_dense(b, weight),
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
        return factor * (p - _onehot(classes, x.shape[1]))

    @classmethod
    def examples(cls) -> Iterable[Example]:
        for n in (1, 7, 17, 33):
            yield Example(cls(mean=True), (3, n), np.arange(3) % n, None, (3,), ())
            yield Example(cls(per_row=True), (n, 3), np.arange(n) % 3, None, (n,), (n,))
        for n in (7, 17, 33):
            op = cls(mean=True, ignore_index=0)
            yield Example(op, (9, n), np.arange(9) % 3, np.linspace(0.5, 2, n), (9,), ())


@register
class Nll(Labelled):
    """-scale * weight * x[label]."""

    name = "nll_loss"

    def infer(self, x: Value, labels: Value, weight: Value | None = None) -> list[Spec]:
        dtype = self.check(x, labels, weight)
        return [(labels.shape if self.per_row else (), dtype)]

    def grad(self, node: Node, *douts: Value | None) -> Sequence[Value | None]:
        x, labels, weight = (*node.inputs, None)[:3]
        assert x is not None
        dx = apply(NllGrad(shape=x.shape, **vars(self)), douts[0], labels, weight)
        return [dx, None, None][: len(node.inputs)]

    def lower(self, node: Node, b: Builder) -> None:
        x, labels, weight = (*node.inputs, None)[:3]
        assert x is not None and labels is not None
        out = b.new(node.outputs[0])
        b.step(
            "nll_fwd",
            x=b.dense(x, _order(x.ndim)),
            labels=b.labels(labels),
            weight=_dense(b, weight),
            losses=out if self.per_row else None,
            total=None if self.per_row else out,
            x_rs=x.shape[1],
            **self.fields(x.shape),
        )

    def reference(self, x: Array, labels: Array, weight: Array | None = None) -> Any:
        classes, counts, scale = self.rows(labels, weight, x.dtype)
        losses = -scale * counts * _at(x, classes)
        return losses if self.per_row else losses.sum()

    @classmethod
    def examples(cls) -> Iterable[Example]:
        yield Example(cls(mean=True), (9, 4), np.arange(9) % 4)
        labels = np.arange(24).reshape(2, 3, 4) % 3
        for op in (cls(mean=True, ignore_index=2), cls(per_row=True, ignore_index=2, scale=-1.0)):
            yield Example(op, (2, 5, 3, 4), labels, np.linspace(0.5, 2, 5))


@register
class NllGrad(Labelled):
    """-scale * the row's weight * dloss at each label, else 0, in `shape`."""

    name = "nll_grad"
    shape: tuple[int, ...] = ()

    def infer(self, dloss: Value, labels: Value, weight: Value | None = None) -> list[Spec]:
        return [(self.shape, dloss.dtype)]

    def lower(self, node: Node, b: Builder) -> None:
        dloss, labels, weight = (*node.inputs, None)[:3]
        assert dloss is not None and labels is not None
        b.step(
            "nll_bwd",
            labels=b.labels(labels),
            weight=_dense(b, weight),
            dloss=b.dense(dloss),
            dx=b.new(node.outputs[0], _order(len(self.shape))),
            per_row=int(self.per_row),
            **self.fields(self.shape),
        )

    def reference(self, dloss: Array, labels: Array, weight: Array | None = None) -> Any:
        classes, counts, scale = self.rows(labels, weight, dloss.dtype)
        factor = np.expand_dims(-scale * counts * dloss, 1)
        return factor * _onehot(classes, self.shape[1])

    @classmethod
    def examples(cls) -> Iterable[Example]:
        labels = np.arange(6).reshape(2, 3) % 4
        weight = np.linspace(0.5, 2, 5)
        yield Example(cls(shape=(2, 5, 3), mean=True, ignore_index=1), (), labels, weight)
        yield Example(cls(shape=(2, 5, 3), per_row=True), (2, 3), labels)


@register
class LabelWeights(Op):
    """weight[label] of each label, 0 where it is ignore_index."""

    name = "label_weights"
    integer_inputs = (1,)
    ignore_index: int = -100

    def infer(self, weight: Value, labels: Value) -> list[Spec]:
        return [(labels.shape, check_float(self.name, weight=weight))]

    def grad(self, node: Node, *douts: Value | None) -> Sequence[Value | None]:
        return [None, None]

    def lower(self, node: Node, b: Builder) -> None:
        (weight, labels), (y,) = node.inputs, node.outputs
        assert weight is not None and labels is not None
        sizes = {"n": labels.size, "c": weight.size, "x_rs": 0, "ignore": self.ignore_index}
        b.step(
            "nll_fwd",
            x=b.dense(weight),
            labels=b.labels(labels),
            weight=None,
            losses=b.new(y),
            total=None,
            mean=0,
            scale=-1.0,
            **sizes,
        )

    def reference(self, weight: Array, labels: Array) -> Any:
        keep = labels != self.ignore_index
        return keep * weight[np.where(keep, labels, 0)]

    @classmethod
    def examples(cls) -> Iterable[Example]:
        yield Example(cls(ignore_index=2), (4,), np.arange(12).reshape(3, 4) % 4)


# --- the public functions -----------------------------------------------------------------------


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
    attrs = _attrs("cross_entropy", reduction, ignore_index)
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


def nll_loss(
    x: Any, target: Any, reduction: str = "mean", weight: Any = None, ignore_index: int = -100
) -> Any:
    """-x[target] of log-probabilities x (N, C, ...) and integer labels target (N, ...).

    weight, ignore_index, reduction and errors: see cross_entropy.
    """
    attrs = _attrs("nll_loss", reduction, ignore_index)
    return apply(Nll(**attrs), x, target, as_weight(weight, x))


def multi_margin_loss(
    x: Any,
    target: Any,
    reduction: str = "mean",
    p: int = 1,
    margin: float = 1.0,
    weight: Any = None,
) -> Any:
    """The sum over the other classes c of max(0, margin - x[target] + x[c])^p, over C.

    x (N, C) scores, target (N,) integer labels; p: 1 or 2; weight (C,): of the labels' classes.
    Raises as cross_entropy does.
    """
    if p not in (1, 2):
        raise ValueError(f"multi_margin_loss: p: expected 1 or 2, got {p!r}")
    own = apply(Nll(per_row=True, scale=-1.0), x, target)
    terms = ew.relu(ew.add(ew.sub(x, reshape(own, (-1, 1))), float(margin)))
    terms = ew.square(terms) if p == 2 else terms
    c = x.shape[1]
    rows = ew.mul(ew.sub(sum(terms, 1), max(0.0, float(margin)) ** p), 1.0 / c)
    if weight is not None:
        rows = ew.mul(rows, apply(LabelWeights(), as_weight(weight, x), target))
    return reduce_loss("multi_margin_loss", rows, reduction)


def as_weight(weight: Any, x: Any) -> Any:
    """Weights in x's dtype."""
    return weight if weight is None or isinstance(weight, Value) else np.asarray(weight, x.dtype)


def _column(weight: Any, x: Any) -> Any:
    """(C,) as it broadcasts over x (N, C, ...)."""
    return reshape(weight, (-1, *[1] * (len(x.shape) - 2)))


def _attrs(op: str, reduction: str, ignore_index: int) -> dict[str, Any]:
    check_reduction(op, reduction)
    attrs: dict[str, Any] = {"none": {"per_row": True}, "mean": {"mean": True}, "sum": {}}[
        reduction
    ]
    return attrs if ignore_index == -100 else {**attrs, "ignore_index": int(ignore_index)}


def check_reduction(op: str, reduction: str, *more: str) -> None:
    """ValueError unless it is "mean", "sum", "none" or one of `more`."""
    known = ("mean", "sum", "none", *more)
    if reduction not in known:
        raise ValueError(f"{op}: reduction: expected one of {known}, got {reduction!r}")


def reduce_loss(op: str, losses: Any, reduction: str) -> Any:
    """The mean or sum of all losses, or they themselves."""
    check_reduction(op, reduction)
    return losses if reduction == "none" else (mean if reduction == "mean" else sum)(losses)
