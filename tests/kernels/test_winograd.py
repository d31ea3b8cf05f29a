"""The Winograd kernels against straight float64 convolutions.

Their errors are not local, so the bound is a multiple of the whole output's RMS: what
kernels/winograd.h promises for float32, and as many epsilons in float64.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from fastnn import _core

NONE, RELU, SIGMOID, TANH, GRAD_RELU, GRAD_SIGMOID, GRAD_TANH = range(7)
PROMISED = {32: 1e-4, 64: 1e-4 * 2.0**-29}

bits_of_both = pytest.mark.parametrize("bits", [32, 64])


def windows(x, pads, size):
    """For each tap, its row and column and the float64 pixels of x it meets, zero outside."""
    (n, h, w, c), (ph, pw), (oh, ow) = x.shape, pads, size
    big = np.zeros((n, oh + 2 + h, ow + 2 + w, c))  # room for any padding
    top, left = max(ph, 0), max(pw, 0)
    big[:, top : top + h, left : left + w] = x
    for r, s in product(range(3), range(3)):
        y0, x0 = r - ph + top, s - pw + left
        yield r, s, big[:, y0 : y0 + oh, x0 : x0 + ow]


def epilogue(act, v, saved):
    if act == RELU:
        return np.maximum(v, 0)
    if act == SIGMOID:
        return 1 / (1 + np.exp(-v))
    if act == TANH:
        return np.tanh(v)
    slope = {GRAD_RELU: saved > 0, GRAD_SIGMOID: saved * (1 - saved), GRAD_TANH: 1 - saved**2}
    return v * slope[act] if act in slope else v


class Case:
    """Random data of one convolution and its kernels' results."""

    def __init__(self, guarded, bits, n=2, c=5, k=9, ih=7, iw=6, pads=(1, 1), size=None):
        self.guarded, self.bits, self.pads = guarded, bits, pads
        self.dtype = np.dtype(f"f{bits // 8}")
        oh, ow = size or (ih + 2 * pads[0] - 2, iw + 2 * pads[1] - 2)
        self.sizes = {
            "n": n,
            "c": c,
            "ih": ih,
            "iw": iw,
            "k": k,
            "oh": oh,
            "ow": ow,
            "pad_h": pads[0],
            "pad_w": pads[1],
        }
        rng = np.random.default_rng(0)

        def draw(*shape):
            return rng.standard_normal(shape).astype(self.dtype)

        self.x, self.w, self.dy = draw(n, ih, iw, c), draw(3, 3, c, k), draw(n, oh, ow, k)
        self.bias, self.residual, self.saved = draw(k), draw(n, oh, ow, k), draw(n, oh, ow, k)

    def call(self, kernel, **fields):
        _core.call(kernel, self.bits, **fields)

    def buffer(self, kernel, **ints):
        return self.guarded((_core.buffer_bytes(kernel, self.bits, **ints),), np.uint8)

    def packed(self, direction):
        ints = {"direction": direction, "c": self.sizes["c"], "k": self.sizes["k"]}
        packed = self.buffer("winograd_pack", **ints)
        self.call("winograd_pack", w=self.w, packed=packed, **ints)
        return packed

    def forward(self, act=NONE, bias=False, residual=False):
        y = self.guarded(self.dy.shape, self.dtype, np.nan)
        self.call(
            "winograd_fwd", x=self.x, packed=self.packed(0), y=y, act=act,
            bias=self.bias if bias else None, residual=self.residual if residual else None,
            saved=self.saved if act >= GRAD_RELU else None, **self.sizes,
        )  # fmt: skip
        return y

    def backward_data(self):
        s, dx = self.sizes, self.guarded(self.x.shape, self.dtype, np.nan)
        self.call(
            "winograd_fwd", x=self.dy, packed=self.packed(1), y=dx, act=NONE,
            bias=None, residual=None, saved=None, n=s["n"],
            c=s["k"], ih=s["oh"], iw=s["ow"], k=s["c"], oh=s["ih"], ow=s["iw"],
            pad_h=2 - s["pad_h"], pad_w=2 - s["pad_w"],
        )  # fmt: skip
        return dx

    def backward_weight(self, with_bias=True):
        dw = self.guarded(self.w.shape, self.dtype, np.nan)
        dbias = self.guarded(self.bias.shape, self.dtype, np.nan)
        work = self.buffer("winograd_bwd_weight", **self.sizes)
        self.call(
            "winograd_bwd_weight", x=self.x, dy=self.dy, dw=dw, work=work,
            dbias=dbias if with_bias else None, **self.sizes,
        )  # fmt: skip
        return dw, dbias

    def close(self, got, expected, scale=None):
        scale = expected if scale is None else scale
        assert np.abs(got - expected).max() <= PROMISED[self.bits] * np.sqrt(np.mean(scale**2))

    def check_forward(self, act=NONE, bias=False, residual=False):
        size = self.dy.shape[1:3]
        y = sum(p @ self.w[r, s].astype("f8") for r, s, p in windows(self.x, self.pads, size))
        total = y + (self.bias if bias else 0) + (self.residual if residual else 0)
        saved = self.saved.astype("f8")
        slope = np.abs(epilogue(act, 1.0, saved)) if act >= GRAD_SIGMOID else 1.0
        self.close(self.forward(act, bias, residual), epilogue(act, total, saved), y * slope)

    def check(self):
        self.check_forward()
        flipped = self.w[::-1, ::-1].swapaxes(2, 3).astype("f8")
        pads, size = (2 - self.pads[0], 2 - self.pads[1]), self.x.shape[1:3]
        dx = sum(p @ flipped[r, s] for r, s, p in windows(self.dy, pads, size))
        self.close(self.backward_data(), dx)
        self.check_backward_weight()

    def check_backward_weight(self, with_bias=True):
        expected, dy = np.zeros(self.w.shape), self.dy.astype("f8")
        for r, s, p in windows(self.x, self.pads, self.dy.shape[1:3]):
            expected[r, s] = np.tensordot(p, dy, ([0, 1, 2], [0, 1, 2]))
        dw, dbias = self.backward_weight(with_bias)
        self.close(dw, expected)
        if with_bias:
            bound = dy[..., 0].size * np.finfo(self.dtype).eps * np.abs(dy).sum((0, 1, 2))
            assert (np.abs(dbias - dy.sum((0, 1, 2))) <= bound).all()
        else:
            assert np.isnan(dbias).all()


