"""The moments that convolutions find of what they write, and batch norm with them (moments.h)."""

from __future__ import annotations

import numpy as np
import pytest
import test_norm
from conv_case import RELU, Conv
from conv_case import Case as Direct
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
]


def found(case, kernel, x, packed, **numbers):
    """y and its moments, one after the other without and with a task's part of them."""
    y, plain = (np.full(case.dy.shape, np.nan, case.dtype) for _ in range(2))
    size = _core.buffer_bytes(kernel, case.bits, **numbers)
    assert size > 0
    moments = np.full(size // 8 + 8, 12345.0)
    rest = {"x": x, "packed": packed, "bias": case.bias, **numbers}
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
    check(*found(case, "conv_fwd", case.x, case.pack(0), act=RELU, **case.ints()))


@pytest.mark.parametrize("offset", [0, 1000])
@pytest.mark.parametrize("sizes", WINOGRAD, ids=str)
@pytest.mark.parametrize("bits", [32, 64])
def test_of_winograd(isa, guarded, bits, sizes, offset):
    case = Winograd(guarded, bits, **sizes)
    case.bias += np.asarray(offset, case.dtype)
    check(*found(case, "winograd_fwd", case.x, case.packed(0), act=0, **case.sizes))


def test_nan_stays_in_its_channel(isa, guarded):
    case = Winograd(guarded, 32, n=4, c=3, k=20, ih=8, iw=8)
    case.bias[7] = np.nan
    _, moments = found(case, "winograd_fwd", case.x, case.packed(0), act=0, **case.sizes)
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
