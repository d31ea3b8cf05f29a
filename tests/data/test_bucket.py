"""Batches of sequences of like length."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from fastnn import data

RNG = np.random.default_rng(0)
N, T = 45, 29
LENGTHS = RNG.integers(1, T + 1, N)
X = np.where(np.arange(T)[:, None] < LENGTHS[:, None, None], np.arange(N)[:, None, None] + 1.0, 0)
X = np.repeat(X, 3, 2)
Y = np.arange(N)


def order(buckets: Any) -> list[int]:
    return [int(i) for batch in buckets for i in batch["y"]]


def test_every_sequence_comes_once_among_its_like() -> None:
    buckets = data.bucket_by_length(X, LENGTHS, Y, batch_size=8, multiple=4, sample_weight=Y)
    batches = list(buckets)
    assert len(batches) == len(buckets) == 6
    assert sorted(len(b["y"]) for b in batches) == [5, 8, 8, 8, 8, 8]
    assert sorted(order(batches)) == list(range(N))
    spans = sorted((b["lengths"].min(), b["lengths"].max()) for b in batches)
    assert all(a[1] <= b[0] for a, b in pairwise(spans))
    for b in batches:
        longest = b["lengths"].max()
        assert b["x"].shape[1] == min(T, -(-longest // 4) * 4)
        np.testing.assert_array_equal(b["x"], X[b["y"]][:, : b["x"].shape[1]])
        np.testing.assert_array_equal(b["lengths"], LENGTHS[b["y"]])
        np.testing.assert_array_equal(b["sample_weight"], b["y"])


def test_the_seed_and_the_epoch_choose_the_order() -> None:
    one, two = (data.bucket_by_length(X, LENGTHS, Y, 8, seed=3) for _ in range(2))
    first, second = order(one), order(one)
    assert first != second
    assert [order(two), order(two)] == [first, second]
    one.set_epoch(0)
    assert order(one) == first
    assert order(data.bucket_by_length(X, LENGTHS, Y, 8, seed=4)) != first


@pytest.mark.parametrize(
    "given,error,words",
    [
        ({"x": Y}, ValueError, "x: expected shape"),
        ({"y": Y[:3]}, ValueError, "y: expected as many rows"),
        ({"lengths": LENGTHS[:3]}, ValueError, "lengths: expected as many rows"),
        ({"lengths": LENGTHS * 0}, ValueError, "lengths: expected 1 to 29, got 0"),
        ({"lengths": LENGTHS + T}, ValueError, "lengths: expected 1 to 29"),
        ({"lengths": LENGTHS * 1.0}, TypeError, "lengths: expected integers"),
        ({"batch_size": 0}, ValueError, "batch_size: expected an int"),
        ({"multiple": 1.5}, ValueError, "multiple: expected an int"),
        ({"seed": -1}, ValueError, "seed: expected"),
    ],
)
def test_bad_arguments_are_named(given: Any, error: type[Exception], words: str) -> None:
    arguments: Any = {"x": X, "lengths": LENGTHS, "y": Y, **given}
    with pytest.raises(error, match=words):
        data.bucket_by_length(**arguments)
