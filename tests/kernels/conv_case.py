"""A convolution of any sizes: its arrays, a float64 reference over taps, and the kernels' checks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastnn import _core

NONE, RELU, SIGMOID, TANH, GRAD_RELU, GRAD_SIGMOID, GRAD_TANH = range(7)
GUARD = 64  # elements behind every output that must stay as they are
GUARD_VALUE = 12345.0


@dataclass(frozen=True)
class Conv:
    """One convolution's sizes; `oh`, `ow` of 0 stand for the largest output that needs no more
    padding at the bottom right than at the top left."""

    n: int = 2
    c: int = 5
    ih: int = 7
    iw: int = 6
    k: int = 9
    kh: int = 3
    kw: int = 3
    stride_h: int = 1
    stride_w: int = 1
    pad_h: int = 0
    pad_w: int = 0
    dilation_h: int = 1
    dilation_w: int = 1
    groups: int = 1
    oh: int = 0
    ow: int = 0

    def sizes(self) -> dict[str, int]:
        sizes = dict(self.__dict__)
        for axis in "hw":
            if sizes[f"o{axis}"] == 0:
                reach = sizes[f"dilation_{axis}"] * (sizes[f"k{axis}"] - 1) + 1
                room = sizes[f"i{axis}"] + 2 * sizes[f"pad_{axis}"] - reach
                assert room >= 0
                sizes[f"o{axis}"] = room // sizes[f"stride_{axis}"] + 1
        return sizes


def taps(s: dict[str, int]):
    """Yields (r, s, output slices, input slices): the pixels for which this tap lies inside."""

    def valid(axis: str, at: int):
        stride, size = s[f"stride_{axis}"], s[f"i{axis}"]
        shift = at * s[f"dilation_{axis}"] - s[f"pad_{axis}"]
        inside = [o for o in range(s[f"o{axis}"]) if 0 <= o * stride + shift < size]
        return np.array(inside, int), np.array([o * stride + shift for o in inside], int)

    for r in range(s["kh"]):
        for t in range(s["kw"]):
            oy, iy = valid("h", r)
            ox, ix = valid("w", t)
            yield r, t, np.ix_(range(s["n"]), oy, ox), np.ix_(range(s["n"]), iy, ix)


def per_group(s: dict[str, int]):
    c, k = s["c"] // s["groups"], s["k"] // s["groups"]
    for g in range(s["groups"]):
        yield slice(g * c, (g + 1) * c), slice(g * k, (g + 1) * k)


def reference(s: dict[str, int], x, w, dy):
    """(y, dx, dw) in float64."""
    y = np.zeros((s["n"], s["oh"], s["ow"], s["k"]))
    dx = np.zeros((s["n"], s["ih"], s["iw"], s["c"]))
    dw = np.zeros((s["kh"], s["kw"], s["c"] // s["groups"], s["k"]))
    for r, t, out, into in taps(s):
        for cs, ks in per_group(s):
            xs, dys, ws = x[..., cs][into], dy[..., ks][out], w[r, t][:, ks]
            y[..., ks][out] += xs @ ws
            dx[..., cs][into] += dys @ ws.T
            dw[r, t][:, ks] += np.tensordot(xs, dys, ([0, 1, 2], [0, 1, 2]))
    return y, dx, dw


def epilogue(act: int, v, saved):
    if act == RELU:
        return np.maximum(v, 0)
    if act == SIGMOID:
        return 1 / (1 + np.exp(-v))
    if act == TANH:
        return np.tanh(v)
    slope = {GRAD_RELU: saved > 0, GRAD_SIGMOID: saved * (1 - saved), GRAD_TANH: 1 - saved**2}
    return v * slope[act] if act in slope else v


class Case:
    """Random data of one convolution, its kernels' results and float64 references."""

    def __init__(self, conv: Conv, bits: int, seed: int = 0) -> None:
        self.s, self.bits = conv.sizes(), bits
        self.dtype = np.dtype(f"f{bits // 8}")
        self.eps = float(np.finfo(self.dtype).eps)
        s, rng = self.s, np.random.default_rng(seed)

        def draw(*shape):
            return rng.standard_normal(shape).astype(self.dtype)

        self.x = draw(s["n"], s["ih"], s["iw"], s["c"])
        self.w = draw(s["kh"], s["kw"], s["c"] // s["groups"], s["k"])
        self.dy = draw(s["n"], s["oh"], s["ow"], s["k"])
        self.bias = draw(s["k"])
        self.residual = {"x": draw(*self.x.shape), "y": draw(*self.dy.shape)}
        self.saved = {"x": draw(*self.x.shape), "y": draw(*self.dy.shape)}

    def ints(self, *without: str) -> dict[str, int]:
        return {name: v for name, v in self.s.items() if name not in without}

    def guarded(self, shape):
        """An output array of NaN and the whole block, whose end must keep its guard values."""
        size = int(np.prod(shape))
        block = np.full(size + GUARD, np.nan, self.dtype)
        block[size:] = GUARD_VALUE
        return block[:size].reshape(shape), block

    def buffer(self, kernel: str, **ints):
        size = _core.buffer_bytes(kernel, self.bits, **ints)
        block = np.full(size + 64, 0xA5, np.uint8)
        return block, size

    def pack(self, direction: int):
        ints = self.ints("n", "ih", "iw", "oh", "ow", "pad_h", "pad_w") | {"direction": direction}
        packed, size = self.buffer("conv_pack", **ints)
        _core.call("conv_pack", self.bits, w=self.w, packed=packed, **ints)
        assert (packed[size:] == 0xA5).all()
        return packed

    def forward(self, act=NONE, bias=True, residual=False):
        y, block = self.guarded(self.dy.shape)
        _core.call(
            "conv_fwd", self.bits, x=self.x, packed=self.pack(0), y=y, act=act,
            bias=self.bias if bias else None, residual=self.residual["y"] if residual else None,
            saved=self.saved["y"] if act >= GRAD_RELU else None, **self.ints(),
        )  # fmt: skip
        assert (block[y.size :] == GUARD_VALUE).all()
        return y

    def backward_data(self, act=NONE, residual=False):
        dx, block = self.guarded(self.x.shape)
        _core.call(
            "conv_bwd_data", self.bits, dy=self.dy, packed=self.pack(1), dx=dx, act=act,
            residual=self.residual["x"] if residual else None,
            saved=self.saved["x"] if act >= GRAD_RELU else None, **self.ints(),
        )  # fmt: skip
        assert (block[dx.size :] == GUARD_VALUE).all()
        return dx

    def backward_weight(self, with_bias=True):
        dw, dw_block = self.guarded(self.w.shape)
        dbias, dbias_block = self.guarded(self.bias.shape)
        work, size = self.buffer("conv_bwd_weight", **self.ints())
        _core.call(
            "conv_bwd_weight", self.bits, x=self.x, dy=self.dy, dw=dw, work=work,
            dbias=dbias if with_bias else None, **self.ints(),
        )  # fmt: skip
        assert (dw_block[dw.size :] == GUARD_VALUE).all()
        assert (dbias_block[dbias.size :] == GUARD_VALUE).all()
        assert (work[size:] == 0xA5).all()
        return dw, dbias

    def references(self, magnitudes: bool = False):
        """(y without bias, dx, dw, dbias), or the same sums of absolute values."""
        arrays = [a.astype(np.float64) for a in (self.x, self.w, self.dy)]
        if magnitudes:
            arrays = [np.abs(a) for a in arrays]
        return *reference(self.s, *arrays), arrays[2].sum((0, 1, 2))

    def bound(self, terms: int, magnitude):
        """The rounding error of a sum of `terms` products in any order, plus the epilogue's."""
        return (terms + 12) * self.eps * (magnitude + 1)

    def check_forward(self, act=NONE, bias=True, residual=False, refs=None):
        s = self.s
        y, magnitude = [r[0] for r in refs or (self.references(), self.references(True))]
        if bias:
            y, magnitude = y + self.bias, magnitude + np.abs(self.bias)
        if residual:
            y, magnitude = y + self.residual["y"], magnitude + np.abs(self.residual["y"])
        saved = self.saved["y"].astype(np.float64)
        expected = epilogue(act, y, saved)
        bound = self.bound(s["kh"] * s["kw"] * s["c"] // s["groups"], magnitude)
        bound = bound * (1 + saved**2 + np.abs(saved)) if act >= GRAD_RELU else bound
        got = self.forward(act, bias, residual)
        assert (np.abs(got - expected) <= bound).all()

    def check_backward_data(self, act=NONE, residual=False, refs=None):
        s = self.s
        dx, magnitude = [r[1] for r in refs or (self.references(), self.references(True))]
        if residual:
            dx, magnitude = dx + self.residual["x"], magnitude + np.abs(self.residual["x"])
        saved = self.saved["x"].astype(np.float64)
        expected = epilogue(act, dx, saved)
        bound = self.bound(s["kh"] * s["kw"] * s["k"] // s["groups"], magnitude)
        bound = bound * (1 + saved**2 + np.abs(saved)) if act >= GRAD_RELU else bound
        got = self.backward_data(act, residual)
        assert (np.abs(got - expected) <= bound).all()

    def check_backward_weight(self, with_bias=True, refs=None):
        value, magnitude = refs or (self.references(), self.references(True))
        terms = self.s["n"] * self.s["oh"] * self.s["ow"]
        dw, dbias = self.backward_weight(with_bias)
        assert (np.abs(dw - value[2]) <= self.bound(terms, magnitude[2])).all()
        if with_bias:
            assert (np.abs(dbias - value[3]) <= self.bound(terms, magnitude[3])).all()

    def check(self):
        refs = self.references(), self.references(True)
        self.check_forward(refs=refs)
        self.check_backward_data(refs=refs)
        self.check_backward_weight(refs=refs)
