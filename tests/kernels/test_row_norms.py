"""Layer, RMS and group norm kernels against float64 NumPy, at sizes around their blocks' edges."""

from __future__ import annotations

import numpy as np
import pytest

from fastnn import _core

EPS = 1e-5
LAYER = [(5, 3), (33, 64), (3, 1029), (600, 5), (130, 257)]
GROUP = [(2, 3, 4, 2), (3, 300, 6, 3), (1, 5, 34, 17), (40, 9, 8, 1)]  # n, hw, c, groups


def layer(guarded, x, gamma, beta, rms):
    (n, c), bits = x.shape, 8 * x.itemsize
    y, mean, rstd = guarded((n, c), x.dtype), guarded((n,), x.dtype), guarded((n,), x.dtype)
    _core.call("layer_norm_fwd", bits, x=x, gamma=gamma, beta=beta, y=y, mean=mean, rstd=rstd,
               n=n, c=c, rms=rms, eps=EPS)  # fmt: skip
    return y, mean, rstd


def layer_grad(guarded, x, dy, mean, rstd, gamma, rms):
    (n, c), bits = x.shape, 8 * x.itemsize
    dx, dgamma, dbeta = guarded((n, c), x.dtype), guarded((c,), x.dtype), guarded((c,), x.dtype)
    work = guarded((_core.buffer_bytes("layer_norm_bwd", bits, n=n, c=c, rms=rms),), np.uint8)
    _core.call("layer_norm_bwd", bits, x=x, dy=dy, mean=mean, rstd=rstd, gamma=gamma, dx=dx,
               dgamma=dgamma, dbeta=dbeta, work=work, n=n, c=c, rms=rms)  # fmt: skip
    return dx, dgamma, dbeta


def group(guarded, x, groups, gamma, beta):
    (n, hw, c), bits = x.shape, 8 * x.itemsize
    sizes = dict(n=n, hw=hw, c=c, groups=groups)
    y, (mean, rstd) = guarded(x.shape, x.dtype), (guarded((n, groups), x.dtype) for _ in range(2))
    work = guarded((_core.buffer_bytes("group_norm_fwd", bits, eps=EPS, **sizes),), np.uint8)
    _core.call("group_norm_fwd", bits, x=x, gamma=gamma, beta=beta, y=y, mean=mean, rstd=rstd,
               work=work, eps=EPS, **sizes)  # fmt: skip
    return y, mean, rstd


def group_grad(guarded, x, dy, mean, rstd, groups, gamma):
    (n, hw, c), bits = x.shape, 8 * x.itemsize
    sizes = dict(n=n, hw=hw, c=c, groups=groups)
    dx, (dgamma, dbeta) = guarded(x.shape, x.dtype), (guarded((c,), x.dtype) for _ in range(2))
    work = guarded((_core.buffer_bytes("group_norm_bwd", bits, **sizes),), np.uint8)
    _core.call("group_norm_bwd", bits, x=x, dy=dy, mean=mean, rstd=rstd, gamma=gamma, dx=dx,
               dgamma=dgamma, dbeta=dbeta, work=work, **sizes)  # fmt: skip
    return dx, dgamma, dbeta


def check_forward(x, gamma, beta, axes, got, rms=0):
    """y, mean, rstd over `axes`: sums of at most 256 / 4 + 20 terms in a row, then double."""
    y, mean, rstd = got
    eps, x = np.finfo(y.dtype).eps, x.astype(np.longdouble)
    center = 0 * x.mean(axes, keepdims=True) if rms else x.mean(axes, keepdims=True)
    scale = np.sqrt(((x - center) ** 2).mean(axes, keepdims=True) + EPS)
    size = np.abs(x).mean(axes, keepdims=True)
    assert np.all(
        np.abs(mean - center.reshape(mean.shape)) <= (90 * eps * size).reshape(mean.shape)
    )
    np.testing.assert_array_less(np.abs(rstd * scale.reshape(rstd.shape) - 1), 100 * eps)
    hat = (x - center) / scale
    bound = 100 * eps * ((np.abs(hat) + size / scale + 1) * np.abs(gamma) + np.abs(beta))
    assert np.all(np.abs(y - (hat * gamma + beta)) <= bound)


