"""The data set that comes with the package."""

import os

import numpy as np

from fastnn.data.dataset import Dataset, make_dataset
from fastnn.data.files import check_sha256, read_packed, unpack
from fastnn.data.split import train_test_split

_PATH = os.path.join(os.path.dirname(__file__), "digits.csv.gz")
_BYTES = 264_712
_SHA256 = "6ebb3d2fee246a4e99363262ddf8a00a3c41bee6014c373ed9d9216ba7f651b8"


def digits() -> Dataset:
    """The 1,797 handwritten digits of 8x8 pixels of UCI's repository; no download.

    x is uint8 of shape (n, 1, 8, 8) with values 0..16 (scale 1/16), y int64 of shape (n,). The
    split is ``train_test_split(x, y, test_size=360, seed=0)``: 1,437 to train and 360 to test,
    stratified, always the same. Each writer wrote many of the digits and has some in both parts,
    so the test part does not measure how well new writers are read.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine
    Learning Repository, 1998, https://doi.org/10.24432/C50P49, CC BY 4.0; its test part, the one
    scikit-learn's ``load_digits`` has.
    """
    text = unpack(read_packed(_PATH, _BYTES), _BYTES, _PATH)
    check_sha256(text, _SHA256, _PATH)
    table = np.loadtxt(text.decode("ascii").splitlines(), np.uint8, delimiter=",")
    x = table[:, :64].reshape(-1, 1, 8, 8)
    y = table[:, 64].astype(np.int64)
    train, test = train_test_split(x, y, test_size=360, seed=0)
    return make_dataset(train, test, tuple("0123456789"), 1 / 16)
