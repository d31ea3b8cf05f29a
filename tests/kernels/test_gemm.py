"""The gemm kernel against NumPy in float64, on every instruction set and float type.

The error of a sum of k products is at most (k + 2) eps sum |a||b| whatever its order; bias,
residual and beta c add their own sizes, and an activation or its derivative never enlarges an error
(all slopes are at most 1) but adds a few roundings of its own.
"""

import itertools

import numpy as np
import pytest

from fastnn import _core

ACTS = ["none", "relu", "sigmoid", "tanh", "grad_relu", "grad_sigmoid", "grad_tanh"]
TAILS = [1, 7, 15, 16, 17, 31, 33]


def strided(rng, shape, dtype, order):
    """Random [batch, rows, cols], stored by rows ("r"), by columns ("c") or with gaps ("s")."""
    batch, rows, cols = shape
    if order == "r":
        x = rng.standard_normal((batch, rows, cols))
        return x.astype(dtype)
    if order == "c":
        return rng.standard_normal((batch, cols, rows)).astype(dtype).transpose(0, 2, 1)
    return rng.standard_normal((batch, rows, 3 * cols)).astype(dtype)[:, :, 1::3]


def activate(act, v, saved):
    with np.errstate(over="ignore"):
        return {
            "none": lambda: v,
            "relu": lambda: np.where(v < 0, 0, v),
            "sigmoid": lambda: 1 / (1 + np.exp(-v)),
            "tanh": lambda: np.tanh(v),
            "grad_relu": lambda: np.where(saved > 0, v, 0),
            "grad_sigmoid": lambda: v * saved * (1 - saved),
            "grad_tanh": lambda: v * (1 - saved * saved),
        }[act]()