def check_backward(x, dy, mean, rstd, gamma, axes, sums, got, rms=0):
    """dx, dgamma and dbeta from the formula with the kernel's own statistics."""
    eps = np.finfo(x.dtype).eps
    x, dy, mean, rstd = (v.astype(np.float64) for v in (x, dy, mean, rstd))
    hat = (x - mean) * rstd
    g = dy * gamma
    means = [
        (v.mean(axes, keepdims=True), np.abs(v).mean(axes, keepdims=True)) for v in (g, g * hat)
    ]
    inner = g - hat * means[1][0] - (0 if rms else means[0][0])
    size = np.abs(g) + np.abs(hat) * means[1][1] + means[0][1]
    assert np.all(np.abs(got[0] - inner * rstd) <= 100 * eps * size * rstd)
    for mine, terms in zip(got[1:], (dy * hat, dy), strict=True):
        assert np.all(np.abs(mine - terms.sum(sums)) <= 270 * eps * np.abs(terms).sum(sums))


@pytest.mark.parametrize("rms", [0, 1])
@pytest.mark.parametrize("shape", LAYER, ids=str)
def test_layer_norm(isa, dtype, guarded, rng, shape, rms):
    x, dy = (rng.standard_normal(shape) + 3).astype(dtype), rng.standard_normal(shape).astype(dtype)
    gamma, beta = rng.standard_normal((2, shape[1])).astype(dtype)
    y, mean, rstd = layer(guarded, x, gamma, beta, rms)
    check_forward(x, gamma, beta, (1,), (y, mean, rstd), rms)
    grads = layer_grad(guarded, x, dy, mean, rstd, gamma, rms)
    check_backward(x, dy, mean[:, None], rstd[:, None], gamma, (1,), (0,), grads, rms)


@pytest.mark.parametrize("shape", GROUP, ids=str)
def test_group_norm(isa, dtype, guarded, rng, shape):
    n, hw, c, groups = shape
    x, dy = ((rng.standard_normal((n, hw, c)) + 3).astype(dtype) for _ in range(2))
    gamma, beta = rng.standard_normal((2, c)).astype(dtype)
    y, mean, rstd = group(guarded, x, groups, gamma, beta)
    wide = (n, hw, groups, c // groups)
    parts = [v.reshape(wide[2:]) for v in (gamma, beta)]
    check_forward(x.reshape(wide), *parts, (1, 3), (y.reshape(wide), mean, rstd))
    dx, *sums = group_grad(guarded, x, dy, mean, rstd, groups, gamma)
    grads = [dx.reshape(wide), *(v.reshape(wide[2:]) for v in sums)]
    stats = [v[:, None, :, None] for v in (mean, rstd)]
    check_backward(x.reshape(wide), dy.reshape(wide), *stats, parts[0], (1, 3), (0, 1), grads)


def test_nan_stays_in_its_row_and_group(isa, dtype, guarded, rng):
    x = rng.standard_normal((4, 6, 8)).astype(dtype)
    x[2, 3, 5] = np.nan
    y, *_ = layer(guarded, x.reshape(24, 8), None, None, 0)
    np.testing.assert_array_equal(np.isnan(y).any(1), np.arange(24) == 15)
    y, *_ = group(guarded, x, 4, None, None)
    bad = np.isnan(y).reshape(4, 6, 4, 2).any((1, 3))
    np.testing.assert_array_equal(np.argwhere(bad), [[2, 2]])


def test_bits_do_not_depend_on_threads(isa, dtype, threads, guarded, rng):
    x, dy = (rng.standard_normal((300, 16, 24)).astype(dtype) for _ in range(2))
    gamma, beta = rng.standard_normal((2, 24)).astype(dtype)

    def run(n):
        threads(n)
        y, mean, rstd = group(guarded, x, 4, gamma, beta)
        results = [y, mean, rstd, *group_grad(guarded, x, dy, mean, rstd, 4, gamma)]
        rows, drows = x.reshape(-1, 24), dy.reshape(-1, 24)
        y, mean, rstd = layer(guarded, rows, gamma, beta, 0)
        return [*results, y, mean, rstd, *layer_grad(guarded, rows, drows, mean, rstd, gamma, 0)]

    for one, two in zip(run(1), run(2), strict=True):
        assert one.tobytes() == two.tobytes()
