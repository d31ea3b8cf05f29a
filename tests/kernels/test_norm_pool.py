"""Batch norm backward under 2x2 max pooling, against both one after the other in float64."""

from __future__ import annotations

import numpy as np
import pytest

from fastnn import _core

SHAPES = [(1, 1, 1, 1), (2, 3, 2, 5), (3, 2, 4, 16), (2, 4, 3, 17), (5, 7, 3, 40), (40, 8, 8, 3)]


def case(guarded, rng, dtype, shape, relu):
    """x, dy, idx, saved, and the gradient of the whole image that they stand for, in float64."""
    n, oh, ow, c = shape
    x = rng.standard_normal((n, 2 * oh, 2 * ow, c)).astype(dtype)
    dy = rng.standard_normal(shape).astype(dtype)
    y, idx = guarded(shape, dtype), guarded(shape, np.int32)
    sizes = dict(kh=2, kw=2, stride_h=2, stride_w=2, pad_h=0, pad_w=0, dilation_h=1, dilation_w=1)
    _core.call("pool_fwd", x.itemsize * 8, x=x, y=y, idx=idx, n=n, c=c, ih=2 * oh, iw=2 * ow, oh=oh,
               ow=ow, mode=0, adaptive=0, count_include_pad=1, act=0, **sizes)  # fmt: skip
    g = np.zeros((n, 4 * oh * ow, c))
    samples, channels = np.ogrid[:n, :c]
    for row, column in np.ndindex(oh, ow):
        passed = dy[:, row, column] * (y[:, row, column] > 0 if relu else 1)
        g[samples, idx[:, row, column], channels] = passed
    return x, dy, idx, y if relu else None, g.reshape(x.shape)


def backward(guarded, x, dy, idx, saved, mean, rstd, gamma, with_dx=True):
    (n, oh, ow, c), bits = dy.shape, x.itemsize * 8
    dx = guarded(x.shape, x.dtype, np.nan) if with_dx else None
    dgamma, dbeta = guarded((c,), x.dtype), guarded((c,), x.dtype)
    numbers = dict(n=n, oh=oh, ow=ow, c=c)
    work = guarded((_core.buffer_bytes("bn_pool_bwd", bits, **numbers),), np.uint8)
    _core.call("bn_pool_bwd", bits, x=x, dy=dy, idx=idx, saved=saved, mean=mean, rstd=rstd,
               gamma=gamma, dx=dx, dgamma=dgamma, dbeta=dbeta, work=work, **numbers)  # fmt: skip
    return dx, dgamma, dbeta


def statistics(x, rng):
    """mean, rstd and gamma of the channels."""
    rows = x.reshape(-1, x.shape[-1]).astype(np.float64)
    rstd = 1 / np.sqrt(rows.var(0) + 1e-5)
    return [v.astype(x.dtype) for v in (rows.mean(0), rstd, rng.standard_normal(x.shape[-1]))]


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_both_one_after_the_other(isa, dtype, guarded, rng, shape, relu, affine):
    x, dy, idx, saved, g = case(guarded, rng, dtype, shape, relu)
    mean, rstd, gamma = statistics(x, rng)
    gamma = gamma if affine else None
    dx, dgamma, dbeta = backward(guarded, x, dy, idx, saved, mean, rstd, gamma)
    n, eps = x.size // x.shape[-1], np.finfo(dtype).eps
    xhat = (x.astype(np.float64) - mean) * rstd
    scale = rstd * (gamma.astype(np.float64) if affine else 1.0)
    axes = (0, 1, 2)
    # A row of windows is a chain; x - mean and each product round once. Rows add in double.
    size = (shape[2] + 4) * eps * np.abs(g).sum(axes)
    size_hat = (shape[2] + 4) * eps * np.abs(g * xhat).sum(axes)
    assert np.all(np.abs(dbeta - g.sum(axes)) <= size)
    assert np.all(np.abs(dgamma - (g * xhat).sum(axes)) <= size_hat)
    means = g.sum(axes) / n, xhat * (g * xhat).sum(axes) / n
    expected = scale * (g - means[0] - means[1])
    parts = 4 * eps * (np.abs(g) + np.abs(means[0]) + np.abs(means[1]))
    bound = np.abs(scale) * (parts + size / n + np.abs(xhat) * size_hat / n)
    assert np.all(np.abs(dx - expected) <= bound)


def test_without_dx_the_sums_are_the_same(isa, dtype, guarded, rng):
    x, dy, idx, saved, _ = case(guarded, rng, dtype, (3, 4, 5, 19), relu=True)
    given = guarded, x, dy, idx, saved, *statistics(x, rng)
    np.testing.assert_array_equal(backward(*given)[1:], backward(*given, with_dx=False)[1:])


def test_bits_do_not_depend_on_threads(isa, threads, guarded, rng):
    x, dy, idx, saved, _ = case(guarded, rng, np.float32, (40, 16, 16, 24), relu=True)
    given, results = (guarded, x, dy, idx, saved, *statistics(x, rng)), []
    for count in (1, 2):
        threads(count)
        results.append(backward(*given))
    for one, two in zip(*results, strict=True):
        np.testing.assert_array_equal(one, two)
