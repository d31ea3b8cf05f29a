"""What every loader returns, and what it raises."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Arrays: TypeAlias = tuple[NDArray[Any], NDArray[Any]]

_ROWS_AT_ONCE = 128


class DataError(ValueError):
    """A data file is damaged or is not what it should be; the message names the file."""


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class Dataset:
    """A training part and a test part, with what is needed to normalize them.

    Unpacks into its parts: ``(x, y), (xt, yt) = data.digits()``. ``train`` and ``test`` are
    tuples (x, y): x of shape (n, channels, ...), C-contiguous, y of shape (n,). ``classes`` are
    the names of the labels 0, 1, ... (empty for regression). ``mean`` and ``std`` hold one float
    a channel (axis 1), taken from ``scale * x`` over the training part; a channel that never
    varies has std 1. ``nn.Normalize(d.mean, d.std, d.scale)`` makes such a module.
    """

    train: Arrays
    test: Arrays
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float

    def __iter__(self) -> Iterator[Arrays]:
        yield self.train
        yield self.test

    def __repr__(self) -> str:
        parts = ", ".join(
            f"{name}={x.shape} {x.dtype}"
            for name, (x, _) in (("train", self.train), ("test", self.test))
        )
        return f"Dataset({parts}, classes={len(self.classes)})"


def make_dataset(train: Arrays, test: Arrays, classes: tuple[str, ...], scale: float) -> Dataset:
    """A Dataset whose mean and std are those of ``scale * x`` over the training part."""
    mean, std = channel_stats(train[0])
    return Dataset(
        train=train,
        test=test,
        classes=classes,
        mean=tuple((scale * mean).tolist()),
        std=tuple(np.where(std > 0, scale * std, 1.0).tolist()),
        scale=scale,
    )


def channel_stats(x: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation (over n, not n - 1) of x along every axis but 1, in float64.

    The deviations are summed in a second pass, so a mean far from zero costs no digits; a
    channel that never varies has exactly 0. Rows are taken in blocks: no float64 copy of x.
    """
    x = x.reshape(len(x), x.shape[1], -1)
    blocks = [x[i : i + _ROWS_AT_ONCE] for i in range(0, len(x), _ROWS_AT_ONCE)]
    count = x.size // x.shape[1]
    mean = sum(b.sum(axis=(0, 2), dtype=np.float64) for b in blocks) / count
    square = np.zeros(x.shape[1])
    for block in blocks:
        deviation = block - mean[:, np.newaxis]
        square += np.einsum("ncp,ncp->c", deviation, deviation)
    varies = x.min(axis=(0, 2)) < x.max(axis=(0, 2))
    return mean, np.where(varies, np.sqrt(square / count), 0.0)
