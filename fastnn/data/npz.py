"""A user's own arrays, from an .npz file."""

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn.data.dataset import Arrays, DataError, Dataset, make_dataset
from fastnn.data.split import train_test_split

_MAX_CLASSES = 100_000  # a label beyond is taken for a mistake, not for a class


def load_npz(path: str | os.PathLike[str], test_size: float = 0.2, seed: int = 0) -> Dataset:
    """Read the arrays x and y, or x_train, y_train, x_test and y_test, of an .npz file.

    x has shape (n, channels, ...) or (n, features) and real numbers; uint8 of shape (n, h, w) are
    grey images and become (n, 1, h, w). uint8 stays (scale 1/255), float32 and float64 stay
    (scale 1), other types become float32. y is integer labels 0..k-1 of shape (n,), returned as
    int64 with the classes "0" to "k-1", or floating-point targets of shape (n, ...), with no
    classes. Without test arrays, ``train_test_split(x, y, test_size, seed)`` makes them,
    stratified where there are labels.

    Raises DataError, naming the file and the array, for anything else, and for objects, NaN and
    infinities; FileNotFoundError where there is no such file. Nothing is ever unpickled.
    """
    name = os.fspath(path)
    arrays = _read(name)
    suffix = "_train" if arrays.keys() & {"x_train", "y_train"} else ""
    if suffix and arrays.keys() & {"x", "y"}:
        raise DataError(f"{name}: expected x and y or x_train and y_train, found {_list(arrays)}")
    train = _part(arrays, suffix, name)
    labels = train[1].dtype.kind == "i"
    if arrays.keys() & {"x_test", "y_test"}:
        test = _part(arrays, "_test", name)
        _check_alike(train, test, name)
    else:
        try:
            train, test = train_test_split(*train, test_size, seed, stratify=labels)
        except ValueError as error:
            raise DataError(f"{name}: no test part can be split off: {error}") from error
    classes = int(max(train[1].max(), test[1].max())) + 1 if labels else 0
    scale = 1 / 255 if train[0].dtype == np.uint8 else 1.0
    return make_dataset(train, test, tuple(map(str, range(classes))), scale)


def _read(name: str) -> dict[str, NDArray[Any]]:
    """The arrays of the archive that are ours to read, by name."""
    wanted = [a + part for part in ("", "_train", "_test") for a in "xy"]
    with open(name, "rb") as file:
        try:
            archive = np.load(file, allow_pickle=False)
        except Exception as error:  # whatever zipfile or NumPy make of a damaged file
            raise DataError(f"{name}: not a readable .npz file: {error}") from error
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise DataError(f"{name}: expected an .npz archive, got a single array")
        arrays = {}
        for key in (key for key in wanted if key in archive.files):
            try:
                arrays[key] = np.asarray(archive[key])
            except Exception as error:  # as above, and zlib, and objects, refused by NumPy
                raise DataError(f"{name}: array {key!r} cannot be read: {error}") from error
        if not arrays:
            raise DataError(f"{name}: expected arrays x and y, found {_list(archive.files)}")
    return arrays


def _list(names: Any) -> str:
    return ", ".join(sorted(names)) or "none"


def _part(arrays: dict[str, NDArray[Any]], suffix: str, name: str) -> Arrays:
    for key in ("x" + suffix, "y" + suffix):
        if key not in arrays:
            raise DataError(f"{name}: array {key!r} is missing; found {_list(arrays)}")
    x = _inputs(arrays["x" + suffix], f"{name}: array {'x' + suffix!r}")
    y = _targets(arrays["y" + suffix], f"{name}: array {'y' + suffix!r}")
    if len(x) != len(y):
        raise DataError(
            f"{name}: arrays {'x' + suffix!r} and {'y' + suffix!r}: expected the same length, "
            f"got {len(x)} and {len(y)}"
        )
    return x, y


def _inputs(x: NDArray[Any], what: str) -> NDArray[Any]:
    if x.dtype.kind not in "uif" or x.dtype.itemsize > 8:
        raise DataError(f"{what}: expected real numbers of at most 64 bits, got {x.dtype}")
    if x.ndim < 2 or x.size == 0:
        raise DataError(f"{what}: expected shape (n, channels, ...), none of them 0, got {x.shape}")
    if x.dtype == np.uint8:
        x = x[:, np.newaxis] if x.ndim == 3 else x
        return np.ascontiguousarray(x)
    return _floats(x, what)


def _targets(y: NDArray[Any], what: str) -> NDArray[Any]:
    if y.dtype.kind == "f" and y.dtype.itemsize <= 8 and y.ndim >= 1 and y.size:
        return _floats(y, what)
    if y.dtype.kind not in "ui" or y.ndim != 1 or y.size == 0:
        raise DataError(
            f"{what}: expected integer labels of shape (n,) or floating-point targets, got "
            f"{y.dtype} of shape {y.shape}"
        )
    if y.min() < 0 or y.max() >= _MAX_CLASSES:
        raise DataError(
            f"{what}: expected labels 0..k-1, k at most {_MAX_CLASSES:,}, got {y.min()}..{y.max()}"
        )
    return y.astype(np.int64)


def _floats(a: NDArray[Any], what: str) -> NDArray[Any]:
    """float64 as it is, all else as float32; native byte order, C-contiguous, finite."""
    wide = a.dtype.kind == "f" and a.dtype.itemsize == 8
    floats = np.ascontiguousarray(a, np.float64 if wide else np.float32)
    if not np.isfinite(floats).all():
        raise DataError(f"{what}: holds NaN or infinities")
    return floats


def _check_alike(train: Arrays, test: Arrays, name: str) -> None:
    for key, a, b in zip("xy", train, test, strict=True):
        if a.dtype != b.dtype or a.shape[1:] != b.shape[1:]:
            raise DataError(
                f"{name}: arrays '{key}_train' and '{key}_test': expected the same type and sample "
                f"shape, got {a.dtype} {a.shape[1:]} and {b.dtype} {b.shape[1:]}"
            )
