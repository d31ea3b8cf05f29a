"""Cutting arrays into a training and a test part."""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnn.data.dataset import Arrays


def train_test_split(
    x: ArrayLike,
    y: ArrayLike,
    test_size: float = 0.2,
    seed: int = 0,
    stratify: bool = True,
) -> tuple[Arrays, Arrays]:
    """Shuffle the samples and cut them: ``(x, y), (xt, yt) = train_test_split(x, y)``.

    x and y are arrays of the same length n >= 2. A float ``test_size`` in (0, 1) is the share of
    the test part, rounded up to whole samples; an int is its number of samples. With
    ``stratify`` the shares of the labels, integers of shape (n,), are kept in both parts as
    nearly as whole samples allow, and every label keeps a sample in the training part. The same
    seed gives the same split with every version of NumPy. Returns copies.

    Raises ValueError for lengths that differ, sizes out of range, or labels that cannot be
    stratified.
    """
    x, y = np.asarray(x), np.asarray(y)
    if x.ndim == 0 or y.ndim == 0 or len(x) != len(y):
        raise ValueError(f"x and y: expected the same length, got shapes {x.shape} and {y.shape}")
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"seed: expected an int >= 0, got {seed!r}")
    n_test = _test_count(len(x), test_size)
    order = _permutation(len(x), seed)
    in_test = _stratified(y[order], n_test) if stratify else np.arange(len(x)) < n_test
    train, test = order[~in_test], order[in_test]
    return (x[train], y[train]), (x[test], y[test])


def _test_count(n: int, test_size: float) -> int:
    if n < 2:
        raise ValueError(f"x and y: expected at least 2 samples, got {n}")
    if isinstance(test_size, (bool, np.bool_)) or not isinstance(
        test_size, (int, float, np.integer, np.floating)
    ):
        raise ValueError(f"test_size: expected a float in (0, 1) or an int, got {test_size!r}")
    if isinstance(test_size, (int, np.integer)):
        if not 1 <= test_size < n:
            raise ValueError(f"test_size: expected 1 to {n - 1} samples, got {test_size}")
        return int(test_size)
    if not 0 < test_size < 1:
        raise ValueError(f"test_size: expected a share in (0, 1), got {test_size}")
    # The small term keeps a product such as 0.07 * 100 = 7.000000000000001 from rounding up.
    return min(max(1, math.ceil(n * float(test_size) - 1e-9)), n - 1)


def _permutation(n: int, seed: int) -> NDArray[np.intp]:
    """A permutation of n from the seed alone.

    NumPy keeps the raw stream of a bit generator the same for ever, but not what Generator
    makes of it; so the raw 64-bit numbers are the sort keys.
    """
    return np.argsort(np.random.Philox(seed).random_raw(n), kind="stable")


def _stratified(y: NDArray[Any], n_test: int) -> NDArray[np.bool_]:
    """Which of the samples go to the test part: of every label the first so many."""
    if y.ndim != 1 or y.dtype.kind not in "biu":
        raise ValueError(
            f"y: stratify needs integer labels of shape (n,), got {y.dtype} of shape {y.shape}; "
            "pass stratify=False"
        )
    _, label, count = np.unique(y, return_inverse=True, return_counts=True)
    if n_test > (count - 1).sum():
        raise ValueError(
            f"test_size: {n_test} of {len(y)} samples leave some of the {len(count)} labels "
            "without a sample to train on; take fewer, or pass stratify=False"
        )
    quota = _apportion(count, n_test)
    by_label = np.argsort(label, kind="stable")
    rank = np.empty(len(y), np.intp)  # the position of a sample among those of its label
    rank[by_label] = np.arange(len(y)) - np.repeat(np.cumsum(count) - count, count)
    return rank < quota[label]


def _apportion(count: NDArray[np.intp], n_test: int) -> NDArray[np.intp]:
    """Test samples of each label: the largest-remainder method, one sample of each held back."""
    share = count * n_test
    quota: NDArray[np.intp] = share // count.sum()
    while (missing := n_test - quota.sum()) > 0:
        open_labels = np.flatnonzero(quota < count - 1)
        lacking = share[open_labels] - quota[open_labels] * count.sum()
        first = np.argsort(-lacking, kind="stable")[:missing]
        quota[open_labels[first]] += 1
    return quota
