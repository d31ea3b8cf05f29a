"""Recurrent kernels: bounds of memory, sizes around each block's edge, bits at any thread count."""

from __future__ import annotations

import numpy as np
import pytest

from fastnn import _core
from fastnn.ops import rnn_cell
from fastnn.ops.rnn_cell import GATES, MODES, SLOTS

# n, steps, c, h: one row, blocks of rows and their rest; hidden units below, at and above vectors
# and chunks; more of them than a product sums at once.
SIZES = [(1, 3, 2, 1), (5, 2, 1, 15), (33, 2, 3, 16), (70, 1, 2, 33), (3, 2, 5, 65)]
SIZES += [(1, 2, 5, 65), (1, 2, 3, 160)]


def call(kernel, guarded, bits, fields, **pointers):
    size = _core.buffer_bytes(kernel, bits, **fields)
    _core.call(kernel, bits, work=guarded((size,), np.uint8), **fields, **pointers)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_forward(isa, dtype, guarded, rng, mode, size):
    (n, steps, c, h), rows, bits = size, GATES[mode] * size[3], np.dtype(dtype).itemsize * 8
    x = rng.standard_normal((n, steps, c)).astype(dtype)
    weights = [
        [(rng.standard_normal(s) / np.sqrt(s[-1])).astype(dtype) for s in shapes]
        for shapes in [((rows, c), (rows, h), (rows,), (rows,))] * 2
    ]
    lengths = rng.integers(1, steps + 1, n)
    h0, c0 = rng.standard_normal((2, 2, n, h)).astype(dtype)
    y, hn, cn = (guarded(s, dtype, np.nan) for s in ((steps, n, 2 * h), (2, n, h), (2, n, h)))
    gates = guarded((2, steps, n, SLOTS[mode] * h), dtype, np.nan)
    cells = guarded((2, steps, n, h), dtype, np.nan)
    names = ("w_ih", "w_hh", "b_ih", "b_hh")
    given = {
        name + suffix: np.ascontiguousarray(w.T)
        for suffix, own in zip(("", "_reverse"), weights, strict=True)
        for name, w in zip(names, own, strict=True)
    }
    sizes = {"mode": MODES.index(mode), "directions": 2, "c": c, "h": h}
    packed = guarded((_core.buffer_bytes("rnn_pack", bits, **sizes),), np.uint8)
    _core.call("rnn_pack", bits, packed=packed, **given, **sizes)
    _core.call("rnn_fwd", bits, x=x, pre=None, packed=packed, h0=h0, c0=c0, lengths=lengths, y=y,
               gates=gates, cells=cells, hn=hn, cn=cn, **sizes, steps=steps, n=n, x_ts=c,
               x_ns=steps * c)  # fmt: skip
    for d in range(2):
        want = rnn_cell.forward(
            mode, x.astype(np.float64), lengths, h0[d].astype(np.float64),
            c0[d].astype(np.float64), [w.astype(np.float64) for w in weights[d]], d == 1,
        )  # fmt: skip
        # A step's sums err by eps * sqrt(terms) and functions by a few eps; gates pass on at most
        # what they get, RELU by the weights' norm, which is about 1.
        bound = 40 * steps * np.sqrt(c + h) * np.finfo(dtype).eps
        got = [y[..., d * h : d * h + h].swapaxes(0, 1), hn[d]]
        got += [cn[d]] if mode == "LSTM" else []
        got += [gates[d]] if SLOTS[mode] > 1 else []
        got += [cells[d]] if mode == "LSTM" else []
        for a, b in zip(got, want, strict=True):
            assert np.all(np.abs(a - b) <= bound * (1 + np.abs(b).max()))


@pytest.mark.parametrize("mode", MODES)
def test_backward_stays_in_bounds_and_skips_what_has_ended(isa, dtype, guarded, rng, mode):
    (n, steps, h), bits, row = (35, 3, 17), np.dtype(dtype).itemsize * 8, SLOTS[mode] * 17
    lengths = rng.integers(1, steps + 1, n)
    ended = np.arange(steps)[:, None] >= lengths
    gates, cells, y, dy = (
        rng.random(s).astype(dtype)
        for s in ((1, steps, n, row), (1, steps, n, h), (steps, n, h), (steps, n, h))
    )
    for a in (gates[0], cells[0], y, dy):
        a[ended] = np.nan
    w = rng.standard_normal((h, GATES[mode] * h)).astype(dtype)
    dgates, dfirst = guarded(gates.shape, dtype, np.nan), guarded((1, n, row), dtype, np.nan)
    dh0, dc0 = (guarded((1, n, h), dtype, np.nan) for _ in range(2))
    dbias = guarded((1, row), dtype, np.nan)
    fields = {"mode": MODES.index(mode), "directions": 1, "steps": steps, "n": n, "h": h}
    fields |= {"dy_ts": n * h, "dy_ns": h, "dy_step": -1, "c": 0, "x_ts": 0, "x_ns": 0}
    call("rnn_bwd", guarded, bits, fields, gates=gates, cells=cells, y=y, dy=dy, dhn=None, dcn=None,
         w_hh=w, w_hh_reverse=None, h0=None, c0=None, lengths=lengths, dgates=dgates, dh0=dh0,
         dc0=dc0, dfirst=dfirst, dbias=dbias)  # fmt: skip
    assert not dgates[0][ended].any()
    for a in (dgates, dfirst, dh0, dc0, dbias):
        assert np.all(np.isfinite(a))
    np.testing.assert_array_equal(dfirst[0], dgates[0, 0])
    # 105 terms, summed pairwise or not.
    bound = 105 * np.finfo(dtype).eps * np.abs(dgates[0]).sum((0, 1))
    assert np.all(np.abs(dbias[0] - dgates[0].astype(np.float64).sum((0, 1))) <= bound)


def test_mask(isa, dtype, guarded, rng):
    x = rng.standard_normal((4, 3, 5)).astype(dtype)
    lengths = np.array([1, 3, 2, 3])
    x[np.arange(3) >= lengths[:, None]] = np.nan
    out = guarded((3, 4, 5), dtype)
    _core.call("rnn_mask", x.itemsize * 8, x=x, lengths=lengths, out=out, steps=3, n=4, c=5,
               x_ts=5, x_ns=15)  # fmt: skip
    np.testing.assert_array_equal(out, np.nan_to_num(x.swapaxes(0, 1)))
