"""Rows of a table by integer index, and the table's gradient: whole, or as the rows touched."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.graph import Array, Node, Shape, Value, apply
from fastnn.layout import Ref, dense_strides
from fastnn.ops import elementwise as ew
from fastnn.ops.op import Example, Op, Spec, check_float, check_ndim, register

if TYPE_CHECKING:
    from fastnn.plan.builder import Builder

FLOAT_CODES = {np.dtype(np.float32): 0, np.dtype(np.float64): 1}  # of enum fnn_dtype


@register
class Embedding(Op):
    """weight[indices]: weight (V, C), integer indices (...), result (..., C).

    padding_idx: a row that gets no gradient; -1 for none.
    """

    name = "embedding"
    integer_inputs = (1,)
    padding_idx: int = -1

    def infer(self, weight: Value, indices: Value) -> list[Spec]:
        dtype = check_float(self.name, weight=weight)
        check_ndim(self.name, "weight", weight, 2)
        if indices.dtype.kind not in "iu":
            raise TypeError(f"embedding: indices: expected integers, got {indices.dtype}")
        return [((*indices.shape, weight.shape[1]), dtype)]

    def grad(self, node: Node, *douts: Value | None) -> Sequence[Value | None]:
        weight, indices = node.inputs
        assert weight is not None
        op = EmbeddingGrad(num_embeddings=weight.shape[0], padding_idx=self.padding_idx)
        return [apply(op, douts[0], indices), None]

    def lower(self, node: Node, b: Builder) -> None:
        (weight, indices), (y,) = node.inputs, node.outputs
        assert weight is not None and indices is not None
        b.step(
            "take",
            src=b.dense(weight),
            idx=b.labels(indices),
            scale=None,
            shift=None,
            out=b.new(y),
            rows=indices.size,
            src_rows=weight.shape[0],
            c=weight.shape[1],
            hw=1,
            dtype=FLOAT_CODES[weight.dtype],
        )

    def reference(self, weight: Array, indices: Array) -> Any:
        return weight[indices]

    @classmethod
    def examples(cls) -> Iterable[Example]:
        for c in (1, 7, 16, 17, 65):
            yield Example(cls(), (5, c), np.array([[0, 4, 2], [4, 4, 1]]))
        yield Example(cls(), (3, 2), np.array([2, 0], np.uint8))


@register
class EmbeddingGrad(Op):
    """The gradient of the table: each row of dy (..., C) added to the row of its index."""

    name = "embedding_grad"
    integer_inputs = (1,)
    num_embeddings: int = 1
    padding_idx: int = -1

    def infer(self, dy: Value, indices: Value) -> list[Spec]:
        return [((self.num_embeddings, dy.shape[-1]), dy.dtype)]

    def lower(self, node: Node, b: Builder) -> None:
        (dy, indices), (dw,) = node.inputs, node.outputs
        assert dy is not None and indices is not None
        b.step(
            "embedding_bwd",
            dy=b.dense(dy),
            idx=b.labels(indices),
            dw=b.new(dw),
            rows=indices.size,
            table=self.num_embeddings,
            c=dy.shape[-1],
            padding=self.padding_idx,
        )

    def reference(self, dy: Array, indices: Array) -> Any:
        dw = np.zeros((self.num_embeddings, dy.shape[-1]), dy.dtype)
        kept = indices != self.padding_idx
        np.add.at(dw, indices[kept], dy[kept])
        return dw

    @classmethod
    def examples(cls) -> Iterable[Example]:
        for c in (1, 17, 65, 130):
            indices = np.array([[0, 4, 2], [4, 4, 1]])
            yield Example(cls(num_embeddings=6), (2, 3, c), indices)
            yield Example(cls(num_embeddings=6, padding_idx=4), (2, 3, c), indices)


@register
class EmbeddingRows(Op):
    """The gradient of the table by rows: from dy (..., C) and indices (...), once for each lookup.

    Outputs, with n indices in all: rows (1 + n,), int64, the number of rows touched, then each once, by
    first appearance; sums (n, C), the gradients of these rows. The rest of both is zero.
    """

    name = "embedding_rows"
    integer_inputs = (1,)
    num_embeddings: int = 1
    padding_idx: int = -1

    def infer(self, *lookups: Value) -> list[Spec]:
        n, dy = sum(indices.size for indices in lookups[1::2]), lookups[0]
        return [((1 + n,), np.int64), ((n, dy.shape[-1]), dy.dtype)]

    def lower(self, node: Node, b: Builder) -> None:
        rows, sums = node.outputs
        n, c = sums.shape
        given = [v for v in node.inputs if v is not None]
        dys, indices = [b.dense(v) for v in given[::2]], [b.labels(v) for v in given[1::2]]
        b.step(
            "embedding_rows",
            dy=self._joined(b, dys, (n, c)),
            idx=self._joined(b, indices, (n,)),
            rows=b.new(rows),
            g=b.new(sums),
            n=n,
            table=self.num_embeddings,
            c=c,
            padding=self.padding_idx,
        )

    @staticmethod
    def _joined(b: Builder, parts: Sequence[Ref], shape: Shape) -> Ref:
        """Dense arrays one after another."""
        if len(parts) == 1:
            return parts[0]
        out, at = b.temp(shape, parts[0].dtype), 0
        for part in parts:
            strides = dense_strides(part.shape, range(len(part.shape)))
            place = Ref(out.buffer, part.shape, strides, out.dtype, at * out.dtype.itemsize)
            b.copy(part, place)
            at += part.size
        return out

    def reference(self, *lookups: Any) -> Any:
        dy = np.concatenate([a.reshape(-1, a.shape[-1]) for a in lookups[::2]])
        indices = np.concatenate([a.reshape(-1) for a in lookups[1::2]])
        found = [i for i in dict.fromkeys(indices.tolist()) if i != self.padding_idx]
        rows, sums = np.zeros(1 + len(dy), np.int64), np.zeros_like(dy)
        rows[: 1 + len(found)] = [len(found), *found]
        for place, row in enumerate(found):
            sums[place] = dy[indices == row].sum(0)
        return rows, sums

    @classmethod
    def examples(cls) -> Iterable[Example]:
        indices = np.array([[0, 4, 2], [4, 4, 1]])
        for c in (1, 17, 130):
            yield Example(cls(num_embeddings=6), (2, 3, c), indices)
            yield Example(cls(num_embeddings=6, padding_idx=4), (2, 3, c), indices)
        other = np.array([5, 0, 1], np.uint8)
        yield Example(cls(num_embeddings=6), (2, 3, 7), indices, (3, 7), other)


def touched_rows(grad: Value) -> tuple[Value, Value] | None:
    """EmbeddingRows' outputs for the gradient of a table; None if it is not of lookups alone."""
    found: list[Node] = []
    stack = [grad]
    while stack:
        node = stack.pop().node
        if isinstance(node.op, ew.Add):
            stack += [v for v in node.inputs[::-1] if v is not None]
        elif isinstance(node.op, EmbeddingGrad):
            found.append(node)
        else:
            return None
    if len({node.op.key for node in found}) > 1:  # one of them has another padding
        return None
    op = EmbeddingRows(**vars(found[0].op))
    rows, sums = apply(op, *(v for node in found for v in node.inputs))
    return rows, sums


def embedding(indices: Any, weight: Any, padding_idx: int | None = None) -> Any:
    """The rows of weight (V, C) at integer indices (...): (..., C). As torch.nn.functional.embedding.

    padding_idx: a row that gets no gradient, counted from the end if negative. Raises IndexError for an
    index outside 0..V-1 when it is computed, ValueError for such a padding_idx.
    """
    rows = weight.shape[0]
    if padding_idx is None:
        return apply(Embedding(), weight, indices)
    if not -rows <= padding_idx < rows:
        raise ValueError(f"embedding: padding_idx: expected one of {rows} rows, got {padding_idx}")
    return apply(Embedding(padding_idx=padding_idx % rows), weight, indices)
