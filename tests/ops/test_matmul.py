"""ops.matmul on arrays: the way past the plans, and the cases that it leaves to them."""

from __future__ import annotations

import numpy as np
import pytest

from fastnn import _core, ops


def matrices(rng, m, k, n, dtype=np.float32):
    return rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype)


def close(c, a, b):
    """Within the rounding of k products, each of about 1."""
    exact = a.astype(np.float64) @ b.astype(np.float64)
    bound = 4 * a.shape[1] * np.finfo(c.dtype).eps * (np.abs(a).max() * np.abs(b).max())
    np.testing.assert_allclose(c, exact, rtol=0, atol=max(bound, 1e-300))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "m, k, n", [(1, 1, 1), (8, 8, 8), (17, 5, 33), (64, 64, 64), (3, 200, 1), (32, 6000, 20)]
)
def test_products_of_matrices_need_no_plan(dtype, m, k, n):
    a, b = matrices(np.random.default_rng(0), m, k, n, dtype)
    out = np.empty((m, n), dtype)
    assert _core.product(a, b, out)
    close(out, a, b)
    assert ops.matmul(a, b, out=out) is out
    close(ops.matmul(a, b), a, b)


def test_transposed_and_sliced_operands():
    a, b = matrices(np.random.default_rng(1), 40, 30, 20)
    out = np.empty((15, 7), np.float32)
    left, right = a.T[::2], b.T[:7, :].T.repeat(2, 0)[:40]
    assert _core.product(left, right, out)
    close(out, left, right)


@pytest.mark.parametrize("which", ["left", "right"])
def test_out_may_be_an_operand(which):
    a, b = matrices(np.random.default_rng(2), 9, 9, 9)
    left, right = a.copy(), b.copy()
    out = a if which == "left" else b
    assert not _core.product(a, b, out)
    close(ops.matmul(a, b, out=out), left, right)


def test_what_is_left_to_a_plan():
    a, b = matrices(np.random.default_rng(3), 8, 8, 8)
    out = np.empty((8, 8), np.float32)
    assert not _core.product(a[::-1], b, out)
    assert not _core.product(a, b, out.T)
    assert not _core.product(a, b.astype(np.float64), out)
    assert not _core.product(a[:, :0], b[:0], out)
    assert not _core.product(a.astype(">f4"), b, out)
    close(ops.matmul(a[::-1], b, out=out), a[::-1], b)
    np.testing.assert_array_equal(ops.matmul(a[:, :0], b[:0]), np.zeros((8, 8)))


def test_errors_name_the_argument():
    a, b = matrices(np.random.default_rng(4), 8, 8, 8)
    with pytest.raises(ValueError, match="out: expected float32"):
        ops.matmul(a, b, out=np.empty((8, 7), np.float32))
    with pytest.raises(ValueError, match="matmul"):
        ops.matmul(a, b[:7])
    with pytest.raises(TypeError, match="matmul"):
        ops.matmul(a, b.astype(np.float64))
