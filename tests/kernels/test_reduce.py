"""reduce, accumulate, count_correct and count_confusion against NumPy in float64."""

from __future__ import annotations

import numpy as np
import pytest

from fastnn import _core

SUM, MAX, MIN = range(3)
SHAPES = [
    *((3, n, 1) for n in (0, 1, 7, 15, 16, 17, 31, 33, 64, 1000, 5000)),
    *((2, n, c) for n in (0, 1, 5, 33, 200) for c in (2, 3, 10, 15, 16, 17, 31, 48, 65, 300)),
    (1, 100003, 1),
    (3, 70001, 1),
    (1, 20011, 10),
    (1, 5003, 32),
    (1, 300, 1031),
    (2000, 9, 3),
    (0, 4, 4),
    (4, 4, 0),
]


def reduce(x, op, y, scale=1.0):
    bits = 8 * x.itemsize
    sizes = {"outer": x.shape[0], "len": x.shape[1], "inner": x.shape[2], "op": op,
             "scale": scale}  # fmt: skip
    need = _core.buffer_bytes("reduce", bits, **sizes)
    work = np.full(need + 64, 0xA5, np.uint8)
    _core.call("reduce", bits, x=x, y=y, work=work, **sizes)
    assert np.all(work[need:] == 0xA5), "wrote past the work buffer"


def terms_in_a_row(x):
    """The longest chain of additions that the kernel documents, for its widest and narrowest lanes:
    a few runs of about a hundred, the last lanes, and a pairwise tree."""
    return 700 + 2 * np.log2(max(x.shape[1], 2))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sum(isa, dtype, rng, guarded, shape):
    x = rng.standard_normal(shape).astype(dtype)
    y = guarded((shape[0], shape[2]), dtype)
    reduce(x, SUM, y, scale=0.5)
    exact = x.astype(np.longdouble)
    bound = min(shape[1] + 1, terms_in_a_row(x)) * np.finfo(dtype).eps / 2 * np.abs(exact).sum(1)
    assert np.all(np.abs(y - exact.sum(1) / 2) <= bound)


@pytest.mark.parametrize("op", [MAX, MIN])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_extremes(isa, dtype, rng, guarded, shape, op):
    x = rng.standard_normal(shape).astype(dtype)
    y = guarded((shape[0], shape[2]), dtype)
    reduce(x, op, y)
    initial = -np.inf if op == MAX else np.inf
    want = (np.max if op == MAX else np.min)(x, axis=1, initial=initial)
    np.testing.assert_array_equal(y, want)


@pytest.mark.parametrize("shape", [(1, 100, 1), (1, 40000, 1), (1, 70, 3), (1, 70, 40)], ids=str)
@pytest.mark.parametrize("op", [SUM, MAX, MIN])
def test_nan_wins(isa, dtype, shape, op):
    for at in (0, 1, 17, 50, shape[1] - 1):
        x = np.ones(shape, dtype)
        x[0, at, 0] = np.nan
        y = np.empty((1, shape[2]), dtype)
        reduce(x, op, y)
        assert np.isnan(y[0, 0])
        assert not np.isnan(y[0, 1:]).any()


def test_long_sums_keep_their_digits(isa):
    """One after another, float32 additions of 0.1 are off by a percent here."""
    for shape in ((1, 1 << 22, 1), (1, 1 << 20, 4), (1, 1 << 17, 32)):
        x = np.full(shape, 0.1, np.float32)
        y = np.empty((1, shape[2]), np.float32)
        reduce(x, SUM, y)
        np.testing.assert_allclose(y, np.float64(np.float32(0.1)) * shape[1], rtol=2e-5)


def test_threads_do_not_matter(isa, dtype, rng, threads):
    for shape in ((1, 300001, 1), (1, 30001, 17), (1, 2000, 600), (50, 3000, 2)):
        x = rng.standard_normal(shape).astype(dtype)
        results = []
        for n in (1, 2):
            threads(n)
            y = np.empty((shape[0], shape[2]), dtype)
            reduce(x, SUM, y)
            results.append(y)
        assert np.array_equal(results[0], results[1])


def test_accumulate(isa, dtype):
    acc = np.array([1.5])
    _core.call("accumulate", 8 * np.dtype(dtype).itemsize, x=np.array([0.25], dtype), acc=acc,
               weight=32.0)  # fmt: skip
    assert acc[0] == 9.5


def count(x, labels, k=1, threshold=0.0):
    acc = np.array([100.0, 0.0])
    _core.call("count_correct", 8 * x.itemsize, x=x, labels=labels, acc=acc, n=x.shape[0],
               c=x.shape[1], k=k, threshold=threshold)  # fmt: skip
    return acc[0] - 100, acc[1]


def confusion(x, labels, threshold=0.0):
    acc = np.zeros((max(2, x.shape[1]),) * 2)
    _core.call("count_confusion", 8 * x.itemsize, x=x, labels=labels, acc=acc, n=x.shape[0],
               c=x.shape[1], threshold=threshold)  # fmt: skip
    return acc


@pytest.mark.parametrize("n, c", [(0, 3), (200, 3), (128, 10), (50, 33), (20, 1000)])
def test_counts_of_predicted_classes(isa, dtype, rng, n, c):
    x = rng.integers(0, 4, (n, c)).astype(dtype)  # many equal columns: the first one counts
    x[rng.random((n, c)) < 0.02] = np.nan
    labels = np.where(rng.random(n) < 0.5, x.argmax(1) if n else 0, rng.integers(0, c, n))
    # A stable descending order with NaN first: what argmax takes, then the next ones.
    order = np.argsort(np.where(np.isnan(x), -np.inf, -x), axis=1, kind="stable")
    for k in (1, 2, 3):
        assert count(x, labels, k) == (np.sum(order[:, :k] == labels[:, None]), n)
    want = np.zeros((c, c))
    np.add.at(want, (labels, x.argmax(1) if n else labels), 1)
    np.testing.assert_array_equal(confusion(x, labels), want)


def test_counts_of_two_classes_by_threshold(isa, dtype):
    x = np.array([[0.2], [0.7], [0.5], [np.nan], [0.9]], dtype)
    labels = np.array([0, 1, 1, 0, 0])
    assert count(x, labels, threshold=0.5) == (3, 5)
    np.testing.assert_array_equal(confusion(x, labels, 0.5), [[2, 1], [1, 1]])


def test_counts_leave_out_labels_outside(isa, dtype):
    assert count(np.zeros((3, 2), dtype), np.array([-1, 2, 0])) == (1, 1)
    assert confusion(np.zeros((3, 2), dtype), np.array([-1, 2, 0])).sum() == 1