def steps(x):
    """Strides in elements; an axis of one counts as it is stored."""
    return [s // x.itemsize for s in x.strides]


def gemm(a, b, c, bias=None, residual=None, saved=None, beta=0.0, act="none"):
    """Runs the kernel on [batch, rows, cols] views; writes and returns c."""
    batch, m, n = c.shape
    a_bs, a_rs, a_cs = steps(a)
    b_bs, b_rs, b_cs = steps(b)
    sizes = {
        "batch": batch, "m": m, "n": n, "k": a.shape[2],
        "a_rs": a_rs, "a_cs": a_cs, "b_rs": b_rs, "b_cs": b_cs, "c_rs": steps(c)[1],
        "a_bs": a_bs if len(a) > 1 else 0, "b_bs": b_bs if len(b) > 1 else 0, "c_bs": steps(c)[0],
        "residual_rs": 0, "residual_bs": 0, "saved_rs": 0, "saved_bs": 0,
        "beta": beta, "act": ACTS.index(act),
    }  # fmt: skip
    for name, x in (("residual", residual), ("saved", saved)):
        if x is not None:
            sizes[name + "_bs"], sizes[name + "_rs"] = steps(x)[:2]
    bits = 8 * c.itemsize
    size = _core.buffer_bytes("gemm", bits, **sizes)
    room = np.full(size + 256, 0xA5, np.uint8)
    start = -room.ctypes.data % 64
    work = room[start : start + size + 64]
    _core.call(
        "gemm", bits, a=a, b=b, c=c, bias=bias, residual=residual, saved=saved,
        work=work if size else None, **sizes,
    )  # fmt: skip
    assert (work[size:] == 0xA5).all(), "work buffer overrun"
    return c


def check(a, b, c, bias=None, residual=None, saved=None, beta=0.0, act="none"):
    """Runs the kernel and compares with float64."""
    wide = [None if x is None else x.astype(np.float64) for x in (a, b, bias, residual, saved)]
    a64, b64, bias64, residual64, saved64 = wide
    total, size = a64 @ b64, np.abs(a64) @ np.abs(b64)
    for term in (bias64, residual64, None if beta == 0 else beta * c.astype(np.float64)):
        if term is not None:
            total, size = total + term, size + np.abs(term)
    expected = activate(act, total, saved64)
    gemm(a, b, c, bias, residual, saved, beta, act)
    eps = np.finfo(c.dtype).eps
    bound = (a.shape[2] + 8) * eps * size + 8 * eps * np.abs(expected) + np.finfo(c.dtype).tiny
    worst = np.max(np.abs(c - expected) / bound, initial=0)
    assert worst <= 1, f"error is {worst} times its bound"


@pytest.mark.parametrize("orders", list(itertools.product("rcs", "rcs")), ids="".join)
def test_transposes_and_tails(isa, dtype, rng, guarded, orders):
    sizes = [*((m, 33, 17) for m in TAILS), *((17, n, 33) for n in TAILS)]
    sizes += [*((31, 15, k) for k in [0, *TAILS]), (1, 1, 1), (47, 97, 13)]
    for m, n, k in sizes:
        a = strided(rng, (1, m, k), dtype, orders[0])
        b = strided(rng, (1, k, n), dtype, orders[1])
        check(a, b, guarded((1, m, n), dtype, np.nan))


@pytest.mark.parametrize("orders", list(itertools.product("rcs", "rcs")), ids="".join)
@pytest.mark.parametrize("few", [1, 2, 3, 4, 5, 8, 9])
def test_few_rows_and_columns(isa, dtype, rng, guarded, orders, few):
    for many, k in ((34, 15), (67, 33), (130, 64)):
        for m, n in ((few, many), (many, few)):
            a = strided(rng, (1, m, k), dtype, orders[0])
            b = strided(rng, (1, k, n), dtype, orders[1])
            check(a, b, guarded((1, m, n), dtype, np.nan))
            check(
                a, b, guarded((1, m, n), dtype, 0.75), rng.standard_normal(n).astype(dtype),
                rng.standard_normal((1, m, n)).astype(dtype), beta=-0.5, act="relu",
            )  # fmt: skip


@pytest.mark.parametrize("orders", list(itertools.product("rc", "rc")), ids="".join)
@pytest.mark.parametrize(
    "m, n, k", [(150, 170, 400), (97, 513, 129), (333, 70, 801), (4, 1100, 400), (60, 1043, 30)]
)
def test_blocked_sizes(isa, dtype, rng, guarded, orders, m, n, k):
    a = strided(rng, (1, m, k), dtype, orders[0])
    b = strided(rng, (1, k, n), dtype, orders[1])
    check(a, b, guarded((1, m, n), dtype, np.nan))
    bias = rng.standard_normal(n).astype(dtype)
    check(a, b, guarded((1, m, n), dtype, np.nan), bias=bias, act="relu")


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize(
    "m, n, k", [(5, 3, 4), (32, 32, 9), (1, 37, 50), (37, 1, 50), (40, 50, 900)]
)
def test_epilogue(isa, dtype, rng, guarded, act, m, n, k):
    a = strided(rng, (1, m, k), dtype, "r") / np.sqrt(k).astype(dtype)
    b = strided(rng, (1, k, n), dtype, "c")
    bias = rng.standard_normal(n).astype(dtype)
    residual = rng.standard_normal((1, m, n + 3)).astype(dtype)[:, :, :n]
    saved = rng.uniform(-1, 1, (1, m, n + 5)).astype(dtype)[:, :, :n]
    for with_bias, with_residual, beta in itertools.product((0, 1), (0, 1), (0.0, 1.0, -0.5)):
        c = guarded((1, m, n), dtype, np.nan if beta == 0 else 0.75)
        check(
            a, b, c, bias if with_bias else None, residual if with_residual else None,
            saved, beta, act,
        )  # fmt: skip


def test_leading_dimension_of_c(isa, dtype, rng):
    """Columns of c beyond n belong to someone else."""
    for n in (3, 16, 33):
        wide = np.full((1, 20, 40), 7, dtype)
        check(
            strided(rng, (1, 20, 5), dtype, "r"),
            strided(rng, (1, 5, n), dtype, "r"),
            wide[:, :, :n],
        )
        assert (wide[:, :, n:] == 7).all()


@pytest.mark.parametrize("m, n, k", [(4, 5, 6), (33, 17, 40), (1, 64, 32), (90, 100, 110)])
def test_batch_and_broadcast(isa, dtype, rng, guarded, m, n, k):
    for a_batch, b_batch in ((7, 7), (1, 7), (7, 1)):
        a = strided(rng, (a_batch, m, k), dtype, "r")
        b = strided(rng, (b_batch, k, n), dtype, "c")
        residual = strided(rng, (7, m, n), dtype, "r")
        check(a, b, guarded((7, m, n), dtype, np.nan), residual=residual)


@pytest.mark.parametrize("m, n, k", [(3, 5, 20000), (32, 32, 10000), (1, 8, 50000), (64, 9, 7001)])
def test_long_sums(isa, dtype, rng, guarded, m, n, k):
    bias = rng.standard_normal(n).astype(dtype)
    for orders in itertools.product("rc", "rc"):
        a = strided(rng, (1, m, k), dtype, orders[0])
        b = strided(rng, (1, k, n), dtype, orders[1])
        check(a, b, guarded((1, m, n), dtype, 1.0), bias=bias, beta=1.0, act="tanh")


def test_k_zero_is_the_epilogue_alone(isa, dtype, rng, guarded):
    for m, n in ((1, 1), (3, 40), (40, 3), (1, 100), (100, 1)):
        a, b = np.zeros((1, m, 0), dtype), np.zeros((1, 0, n), dtype)
        bias = rng.standard_normal(n).astype(dtype)
        check(a, b, guarded((1, m, n), dtype, np.nan))
        check(a, b, guarded((1, m, n), dtype, 2.0), bias=bias, beta=0.5, act="relu")


def test_residual_may_be_c_itself(isa, dtype, rng):
    for m, n, k in ((5, 7, 9), (100, 120, 900)):
        a, b = strided(rng, (1, m, k), dtype, "r"), strided(rng, (1, k, n), dtype, "r")
        c = strided(rng, (1, m, n), dtype, "r")
        expected = gemm(a, b, np.empty_like(c), residual=c.copy())
        np.testing.assert_array_equal(gemm(a, b, c, residual=c), expected)


@pytest.mark.parametrize(
    "batch, m, n, k",
    [(1, 300, 310, 420), (1, 3, 2000, 500), (1, 2000, 3, 500), (1, 16, 16, 30000), (9, 60, 70, 80),
     (1, 1, 3000, 700), (1, 3000, 1, 700)],
)  # fmt: skip
def test_bits_do_not_depend_on_threads(isa, dtype, rng, threads, batch, m, n, k):
    for orders in itertools.product("rc", "rc"):
        a = strided(rng, (batch, m, k), dtype, orders[0])
        b = strided(rng, (batch, k, n), dtype, orders[1])
        results = []
        for count in (1, 2, 3):
            threads(count)
            results.append(gemm(a, b, np.empty((batch, m, n), dtype)))
        np.testing.assert_array_equal(results[0], results[1])
        np.testing.assert_array_equal(results[0], results[2])


@pytest.mark.parametrize("m, n, k", [(5, 6, 7), (1, 40, 30), (40, 1, 30), (100, 100, 100)])
@pytest.mark.parametrize("act", ["none", "relu", "sigmoid", "tanh"])
def test_nan_and_infinity_propagate(isa, dtype, rng, m, n, k, act):
    a, b = strided(rng, (1, m, k), dtype, "r"), strided(rng, (1, k, n), dtype, "c")
    a[0, m // 2, k // 3] = np.nan
    c = gemm(a, b, np.zeros((1, m, n), dtype), act=act)
    assert np.isnan(c[0, m // 2]).all()
    assert np.isfinite(np.delete(c[0], m // 2, axis=0)).all()
    a[0, m // 2, k // 3] = np.inf
    b[0, k // 3] = 1
    c = gemm(a, b, np.zeros((1, m, n), dtype), act=act)
    assert (c[0, m // 2] == activate(act, np.inf, None)).all()
