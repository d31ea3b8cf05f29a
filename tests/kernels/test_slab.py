"""Kernels around an optimizer: clipping, means of gradients, averaged weights."""

from __future__ import annotations

import numpy as np
import pytest

from fastnn import _core
from fastnn.optim.slab import PIECE

SIZES = [1, 15, 16, 70, 2100, PIECE + 3]


def call(kernel, array, **fields):
    _core.call(kernel, 8 * array.itemsize, n=array.size, **fields)


@pytest.mark.parametrize("n", SIZES)
def test_clamp(isa, dtype, guarded, rng, n):
    g = guarded(n, dtype, rng.standard_normal(n))
    g[n // 2] = np.nan
    wanted = np.clip(g, dtype(-0.3), dtype(0.3))
    call("clamp", g, g=g, bound=0.3)
    np.testing.assert_array_equal(g, wanted)


@pytest.mark.parametrize("n", SIZES)
def test_grad_norm(isa, dtype, guarded, rng, n):
    g = rng.standard_normal(n).astype(dtype)
    work = guarded(_core.buffer_bytes("grad_norm", 8 * g.itemsize, n=n, max_norm=1.0), np.uint8)
    factor = guarded(1, np.float64)
    norm = np.linalg.norm(g.astype(np.float64))
    for max_norm in (norm / 2, norm * 2):
        call("grad_norm", g, g=g, factor=factor, work=work, max_norm=max_norm)
        # Some 40 roundings of sums of squares, all of one sign.
        wanted = min(1.0, max_norm / (norm + 1e-6))
        np.testing.assert_allclose(factor, wanted, rtol=40 * np.finfo(dtype).eps)
    g[n // 2] = np.nan
    call("grad_norm", g, g=g, factor=factor, work=work, max_norm=1.0)
    assert np.isnan(factor)


def test_grad_norm_does_not_depend_on_threads(isa, dtype, threads, guarded, rng):
    g = rng.standard_normal(100_003).astype(dtype)
    work = guarded(
        _core.buffer_bytes("grad_norm", 8 * g.itemsize, n=g.size, max_norm=1.0), np.uint8
    )
    found = []
    for count in (1, 2):
        threads(count)
        factor = guarded(1, np.float64)
        call("grad_norm", g, g=g, factor=factor, work=work, max_norm=1.0)
        found.append(factor.tobytes())
    assert found[0] == found[1]


@pytest.mark.parametrize("n", SIZES)
def test_mean_of_micro_batches(isa, dtype, guarded, rng, n):
    """Of 3, 3 and 1 rows; the first one replaces whatever is there."""
    grads = rng.standard_normal((3, n)).astype(dtype)
    mean = guarded(n, dtype, np.nan)
    for g, part, left in zip(grads, (1, 1 / 2, 1 / 7), (2, 1, 0), strict=True):
        hyper = np.array([5 + left * 2.0**32, 0, 0, part])
        call("grad_mean", mean, g=g, hyper=hyper, mean=mean)
    wanted = np.average(grads.astype(np.float64), axis=0, weights=[3, 3, 1])
    np.testing.assert_allclose(mean, wanted, rtol=0, atol=20 * np.finfo(dtype).eps)


@pytest.mark.parametrize("left", [0, 2])
def test_steps_after_are_left_out_while_batches_are(isa, dtype, left):
    arena = _core.Memory(0)
    program = _core.Program(8 * np.dtype(dtype).itemsize, arena)
    g, mean, after = np.ones((3, 8), dtype)
    hyper = np.array([3 + left * 2.0**32, 0, 0, 1])
    places = [(program.array_space(a.nbytes, a.dtype), 0) for a in (g, hyper, mean, after)]
    names = dict(zip(("g", "hyper", "mean"), places, strict=False))
    program.add("grad_mean", {**names, "n": 8})
    program.add("fill", {"y": places[3], "n": 8, "value": 9.0})
    program.run((g, hyper, mean, after), 3)
    np.testing.assert_array_equal(after, 1 if left else 9)


@pytest.mark.parametrize("n", SIZES)
def test_ema(isa, dtype, guarded, rng, n):
    """The first step, counted from the start, copies."""
    w = rng.standard_normal((4, n)).astype(dtype)
    mean = guarded(n, dtype, np.nan)
    for step, row in enumerate(w, 8):
        call("ema", mean, w=row, hyper=np.array([step, 0.0]), mean=mean, start=7, decay=0.9)
    wanted = w[0].astype(np.float64)
    for row in w[1:].astype(np.float64):
        wanted = 0.9 * wanted + 0.1 * row
    np.testing.assert_allclose(mean, wanted, rtol=0, atol=20 * np.finfo(dtype).eps)
