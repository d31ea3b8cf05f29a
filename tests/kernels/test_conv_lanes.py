"""Convolutions of images with samples as lanes against straight float64 loops over taps."""

from __future__ import annotations

import numpy as np
import pytest
from conv_case import GRAD_RELU, GRAD_TANH, NONE, RELU, TANH, Case, Conv

from fastnn import _core

SHAPE = ("n", "c", "ih", "iw", "k", "oh", "ow", "kh", "kw", "pad_h", "pad_w")
SIZES = (*SHAPE, "dilation_h", "dilation_w")
TURNED = dict(c="k", k="c", ih="oh", iw="ow", oh="ih", ow="iw")


class LanesCase(Case):
    """The same convolution with its images as planes [n / lanes][channel][h][w][lanes]."""

    def planes(self, images):
        lanes = _core.lanes(self.bits)
        n, h, w, c = images.shape
        split = images.reshape(n // lanes, lanes, h, w, c)
        return np.ascontiguousarray(split.transpose(0, 4, 2, 3, 1))

    def images(self, planes):
        groups, c, h, w, lanes = planes.shape
        return planes.transpose(0, 4, 2, 3, 1).reshape(groups * lanes, h, w, c)

    def packed(self, direction: int):
        ints = {name: self.s[name] for name in ("c", "k", "kh", "kw")} | {"direction": direction}
        packed, size = self.buffer("lanes_pack", **ints)
        _core.call("lanes_pack", self.bits, w=self.w, packed=packed, **ints)
        assert (packed[size:] == 0xA5).all()
        return packed

    def convolve(self, x, packed, like, bias, saved, act, sizes):
        planes = self.planes(like)
        y, block = self.guarded(planes.shape)
        _core.call(
            "lanes_conv", self.bits, x=self.planes(x), packed=packed, y=y, bias=bias, act=act,
            saved=self.planes(saved) if act >= GRAD_RELU else None, **sizes,
        )  # fmt: skip
        assert (block[y.size :] == 12345.0).all()
        return self.images(y)

    def forward(self, act=NONE, bias=True, residual=False):
        sizes = {name: self.s[name] for name in SIZES}
        start = self.bias if bias else None
        return self.convolve(self.x, self.packed(0), self.dy, start, self.saved["y"], act, sizes)

    def backward_data(self, act=NONE, residual=False):
        s = self.s
        sizes = {name: s[TURNED.get(name, name)] for name in SIZES}
        for axis in "hw":
            span = (s["k" + axis] - 1) * s["dilation_" + axis]
            sizes["pad_" + axis] = span - s["pad_" + axis]
        return self.convolve(self.dy, self.packed(1), self.x, None, self.saved["x"], act, sizes)

    def forward_pooled(self, act):
        shape = (self.s["n"], self.s["oh"] // 2, self.s["ow"] // 2, self.s["k"])
        planes = self.planes(np.zeros(shape, self.dtype)).shape
        (y, block), idx = self.guarded(planes), np.zeros(planes, np.int32)
        _core.call(
            "lanes_conv_pool", self.bits, x=self.planes(self.x), packed=self.packed(0),
            bias=self.bias, y=y, idx=idx, act=act, **{name: self.s[name] for name in SIZES},
        )  # fmt: skip
        assert (block[y.size :] == 12345.0).all()
        return self.images(y), self.images(idx)

    def backward_weight(self, with_bias=True, pooled=None):
        """pooled: dy, idx and saved of 2x2 max pooling, in place of dy."""
        dy, idx, saved = map(self.planes, pooled) if pooled else (self.planes(self.dy), None, None)
        dw, dw_block = self.guarded(self.w.shape)
        dbias, dbias_block = self.guarded(self.bias.shape)
        sizes = {name: self.s[name] for name in SIZES}
        work, size = self.buffer("lanes_conv_bwd_weight", **sizes)
        _core.call(
            "lanes_conv_bwd_weight", self.bits, x=self.planes(self.x), dw=dw, work=work,
            dbias=dbias if with_bias else None, dy=dy, idx=idx, saved=saved, **sizes,
        )  # fmt: skip
        assert (dw_block[dw.size :] == 12345.0).all()
        assert (dbias_block[dbias.size :] == 12345.0).all()
        assert (work[size:] == 0xA5).all()
        return dw, dbias


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize(
    "conv",
    [
        Conv(c=1, k=6, ih=12, iw=28, kh=5, kw=5, pad_h=2, pad_w=2),
        Conv(c=6, k=16, ih=14, iw=14, kh=5, kw=5),
        Conv(c=3, k=5, ih=7, iw=8),
        Conv(c=2, k=7, ih=9, iw=8, kh=2, kw=3, pad_h=1, dilation_h=2, dilation_w=3, pad_w=2),
        Conv(c=8, k=1, ih=5, iw=1, kh=3, kw=1, pad_h=1),
        Conv(c=1, k=17, ih=3, iw=3, pad_h=2, pad_w=2),
        Conv(c=1, k=2, ih=2, iw=2, kh=1, kw=2, pad_w=1, oh=2, ow=4),
    ],
    ids=str,
)
def test_samples_as_lanes(isa, bits, conv):
    for groups in (1, 3):
        n = groups * _core.lanes(bits)
        case = LanesCase(Conv(**{**conv.__dict__, "n": n}), bits)
        case.check()
        for act in (RELU, TANH):
            case.check_forward(act, bias=False)
        for act in (GRAD_RELU, GRAD_TANH):
            case.check_backward_data(act)
        case.check_backward_weight(with_bias=False)


def windows(images):
    """(N, H, W, C) as (N, H // 2, W // 2, C, 4): 2x2 windows without what is left over."""
    n, h, w, c = images.shape
    even = images[:, : h // 2 * 2, : w // 2 * 2]
    split = even.reshape(n, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 5, 2, 4)
    return split.reshape(n, h // 2, w // 2, c, 4)


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize(
    "conv",
    [
        Conv(c=1, k=6, ih=12, iw=9, kh=5, kw=5, pad_h=2, pad_w=2),
        Conv(c=3, k=16, ih=8, iw=9),
        Conv(c=2, k=7, ih=7, iw=8, kh=2, kw=3, pad_h=1, dilation_h=2, dilation_w=3, pad_w=2),
        Conv(c=1, k=5, ih=3, iw=2, kh=1, kw=2, pad_w=1),
    ],
    ids=str,
)
def test_pooled(isa, bits, conv):
    case = LanesCase(Conv(**{**conv.__dict__, "n": 2 * _core.lanes(bits)}), bits)
    s, (y, *_), (magnitude, *_) = case.s, case.references(), case.references(True)
    y, bound = y + case.bias, case.bound(s["kh"] * s["kw"] * s["c"], magnitude + np.abs(case.bias))
    pixels = np.broadcast_to(np.arange(s["oh"] * s["ow"]).reshape(1, s["oh"], s["ow"], 1), y.shape)
    for act in (NONE, RELU):
        values, slack = windows(np.maximum(y, 0) if act else y), windows(bound).max(-1)
        got, idx = case.forward_pooled(act)
        assert (np.abs(got - values.max(-1)) <= slack).all()
        chosen = windows(pixels) == idx[..., None]
        assert (chosen.sum(-1) == 1).all()
        assert ((values * chosen).sum(-1) >= values.max(-1) - 2 * slack).all()
    dy = np.random.default_rng(1).standard_normal(got.shape).astype(case.dtype)
    case.dy = np.zeros_like(case.dy)  # what pool_bwd makes of it
    where = np.nonzero(windows(pixels) == idx[..., None])
    flat = case.dy.reshape(s["n"], -1, s["k"])
    flat[where[0], idx[where[:4]], where[3]] = np.where(got > 0, dy, 0)[where[:4]]
    value, magnitude = case.references(), case.references(True)
    dw, dbias = case.backward_weight(pooled=(dy, idx, got))
    terms = s["n"] * s["oh"] * s["ow"]
    assert (np.abs(dw - value[2]) <= case.bound(terms, magnitude[2])).all()
    assert (np.abs(dbias - value[3]) <= case.bound(terms, magnitude[3])).all()


def test_pooling_takes_nan():
    case = LanesCase(Conv(c=1, k=2, n=_core.lanes(32), kh=1, kw=1, ih=4, iw=4), 32)
    case.x[3, 1, 2, 0] = np.nan
    got, idx = case.forward_pooled(RELU)
    assert np.isnan(got[3, 0, 1]).all() and (idx[3, 0, 1] == 1 * 4 + 2).all()
    assert np.isnan(got).sum() == 2


def test_threads_do_not_change_bits(threads):
    case = LanesCase(Conv(n=128, c=6, k=16, ih=14, iw=14, kh=5, kw=5), 32)
    results = []
    for count in (1, 2):
        threads(count)
        results.append((case.forward(), case.backward_data(), *case.backward_weight()))
    for one, two in zip(*results, strict=True):
        np.testing.assert_array_equal(one, two)
