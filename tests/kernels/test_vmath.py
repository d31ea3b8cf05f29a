"""exp, log, tanh, sigmoid and erf over all magnitudes, against longer arithmetic."""

from __future__ import annotations

from math import erfc, pi, sqrt

import numpy as np
import pytest

from fastnn import _core

PI = "3.14159265358979323846264338327950288"
OPS = ("exp", "log", "sigmoid", "tanh", "erf")


def unary(name, x):
    y = np.empty_like(x)
    bits = 8 * x.itemsize
    _core.call("unary", bits, x=x, y=y, n=x.size, op=_core.UNARY[name], alpha=0.0, beta=0.0)
    return y


def exact_erf(x):
    """2 / sqrt(pi) exp(-x^2) * the sum of 2^k x^(2k+1) / (2k+1)!!, whose terms have one sign."""
    x = np.clip(x, -7, 7)
    term, total = x, x
    for k in range(1, 200):
        term = term * 2 * x * x / (2 * k + 1)
        total = total + term
    return 2 / np.sqrt(np.longdouble(PI)) * np.exp(-x * x) * total


def exact(name, x):
    with np.errstate(all="ignore"):  # signalling NaN complain when converted
        x = x.astype(np.longdouble)
        if name == "sigmoid":
            e = np.exp(-np.abs(x))
            return np.where(x < 0, e, 1) / (1 + e)
        if name == "erf":
            return exact_erf(x)
        return getattr(np, name)(x)


def ulps(got, want):
    """|got - want| in units of the last place of want in got's type, denormals included."""
    info = np.finfo(got.dtype)
    exponent = np.frexp(np.abs(want))[1].astype(np.int64) - 1
    unit = np.ldexp(np.longdouble(1), np.maximum(exponent, info.minexp) - info.nmant)
    return np.abs(got.astype(np.longdouble) - want) / unit


def patterns(dtype, rng):
    """Floats with bit patterns from the whole range, and more of them where the functions bend."""
    if dtype == np.float32:
        bits = np.arange(0, 1 << 32, 65521, dtype=np.uint64).astype(np.uint32)
    else:
        bits = rng.integers(0, 1 << 64, 1 << 16, dtype=np.uint64)
    near = [rng.uniform(-s, s, 1 << 13) for s in (0.5, 4, 20, 110, 800)]
    return np.concatenate([bits.view(dtype), *(n.astype(dtype) for n in near)])


@pytest.mark.parametrize("name", OPS)
def test_accuracy(isa, dtype, rng, name):
    x = patterns(dtype, rng)
    got, want = unary(name, x), exact(name, x)
    assert np.array_equal(np.isnan(got), np.isnan(want))
    with np.errstate(over="ignore"):
        rounded = want.astype(dtype)
    finite = np.isfinite(rounded) & np.isfinite(got)
    differs = ~finite & ~np.isnan(want) & (got != rounded)
    # Where rounding decides between the largest number and inf both are within one ULP.
    assert np.all(np.abs(want[differs]) > np.finfo(dtype).max * (1 - 1e-6))
    assert ulps(got[finite], want[finite]).max() <= 2.0


@pytest.mark.parametrize(
    "name, x, want",
    [
        ("exp", 0.0, 1.0),
        ("exp", -0.0, 1.0),
        ("exp", np.inf, np.inf),
        ("exp", -np.inf, 0.0),
        ("exp", 1e4, np.inf),
        ("exp", -1e4, 0.0),
        ("log", 0.0, -np.inf),
        ("log", -0.0, -np.inf),
        ("log", -1.0, np.nan),
        ("log", -np.inf, np.nan),
        ("log", np.inf, np.inf),
        ("log", 1.0, 0.0),
        ("tanh", -0.0, -0.0),
        ("tanh", np.inf, 1.0),
        ("tanh", -np.inf, -1.0),
        ("erf", -0.0, -0.0),
        ("erf", np.inf, 1.0),
        ("erf", -np.inf, -1.0),
        ("sigmoid", 0.0, 0.5),
        ("sigmoid", np.inf, 1.0),
        ("sigmoid", -np.inf, 0.0),
    ],
)
def test_special_values(isa, dtype, name, x, want):
    got = unary(name, np.array([x], dtype))[0]
    assert np.array_equal(got, dtype(want), equal_nan=True)
    assert np.signbit(got) == np.signbit(want) or np.isnan(want)


@pytest.mark.parametrize("name", OPS)
def test_nan_propagates(isa, dtype, name):
    assert np.isnan(unary(name, np.full(33, np.nan, dtype))).all()


def test_denormals(isa, dtype):
    info = np.finfo(dtype)
    x = np.array([info.smallest_subnormal, info.smallest_normal / 2], dtype)
    assert np.array_equal(unary("tanh", x), x)
    assert ulps(unary("log", x), exact("log", x)).max() <= 2.0
    assert ulps(unary("erf", x), exact("erf", x)).max() <= 2.0
    low = np.log(np.longdouble(info.smallest_subnormal)) + np.linspace(0, 10, 50)
    low = low.astype(dtype)
    for name in ("exp", "sigmoid"):
        assert ulps(unary(name, low), exact(name, low)).max() <= 2.0


def test_gelu_and_its_slope(isa, dtype):
    """Rounding x^2 / 2 costs the tail x^2 of relative error; float32 may end it below 1e-11."""
    near = np.logspace(-30, -1, 200)
    x = np.concatenate([np.linspace(-9, 9, 4001), near, -near, [0.0, -0.0]]).astype(dtype)
    below = np.array([erfc(-v / sqrt(2)) / 2 for v in x.astype(float)])
    bend = x * np.exp(-(x.astype(float) ** 2) / 2) / sqrt(2 * pi)
    eps, dx = np.finfo(dtype).eps, np.empty_like(x)
    bound = eps * (8.0 + x.astype(float) ** 2)
    end = 1e-11 if dtype == np.float32 else 0.0
    got = unary("gelu", x)
    assert np.all(np.abs(got - x * below) <= bound * np.abs(x * below) + end * (np.abs(x) > 4))
    assert list(np.signbit(got[-2:])) == [False, True]
    fields = {"n": x.size, "op": _core.UNARY["gelu"], "alpha": 0.0, "beta": 0.0}
    _core.call("unary_grad", 8 * x.itemsize, x=x, dy=np.ones_like(x), dx=dx, **fields)
    error = np.abs(dx - (below + bend))
    assert np.all(error <= bound * (below + np.abs(bend)) + end * (np.abs(x) > 4))
