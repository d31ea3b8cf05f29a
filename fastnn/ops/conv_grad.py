"""The backward passes of a convolution: the gradients of the image and of the weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.graph import Array, Node, Value, apply
from fastnn.layout import CHANNELS_LAST
from fastnn.ops.conv_algorithm import LANES, WEIGHT_ORDER, WINOGRAD, choose
from fastnn.ops.conv_shape import Conv, Pair, cases, padded, taps
from fastnn.ops.epilogue import act_code, finish
from fastnn.ops.op import REGISTRY, Example, Spec, check_float, register

if TYPE_CHECKING:
    from fastnn.plan.builder import Builder


@register
class Conv2dGradData(Conv):
    """dx of conv2d from dy and w: (conv_transpose(dy, w) + residual) * act'(saved)."""

    name = "conv2d_grad_data"
    size: Pair = (0, 0)  # of the image
    act: str = ""

    def infer(
        self, dy: Value, w: Value, residual: Value | None = None, saved: Value | None = None
    ) -> list[Spec]:
        dtype = check_float(self.name, x=dy, weight=w)
        return [((dy.shape[0], w.shape[1] * self.groups, *self.size), dtype)]

    def grad(self, node: Node, *douts: Value | None) -> Sequence[Value | None]:
        """As conv_transpose2d: the other two passes with what was dx as the image."""
        dy, w = node.inputs[:2]
        (dx,) = douts
        assert dy is not None and w is not None
        # By name: conv.py imports this file.
        back = apply(REGISTRY["conv2d"](**self.geometry), dx, w)
        if (
            back.shape != dy.shape
        ):  # output padding that reaches past a dilated kernel's last window
            back = back[:, :, : dy.shape[2], : dy.shape[3]]
        dw, _ = apply(Conv2dGradWeight(**self.geometry, kernel=w.shape[2:]), dx, dy)
        return [back, dw, None, None][: len(node.inputs)]

    def lower(self, node: Node, b: Builder) -> None:
        dy, w, residual, saved = (*node.inputs, None, None)[:4]
        (dx,) = node.outputs
        assert dy is not None and w is not None
        sizes = self.fields(dx.shape, w.shape, dy.shape)
        act, flops = act_code(self.act, saved is not None), 2 * self.macs(w.shape, dy.shape)
        if residual is None and b.in_lanes(dy) and LANES.can(b, sizes):
            kept = None if saved is None else b.lanes(saved)
            ends = dict(dy=b.lanes(dy), dx=b.new_lanes(dx))
            LANES.backward_data(b, sizes, w, flops=flops, act=act, saved=kept, **ends)
            return
        refs: dict[str, Any] = dict(dy=b.channels_last(dy), dx=b.new(dx, CHANNELS_LAST))
        refs["residual"] = None if residual is None else b.channels_last(residual)
        kept, table = (None, None) if saved is None else b.scaled(saved)
        if table is not None:
            wanted = any(reader.op.wants_sums for reader in b.readers(dx))
            refs |= {"saved_table": table, "sums": wanted}
        sums = choose(sizes).backward_data(b, sizes, w, flops=flops, act=act, saved=kept, **refs)
        if sums is not None:
            assert kept is not None
            b.sums[dx] = sums, kept

    def scales(self, node: Node, value: Value, b: Any) -> bool:
        dy, w, _, saved = (*node.inputs, None, None)[:4]
        if saved is not value or self.act != "relu":
            return False
        assert dy is not None and w is not None
        return choose(self.fields(node.outputs[0].shape, w.shape, dy.shape)) is WINOGRAD

    def reference(
        self, dy: Array, w: Array, residual: Array | None = None, saved: Array | None = None
    ) -> Any:
        (ph, pw), (h, v) = self.padding, self.size
        dx = np.zeros((dy.shape[0], w.shape[1] * self.groups, h + 2 * ph, v + 2 * pw), dy.dtype)
        for patch, tap, _, outs in taps(self, dx, w.shape, *dy.shape[2:]):
            patch += np.einsum("nkhw,kc->nchw", dy[:, outs], w[outs, :, tap[0], tap[1]])
        dx = dx[:, :, ph : ph + h, pw : pw + v]
        return finish(dx + (0 if residual is None else residual), self.act, saved)

    @classmethod
    def examples(cls) -> Iterable[Example]:
        for op, x, w in cases(Conv):
            oh, ow = op.output_size(x, w)
            yield Example(cls(**op.geometry, size=x[2:]), (x[0], w[0], oh, ow), w)
        fused = cls(padding=(1, 1), size=(5, 5), act="relu")
        yield Example(fused, (2, 4, 5, 5), (4, 3, 3, 3), (2, 3, 5, 5), (2, 3, 5, 5))
        one = cls(size=(5, 5), act="relu")
        yield Example(one, (2, 4, 5, 5), (4, 3, 1, 1), (2, 3, 5, 5), (2, 3, 5, 5))


