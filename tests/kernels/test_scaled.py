"""Kernels that read what a batch norm with ReLU would have written: the same bits as from that."""

from __future__ import annotations

import numpy as np
import pytest
import test_norm
from test_winograd import GRAD_RELU, Case

from fastnn import _core

CHANNELS = [1, 5, 16, 17, 40]


def normalised(guarded, rng, x):
    """(y, table) of a batch norm with ReLU over images x."""
    flat, c, bits = x.reshape(-1, x.shape[-1]), x.shape[-1], x.itemsize * 8
    gamma, beta = rng.standard_normal((2, c)).astype(x.dtype)
    y, *_ = test_norm.forward(guarded, flat, gamma, beta, act=test_norm.RELU)
    vector = _core.lanes(bits)
    table = guarded((3 * -(-c // vector) * vector + vector,), x.dtype, np.nan)
    statistics = [guarded((c,), x.dtype) for _ in range(3)]
    numbers = dict(rows=len(flat), c=c, act=test_norm.RELU, eps=test_norm.EPS, parts=0)
    work = guarded((_core.buffer_bytes("bn_fwd", bits, **numbers),), np.uint8)
    mean, var, rstd = statistics
    _core.call("bn_fwd", bits, x=flat, gamma=gamma, beta=beta, table=table, mean=mean, var=var,
               rstd=rstd, work=work, **numbers)  # fmt: skip
    assert not np.isnan(table).any()
    return y.reshape(x.shape), table


@pytest.mark.parametrize("c", CHANNELS)
@pytest.mark.parametrize("bits", [32, 64])
def test_winograd(isa, guarded, rng, bits, c):
    case = Case(guarded, bits, n=3, c=c, k=9, ih=9, iw=6)
    y, table = normalised(guarded, rng, case.x)
    packed, out = case.packed(0), [guarded(case.dy.shape, case.dtype) for _ in range(2)]
    case.call("winograd_fwd", x=y, packed=packed, y=out[0], act=0, **case.sizes)
    case.call("winograd_fwd", x=case.x, table=table, packed=packed, y=out[1], act=0, **case.sizes)
    np.testing.assert_array_equal(*out)


@pytest.mark.parametrize("c", [*CHANNELS, 300])  # of 300, a task takes a part
@pytest.mark.parametrize("bits", [32, 64])
def test_winograd_weights(isa, guarded, rng, bits, c):
    case = Case(guarded, bits, n=3, c=c, k=9, ih=9, iw=6)
    y, table = normalised(guarded, rng, case.x)
    dw = [guarded(case.w.shape, case.dtype) for _ in range(2)]
    rest = {"dy": case.dy, "work": case.buffer("winograd_bwd_weight", **case.sizes)}
    case.call("winograd_bwd_weight", x=y, dw=dw[0], **rest, **case.sizes)
    case.call("winograd_bwd_weight", x=case.x, table=table, dw=dw[1], **rest, **case.sizes)
    np.testing.assert_array_equal(*dw)


@pytest.mark.parametrize("k", CHANNELS)
@pytest.mark.parametrize("bits", [32, 64])
def test_mask_of_winograd(isa, guarded, rng, bits, k):
    case = Case(guarded, bits, n=3, c=7, k=k, ih=9, iw=6)
    y, table = normalised(guarded, rng, case.saved)
    out = [guarded(case.dy.shape, case.dtype) for _ in range(2)]
    rest = {"x": case.x, "packed": case.packed(0), "act": GRAD_RELU, **case.sizes}
    case.call("winograd_fwd", saved=y, y=out[0], **rest)
    case.call("winograd_fwd", saved=case.saved, saved_table=table, y=out[1], **rest)
    np.testing.assert_array_equal(*out)
    assert 0 < np.count_nonzero(out[0]) < out[0].size


@pytest.mark.parametrize("side", [2, 3])
@pytest.mark.parametrize("indexed", [False, True])
@pytest.mark.parametrize("c", CHANNELS)
def test_max_pooling(isa, dtype, guarded, rng, c, indexed, side):
    x = rng.standard_normal((2, 9, 8, c)).astype(dtype)
    y, table = normalised(guarded, rng, x)
    sizes = dict(n=2, c=c, ih=9, iw=8, oh=5, ow=4 if side == 2 else 5, pad_h=1, pad_w=side - 2)
    sizes |= dict(kh=side, kw=side, stride_h=2, stride_w=2, dilation_h=1, dilation_w=1)
    shape, results = (2, sizes["oh"], sizes["ow"], c), []
    for source, given in ((y, None), (x, table)):
        out = guarded(shape, dtype), guarded(shape, np.int32, 0)
        _core.call("pool_fwd", x.itemsize * 8, x=source, table=given, y=out[0],
                   idx=out[1] if indexed else None, mode=0, adaptive=0, count_include_pad=1, act=0,
                   **sizes)  # fmt: skip
        results.append(out)
    for plain, scaled in zip(*results, strict=True):
        np.testing.assert_array_equal(plain, scaled)
