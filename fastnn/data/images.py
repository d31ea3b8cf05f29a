"""MNIST and Fashion-MNIST: found on this machine, or downloaded once.

The files of a data set, gzip or plain, are looked for in this order:

1. ``$FASTNN_DATA/<name>/`` and ``$FASTNN_DATA/``;
2. the cache, ``$FASTNN_CACHE/<name>/``, by default in the user's cache folder
   (``~/.cache/fastnn`` on Linux);
3. where the distribution keeps them (Debian's package dataset-fashion-mnist);

else they are downloaded into the cache: from ``$FASTNN_DATA_URL/<name>/`` where that is set
(HTTPS, or a server on this machine), else from where Zalando and PyTorch keep them. Names are
"mnist" and "fashion-mnist". Every load checks every file against the SHA-256 of its content; a
file that differs is refused, not passed over.
"""

import importlib
import os
import warnings
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastnn.data.dataset import Arrays, DataError, Dataset, make_dataset
from fastnn.data.download import DownloadError, fetch
from fastnn.data.files import check_sha256, packed_limit, read_packed, unpack, write_atomic
from fastnn.data.idx import decode_idx, idx_size


class _File(NamedTuple):
    name: str  # without .gz
    shape: tuple[int, ...]
    sha256: str  # of the content: a recompressed file is the same file


class _Source(NamedTuple):
    name: str
    url: str
    system_folder: str | None
    files: tuple[_File, _File, _File, _File]  # images and labels to train, to test
    classes: tuple[str, ...]


_FASHION_MNIST = _Source(
    name="fashion-mnist",
    url="https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
    system_folder="/usr/share/datasets/fashion-mnist",
    files=(
        _File(
            "train-images-idx3-ubyte",
            (60_000, 28, 28),
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        ),
        _File(
            "train-labels-idx1-ubyte",
            (60_000,),
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        ),
        _File(
            "t10k-images-idx3-ubyte",
            (10_000, 28, 28),
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        ),
        _File(
            "t10k-labels-idx1-ubyte",
            (10_000,),
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
    ),
    classes=(
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
)

_MNIST = _Source(
    name="mnist",
    url="https://ossci-datasets.s3.amazonaws.com/mnist",
    system_folder=None,
    files=(
        _File(
            "train-images-idx3-ubyte",
            (60_000, 28, 28),
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        ),
        _File(
            "train-labels-idx1-ubyte",
            (60_000,),
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        ),
        _File(
            "t10k-images-idx3-ubyte",
            (10_000, 28, 28),
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        ),
        _File(
            "t10k-labels-idx1-ubyte",
            (10_000,),
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    ),
    classes=tuple("0123456789"),
)


def fashion_mnist() -> Dataset:
    """Fashion-MNIST: 60,000 and 10,000 grey images of clothing, 28x28, in ten classes.

    x is uint8 of shape (n, 1, 28, 28) (scale 1/255), y int64 of shape (n,). ``fastnn.data.images``
    says where the files are looked for (``$FASTNN_DATA`` first) and how they are downloaded.
    Raises DataError for a damaged file and DownloadError when there is none to be had.

    Source: H. Xiao, K. Rasul, R. Vollgraf, 2017, https://arxiv.org/abs/1708.07747, MIT licence.
    """
    return _load(_FASHION_MNIST)


def mnist() -> Dataset:
    """MNIST: 60,000 and 10,000 grey images of handwritten digits, 28x28.

    x is uint8 of shape (n, 1, 28, 28) (scale 1/255), y int64 of shape (n,). ``fastnn.data.images``
    says where the files are looked for (``$FASTNN_DATA`` first) and how they are downloaded.
    Raises DataError for a damaged file and DownloadError when there is none to be had.

    Source: Y. LeCun, C. Cortes, C. Burges, The MNIST database of handwritten digits, 1998.
    """
    return _load(_MNIST)


def _load(source: _Source) -> Dataset:
    train_x, train_y, test_x, test_y = (_array(source, file) for file in source.files)
    return make_dataset(
        _as_pair(train_x, train_y), _as_pair(test_x, test_y), source.classes, 1 / 255
    )


def _as_pair(images: NDArray[Any], labels: NDArray[Any]) -> Arrays:
    return images[:, np.newaxis], labels.astype(np.int64)


def _array(source: _Source, file: _File) -> NDArray[Any]:
    folders = _folders(source)
    # Tools that unpack the files name them with a dot, as MNIST's first home did.
    names = (file.name + ".gz", file.name, file.name.replace("-idx", ".idx"))
    for path in (os.path.join(folder, name) for folder in folders for name in names):
        if os.path.lexists(path):
            return _verified(read_packed(path, idx_size(file.shape)), file, path)
    base = os.environ.get("FASTNN_DATA_URL", "").rstrip("/")
    url = f"{base}/{source.name}/{file.name}.gz" if base else f"{source.url}/{file.name}.gz"
    try:
        raw = fetch(url, packed_limit(idx_size(file.shape)))
    except DownloadError as error:
        raise DownloadError(
            f"{error}; {names[0]} is not in {', '.join(folders)} either: put it there, or set "
            "FASTNN_DATA to its folder"
        ) from error
    array = _verified(raw, file, url)
    path = os.path.join(_cache_folder(source.name), names[0])
    try:
        write_atomic(path, raw)
    except OSError as error:
        warnings.warn(f"{path}: not kept, to be downloaded again: {error}", stacklevel=5)
    return array


def _verified(raw: bytes | bytearray, file: _File, name: str) -> NDArray[Any]:
    content = unpack(raw, idx_size(file.shape), name)
    array = decode_idx(content, name)
    if array.shape != file.shape or array.dtype != np.uint8:
        raise DataError(
            f"{name}: expected uint8 of shape {file.shape}, got {array.dtype} of {array.shape}"
        )
    check_sha256(content, file.sha256, name)
    return array


def _folders(source: _Source) -> list[str]:
    own = os.environ.get("FASTNN_DATA")
    folders = [os.path.join(own, source.name), own] if own else []
    folders.append(_cache_folder(source.name))
    return folders if source.system_folder is None else [*folders, source.system_folder]


def _cache_folder(name: str) -> str:
    root = os.environ.get("FASTNN_CACHE")
    if not root:
        try:
            user_cache_dir = importlib.import_module("platformdirs").user_cache_dir
        except ImportError:
            home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
            root = os.path.join(home, "fastnn")
        else:
            root = str(user_cache_dir("fastnn", appauthor=False))
    return os.path.join(root, name)