@register
class Conv2dGradWeight(Conv):
    """dw and dbias of conv2d from x and dy."""

    name = "conv2d_grad_weight"
    kernel: Pair = (1, 1)

    def infer(self, x: Value, dy: Value) -> list[Spec]:
        k = dy.shape[1]
        return [((k, x.shape[1] // self.groups, *self.kernel), x.dtype), ((k,), x.dtype)]

    def lower(self, node: Node, b: Builder) -> None:
        (x, dy), (dw, dbias) = node.inputs, node.outputs
        assert x is not None and dy is not None
        sizes = self.fields(x.shape, dw.shape, dy.shape)
        pooled = b.postponed(dy)
        results = dict(
            flops=2 * self.macs(dw.shape, dy.shape),
            dw=b.new(dw, WEIGHT_ORDER),
            dbias=b.new(dbias) if b.is_used(dbias) else None,
        )
        if pooled is not None:
            dy, idx, saved = (*pooled.inputs, None)[:3]
            assert dy is not None and idx is not None
            kept = None if saved is None else b.lanes(saved)
            refs = dict(x=b.lanes(x), dy=b.lanes(dy), idx=b.lanes(idx), saved=kept)
            LANES.backward_weight(b, sizes, **refs, **results)
            return
        if b.in_lanes(dy) and LANES.can(b, sizes):
            refs = dict(x=b.lanes(x), dy=b.lanes(dy), idx=None, saved=None)
            LANES.backward_weight(b, sizes, **refs, **results)
            return
        source, table = b.scaled(x)
        scaled = {} if table is None else {"table": table}
        images = dict(x=source, dy=b.channels_last(dy), **scaled)
        choose(sizes).backward_weight(b, sizes, **images, **results)

    def scales(self, node: Node, value: Value, b: Any) -> bool:
        (x, dy), dw = node.inputs, node.outputs[0]
        if x is not value:
            return False
        assert x is not None and dy is not None
        return choose(self.fields(x.shape, dw.shape, dy.shape)) is WINOGRAD

    def spreads(self, node: Node, b: Builder, lanes: bool) -> bool:
        x, dw = node.inputs[0], node.outputs[0]
        assert x is not None and node.inputs[1] is not None
        return lanes and LANES.can(b, self.fields(x.shape, dw.shape, node.inputs[1].shape))

    def reference(self, x: Array, dy: Array) -> tuple[Array, Array]:
        shape = (dy.shape[1], x.shape[1] // self.groups, *self.kernel)
        dw = np.zeros(shape, x.dtype)
        for patch, tap, _, outs in taps(self, padded(x, self.padding), shape, *dy.shape[2:]):
            dw[outs, :, tap[0], tap[1]] += np.einsum("nchw,nkhw->kc", patch, dy[:, outs])
        return dw, dy.sum((0, 2, 3))

    @classmethod
    def examples(cls) -> Iterable[Example]:
        for op, x, w in cases(Conv):
            oh, ow = op.output_size(x, w)
            yield Example(cls(**op.geometry, kernel=w[2:]), x, (x[0], w[0], oh, ow))
