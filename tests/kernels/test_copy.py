"""copy, fill, take and take_labels against NumPy indexing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastnn import _core

DTYPES = [np.float32, np.float64, np.uint8, np.int8, np.int16, np.int32, np.int64]
CODE = {np.dtype(d): i for i, d in enumerate(DTYPES)}


def bits(dtype):
    return 8 * np.dtype(dtype).itemsize


def copy(x, y):
    """y[...] = x, for any strides of both."""
    lead = 6 - y.ndim
    fields = {}
    for i in range(6):
        fields[f"d{i}"] = 1 if i < lead else y.shape[i - lead]
        fields[f"xs{i}"] = 0 if i < lead else x.strides[i - lead] // x.itemsize
        fields[f"ys{i}"] = 0 if i < lead else y.strides[i - lead] // y.itemsize
    _core.call("copy", bits(y.dtype), x=x, y=y, **fields)


@pytest.mark.parametrize(
    "shape, order",
    [
        ((5,), (0,)),
        ((100000,), (0,)),
        ((3, 4, 5), (0, 1, 2)),
        ((17, 33), (1, 0)),
        ((16, 16), (1, 0)),
        ((300, 257), (1, 0)),
        ((2, 40000), (1, 0)),
        ((40000, 3), (1, 0)),
        ((4, 3, 8, 9), (0, 2, 3, 1)),
        ((4, 8, 9, 31), (0, 3, 1, 2)),
        ((3, 64, 40, 50), (0, 2, 3, 1)),
        ((32, 16, 3, 3), (2, 3, 1, 0)),
        ((2, 3, 4, 5, 6, 7), (5, 3, 1, 0, 2, 4)),
        ((3, 0, 4), (2, 0, 1)),
    ],
    ids=str,
)
def test_permuted(isa, dtype, rng, guarded, shape, order):
    x = rng.standard_normal(shape).astype(dtype).transpose(order)
    y = guarded(x.shape, dtype)
    copy(x, y)
    np.testing.assert_array_equal(y, x)
    back = np.zeros(shape, dtype)
    copy(y, back.transpose(order))
    np.testing.assert_array_equal(back.transpose(order), x)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_any_strides(isa, data):
    shape = data.draw(st.lists(st.integers(0, 20), min_size=1, max_size=4))

    def view(fill):
        order = data.draw(st.permutations(range(len(shape))))
        steps = [data.draw(st.integers(1, 2)) for _ in shape]
        base = np.zeros([shape[i] * steps[i] for i in order], np.float32)
        if fill:
            base[...] = np.arange(base.size).reshape(base.shape)
        full = base.transpose(np.argsort(order))
        return full, full[tuple(slice(None, None, s) for s in steps)]

    _, x = view(True)
    full, y = view(False)
    copy(x, y)
    np.testing.assert_array_equal(y, x)
    y[...] = 0
    assert not full.any(), "wrote between the elements"


def test_broadcast_and_nan(isa, dtype):
    x = np.array([1, -0.0, np.nan, np.inf], dtype)
    y = np.empty((3, 4, 5), dtype)
    copy(np.broadcast_to(x[:, None], y.shape), y)
    np.testing.assert_array_equal(y, np.broadcast_to(x[:, None], y.shape))
    assert np.signbit(y[:, 1]).all()


@pytest.mark.parametrize("n", [0, 1, 7, 15, 16, 17, 33, 100000])
def test_fill(isa, dtype, guarded, n):
    y = guarded(n, dtype, 1)
    _core.call("fill", bits(dtype), y=y, n=n, value=-2.5)
    assert np.all(y == -2.5)


def take(src, idx, out, c, hw, scale=None, shift=None):
    rows = len(out)
    _core.call(
        "take", bits(out.dtype), src=src, idx=idx, scale=scale, shift=shift, out=out, rows=rows,
        src_rows=len(src), c=c, hw=hw, dtype=CODE[src.dtype],
    )  # fmt: skip


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("c, hw", [(1, 784), (3, 1024), (4, 9), (17, 1), (1, 1), (3, 5), (20, 33)])
@pytest.mark.parametrize("src_dtype", DTYPES)
def test_take(isa, dtype, rng, guarded, src_dtype, c, hw, scaled):
    src = rng.integers(0, 120, (40, c, hw)).astype(src_dtype)
    if src.dtype.kind != "u":
        src -= 60
    idx = rng.integers(0, 40, 29)
    scale, shift = (rng.standard_normal((2, c)) + 2).astype(dtype) if scaled else (None, None)
    for rows in (idx, None):
        out = guarded((29, hw, c), dtype)
        take(src, rows, out, c, hw, scale, shift)
        want = src[slice(29) if rows is None else rows].transpose(0, 2, 1).astype(float)
        if scaled:
            want = want * scale.astype(float) + shift.astype(float)
        # At most two roundings, of the product and of the sum.
        bound = np.finfo(dtype).eps * 300 * 6 if scaled else 0
        np.testing.assert_allclose(out, want, rtol=0, atol=bound)


def test_take_keeps_every_bit(isa, dtype):
    src = np.array([[-0.0, np.nan, np.inf, np.finfo(dtype).smallest_subnormal]], dtype)
    out = np.empty((1, 4), dtype)
    take(src, None, out, 1, 4)
    assert out.tobytes() == src.tobytes()


@pytest.mark.parametrize("bad", [-1, 5, 1 << 62])
def test_take_refuses_rows_outside(isa, dtype, bad):
    src, out = np.zeros((5, 3), np.uint8), np.full((2, 3), 7, dtype)
    with pytest.raises(_core.KernelError) as error:
        take(src, np.array([0, bad]), out, 1, 3)
    assert error.value.status == _core.BAD_INDEX
    assert np.all(out == 7)
    with pytest.raises(_core.KernelError):
        take(src[:1], None, out, 1, 3)


@pytest.mark.parametrize("src_dtype", DTYPES)
def test_take_labels(isa, rng, guarded, src_dtype):
    src = rng.integers(0, 100, (30, 2)).astype(src_dtype)
    idx = rng.integers(0, 30, 11)
    for rows in (idx, None):
        out = guarded((11, 2), np.int64)
        _core.call("take_labels", 32, src=src, idx=rows, out=out, rows=11, src_rows=30, row_size=2,
                   dtype=CODE[src.dtype])  # fmt: skip
        np.testing.assert_array_equal(out, src[slice(11) if rows is None else rows])
    out = np.zeros((11, 2), np.int64)
    with pytest.raises(_core.KernelError):
        _core.call("take_labels", 32, src=src, idx=idx, out=out, rows=11, src_rows=int(idx.max()),
                   row_size=2, dtype=CODE[src.dtype])  # fmt: skip


def test_threads_do_not_matter(isa, dtype, rng, threads):
    x = rng.standard_normal((7, 300, 200)).astype(dtype).transpose(0, 2, 1)
    results = []
    for n in (1, 2):
        threads(n)
        y = np.empty(x.shape, dtype)
        copy(x, y)
        results.append(y)
    assert np.array_equal(results[0], results[1])
