"""Data sets, and the tools that bring arrays into their form."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fastnn.data.bucket import bucket_by_length
from fastnn.data.dataset import DataError, Dataset
from fastnn.data.download import DownloadError
from fastnn.data.embedded import digits
from fastnn.data.images import fashion_mnist, mnist
from fastnn.data.npz import load_npz
from fastnn.data.split import train_test_split
from fastnn.data.ts import Sequences, read_ts

if TYPE_CHECKING:
    from fastnn.data import augment

__all__ = [
    "DataError",
    "Dataset",
    "DownloadError",
    "Sequences",
    "augment",
    "bucket_by_length",
    "digits",
    "fashion_mnist",
    "load_npz",
    "mnist",
    "read_ts",
    "train_test_split",
]


def __getattr__(name: str) -> Any:
    if name == "augment":  # layers: whoever only loads data does not load them
        return import_module("fastnn.data.augment")
    raise AttributeError(f"module 'fastnn.data' has no attribute {name!r}")
