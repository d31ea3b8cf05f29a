"""The moments that convolutions find of what they write, and batch norm with them (moments.h)."""

from __future__ import annotations

import numpy as np
import pytest
import test_norm
from conv_case import RELU, Conv
from conv_case import Case as Direct
from test_winograd import GRAD_RELU
from test_winograd import Case as Winograd

from fastnn import _core

DIRECT = [
    Conv(c=5, k=40, pad_h=1, pad_w=1),
    Conv(n=3, c=4, k=70, stride_h=2, stride_w=2, pad_h=1, pad_w=1, ih=9, iw=11),
    Conv(n=2, c=6, k=66, groups=2, pad_h=1, pad_w=1),
    Conv(n=20, c=24, k=33, kh=1, kw=1, ih=9, iw=9),
]
WINOGRAD = [
    {},
    {"n": 3, "c": 4, "k": 70, "ih": 9, "iw": 9},
    {"n": 9, "c": 17, "k": 33, "ih": 13, "iw": 10},
    {"n": 30, "c": 1024, "k": 120, "ih": 4, "iw": 3},  # in stages
]


def found(case, kernel, x, packed, act, fields, sizes):
    """y, which must be the same without its moments, and these."""
    y, plain = (np.full(case.dy.shape, np.nan, case.dtype) for _ in range(2))
    size = _core.buffer_bytes(kernel, case.bits, act=act, **sizes)
    assert size > 0
    moments = np.full(size // 8 + 8, 12345.0)
    rest = {"x": x, "packed": packed, "act": act, **fields, **sizes}
    _core.call(kernel, case.bits, y=plain, **rest)
    _core.call(kernel, case.bits, y=y, moments=moments, **rest)
    np.testing.assert_array_equal(y, plain)
    assert np.all(moments[size // 8 :] == 12345)
    return y, moments[: size // 8]


def check(y, moments):
    """The parts, joined in extended precision, against those of y itself."""
    c = y.shape[-1]
    parts = moments.reshape(-1, 1 + 2 * c).astype(np.longdouble)
    counts, means, m2 = parts[:, :1], parts[:, 1 : 1 + c], parts[:, 1 + c :]
    rows = y.reshape(-1, c).astype(np.longdouble)
    assert counts.sum() == len(rows)
    mean = (counts * means).sum(0) / len(rows)
    spread = (m2 + counts * (means - mean) ** 2).sum(0)
    # Sums of at most 16 differences from a row, then a chain of as many joins as there are sixteens.
    eps, size = np.finfo(y.dtype).eps, np.ptp(rows, axis=0)
    steps = 20 + counts.max() / 4
    assert np.all(np.abs(mean - rows.mean(0)) <= steps * eps * size)
    assert np.all(np.abs(spread - rows.var(0) * len(rows)) <= steps * eps * len(rows) * size**2)


@pytest.mark.parametrize("offset", [0, 1000])
@pytest.mark.parametrize("conv", DIRECT, ids=str)
@pytest.mark.parametrize("bits", [32, 64])
def test_of_direct_convolution(isa, bits, conv, offset):
    case = Direct(conv, bits)
    case.bias += np.asarray(offset, case.dtype)
    bias = {"bias": case.bias}
    check(*found(case, "conv_fwd", case.x, case.pack(0), RELU, bias, case.ints()))


@pytest.mark.parametrize("offset", [0, 1000])
@pytest.mark.parametrize("sizes", WINOGRAD, ids=str)
@pytest.mark.parametrize("bits", [32, 64])
def test_of_winograd(isa, guarded, bits, sizes, offset):
    case = Winograd(guarded, bits, **sizes)
    case.bias += np.asarray(offset, case.dtype)
    bias = {"bias": case.bias}
    check(*found(case, "winograd_fwd", case.x, case.packed(0), 0, bias, case.sizes))


def test_nan_stays_in_its_channel(isa, guarded):
    case = Winograd(guarded, 32, n=4, c=3, k=20, ih=8, iw=8)
    case.bias[7] = np.nan
    bias = {"bias": case.bias}
    _, moments = found(case, "winograd_fwd", case.x, case.packed(0), 0, bias, case.sizes)
    bad = np.isnan(moments.reshape(-1, 41))
    assert bad[:, [8, 28]].all() and bad.sum() == 2 * len(bad)


def test_shapes_computed_in_other_ways_say_so(isa):
    """Depthwise and few output channels."""
    for conv in (Conv(c=6, k=6, groups=6), Conv(c=3, k=1)):
        assert _core.buffer_bytes("conv_fwd", 32, act=0, **conv.sizes()) == 0


@pytest.mark.parametrize("parts", [1, 3, 40])
def test_batch_norm_takes_them(isa, dtype, guarded, rng, parts):
    x, _, gamma, beta = test_norm.draw(rng, (200, 19), dtype, offset=100.0)
    chunks = [c.astype(np.float64) for c in np.array_split(x, parts)]
    moments = np.concatenate(
        [np.r_[len(c), c.mean(0), c.var(0) * len(c)] for c in chunks], dtype=np.float64
    )
    got = test_norm.forward(guarded, x, gamma, beta, act=RELU, moments=moments, parts=parts)
    want = test_norm.forward(guarded, x, gamma, beta, act=RELU)
    for mine, theirs in zip(got, want, strict=True):
        # Two ways to the same moments, each within the bound of test_norm.test_forward.
        np.testing.assert_allclose(mine, theirs, rtol=160 * np.finfo(dtype).eps,
                                   atol=160 * np.finfo(dtype).eps * 8)  # fmt: skip


@pytest.mark.parametrize("sizes", WINOGRAD, ids=str)
@pytest.mark.parametrize("bits", [32, 64])
def test_sums_of_a_gradient(isa, guarded, bits, sizes):
    """In backward-data, for the batch norm whose ReLU masks it: sum g and sum g (x - mean)."""
    case = Winograd(guarded, bits, **sizes)
    k, vector = case.sizes["k"], _core.lanes(bits)
    table = np.zeros((3 * -(-k // vector) + 1) * vector, case.dtype)
    mean, scale, shift = table[: 3 * -(-k // vector) * vector].reshape(3, -1)[:, :k]
    mean[:], scale[:], shift[:] = np.random.default_rng(1).standard_normal((3, k))
    fields = {"saved": case.saved, "saved_table": table}
    g, parts = found(case, "winograd_fwd", case.x, case.packed(0), GRAD_RELU, fields, case.sizes)
    parts = parts.reshape(-1, 1 + 2 * k)
    g, away = (v.reshape(-1, k).astype(np.longdouble) for v in (g, case.saved - mean))
    assert parts[:, 0].sum() == len(g) and 0 < np.count_nonzero(g) < g.size
    # Sixteen terms in a row, then a part's tiles; x - mean rounds once, each product once.
    steps = 18 + parts[:, 0].max() / 16
    for got, terms in ((parts[:, 1 : 1 + k], g), (parts[:, 1 + k :], g * away)):
        bound = steps * np.finfo(case.dtype).eps * np.abs(terms).sum(0)
        assert np.all(np.abs(got.sum(0) - terms.sum(0)) <= bound)


@pytest.mark.parametrize("parts", [1, 3, 40])
def test_batch_norm_takes_the_sums(isa, dtype, guarded, rng, parts):
    x, dy, gamma, _ = test_norm.draw(rng, (200, 19), dtype)
    _, mean, _, rstd = test_norm.forward(guarded, x, gamma)
    terms = dy.astype(np.float64), dy.astype(np.float64) * (x - mean)
    sums = np.concatenate([
        np.r_[len(g), g.sum(0), products.sum(0)]
        for g, products in zip(*(np.array_split(t, parts) for t in terms), strict=True)
    ])  # fmt: skip
    args = guarded, x, dy, mean, rstd, gamma
    got, want = test_norm.backward(*args, sums=sums, parts=parts), test_norm.backward(*args)
    for mine, theirs in zip(got, want, strict=True):
        size = np.abs(terms[0]).sum(0).max() * 8
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=160 * np.finfo(dtype).eps * size)
