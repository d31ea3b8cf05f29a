"""softmax and cross entropy against NumPy in longer arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fastnn import _core

SIZES = [(0, 4), *((n, c) for n in (1, 7, 16, 33) for c in (1, 2, 3, 4, 5, 10, 16, 17, 31, 32, 33)),
         (128, 10), (5, 1000), (2, 32000), (3000, 3)]  # fmt: skip


PLAIN = {"weight": None, "ignore": -100, "mean": 0}


def bits(dtype):
    return 8 * np.dtype(dtype).itemsize


def softmax(x, log=False):
    x = x.astype(np.longdouble)
    shifted = x - x.max(-1, keepdims=True, initial=-np.inf)
    if log:
        return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return np.exp(shifted) / np.exp(shifted).sum(-1, keepdims=True)


def tolerance(x):
    """Relative error of exp(x - max) / sum: the rounded argument, 2 ULP of exp, the sum's chains
    (at most 100 terms and 32 blocks) and two more roundings."""
    return np.finfo(x.dtype).eps * (np.ptp(x, axis=-1, keepdims=True).max(initial=0) + 140)


def logits(rng, n, c, dtype):
    return (4 * rng.standard_normal((n, c))).astype(dtype)


@pytest.mark.parametrize("n, c", SIZES)
def test_softmax(isa, dtype, rng, guarded, n, c):
    x = logits(rng, n, c, dtype)
    y = guarded((n, c), dtype)
    _core.call("softmax_fwd", bits(dtype), x=x, y=y, n=n, c=c, log=0)
    np.testing.assert_allclose(y, softmax(x).astype(float), rtol=tolerance(x))
    _core.call("softmax_fwd", bits(dtype), x=x, y=y, n=n, c=c, log=1)
    np.testing.assert_allclose(y, softmax(x, True).astype(float), rtol=0, atol=tolerance(x))
    _core.call("softmax_fwd", bits(dtype), x=x, y=x, n=n, c=c, log=1)
    np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("log", [0, 1])
@pytest.mark.parametrize("n, c", SIZES)
def test_softmax_gradient(isa, dtype, rng, guarded, n, c, log):
    x, dy = logits(rng, n, c, dtype), rng.standard_normal((n, c)).astype(dtype)
    y = softmax(x, log).astype(dtype)
    dx = guarded((n, c), dtype)
    _core.call("softmax_bwd", bits(dtype), y=y, dy=dy, dx=dx, n=n, c=c, log=log)
    wide, g = y.astype(np.longdouble), dy.astype(np.longdouble)
    if log:
        want = g - np.exp(wide) * g.sum(-1, keepdims=True)
        size = np.abs(g) + np.exp(wide) * np.abs(g).sum(-1, keepdims=True)
    else:
        want = wide * (g - (wide * g).sum(-1, keepdims=True))
        size = wide * (np.abs(g) + np.abs(wide * g).sum(-1, keepdims=True))
    assert np.all(np.abs(dx - want) <= 140 * np.finfo(dtype).eps * size)


@pytest.mark.parametrize("c", [3, 10, 40])
def test_extreme_logits(isa, dtype, c):
    x = np.zeros((5, c), dtype)
    x[0] = 1e30
    x[1, 0] = -np.inf
    x[2] = -np.inf
    x[3, 1] = np.inf
    x[4, 2] = np.nan
    y = np.empty_like(x)
    _core.call("softmax_fwd", bits(dtype), x=x, y=y, n=5, c=c, log=0)
    np.testing.assert_allclose(y[0], 1 / c, rtol=1e-6)
    assert y[1, 0] == 0
    np.testing.assert_allclose(y[1, 1:], 1 / (c - 1), rtol=1e-6)
    assert np.isnan(y[2]).all() and np.isnan(y[3, 1]) and np.isnan(y[4]).all()


def forward(x, labels, scale, guarded, parts=("losses", "total", "dx")):
    n, c = x.shape
    out = {"lse": guarded(n, x.dtype), "losses": guarded(n, x.dtype), "total": guarded(1, x.dtype),
           "dx": guarded((n, c), x.dtype)}  # fmt: skip
    given = {k: v if k in (*parts, "lse") else None for k, v in out.items()}
    _core.call(
        "xent_fwd", bits(x.dtype), x=x, labels=labels, n=n, c=c, scale=scale, **given, **PLAIN
    )
    return out


@pytest.mark.parametrize("n, c", SIZES)
def test_cross_entropy(isa, dtype, rng, guarded, n, c):
    x, labels = logits(rng, n, c, dtype), rng.integers(0, c, n)
    out = forward(x, labels, 0.25, guarded)
    wide = x.astype(np.longdouble)
    lse = (wide - softmax(x, True))[:, 0]
    picked = wide[np.arange(n), labels]
    p = softmax(x)
    onehot = np.eye(c)[labels] if c < 5000 else (np.arange(c) == labels[:, None])
    tol = tolerance(x)
    magnitude = np.abs(lse) + np.abs(picked) + np.abs(x).max(initial=0)
    bound = tol + 4 * np.finfo(dtype).eps * magnitude
    assert np.all(np.abs(out["lse"] - lse) <= bound)
    assert np.all(np.abs(out["losses"] - (lse - picked)) <= bound)
    # Summed in double, in tasks; the losses of random rows are positive.
    total = math.fsum(out["losses"]) / 4
    rounding = np.finfo(dtype).eps + n * np.finfo(float).eps
    np.testing.assert_allclose(out["total"][0], total, rtol=rounding)
    assert np.all(np.abs(out["dx"] - 0.25 * (p - onehot)) <= tol * (p + onehot))
    # Backward from the kept log-sum-exp, for one gradient and for one a row.
    for dloss in (np.array([0.5], dtype), rng.standard_normal(n).astype(dtype)):
        dx = guarded((n, c), dtype)
        per_row = int(dloss.shape != (1,) or n == 1)
        _core.call("xent_bwd", bits(dtype), x=x, labels=labels, lse=out["lse"], dloss=dloss, dx=dx,
                   n=n, c=c, per_row=per_row, scale=0.25, **PLAIN)  # fmt: skip
        want = 0.25 * dloss.astype(float)[:, None] * (p - onehot)
        bound = 0.25 * np.abs(dloss)[:, None] * (p + onehot) * 2 * tol
        slack = np.finfo(dtype).eps * 8 * (np.abs(lse)[:, None] + 1) * (p + onehot)
        assert np.all(np.abs(dx - want) <= bound + slack)


@pytest.mark.parametrize("c", [3, 50])
def test_optional_outputs_and_in_place(isa, dtype, rng, guarded, c):
    x, labels = logits(rng, 20, c, dtype), rng.integers(0, c, 20)
    full = forward(x, labels, 0.05, guarded)
    for part in ("losses", "total", "dx"):
        alone = forward(x, labels, 0.05, guarded, (part,))
        np.testing.assert_array_equal(alone[part], full[part])
        np.testing.assert_array_equal(alone["lse"], full["lse"])
    lse, total = np.empty(20, dtype), np.empty(1, dtype)
    _core.call("xent_fwd", bits(dtype), x=x, labels=labels, lse=lse, total=total, dx=x, n=20, c=c,
               scale=0.05, **PLAIN)  # fmt: skip
    np.testing.assert_array_equal(x, full["dx"])
    assert total[0] == full["total"][0]


@pytest.mark.parametrize("bad", [-1, 3, 1 << 40])
def test_bad_labels_change_nothing(isa, dtype, bad):
    x, labels = np.ones((40, 3), dtype), np.zeros(40, np.int64)
    labels[39] = bad
    lse, dx, total = np.full(40, 7, dtype), np.full((40, 3), 7, dtype), np.full(1, 7, dtype)
    with pytest.raises(_core.KernelError) as error:
        _core.call("xent_fwd", bits(dtype), x=x, labels=labels, lse=lse, dx=dx, total=total, n=40,
                   c=3, scale=1.0, **PLAIN)  # fmt: skip
    assert error.value.status == _core.BAD_LABEL
    with pytest.raises(_core.KernelError):
        _core.call("xent_bwd", bits(dtype), x=x, labels=labels, lse=lse, dloss=lse, dx=dx, n=40,
                   c=3, per_row=0, scale=1.0, **PLAIN)  # fmt: skip
    assert np.all(lse == 7) and np.all(dx == 7) and total[0] == 7


@pytest.mark.parametrize("c", [3, 10, 50])
def test_weights_and_ignored_rows(isa, dtype, rng, guarded, c):
    """The mean divides by the weights' sum; ignored rows count nothing, NaN or not."""
    n, ignore = 37, c - 1
    x, labels = logits(rng, n, c, dtype), rng.integers(0, c, n)
    weight, keep = rng.uniform(0.5, 2, c).astype(dtype), labels != ignore
    labels[~keep] = ignore
    counts = np.where(keep, weight[labels], 0).astype(float)
    clean = x.astype(np.longdouble)
    onehot, p = np.eye(c)[labels], softmax(x)
    losses = -counts * softmax(x, True)[np.arange(n), labels]
    x[~keep, 0] = np.nan
    out = {"lse": guarded(n, dtype), "losses": guarded(n, dtype), "total": guarded(1, dtype),
           "dx": guarded((n, c), dtype)}  # fmt: skip
    rows = {"labels": labels, "weight": weight, "n": n, "c": c, "ignore": ignore, "mean": 1}
    _core.call("xent_fwd", bits(dtype), x=x, scale=0.5, **out, **rows)
    bound = 4 * tolerance(clean.astype(dtype)) * (1 + np.abs(clean).max())
    np.testing.assert_allclose(out["losses"], losses.astype(float), rtol=0, atol=bound)
    total = float(0.5 * losses.sum() / counts.sum())
    np.testing.assert_allclose(out["total"][0], total, rtol=0, atol=bound)
    factor = (0.5 * counts / counts.sum())[:, None]
    np.testing.assert_allclose(out["dx"], factor * (p - onehot), rtol=0, atol=bound / n)
    dx, dloss = guarded((n, c), dtype), np.full(1, 3, dtype)
    _core.call("xent_bwd", bits(dtype), x=x, lse=out["lse"], dloss=dloss, dx=dx, per_row=0,
               scale=0.5, **rows)  # fmt: skip
    np.testing.assert_allclose(dx, 3 * factor * (p - onehot), rtol=0, atol=4 * bound / n)
    assert not out["dx"][~keep].any() and not dx[~keep].any() and not out["losses"][~keep].any()
    labels[0] = c
    with pytest.raises(_core.KernelError):
        _core.call("nll_fwd", bits(dtype), x=x, losses=None, total=dloss, x_rs=c, scale=1.0, **rows)
    assert dloss[0] == 3


def test_threads_do_not_matter(isa, dtype, rng, threads, guarded):
    for n, c in ((20000, 10), (40, 3000)):
        x, labels = logits(rng, n, c, dtype), rng.integers(0, c, n)
        results = []
        for count in (1, 2):
            threads(count)
            results.append(forward(x, labels, 1 / n, guarded))
        for key in results[0]:
            assert np.array_equal(results[0][key], results[1][key])
