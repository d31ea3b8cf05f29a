"""Pooling kernels against windows written out one by one in NumPy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from fastnn import _core

MAX, MIN, AVG = 0, 1, 2
RELU = 1


def geometry(ih, iw, k=(2, 2), s=(2, 2), p=(0, 0), d=(1, 1), out=None, ceil=False):
    """The size fields of a pooling call; `out` makes it adaptive."""

    def size(i, axis):
        span = i + 2 * p[axis] - d[axis] * (k[axis] - 1) - 1
        o = (span + (s[axis] - 1 if ceil else 0)) // s[axis] + 1
        if ceil and (o - 1) * s[axis] >= i + p[axis]:
            o -= 1
        return o

    oh, ow = out or (size(ih, 0), size(iw, 1))
    return {
        "ih": ih, "iw": iw, "oh": oh, "ow": ow, "kh": k[0], "kw": k[1],
        "stride_h": s[0], "stride_w": s[1], "pad_h": p[0], "pad_w": p[1],
        "dilation_h": d[0], "dilation_w": d[1], "adaptive": int(out is not None),
    }  # fmt: skip


def cells(g, axis, o):
    """The real cells of window o and the divisor's count with the padding included."""
    i, out = g["i" + axis], g["o" + axis]
    if g["adaptive"]:
        real = list(range(o * i // out, -(-(o + 1) * i // out)))
        return real, len(real)
    k, s, p, d = (g[f + axis] for f in ("k", "stride_", "pad_", "dilation_"))
    taps = [o * s - p + t * d for t in range(k)]
    return [t for t in taps if 0 <= t < i], len([t for t in taps if t < i + p])


def reference(x, g, mode, include_pad=1):
    """(y, idx) of x[n,ih,iw,c]; every window walked in order, as PyTorch does."""
    n, c = x.shape[0], x.shape[3]
    y = np.zeros((n, g["oh"], g["ow"], c), x.dtype)
    idx = np.full(y.shape, -1, np.int32)
    for oy, ox in itertools.product(range(g["oh"]), range(g["ow"])):
        (rows, height), (cols, width) = cells(g, "h", oy), cells(g, "w", ox)
        window = [(r, q) for r in rows for q in cols]
        if mode == AVG:
            count = height * width if include_pad else len(window)
            if window:
                y[:, oy, ox] = sum(x[:, r, q].astype(np.float64) for r, q in window) / count
            continue
        best = np.full((n, c), -np.inf if mode == MAX else np.inf)
        at = np.full((n, c), window[0][0] * g["iw"] + window[0][1] if window else -1)
        for r, q in window:
            v = x[:, r, q]
            take = (v > best if mode == MAX else v < best) | np.isnan(v)
            best, at = np.where(take, v, best), np.where(take, r * g["iw"] + q, at)
        y[:, oy, ox], idx[:, oy, ox] = best, at
    return y, idx


def reference_grad(dy, idx, g, mode, include_pad=1):
    n, oh, ow, c = dy.shape
    dx = np.zeros((n, g["ih"] * g["iw"], c))
    samples, channels = np.ogrid[:n, :c]
    for oy, ox in itertools.product(range(oh), range(ow)):
        if mode != AVG:
            at = idx[:, oy, ox]
            np.add.at(dx, (samples, at, channels), np.where(at >= 0, dy[:, oy, ox], 0))
            continue
        (rows, height), (cols, width) = cells(g, "h", oy), cells(g, "w", ox)
        count = height * width if include_pad else len(rows) * len(cols)
        for r, q in itertools.product(rows, cols):
            dx[:, r * g["iw"] + q] += dy[:, oy, ox].astype(np.float64) / count
    return dx.reshape(n, g["ih"], g["iw"], c)


def forward(guarded, x, g, mode, include_pad=1, act=0, with_idx=True):
    bits, shape = x.itemsize * 8, (x.shape[0], g["oh"], g["ow"], x.shape[3])
    y = guarded(shape, x.dtype)
    idx = guarded(shape, np.int32) if with_idx and mode != AVG else None
    _core.call("pool_fwd", bits, x=x, y=y, idx=idx, n=x.shape[0], c=x.shape[3], mode=mode,
               count_include_pad=include_pad, act=act, **g)  # fmt: skip
    return y, idx


def backward(guarded, dy, idx, g, mode, include_pad=1, saved=None):
    n, _, _, c = dy.shape
    dx = guarded((n, g["ih"], g["iw"], c), dy.dtype)
    dx[...] = np.nan
    _core.call("pool_bwd", dy.itemsize * 8, dy=dy, idx=idx, saved=saved, dx=dx, n=n, c=c, mode=mode,
               count_include_pad=include_pad, **g)  # fmt: skip
    return dx


GEOMETRIES = {
    "2x2": geometry(8, 6),
    "2x2_odd": geometry(7, 9),
    "2x2_ceil": geometry(7, 9, ceil=True),
    "2x2_pad": geometry(6, 7, p=(1, 1)),
    "3x3_s2_p1": geometry(9, 8, k=(3, 3), p=(1, 1)),
    "3x3_s1_p1": geometry(6, 5, k=(3, 3), s=(1, 1), p=(1, 1)),
    "3x2_ceil": geometry(8, 7, k=(3, 2), s=(2, 3), p=(1, 1), ceil=True),
    "gaps": geometry(11, 9, k=(2, 1), s=(4, 3)),
    "dilated": geometry(10, 9, k=(3, 2), s=(1, 2), p=(1, 1), d=(2, 3)),
    "padding_only": geometry(3, 5, k=(2, 2), s=(1, 1), p=(1, 1), d=(4, 1)),
    "1d": geometry(1, 17, k=(1, 4), s=(1, 3)),
    "global": geometry(7, 5, out=(1, 1)),
    "adaptive": geometry(7, 10, out=(3, 4)),
    "adaptive_even": geometry(6, 8, out=(3, 2)),
    "adaptive_up": geometry(3, 2, out=(5, 3)),
}
CHANNELS = [1, 6, 15, 16, 33]


@pytest.fixture(params=GEOMETRIES)
def g(request):
    return GEOMETRIES[request.param]


@pytest.mark.parametrize("mode", [MAX, MIN])
@pytest.mark.parametrize("c", CHANNELS)
def test_extremes_equal_the_reference(isa, dtype, guarded, rng, g, c, mode):
    x = rng.integers(-3, 4, (2, g["ih"], g["iw"], c)).astype(dtype)  # many ties
    y, idx = forward(guarded, x, g, mode)
    expected, where = reference(x, g, mode)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(idx, where)
    np.testing.assert_array_equal(forward(guarded, x, g, mode, with_idx=False)[0], expected)
    dy = rng.integers(-8, 9, y.shape).astype(dtype)  # exact sums
    dx = backward(guarded, dy, idx, g, mode)
    np.testing.assert_array_equal(dx, reference_grad(dy, where, g, mode))


@pytest.mark.parametrize("include_pad", [0, 1])
@pytest.mark.parametrize("c", CHANNELS)
def test_averages_equal_the_reference(isa, dtype, guarded, rng, g, c, include_pad):
    x = rng.standard_normal((2, g["ih"], g["iw"], c)).astype(dtype)
    y, _ = forward(guarded, x, g, AVG, include_pad)
    expected, _ = reference(x.astype(np.float64), g, AVG, include_pad)
    taps = 64  # no window here has more cells; a sum of k terms is off by at most k eps sum|x|
    bound = taps * np.finfo(dtype).eps * reference(np.abs(x).astype(float), g, AVG, include_pad)[0]
    assert np.all(np.abs(y - expected) <= bound)
    dy = rng.standard_normal(y.shape).astype(dtype)
    dx = backward(guarded, dy, None, g, AVG, include_pad)
    bound = taps * np.finfo(dtype).eps * reference_grad(np.abs(dy), None, g, AVG, include_pad)
    assert np.all(np.abs(dx - reference_grad(dy, None, g, AVG, include_pad)) <= bound)


@pytest.mark.parametrize("c", [3, 16])
@pytest.mark.parametrize("mode", [MAX, MIN])
def test_nan_wins_and_infinities_take_part(isa, dtype, guarded, rng, g, c, mode):
    x = rng.choice([np.nan, np.inf, -np.inf, -0.0, 1.0], (2, g["ih"], g["iw"], c)).astype(dtype)
    y, idx = forward(guarded, x, g, mode)
    expected, where = reference(x, g, mode)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(idx, where)


def test_average_spreads_nan_to_its_windows_only(isa, dtype, guarded):
    x = np.ones((1, 4, 4, 5), dtype)
    x[0, 0, 0, 2] = np.nan
    y, _ = forward(guarded, x, geometry(4, 4), AVG)
    assert np.isnan(y).sum() == 1 and np.isnan(y[0, 0, 0, 2])


@pytest.mark.parametrize("mode", [MAX, AVG])
@pytest.mark.parametrize("c", [6, 16, 20])
def test_fused_relu(isa, dtype, guarded, rng, g, c, mode):
    x = rng.standard_normal((2, g["ih"], g["iw"], c)).astype(dtype) - 0.5
    plain, idx = forward(guarded, x, g, mode)
    y, _ = forward(guarded, x, g, mode, act=RELU)
    np.testing.assert_array_equal(y, np.maximum(plain, 0))
    dy = rng.standard_normal(y.shape).astype(dtype)
    dx = backward(guarded, dy, idx, g, mode, saved=y)
    masked = np.where(y > 0, dy, dtype(0))
    np.testing.assert_array_equal(dx, backward(guarded, masked, idx, g, mode))


@pytest.mark.parametrize("mode", [MAX, AVG])
@pytest.mark.parametrize("c", [6, 32])
@pytest.mark.parametrize("k", [2, 3])
def test_bits_do_not_depend_on_threads(isa, dtype, threads, guarded, rng, c, mode, k):
    g = geometry(29, 28, k=(k, k), p=(k // 2, k // 2))
    x = rng.standard_normal((40, 29, 28, c)).astype(dtype)

    def run(n):
        threads(n)
        y, idx = forward(guarded, x, g, mode)
        return y.copy(), backward(guarded, y, idx, g, mode).copy()

    for one, two in zip(run(1), run(2), strict=True):
        assert one.tobytes() == two.tobytes()
