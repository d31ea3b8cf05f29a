"""Data sets, and the tools that bring arrays into their form."""

from fastnn.data.dataset import DataError, Dataset
from fastnn.data.download import DownloadError
from fastnn.data.embedded import digits
from fastnn.data.images import fashion_mnist, mnist
from fastnn.data.npz import load_npz
from fastnn.data.split import train_test_split

__all__ = [
    "DataError",
    "Dataset",
    "DownloadError",
    "digits",
    "fashion_mnist",
    "load_npz",
    "mnist",
    "train_test_split",
]
