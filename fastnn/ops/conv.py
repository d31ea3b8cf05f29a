"""Convolutions of images, channels-last in memory: forward and both backward passes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.graph import Array, Node, Shape, Value, apply
from fastnn.layout import CHANNELS_LAST
from fastnn.ops.conv_algorithm import (
    LANES,
    WEIGHT_ORDER,
    WINOGRAD,
    Direct,
    Pointwise,
    Winograd,
    choose,
)
from fastnn.ops.epilogue import act_code, finish
from fastnn.ops.op import Example, Input, Op, Spec, check_float, check_ndim, int_tuple, register
from fastnn.ops.pad import named_padding

if TYPE_CHECKING:
    from fastnn.plan.builder import Builder

Pair = tuple[int, int]


class Conv(Op):
    """What the three passes share: the geometry."""

    images = True
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    @property
    def geometry(self) -> dict[str, Any]:
        """The attributes that all three passes have."""
        names = ("stride", "padding", "dilation", "groups")
        return {name: getattr(self, name) for name in names}

    def output_size(self, x: Shape, w: Shape) -> Pair:
        """Height and width of the output: floor((i + 2p - d(k - 1) - 1) / s) + 1."""
        h, v = (
            (x[2 + i] + 2 * self.padding[i] - self.dilation[i] * (w[2 + i] - 1) - 1)
            // self.stride[i]
            + 1
            for i in (0, 1)
        )
        return h, v

    def fields(self, x: Shape, w: Shape, y: Shape) -> dict[str, int]:
        """The kernels' integers, from the logical shapes of input, weight and output."""
        (n, c, ih, iw), (k, _, kh, kw), (oh, ow) = x, w, y[2:]
        return {
            **dict(n=n, c=c, ih=ih, iw=iw, k=k, oh=oh, ow=ow),
            **dict(kh=kh, kw=kw, groups=self.groups),
            **dict(pad_h=self.padding[0], pad_w=self.padding[1]),
            **dict(stride_h=self.stride[0], stride_w=self.stride[1]),
            **dict(dilation_h=self.dilation[0], dilation_w=self.dilation[1]),
        }

    def macs(self, w: Shape, y: Shape) -> int:
        """Multiply-adds, those with padding counted."""
        return int(np.prod(y, dtype=np.int64)) * w[1] * w[2] * w[3]


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
        for patch, tap, group, outs in _taps(self, _pad(x, self.padding), w.shape, oh, ow):
            y[:, outs] += np.einsum("nchw,kc->nkhw", patch, w[outs, :, tap[0], tap[1]])
            del group
        y += 0 if bias is None else bias[:, None, None]
        y += 0 if residual is None else residual
        return finish(y, self.act, None)

    @classmethod
    def examples(cls) -> Iterable[Example]:
        for op, x, w in _cases(cls):
            yield Example(op, x, w, w[:1])
        yield Example(cls(padding=(1, 1)), (2, 3, 5, 5), (4, 3, 3, 3))
        yield Example(
            cls(padding=(1, 1), act="relu"), (2, 3, 5, 5), (4, 3, 3, 3), (4,), (2, 4, 5, 5)
        )
        yield Example(cls(act="relu"), (2, 3, 5, 5), (4, 3, 1, 1), (4,), (2, 4, 5, 5))


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
        back = apply(Conv2d(**self.geometry), dx, w)
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
        for patch, tap, _, outs in _taps(self, dx, w.shape, *dy.shape[2:]):
            patch += np.einsum("nkhw,kc->nchw", dy[:, outs], w[outs, :, tap[0], tap[1]])
        dx = dx[:, :, ph : ph + h, pw : pw + v]
        return finish(dx + (0 if residual is None else residual), self.act, saved)

    @classmethod
    def examples(cls) -> Iterable[Example]:
        for op, x, w in _cases(Conv2d):
            assert isinstance(op, Conv2d)
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
        for patch, tap, _, outs in _taps(self, _pad(x, self.padding), shape, *dy.shape[2:]):
            dw[outs, :, tap[0], tap[1]] += np.einsum("nchw,nkhw->kc", patch, dy[:, outs])
        return dw, dy.sum((0, 2, 3))

    @classmethod
    def examples(cls) -> Iterable[Example]:
        for op, x, w in _cases(Conv2d):
            assert isinstance(op, Conv2d)
            oh, ow = op.output_size(x, w)
            yield Example(cls(**op.geometry, kernel=w[2:]), x, (x[0], w[0], oh, ow))


def _pad(x: Array, padding: Pair) -> Array:
    (ph, pw) = padding
    return np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))


def _taps(op: Conv, x: Array, w: Shape, oh: int, ow: int) -> Iterable[Any]:
    """For each group and kernel position: the window of padded x it meets, and its output channels."""
    (sh, sw), (dh, dw) = op.stride, op.dilation
    cg, kg = w[1], w[0] // op.groups
    for g in range(op.groups):
        outs = slice(g * kg, (g + 1) * kg)
        for r in range(w[2]):
            for s in range(w[3]):
                rows = slice(r * dh, r * dh + sh * (oh - 1) + 1, sh)
                cols = slice(s * dw, s * dw + sw * (ow - 1) + 1, sw)
                yield x[:, g * cg : (g + 1) * cg, rows, cols], (r, s), g, outs


def _cases(cls: type[Conv2d]) -> Iterable[tuple[Conv2d, Shape, Shape]]:
    """Geometries and tails: op, shape of x, shape of w."""
    for n in (1, 7, 15, 16, 17, 31, 32, 33):
        yield cls(padding=(1, 1)), (2, n, 4, 5), (3, n, 3, 3)
        yield cls(padding=(1, 1)), (2, 3, 4, 5), (n, 3, 3, 3)
        yield cls(), (1, 2, 2, n + 1), (3, 2, 2, 2)
    yield cls(stride=(2, 2), padding=(1, 1)), (2, 3, 7, 8), (5, 3, 3, 3)
    yield cls(stride=(3, 2), padding=(2, 0)), (2, 3, 9, 8), (5, 3, 5, 1)
    yield cls(dilation=(2, 3), padding=(2, 3)), (2, 3, 7, 8), (5, 3, 3, 3)
    yield cls(stride=(2, 1), dilation=(1, 2)), (1, 2, 7, 9), (4, 2, 2, 3)
    yield cls(stride=(3, 3)), (2, 4, 7, 7), (6, 4, 1, 1)
    for n in (1, 17):
        yield cls(), (2, n, 4, 5), (3, n, 1, 1)
        yield cls(), (2, 3, 4, 5), (n, 3, 1, 1)
    yield cls(groups=2, padding=(1, 1)), (2, 6, 5, 5), (4, 3, 3, 3)
    yield cls(groups=17, padding=(1, 1)), (2, 17, 5, 5), (17, 1, 3, 3)
    yield cls(groups=3, stride=(2, 2), padding=(1, 1)), (2, 3, 6, 6), (6, 1, 3, 3)
    yield cls(padding=(3, 3), stride=(2, 2)), (1, 3, 11, 12), (4, 3, 7, 7)


def pair(op: str, name: str, value: Any, least: int) -> Pair:
    """An int or a pair of ints of at least `least`, as a pair; ValueError or TypeError otherwise."""
    first, second = int_tuple(op, name, value, least, 2)
    return first, second


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