@bits_of_both
@pytest.mark.parametrize("pad", [0, 1, 2])
def test_odd_sizes_and_pads(isa, guarded, bits, pad):
    for n, ih, iw in product((1, 3), (3, 5, 8, 9), (3, 4, 6, 11)):
        Case(guarded, bits, n=n, c=4, k=6, ih=ih, iw=iw, pads=(pad, pad)).check()


@bits_of_both
@pytest.mark.parametrize("k", [1, 3, 7, 15, 16, 17, 31, 32, 33, 65])
def test_channel_tails(isa, guarded, bits, k):
    for c in (1, 3, 7, 15, 16, 17, 31, 32, 33):
        Case(guarded, bits, c=c, k=k, ih=5).check()


@bits_of_both
@pytest.mark.parametrize(
    "sizes",
    [
        {"pads": (0, 2), "ih": 9, "iw": 2},
        {"pads": (4, 3), "ih": 3, "iw": 3},  # backward-data cuts away pixels
        {"pads": (1, 1), "size": (9, 8), "ih": 7, "iw": 6},  # more padding at the bottom right
        {"pads": (0, 1), "size": (3, 5), "ih": 9, "iw": 9},  # unused rows and columns
        {"n": 33, "c": 32, "k": 32, "ih": 4, "iw": 4},
        {"n": 9, "c": 20, "k": 70, "ih": 14, "iw": 13},
        {"n": 1, "c": 70, "k": 140, "ih": 9, "iw": 40},
        {"n": 1, "c": 130, "k": 100, "ih": 6, "iw": 7},  # dw in parts
    ],
    ids=str,
)
def test_shapes(isa, guarded, bits, sizes):
    Case(guarded, bits, **sizes).check()


@bits_of_both
@pytest.mark.parametrize("n", [30, 130])  # all tiles together, and in turns
def test_many_weights_in_stages(isa, threads, guarded, bits, n):
    case, results = Case(guarded, bits, n=n, c=1024, k=120, ih=4, iw=3), []
    case.check_forward(RELU, bias=True, residual=True)
    for count in (1, 2):
        threads(count)
        results.append(case.backward_data())
    np.testing.assert_array_equal(*results)


@bits_of_both
@pytest.mark.parametrize("act", range(7))
def test_epilogues(isa, guarded, bits, act):
    for k, bias, residual in product((5, 32, 37), (False, True), (False, True)):
        Case(guarded, bits, c=7, k=k).check_forward(act, bias, residual)


@bits_of_both
def test_residual_and_saved_may_be_the_output(isa, guarded, bits):
    case = Case(guarded, bits, c=33, k=47)
    case.saved = case.residual
    expected = case.forward(GRAD_TANH, residual=True)
    y = case.residual.copy()
    case.call("winograd_fwd", x=case.x, packed=case.packed(0), bias=None, residual=y, saved=y,
              y=y, act=GRAD_TANH, **case.sizes)  # fmt: skip
    np.testing.assert_array_equal(y, expected)


@bits_of_both
def test_backward_weight_without_bias(isa, guarded, bits):
    for sizes in ({}, {"n": 12, "c": 16, "k": 16, "ih": 20, "iw": 20}):
        Case(guarded, bits, **sizes).check_backward_weight(with_bias=False)


@bits_of_both
def test_an_empty_batch_has_zero_gradients(isa, guarded, bits):
    case = Case(guarded, bits, n=0)
    assert case.forward().size == 0
    for gradient in case.backward_weight():
        assert not gradient.any()


@bits_of_both
@pytest.mark.parametrize(
    "sizes",
    [
        {"n": 16, "c": 32, "k": 64, "ih": 14, "iw": 14},
        {"n": 1, "c": 32, "k": 160, "ih": 12, "iw": 12},
        {"n": 3, "c": 96, "k": 130, "ih": 10, "iw": 9},
    ],
    ids=str,
)
def test_same_bits_at_any_thread_count(isa, guarded, bits, sizes, threads):
    case, results = Case(guarded, bits, **sizes), []
    for count in (1, 2, 3):
        threads(count)
        results.append([case.forward(RELU), case.backward_data(), *case.backward_weight()])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


@bits_of_both
def test_nan_reaches_every_pixel_that_sees_it(isa, guarded, bits):
    case = Case(guarded, bits, n=1, c=8, k=8)
    case.x[0, 3, 2, 5] = np.nan
    assert np.isnan(case.forward(RELU)[0, 2:5, 1:4]).all()
