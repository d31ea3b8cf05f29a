"""Losses of log-probabilities and of scores under integer labels: negative log-likelihood, margins."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.graph import Array, Node, Value, apply
from fastnn.ops import elementwise as ew
from fastnn.ops.labelled import (
    Labelled,
    at_classes,
    classes_last,
    dense_or_none,
    onehot,
    reduction_attrs,
)
from fastnn.ops.op import Example, Op, Spec, check_float, register
from fastnn.ops.reduce import sum
from fastnn.ops.reduction import as_weight, reduce_loss
from fastnn.ops.shape import reshape

if TYPE_CHECKING:
    from fastnn.plan.builder import Builder


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
            x=b.dense(x, classes_last(x.ndim)),
            labels=b.labels(labels),
            weight=dense_or_none(b, weight),
            losses=out if self.per_row else None,
            total=None if self.per_row else out,
            x_rs=x.shape[1],
            **self.fields(x.shape),
        )

    def reference(self, x: Array, labels: Array, weight: Array | None = None) -> Any:
        classes, counts, scale = self.rows(labels, weight, x.dtype)
        losses = -scale * counts * at_classes(x, classes)
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
            weight=dense_or_none(b, weight),
            dloss=b.dense(dloss),
            dx=b.new(node.outputs[0], classes_last(len(self.shape))),
            per_row=int(self.per_row),
            **self.fields(self.shape),
        )

    def reference(self, dloss: Array, labels: Array, weight: Array | None = None) -> Any:
        classes, counts, scale = self.rows(labels, weight, dloss.dtype)
        factor = np.expand_dims(-scale * counts * dloss, 1)
        return factor * onehot(classes, self.shape[1])

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


def nll_loss(
    x: Any, target: Any, reduction: str = "mean", weight: Any = None, ignore_index: int = -100
) -> Any:
    """-x[target] of log-probabilities x (N, C, ...) and integer labels target (N, ...).

    weight, ignore_index, reduction and errors: see cross_entropy.
    """
    attrs = reduction_attrs("nll_loss", reduction, ignore_index)
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
