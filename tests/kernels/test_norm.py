"""Batch norm kernels against float64 NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from fastnn import _core

RELU = 1
EPS = 1e-5
SHAPES = [(1, 1), (5, 3), (64, 1), (129, 6), (33, 7), (32, 16), (50, 17), (31, 33), (40, 100),
          (9, 255), (7, 1030), (3000, 2), (2111, 24)]  # fmt: skip


@pytest.fixture(params=SHAPES, ids=str)
def shape(request):
    return request.param


def forward(guarded, x, gamma=None, beta=None, residual=None, act=0, moments=None, parts=0):
    (rows, c), bits = x.shape, x.itemsize * 8
    y = guarded(x.shape, x.dtype)
    mean, var, rstd = (guarded((c,), x.dtype) for _ in range(3))
    numbers = {"rows": rows, "c": c, "act": act, "eps": EPS, "parts": parts}
    work = guarded((_core.buffer_bytes("bn_fwd", bits, **numbers),), np.uint8)
    _core.call("bn_fwd", bits, x=x, gamma=gamma, beta=beta, residual=residual, moments=moments,
               y=y, mean=mean, var=var, rstd=rstd, work=work, **numbers)  # fmt: skip
    return y, mean, var, rstd


def backward(guarded, x, dy, mean, rstd, gamma=None, saved=None, with_dx=True, sums=None,
             parts=0):  # fmt: skip
    (rows, c), bits = x.shape, x.itemsize * 8
    dx = guarded(x.shape, x.dtype) if with_dx else None
    dgamma, dbeta = guarded((c,), x.dtype), guarded((c,), x.dtype)
    work = guarded((_core.buffer_bytes("bn_bwd", bits, rows=rows, c=c, parts=parts),), np.uint8)
    _core.call("bn_bwd", bits, x=x, dy=dy, mean=mean, rstd=rstd, gamma=gamma, saved=saved, dx=dx,
               dgamma=dgamma, dbeta=dbeta, work=work, rows=rows, c=c, sums=sums,
               parts=parts)  # fmt: skip
    return dx, dgamma, dbeta


def draw(rng, shape, dtype, offset=0.0):
    """x, residual, gamma, beta."""
    x = (rng.standard_normal(shape) * rng.uniform(0.5, 2, shape[1]) + offset).astype(dtype)
    gamma, beta = rng.standard_normal((2, shape[1])).astype(dtype)
    return x, rng.standard_normal(shape).astype(dtype), gamma, beta


@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize("act", [0, RELU])
def test_forward(isa, dtype, guarded, rng, shape, offset, act):
    x, residual, gamma, beta = draw(rng, shape, dtype, offset)
    y, mean, var, rstd = forward(guarded, x, gamma, beta, residual, act)
    eps, x = np.finfo(dtype).eps, x.astype(np.longdouble)
    center, scale = x.mean(0), np.sqrt(x.var(0) + EPS)
    # A block's sums have at most 256 / 4 + 3 terms in a row; squares add two roundings. Some twenty
    # merges keep the mean in double, which costs a large mean's channels `kept` of a deviation.
    kept = 20 * np.finfo(np.float64).eps * np.abs(center) / scale
    assert np.all(np.abs(var - x.var(0)) <= (80 * eps + kept) * scale**2)
    assert np.all(np.abs(mean - center) <= eps * np.abs(center) + (4 * eps + kept) * scale)
    np.testing.assert_array_less(np.abs(rstd * scale - 1), 80 * eps + kept)
    xhat = (x - center) / scale
    expected = xhat * gamma + beta + residual
    expected = np.maximum(expected, 0) if act else expected
    size = np.abs(xhat * gamma) + np.abs(gamma) + np.abs(beta) + np.abs(residual)
    assert np.all(np.abs(y - expected) <= (80 * eps + kept) * size)


def test_forward_without_gamma_beta_and_residual(isa, dtype, guarded, rng, shape):
    x, residual, *_ = draw(rng, shape, dtype)
    ones, zeros = np.ones(shape[1], dtype), np.zeros(shape[1], dtype)
    for given, left_out in zip(
        forward(guarded, x, ones, zeros, 0 * residual), forward(guarded, x), strict=True
    ):
        np.testing.assert_array_equal(given, left_out)


def test_constant_channels_have_no_variance(isa, dtype, guarded, shape):
    x = np.full(shape, 12345.678, dtype)
    y, mean, var, _ = forward(guarded, x)
    np.testing.assert_allclose(mean, x[0], rtol=np.finfo(dtype).eps)
    assert np.all(var <= (np.finfo(dtype).eps * 12346) ** 2)
    assert np.all(np.abs(y) <= np.finfo(dtype).eps * 12346 / np.sqrt(EPS))


def test_an_outlier_in_the_first_row_does_not_hide_the_rest(isa, dtype, guarded, rng):
    x, *_ = draw(rng, (2000, 5), dtype)
    x[0] = 1e6
    _, _, var, _ = forward(guarded, x)
    np.testing.assert_allclose(var, x.astype(np.float64).var(0), rtol=80 * np.finfo(dtype).eps)


@pytest.mark.parametrize("act", [0, RELU])
def test_apply_is_forward_with_given_moments(isa, dtype, guarded, rng, shape, act):
    x, residual, gamma, beta = draw(rng, shape, dtype)
    mean, var = rng.standard_normal(shape[1]).astype(dtype), rng.random(shape[1]).astype(dtype)
    y = guarded(shape, dtype)
    _core.call("bn_apply", x.itemsize * 8, x=x, mean=mean, var=var, gamma=gamma, beta=beta,
               residual=residual, y=y, rows=shape[0], c=shape[1], act=act, eps=EPS)  # fmt: skip
    scale = gamma / np.sqrt(var.astype(np.float64) + EPS)
    part = (x.astype(np.float64) - mean) * scale
    expected = part + beta + residual
    expected = np.maximum(expected, 0) if act else expected
    bound = 4 * np.finfo(dtype).eps * (np.abs(part) + np.abs(beta) + np.abs(residual))
    assert np.all(np.abs(y - expected) <= bound)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("affine", [False, True])
def test_backward(isa, dtype, guarded, rng, shape, fused, affine):
    x, dy, gamma, beta = draw(rng, shape, dtype)
    gamma, beta = (gamma, beta) if affine else (None, None)
    y, mean, _, rstd = forward(guarded, x, gamma, beta, act=RELU if fused else 0)
    dx, dgamma, dbeta = backward(guarded, x, dy, mean, rstd, gamma, y if fused else None)

    n, eps = shape[0], np.finfo(dtype).eps
    g = np.where(y > 0, dy, 0).astype(np.float64) if fused else dy.astype(np.float64)
    xhat = (x.astype(np.float64) - mean) * rstd
    scale = rstd * (gamma.astype(np.float64) if affine else 1.0)
    size = 80 * eps * np.abs(g).sum(0)  # chains of at most 256 / 4 + 3 terms, then double
    size_hat = 80 * eps * np.abs(g * xhat).sum(0)
    assert np.all(np.abs(dbeta - g.sum(0)) <= size)
    assert np.all(np.abs(dgamma - (g * xhat).sum(0)) <= size_hat)
    expected = scale * (g - g.sum(0) / n - xhat * (g * xhat).sum(0) / n)
    parts = 4 * eps * (np.abs(g) + np.abs(g.sum(0) / n) + np.abs(xhat * (g * xhat).sum(0) / n))
    bound = np.abs(scale) * (parts + size / n + np.abs(xhat) * size_hat / n)
    assert np.all(np.abs(dx - expected) <= bound)


def test_backward_without_dx_gives_the_same_sums(isa, dtype, guarded, rng, shape):
    x, dy, gamma, _ = draw(rng, shape, dtype)
    _, mean, _, rstd = forward(guarded, x)
    _, *sums = backward(guarded, x, dy, mean, rstd, gamma)
    _, *alone = backward(guarded, x, dy, mean, rstd, gamma, with_dx=False)
    np.testing.assert_array_equal(sums, alone)


def test_nan_stays_in_its_channel(isa, dtype, guarded, rng, shape):
    x, dy, *_ = draw(rng, shape, dtype)
    x[shape[0] // 2, shape[1] // 2] = np.nan
    channel = np.arange(shape[1]) == shape[1] // 2
    y, mean, var, rstd = forward(guarded, x, act=RELU)
    for values in (y.T, mean, var, rstd):
        np.testing.assert_array_equal(np.isnan(values).T, np.broadcast_to(channel, values.T.shape))
    dx, dgamma, _ = backward(guarded, x, dy, mean, rstd)
    assert np.all(np.isnan(dx) == channel) and np.all(np.isnan(dgamma) == channel)


@pytest.mark.parametrize("c", [1, 6, 32, 200])
def test_bits_do_not_depend_on_threads(isa, dtype, threads, guarded, rng, c):
    x, dy, gamma, beta = draw(rng, (300_001 // c, c), dtype)

    def run(n):
        threads(n)
        y, mean, var, rstd = forward(guarded, x, gamma, beta)
        return [y, mean, var, *backward(guarded, x, dy, mean, rstd, gamma, y)]

    for one, two in zip(run(1), run(2), strict=True):
        assert one.tobytes() == two.tobytes()
