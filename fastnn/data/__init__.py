"""Data sets, and the tools that bring arrays into their form."""

from fastnn.data.bucket import bucket_by_length
from fastnn.data.dataset import DataError, Dataset
from fastnn.data.download import DownloadError
from fastnn.data.embedded import digits
from fastnn.data.images import fashion_mnist, mnist
from fastnn.data.npz import load_npz
from fastnn.data.split import train_test_split
from fastnn.data.ts import Sequences, read_ts

__all__ = [
    "DataError",
    "Dataset",
    "DownloadError",
    "Sequences",
    "bucket_by_length",
    "digits",
    "fashion_mnist",
    "load_npz",
    "mnist",
    "read_ts",
    "train_test_split",
]
