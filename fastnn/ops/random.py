"""Dropout: its mask is drawn from a counter-based generator and never stored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from fastnn.graph import Node, Value, apply, next_key
from fastnn.ops.op import Example, Op, Spec, check_float, register

if TYPE_CHECKING:
    from fastnn.plan.builder import Builder


@register
class Dropout(Op):
    """x / (1 - p) with probability 1 - p, else 0; the same call on dy is its gradient.

    The mask is Philox4x32-10 (Salmon et al., 2011) of (element, step, key, seed).
    """

    name = "dropout"
    p: float = 0.5
    key_number: int = 0

    def infer(self, x: Value) -> list[Spec]:
        return [(x.shape, check_float(self.name, x=x))]

    def grad(self, node: Node, *douts: Value | None) -> Sequence[Value | None]:
        return [apply(self, douts[0])]

    def lower(self, node: Node, b: Builder) -> None:
        (x,), (y,) = node.inputs, node.outputs
        assert x is not None
        ref = b.dense(x, b.element_order(x, self.key_number))
        out = b.new(y, ref.order)
        b.step("dropout", x=ref, hyper=b.hyper(), y=out, n=x.size, key=self.key_number, p=self.p)

    @classmethod
    def examples(cls) -> Iterable[Example]:
        return ()  # random: tests/ops/test_random.py states its properties


def dropout(x: Any, p: float = 0.5, training: bool = True) -> Any:
    """Zero each element with probability p and scale the others by 1 / (1 - p), when training.

    ValueError unless 0 <= p <= 1.
    """
    if not 0 <= p <= 1:
        raise ValueError(f"dropout: p: expected a probability, got {p}")
    if not training or p == 0:
        return x
    return apply(Dropout(p=float(p), key_number=next_key()), x)
