"""How a convolution is computed: directly, as a matrix product where it is one, or with fewer
multiplications by Winograd's F(4x4, 3x3).

An algorithm emits the kernel calls of the three passes from what they all take: `sizes`, the direct
kernels' integers, and the Refs. Which one serves a convolution depends on its sizes alone, and on
set_conv_algorithm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.graph import Value, changed
from fastnn.layout import Ref
from fastnn.ops.gemm import gemm

if TYPE_CHECKING:
    from fastnn.plan.builder import Builder

WEIGHT_ORDER = (2, 3, 1, 0)  # (O, I, kH, kW) lies as kH, kW, I, O
Sizes = dict[str, int]
MOST_PLANES = 1 << 20  # bytes of a vector of samples' images, which have to stay in the L2 cache

# What Winograd costs beside its 36 products a tile, in multiply-adds: the transforms, per tile and
# channel of input and output; per weight matrix element, reading the packed weights, 4 times as many
# as there were, and packing them too. Fitted on AVX-512 to a grid of shapes by `python -m
# bench.winograd`: always the better algorithm would be 4 % faster in training, 1 % in inference.
TRANSFORM, READ, PACK = 450, 200, 500


class Direct:
    """Multiply-adds as the definition has them; any geometry."""

    pack_fields = (
        *("c", "k", "kh", "kw", "stride_h", "stride_w"),
        *("dilation_h", "dilation_w", "groups"),
    )

    def forward(self, b: Builder, sizes: Sizes, w: Value, **refs: Any) -> Ref | None:
        """y from x: refs x, bias, residual, y and the integers flops, act, moments.

        moments: whether to find those of y's channels on the way; returned where it can be done.
        """
        return forward(b, "conv_fwd", sizes, packed=self.packed(b, sizes, w, 0), **refs)

    def backward_data(self, b: Builder, sizes: Sizes, w: Value, **refs: Any) -> Ref | None:
        """dx from dy: refs dy, residual, saved, dx and the integers flops, act."""
        b.step("conv_bwd_data", packed=self.packed(b, sizes, w, 1), **refs, **sizes)
        return None

    def backward_weight(self, b: Builder, sizes: Sizes, **refs: Any) -> None:
        """dw and dbias from x and dy: refs of these names and the integer flops."""
        b.step("conv_bwd_weight", **refs, **sizes)

    def packed(self, b: Builder, sizes: Sizes, w: Value, direction: int) -> Ref:
        """The weights, packed for a direction (0 forward, 1 backward-data)."""
        fields = {name: sizes[name] for name in self.pack_fields}
        return pack(b, "conv_pack", w, direction=direction, **fields)


class Pointwise:
    """1x1 kernels with unit stride: products of matrices, whose rows are pixels."""

    def can(self, sizes: Sizes) -> bool:
        """Whether pixels are taken one by one, all of them."""
        ones = ("kh", "kw", "stride_h", "stride_w", "groups")
        return all(sizes[name] == 1 for name in ones) and sizes["pad_h"] == sizes["pad_w"] == 0

    def forward(self, b: Builder, sizes: Sizes, w: Value, moments: bool, **refs: Any) -> Ref | None:
        """As Direct.forward, which finds moments on the way and is taken for them."""
        if moments:
            return DIRECT.forward(b, sizes, w, moments=moments, **refs)
        x, y, _ = (refs.pop(name) for name in ("x", "y", "flops"))
        c, k = sizes["c"], sizes["k"]
        kernel = b.dense(w, WEIGHT_ORDER)
        gemm(b, (x, (c, 1)), (kernel, (k, 1)), (y, k), (self.pixels(sizes), k, c), **refs)
        return None

    def backward_data(
        self, b: Builder, sizes: Sizes, w: Value, dy: Ref, dx: Ref, flops: int, **refs: Any
    ) -> None:
        """As Direct.backward_data."""
        c, k = sizes["c"], sizes["k"]
        kernel = b.dense(w, WEIGHT_ORDER)
        gemm(b, (dy, (k, 1)), (kernel, (1, k)), (dx, c), (self.pixels(sizes), c, k), **refs)

    def backward_weight(self, b: Builder, sizes: Sizes, **refs: Any) -> None:
        """As Direct.backward_weight, which finds dbias on the way and is taken for it."""
        if refs["dbias"] is not None:
            DIRECT.backward_weight(b, sizes, **refs)
            return
        c, k = sizes["c"], sizes["k"]
        x, dy, dw = (refs[name] for name in ("x", "dy", "dw"))
        gemm(b, (x, (1, c)), (dy, (k, 1)), (dw, k), (c, k, self.pixels(sizes)))

    def pixels(self, sizes: Sizes) -> int:
        """Of all images."""
        return sizes["n"] * sizes["oh"] * sizes["ow"]


class Winograd:
    """4x4 output pixels from 36 products for each pair of channels instead of 144.

    In float32 no result is further off than 1e-4 times the RMS of them all.
    """

    fields = ("n", "c", "ih", "iw", "k", "oh", "ow", "pad_h", "pad_w")
    exchanged = ("n", "k", "oh", "ow", "c", "ih", "iw", "pad_h", "pad_w")
    fixed = dict(kh=3, kw=3, stride_h=1, stride_w=1, dilation_h=1, dilation_w=1, groups=1)

    def can(self, sizes: Sizes) -> bool:
        """Whether the geometry is one that the kernels know."""
        fits = all(sizes[name] == value for name, value in self.fixed.items())
        return fits and max(sizes["pad_h"], sizes["pad_w"]) <= 2

    def pays(self, sizes: Sizes, kept: bool = False) -> bool:
        """Whether it is the faster one, by the work that either does; border tiles count whole.

        kept: whether packed weights are used again and again.
        """
        direct, products, transforms, weights = self.work(sizes)
        return products + TRANSFORM * transforms + (READ if kept else PACK) * weights < direct

    def work(self, sizes: Sizes) -> tuple[int, int, int, int]:
        """Multiply-adds of the direct one; of this one's products; tiles times channels; weights."""
        n, c, k, oh, ow = (sizes[name] for name in ("n", "c", "k", "oh", "ow"))
        tiles = n * -(-oh // 4) * -(-ow // 4)
        return 9 * n * oh * ow * c * k, 36 * tiles * c * k, tiles * (c + k), c * k

    def own(self, sizes: Sizes, direction: int) -> Sizes:
        """The kernels' integers; backward-data (1) is the forward pass over dy with turned weights."""
        if not direction:
            return {name: sizes[name] for name in self.fields}
        turned = zip(self.fields, self.exchanged, strict=True)
        pads = {name: 2 - sizes[name] for name in ("pad_h", "pad_w")}
        return {name: sizes[source] for name, source in turned} | pads

    def forward(self, b: Builder, sizes: Sizes, w: Value, **refs: Any) -> Ref | None:
        """As Direct.forward."""
        packed = self.packed(b, sizes, w, 0)
        return forward(b, "winograd_fwd", self.own(sizes, 0), packed=packed, **refs)

    def backward_data(
        self, b: Builder, sizes: Sizes, w: Value, dy: Ref, dx: Ref, sums: bool = False, **refs: Any
    ) -> Ref | None:
        """As Direct.backward_data; saved may have a saved_table.

        sums: whether to find those of dx for that table's batch norm on the way; returned then.
        """
        packed, own = self.packed(b, sizes, w, 1), self.own(sizes, 1)
        refs |= {"x": dy, "packed": packed, "bias": None, "y": dx}
        return forward(b, "winograd_fwd", own, moments=sums, **refs)

    def backward_weight(self, b: Builder, sizes: Sizes, **refs: Any) -> None:
        """As Direct.backward_weight."""
        b.step("winograd_bwd_weight", **refs, **self.own(sizes, 0))

    def packed(self, b: Builder, sizes: Sizes, w: Value, direction: int) -> Ref:
        """The weights, transformed for a direction (0 forward, 1 backward-data)."""
        return pack(b, "winograd_pack", w, direction=direction, c=sizes["c"], k=sizes["k"])


class Lanes:
    """Direct, over images whose samples are the kernels' lanes: few channels fill vectors so.

    Such images cost a transposition either way, so that several layers in turn should share them:
    convolutions, pooling between them, activations. Depends on the machine's vectors as well.
    """

    fixed = dict(stride_h=1, stride_w=1, groups=1)
    fields = (
        *("n", "c", "ih", "iw", "k", "oh", "ow", "kh", "kw"),
        *("pad_h", "pad_w", "dilation_h", "dilation_w"),
    )

    def can(self, b: Builder, sizes: Sizes) -> bool:
        """Whether the geometry is one that the kernels know, with few channels."""
        if _setting == "winograd" and WINOGRAD.can(sizes):
            return False
        fits = all(sizes[name] == value for name, value in self.fixed.items())
        inside, area, window = True, 1, 1
        for axis in "hw":
            span = (sizes["k" + axis] - 1) * sizes["dilation_" + axis]
            padded = sizes["o" + axis] + span
            inside &= sizes["pad_" + axis] + sizes["i" + axis] <= padded
            area, window = area * padded, window * sizes["k" + axis]
        channels = max(2 * sizes["c"], sizes["k"])
        room = area * max(sizes["c"], sizes["k"]) * b.vector * b.dtype.itemsize < MOST_PLANES
        whole = sizes["n"] % b.vector == 0 < sizes["n"] and window > 1
        return fits and inside and room and whole and channels <= b.vector

    def own(self, sizes: Sizes, direction: int = 0) -> Sizes:
        """The kernels' integers; backward-data (1) is the forward pass over dy with turned weights."""
        if not direction:
            return {name: sizes[name] for name in self.fields}
        turned = dict(c="k", k="c", ih="oh", iw="ow", oh="ih", ow="iw")
        pads = {
            "pad_" + axis: (sizes["k" + axis] - 1) * sizes["dilation_" + axis]
            - sizes["pad_" + axis]
            for axis in "hw"
        }
        return {name: sizes[turned.get(name, name)] for name in self.fields} | pads

    def forward(self, b: Builder, sizes: Sizes, w: Value, **refs: Any) -> None:
        """y from x: refs x, bias, y and the integers flops, act."""
        packed = self.packed(b, sizes, w, 0)
        b.step("lanes_conv", packed=packed, saved=None, **refs, **self.own(sizes))

    def forward_pooled(self, b: Builder, sizes: Sizes, w: Value, **refs: Any) -> None:
        """2x2 maxima of y and their positions: refs x, bias, y, idx and the integers flops, act."""
        b.step("lanes_conv_pool", packed=self.packed(b, sizes, w, 0), **refs, **self.own(sizes))

    def backward_data(
        self, b: Builder, sizes: Sizes, w: Value, dy: Ref, dx: Ref, **refs: Any
    ) -> None:
        """dx from dy: refs dy, saved, dx and the integers flops, act."""
        packed, own = self.packed(b, sizes, w, 1), self.own(sizes, 1)
        b.step("lanes_conv", x=dy, packed=packed, bias=None, y=dx, **refs, **own)

    def backward_weight(self, b: Builder, sizes: Sizes, **refs: Any) -> None:
        """dw and dbias from x and dy: refs of these names and the integer flops.

        dy may be that of 2x2 max pooling, with the refs idx and saved that pool_bwd takes.
        """
        b.step("lanes_conv_bwd_weight", **refs, **self.own(sizes))

    def packed(self, b: Builder, sizes: Sizes, w: Value, direction: int) -> Ref:
        """The weights, input channel by input channel of a direction (0 forward, 1 backward-data)."""
        fields = {name: sizes[name] for name in ("c", "k", "kh", "kw")}
        return pack(b, "lanes_pack", w, direction=direction, **fields)


def forward(
    b: Builder, kernel: str, sizes: Sizes, moments: bool, act: int, **refs: Any
) -> Ref | None:
    """Emit a forward kernel, with the moments of its output's channels if asked for and it can."""
    nbytes = b.buffer_bytes(kernel, act=act, **sizes) if moments else 0
    found = b.temp((nbytes // 8,), np.float64) if nbytes else None
    b.step(kernel, moments=found, act=act, **refs, **sizes)
    return found


def pack(b: Builder, kernel: str, w: Value, **fields: int) -> Ref:
    """Emit a packing of weights into a buffer of the size that the kernel asks for."""
    out = b.temp((b.buffer_bytes(kernel, **fields),), np.uint8)
    b.step(kernel, w=b.dense(w, WEIGHT_ORDER), packed=out, **fields)
    return out


DIRECT, POINTWISE, WINOGRAD, LANES = Direct(), Pointwise(), Winograd(), Lanes()
SETTINGS = ("auto", "direct", "winograd")
_setting = "auto"


def set_conv_algorithm(name: str) -> None:
    """Choose how convolutions are computed from now on: "auto", "direct" or "winograd".

    "auto" takes Winograd's algorithm (Lavin & Gray 2015) for 3x3 kernels with stride 1, dilation 1 and
    one group where it is the faster one by a rule on shapes; "winograd" takes it for all of those,
    "direct" for none. Its results differ from the direct ones by at most 1e-4 of the output's RMS
    in float32, and an infinity or NaN spreads over the 4x4 output pixels around it.
    Raises ValueError for another name.
    """
    if name not in SETTINGS:
        raise ValueError(f"set_conv_algorithm: name: expected one of {SETTINGS}, got {name!r}")
    global _setting
    _setting = name
    changed()


def conv_algorithm() -> str:
    """What set_conv_algorithm chose; plans depend on it."""
    return _setting


def choose(sizes: Sizes, kept: bool = False) -> Direct | Pointwise | Winograd:
    """The algorithm for a convolution of these sizes; kept: packed weights serve many runs."""
    if POINTWISE.can(sizes):
        return POINTWISE
    if _setting == "direct" or not WINOGRAD.can(sizes):
        return DIRECT
    return WINOGRAD if _setting == "winograd" or WINOGRAD.pays(sizes, kept) else DIRECT
