"""Convolutions of images, channels-last in memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.graph import Array, Node, Value, apply
from fastnn.layout import CHANNELS_LAST
from fastnn.ops.conv_algorithm import LANES, WINOGRAD, Direct, Pointwise, Winograd, choose
from fastnn.ops.conv_grad import Conv2dGradData, Conv2dGradWeight
from fastnn.ops.conv_shape import Conv, Pair, cases, padded, pair, taps
from fastnn.ops.epilogue import act_code, finish
from fastnn.ops.op import Example, Input, Spec, check_float, check_ndim, register
from fastnn.ops.pad import named_padding

if TYPE_CHECKING:
    from fastnn.plan.builder import Builder


@register
class Conv2d(Conv):
    """act(conv(x, w) + bias + residual): x (N, C, H, W), w (O, C/groups, kH, kW), bias (O,)."""

    name = "conv2d"
    act: str = ""

    def infer(
        self, x: Value, w: Value, bias: Value | None = None, residual: Value | None = None
    ) -> list[Spec]:
        dtype = check_float(self.name, x=x, weight=w, bias=bias)
        check_ndim(self.name, "x", x, 4)
        check_ndim(self.name, "weight", w, 4)
        if x.shape[1] != w.shape[1] * self.groups:
            raise ValueError(
                f"conv2d: x: expected {w.shape[1] * self.groups} channels, got shape {x.shape}"
            )
        if w.shape[0] % self.groups:
            raise ValueError(f"conv2d: groups: {self.groups} does not divide {w.shape[0]} outputs")
        if bias is not None and bias.shape != w.shape[:1]:
            raise ValueError(f"conv2d: bias: expected shape {w.shape[:1]}, got {bias.shape}")
        oh, ow = self.output_size(x.shape, w.shape)
        if oh < 1 or ow < 1:
            raise ValueError(f"conv2d: x: {x.shape} is smaller than the kernel {w.shape[2:]}")
        return [((x.shape[0], w.shape[0], oh, ow), dtype)]

    def grad(self, node: Node, *douts: Value | None) -> Sequence[Value | None]:
        x, w, bias = (*node.inputs, None)[:3]
        (dy,) = douts
        assert x is not None and w is not None
        dx = apply(Conv2dGradData(**self.geometry, size=x.shape[2:]), dy, w)
        dw, dbias = apply(Conv2dGradWeight(**self.geometry, kernel=w.shape[2:]), x, dy)
        return [dx, dw, None if bias is None else dbias][: len(node.inputs)]

    def lower(self, node: Node, b: Builder) -> None:
        x, w, bias, residual = (*node.inputs, None, None)[:4]
        (y,) = node.outputs
        assert x is not None and w is not None
        sizes = self.fields(x.shape, w.shape, y.shape)
        start = None if bias is None else b.dense(bias)
        act, flops = act_code(self.act, False), self.flops(node)
        if self._takes_lanes(node, b):
            refs = dict(x=b.lanes(x), bias=start, flops=flops, act=act)
            pool = b.only_reader(y)
            if pool is not None and pool.op.halves and self.act in ("", "relu"):
                b.lowered(pool)
                y, idx = pool.outputs
                places = dict(y=b.new_lanes(y), idx=b.new_lanes(idx) if b.is_used(idx) else None)
                LANES.forward_pooled(b, sizes, w, **refs, **places)
            else:
                LANES.forward(b, sizes, w, y=b.new_lanes(y), **refs)
            return
        source, table = b.scaled(x)
        moments = self._algorithm(node, b).forward(
            b,
            sizes,
            w,
            flops=flops,
            x=source,
            **({} if table is None else {"table": table}),
            bias=start,
            residual=None if residual is None else b.channels_last(residual),
            y=b.new(y, CHANNELS_LAST),
            act=act,
            moments=b.fused and any(reader.op.wants_moments for reader in b.readers(y)),
        )
        if moments is not None:
            b.moments[y] = moments

    def _takes_lanes(self, node: Node, b: Builder) -> bool:
        x, w, _, residual = (*node.inputs, None, None)[:4]
        (y,) = node.outputs
        assert x is not None and w is not None
        in_turn = b.in_lanes(x) or any(reader.op.shrinks for reader in b.readers(y))
        return residual is None and in_turn and LANES.can(b, self.fields(x.shape, w.shape, y.shape))

    def _algorithm(self, node: Node, b: Builder) -> Direct | Pointwise | Winograd:
        x, w = node.inputs[:2]
        assert x is not None and w is not None
        # Packed weights are kept where they are neither trained nor given to each run.
        trained = b.is_read_by(x, Conv2dGradWeight)
        sizes = self.fields(x.shape, w.shape, node.outputs[0].shape)
        return choose(sizes, kept=not trained and not isinstance(w.node.op, Input))

    def scales(self, node: Node, value: Value, b: Any) -> bool:
        if node.inputs[0] is not value:
            return False
        return not self._takes_lanes(node, b) and self._algorithm(node, b) is WINOGRAD

    def flops(self, node: Node) -> int:
        w = node.inputs[1]
        assert w is not None
        return 2 * self.macs(w.shape, node.outputs[0].shape)

    def reference(
        self, x: Array, w: Array, bias: Array | None = None, residual: Array | None = None
    ) -> Any:
        oh, ow = self.output_size(x.shape, w.shape)
        y = np.zeros((x.shape[0], w.shape[0], oh, ow), x.dtype)
        for patch, tap, group, outs in taps(self, padded(x, self.padding), w.shape, oh, ow):
            y[:, outs] += np.einsum("nchw,kc->nkhw", patch, w[outs, :, tap[0], tap[1]])
            del group
        y += 0 if bias is None else bias[:, None, None]
        y += 0 if residual is None else residual
        return finish(y, self.act, None)

    @classmethod
    def examples(cls) -> Iterable[Example]:
        for op, x, w in cases(cls):
            yield Example(op, x, w, w[:1])
        yield Example(cls(padding=(1, 1)), (2, 3, 5, 5), (4, 3, 3, 3))
        yield Example(
            cls(padding=(1, 1), act="relu"), (2, 3, 5, 5), (4, 3, 3, 3), (4,), (2, 4, 5, 5)
        )
        yield Example(cls(act="relu"), (2, 3, 5, 5), (4, 3, 1, 1), (4,), (2, 4, 5, 5))


def conv2d(
    x: Any,
    w: Any,
    b: Any = None,
    stride: int | Pair = 1,
    padding: int | Pair | str = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
) -> Any:
    """2-D convolution (cross-correlation), as torch.nn.functional.conv2d.

    x (N, C, H, W), w (O, C/groups, kH, kW), b (O,) or None; returns (N, O, H', W') with
    H' = floor((H + 2 padding - dilation (kH - 1) - 1) / stride) + 1. float32 or float64. padding may
    be "valid" (none) or, with stride 1, "same" (H' = H; an odd one goes to the bottom and right).
    Raises ValueError or TypeError naming the argument that does not fit.
    """
    if groups < 1:
        raise ValueError(f"conv2d: groups: expected at least 1, got {groups}")
    steps, gaps = pair("conv2d", "stride", stride, 1), pair("conv2d", "dilation", dilation, 1)
    x, numbers = named_padding("conv2d", x, padding, w.shape[2:], steps, gaps)
    edges = pair("conv2d", "padding", numbers, 0)
    return apply(Conv2d(stride=steps, padding=edges, dilation=gaps, groups=groups), x, w, b)
