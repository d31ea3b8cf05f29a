"""Matrix products: one gemm kernel behind matmul and linear, any strides, batch dimensions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn import _core
from fastnn.graph import Array, Node, Value, apply
from fastnn.layout import Ref, view_strides
from fastnn.ops import elementwise as ew
from fastnn.ops.epilogue import act_code, finish
from fastnn.ops.gemm import gemm
from fastnn.ops.op import Example, Op, Spec, broadcast, check_float, register
from fastnn.ops.reduce import sum as sum_
from fastnn.ops.shape import Permute, reshape, transpose

if TYPE_CHECKING:
    from fastnn.plan.builder import Builder

FEW_ROWS = 8  # for which the kernel takes a transposed matrix as it lies; for more it packs it


@register
class MatMul(Op):
    """act(a @ b + bias + residual), or (a @ b + residual) * act'(saved) for a gradient.

    a (..., m, k), b (..., k, n), bias (n,), residual and saved like the output (..., m, n). Only plans
    set act, residual and saved, when they fuse.
    """

    name = "matmul"
    act: str = ""

    def infer(
        self,
        a: Value,
        b: Value,
        bias: Value | None = None,
        residual: Value | None = None,
        saved: Value | None = None,
    ) -> list[Spec]:
        dtype = check_float(self.name, a=a, b=b, bias=bias)
        for name, x in (("a", a), ("b", b)):
            if x.ndim < 2:
                raise ValueError(
                    f"matmul: {name}: expected at least 2 dimensions, got shape {x.shape}"
                )
        if a.shape[-1] != b.shape[-2]:
            raise ValueError(
                f"matmul: b: expected {a.shape[-1]} rows to match a {a.shape}: {b.shape}"
            )
        if bias is not None and bias.shape != b.shape[-1:]:
            raise ValueError(f"matmul: bias: expected shape {b.shape[-1:]}, got {bias.shape}")
        batch = broadcast(self.name, a.shape[:-2], b.shape[:-2])
        return [((*batch, a.shape[-2], b.shape[-1]), dtype)]

    def grad(self, node: Node, *douts: Value | None) -> Sequence[Value | None]:
        a, b, bias = (*node.inputs, None)[:3]
        (dy,) = douts
        assert a is not None and b is not None and dy is not None
        da = ew.unbroadcast(matmul(dy, transpose(b)), a)
        if b.ndim == 2:
            rows, douts_2d = reshape(a, (-1, a.shape[-1])), reshape(dy, (-1, dy.shape[-1]))
            if isinstance(b.node.op, Permute):  # a linear layer's weight: keep its own layout
                db = transpose(matmul(transpose(douts_2d), rows))
            else:
                db = matmul(transpose(rows), douts_2d)
        else:
            db = ew.unbroadcast(matmul(transpose(a), dy), b)
        dbias = None if bias is None else sum_(dy, range(dy.ndim - 1))
        return [da, db, dbias, None, None][: len(node.inputs)]

    def lower(self, node: Node, b: Builder) -> None:
        left, right, bias, residual, saved = (*node.inputs, None, None, None)[:5]
        (y,) = node.outputs
        assert left is not None and right is not None
        batch, (m, n), k = y.shape[:-2], y.shape[-2:], left.shape[-1]
        a_ref, b_ref = b.ref(left), b.ref(right)
        if right.ndim == 2 and batch:
            rows = view_strides(a_ref, (y.size // n, k)) if n else None
            if rows is None:
                a_ref = b.dense(left)
            m, batch, a_strides = y.size // n if n else 0, (), rows or (k, 1)
        else:
            a_strides = a_ref.strides[-2:]
        if right.ndim == 2 and m > FEW_ROWS and b_ref.strides[-1] != 1 and b.keeps(b_ref):
            b_ref = b.dense(right)
        out = b.new(y)
        extra = [None if v is None else b.dense(v) for v in (residual, saved)]
        a_ref, a_batch = _batch_stride(b, a_ref, left, batch)
        b_ref, b_batch = _batch_stride(b, b_ref, right, batch)
        if a_ref is not b.ref(left) and batch:
            a_strides = a_ref.strides[-2:]
        gemm(
            b,
            (a_ref, (a_strides[0], a_strides[1])),
            (b_ref, (b_ref.strides[-2], b_ref.strides[-1])),
            (out, n),
            (m, n, k),
            act=act_code(self.act, saved is not None),
            batch=(int(np.prod(batch, dtype=np.int64)), a_batch, b_batch),
            bias=None if bias is None else b.dense(bias),
            residual=extra[0],
            saved=extra[1],
        )

    def flops(self, node: Node) -> int:
        a = node.inputs[0]
        assert a is not None
        return 2 * node.outputs[0].size * a.shape[-1]

    def reference(
        self,
        a: Array,
        b: Array,
        bias: Array | None = None,
        residual: Array | None = None,
        saved: Array | None = None,
    ) -> Any:
        y = a @ b + (0 if bias is None else bias) + (0 if residual is None else residual)
        return finish(y, self.act, saved)

    @classmethod
    def examples(cls) -> Iterable[Example]:
        tails = (1, 7, 15, 16, 17, 31, 32, 33)
        for n in tails:
            yield Example(cls(), (n, 5), (5, 3))
            yield Example(cls(), (3, n), (n, 5))
            yield Example(cls(), (5, 3), (3, n), (n,))
        yield Example(cls(), (2, 1, 5, 3), (4, 3, 2))
        yield Example(cls(), (2, 5, 3), (3, 4), (4,))
        yield Example(cls(), (4, 5), (2, 3, 5, 2))
        for act in ("relu", "tanh", "sigmoid"):
            yield Example(cls(act=act), (5, 3), (3, 7), (7,), (5, 7))
            yield Example(cls(act=act), (5, 3), (3, 7), None, (5, 7), (5, 7))


def _batch_stride(b: Builder, ref: Ref, value: Value, batch: tuple[int, ...]) -> tuple[Ref, int]:
    """One stride that walks all batch dimensions; a copy broadcast to `batch` where there is none."""
    if not batch or value.ndim == 2:
        return ref, 0
    size = int(np.prod(batch, dtype=np.int64))
    wide = ew.expand(ref, batch + value.shape[-2:])
    strides = view_strides(wide, (size, *value.shape[-2:]))
    if strides is None:
        wide = b.copied(wide, range(len(wide.shape)))
        strides = (value.shape[-2] * value.shape[-1], *wide.strides[-2:])
    return wide.with_strides((size, *value.shape[-2:]), strides), strides[0]


def matmul(a: Any, b: Any, out: Array | None = None) -> Any:
    """The matrix product a @ b over the last two dimensions, the others broadcasting.

    a (..., m, k), b (..., k, n), both float32 or both float64. `out`: an array that takes the result
    (arrays only). A vector a is one row and a vector b one column, which the result does not have.
    Raises ValueError if the inner sizes differ, TypeError for other dtypes.
    """
    if type(a) is np.ndarray and type(b) is np.ndarray and a.ndim == b.ndim == 2:
        into = np.empty((a.shape[0], b.shape[1]), a.dtype) if out is None else out
        if _core.product(a, b, into):  # a small one: the way through a plan would cost more
            return into
    row, column = np.ndim(a) == 1, np.ndim(b) == 1
    left = reshape(a, (1, *a.shape)) if row else a
    right = reshape(b, (*b.shape, 1)) if column else b
    y = apply(MatMul(), left, right)
    if row or column:
        y = reshape(y, (*y.shape[:-2], *y.shape[-2:-1][row:], *y.shape[-1:][column:]))
    if out is None:
        return y
    if out.shape != y.shape or out.dtype != y.dtype:
        raise ValueError(f"matmul: out: expected {y.dtype} {y.shape}, got {out.dtype} {out.shape}")
    out[...] = y
    return out


def linear(x: Any, weight: Any, bias: Any = None) -> Any:
    """x @ weight.T + bias: x (..., in), weight (out, in), bias (out,); returns (..., out).

    Raises ValueError naming the argument whose size does not match.
    """
    if len(weight.shape) != 2:
        raise ValueError(f"linear: weight: expected 2 dimensions, got shape {weight.shape}")
    if not x.shape or x.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"linear: x: expected {weight.shape[1]} features in the last dimension, got {x.shape}"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"linear: bias: expected shape {weight.shape[:1]}, got {bias.shape}")
    if len(x.shape) == 1:
        return reshape(linear(reshape(x, (1, -1)), weight, bias), weight.shape[:1])
    if isinstance(weight, np.ndarray) and isinstance(x, np.ndarray):
        return apply(MatMul(), x, weight.T, bias)
    return apply(MatMul(), x, transpose(weight), bias)
