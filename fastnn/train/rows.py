"""The arrays of a call to the Trainer, one row a sample: x, y and what else belongs to each row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from fastnn.graph import Array, Value, input_value
from fastnn.nn.run import as_array

Spec = tuple[str, tuple[int, ...], str]  # name, shape of a row, dtype


class Rows:
    """Arrays of equally many rows by name: x, then y, lengths and sample_weight where given."""

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self.arrays = dict(arrays)
        self.specs: tuple[Spec, ...] = tuple(
            (name, a.shape[1:], a.dtype.char) for name, a in self.arrays.items()
        )

    @classmethod
    def check(
        cls,
        x: Any,
        y: Any = None,
        lengths: Any = None,
        sample_weight: Any = None,
        dtype: Any = None,
        prefix: str = "",
        whole: bool = True,
    ) -> Rows:
        """Rows of these, y to sample_weight being None where there are none.

        dtype: of the weights. whole=False: memory-mapped files stay as they are, for whoever reads
        parts of them to check again. Raises TypeError and ValueError naming the argument, after
        `prefix`.
        """

        def numbers(name: str, given: Any) -> Array:
            return np.asarray(given) if not whole and is_mapped(given) else as_array(name, given)

        first = prefix + "x"
        arrays = {"x": numbers(first, x)}
        shape = arrays["x"].shape
        if not shape or not shape[0]:
            raise ValueError(f"{first}: expected at least one row, got shape {shape}")
        if y is not None:
            arrays["y"] = numbers(prefix + "y", y)
            _same_count(prefix + "y", arrays["y"], first, shape)
        if lengths is not None:
            arrays["lengths"] = check_lengths(lengths, shape, prefix)
        if sample_weight is not None:
            weight = as_array(prefix + "sample_weight", sample_weight)
            arrays["sample_weight"] = _weights(weight, shape, dtype, prefix)
        return cls(arrays)

    def __len__(self) -> int:
        return len(self.arrays["x"])

    def __iter__(self) -> Iterator[Array]:
        return iter(self.arrays.values())

    def __getitem__(self, rows: Any) -> Rows:
        """The rows of a slice, as views, or of an array of indices, as copies."""
        return Rows({name: a[rows] for name, a in self.arrays.items()})

    def checked(self, dtype: Any) -> Rows:
        """The same rows, as check() makes them."""
        given: dict[str, Any] = self.arrays
        return Rows.check(**given, dtype=dtype)

    def weighted(self, weights: Array, dtype: Any) -> Rows:
        """The same rows, each with the weight that it has times one of these."""
        weights = weights * self.arrays.get("sample_weight", 1.0)
        return Rows({**self.arrays, "sample_weight": weights.astype(dtype, copy=False)})


def leaves(specs: tuple[Spec, ...], rows: int) -> dict[str, Value]:
    """Inputs of a plan for a batch of so many rows."""
    return {name: input_value(name, (rows, *shape), np.dtype(char)) for name, shape, char in specs}


def is_mapped(array: Any) -> bool:
    """True for a memory-mapped file, and for views of one."""
    while array is not None and not isinstance(array, np.memmap):
        array = getattr(array, "base", None)
    return array is not None


def check_lengths(lengths: Any, shape: tuple[int, ...], prefix: str = "") -> Array:
    """int64 lengths of the sequences of x (N, T, ...): N of them, each from 1 to T."""
    name = prefix + "lengths"
    array = as_array(name, lengths)
    if len(shape) < 2:
        raise ValueError(f"{name}: expected x of shape (N, T, ...), got {shape}")
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected integers, got {array.dtype}")
    _same_count(name, array, prefix + "x", shape)
    if array.ndim != 1:
        raise ValueError(f"{name}: expected one number a row, got shape {array.shape}")
    if array.min() < 1 or array.max() > shape[1]:
        wrong = int(np.argmax((array < 1) | (array > shape[1])))
        raise ValueError(
            f"{name}: expected 1 to {shape[1]}, the time steps of x, got {array[wrong]} "
            f"in row {wrong}"
        )
    return array.astype(np.int64, copy=False)


def _same_count(name: str, array: Array, first: str, shape: tuple[int, ...]) -> None:
    if array.shape[:1] != shape[:1]:
        raise ValueError(f"{name}: expected as many rows as {first} {shape}, got {array.shape}")


def _weights(weight: Array, shape: tuple[int, ...], dtype: Any, prefix: str) -> Array:
    name = prefix + "sample_weight"
    _same_count(name, weight, prefix + "x", shape)
    if weight.ndim != 1:
        raise ValueError(f"{name}: expected one number a row, got shape {weight.shape}")
    if not np.all(np.isfinite(weight)) or weight.min() < 0:
        raise ValueError(f"{name}: expected finite numbers of at least 0")
    return weight.astype(dtype or np.float32, copy=False)


def class_weights(weights: Any, y: Array) -> Array:
    """The weight of each row from that of its class.

    weights: a mapping from class to weight (1 for those that are not in it), an array with one
    weight a class, or "balanced" for n / (classes * rows of the class), as in scikit-learn.
    """
    if y.ndim != 1 or y.dtype.kind not in "iu":
        raise ValueError(
            f"class_weight: expected integer labels (N,), got {y.dtype} of shape {y.shape}"
        )
    present, row, count = np.unique(y, return_inverse=True, return_counts=True)
    if isinstance(weights, str):
        if weights != "balanced":
            raise ValueError(f"class_weight: expected 'balanced' or numbers, got {weights!r}")
        table = len(y) / (len(present) * count)
    elif isinstance(weights, Mapping):
        table = np.array([float(weights.get(int(c), 1.0)) for c in present])
    else:
        given = as_array("class_weight", weights)
        if given.ndim != 1 or present[0] < 0 or present[-1] >= len(given):
            raise ValueError(
                f"class_weight: expected one number a class for labels {present[0]} to "
                f"{present[-1]}, got shape {given.shape}"
            )
        table = given[present].astype(float)
    if not np.all(np.isfinite(table)) or table.min() < 0:
        raise ValueError("class_weight: expected finite numbers of at least 0")
    result: Array = table[row]
    return result
