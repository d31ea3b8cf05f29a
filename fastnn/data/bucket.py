"""Batches of sequences of like length."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Buckets:
    """Yields mappings with x, y, lengths and sample_weight, for ``trainer.fit(buckets)``."""

    def __init__(
        self, arrays: dict[str, NDArray[Any]], batch_size: int, multiple: int, seed: int
    ) -> None:
        self._arrays, self._batch, self._multiple = arrays, batch_size, multiple
        self._seed, self._epoch = seed, 0

    def __len__(self) -> int:
        return -(-len(self._arrays["lengths"]) // self._batch)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next iteration; each epoch has its own."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[dict[str, NDArray[Any]]]:
        lengths = self._arrays["lengths"]
        raw = np.random.Philox(key=np.array([self._seed, self._epoch], np.uint64))
        self._epoch += 1
        keys = raw.random_raw(len(lengths))  # the same with every version of NumPy
        # Sequences of one length in random order, the last batch being the one that is not full.
        order = np.lexsort((keys, lengths))
        batches = np.split(order, range(self._batch, len(order), self._batch))
        for i in np.argsort(raw.random_raw(len(batches)), kind="stable"):
            batch = {name: a[batches[i]] for name, a in self._arrays.items()}
            longest = -(-int(batch["lengths"].max()) // self._multiple) * self._multiple
            batch["x"] = np.ascontiguousarray(batch["x"][:, :longest])
            yield batch


def bucket_by_length(
    x: ArrayLike,
    lengths: ArrayLike,
    y: ArrayLike,
    batch_size: int = 32,
    seed: int = 0,
    multiple: int = 8,
    sample_weight: ArrayLike | None = None,
) -> Buckets:
    """Batches of sequences of like length, cut to the longest of each: ``fit(bucket_by_length(...))``.

    x (n, T, ...), lengths (n,) from 1 to T, y (n, ...), sample_weight (n,). Every sequence comes once
    in each iteration, in batches of batch_size (one is smaller where n demands it), whose order and
    whose choice among sequences of one length change from epoch to epoch and depend on the seed
    alone. The length of a batch is rounded up to a multiple of `multiple` (and to T at most), so that
    a model needs few plans. y is not cut: where it has one row a step, let the loss ignore the rest,
    or give multiple=T.

    Raises ValueError and TypeError naming the argument.
    """
    arrays = {"x": np.asarray(x), "lengths": np.asarray(lengths), "y": np.asarray(y)}
    if sample_weight is not None:
        arrays["sample_weight"] = np.asarray(sample_weight)
    shape = arrays["x"].shape
    if len(shape) < 2 or not shape[0]:
        raise ValueError(f"x: expected shape (n, T, ...), got {shape}")
    for name, array in arrays.items():
        if array.shape[:1] != shape[:1]:
            raise ValueError(f"{name}: expected as many rows as x {shape}, got {array.shape}")
    given = arrays["lengths"]
    if given.ndim != 1 or given.dtype.kind not in "iu":
        raise TypeError(f"lengths: expected integers (n,), got {given.dtype} of {given.shape}")
    if given.min() < 1 or given.max() > shape[1]:
        raise ValueError(f"lengths: expected 1 to {shape[1]}, got {given.min()} to {given.max()}")
    for name, value in (("batch_size", batch_size), ("multiple", multiple)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise ValueError(f"{name}: expected an int of at least 1, got {value!r}")
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**64:
        raise ValueError(f"seed: expected an int from 0 to 2**64 - 1, got {seed!r}")
    arrays["lengths"] = given.astype(np.int64)
    return Buckets(arrays, int(batch_size), int(multiple), int(seed))
