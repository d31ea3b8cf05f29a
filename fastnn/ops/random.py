"""Dropout: its mask is drawn from a counter-based generator and never stored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.graph import Node, Storage, Value, apply, next_key, storage_value, traced_dtype
from fastnn.ops import elementwise as ew
from fastnn.ops.op import Example, Op, Spec, check_float, register

if TYPE_CHECKING:
    from fastnn.plan.builder import Builder


@register
class Dropout(Op):
    """x / (1 - p) with probability 1 - p, else 0; the same call on dy is its gradient.

    The mask is Philox4x32-10 (Salmon et al., 2011) of (element, step, key, seed): an element takes
    half of a 32-bit word and is dropped where that is below p * 2^16, rounded.
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

    p counts to the nearest multiple of 2^-16, in the probability and in the scale.
    ValueError unless 0 <= p <= 1.
    """
    if not 0 <= p <= 1:
        raise ValueError(f"dropout: p: expected a probability, got {p}")
    if not training or p == 0:
        return x
    return apply(Dropout(p=float(p), key_number=next_key()), x)


def dropout2d(x: Any, p: float = 0.5, training: bool = True) -> Any:
    """Zero whole channels of x (N, C, ...) with probability p and scale the others, when training.

    As torch.nn.functional.dropout2d, over any number of spatial dimensions.
    """
    if len(x.shape) < 2:
        raise ValueError(f"dropout2d: x: expected (N, C, ...), got shape {tuple(x.shape)}")
    ones: Any = np.ones((*x.shape[:2], *[1] * (len(x.shape) - 2)), x.dtype)
    if isinstance(x, Value):
        ones = storage_value(Storage(ones.astype(traced_dtype() or x.dtype)))
    mask = dropout(ones, p, training)
    return x if mask is ones else ew.mul(x, mask)
