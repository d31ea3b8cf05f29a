import gzip
import os

import numpy as np
import pytest

from fastnn import data
from fastnn.data import embedded

# From the UCI repository's description of the file (optdigits.names, the testing set).
PER_CLASS = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_types_shapes_and_range():
    (x, y), (xt, yt) = data.digits()
    assert x.shape == (1437, 1, 8, 8)
    assert xt.shape == (360, 1, 8, 8)
    for images, labels in ((x, y), (xt, yt)):
        assert images.dtype == np.uint8
        assert images.flags.c_contiguous
        assert labels.dtype == np.int64
        assert labels.shape == (len(images),)
        assert images.min() == 0
        assert images.max() == 16


def test_every_class_has_the_images_uci_counts():
    (_, y), (_, yt) = data.digits()
    assert np.bincount(np.concatenate([y, yt])).tolist() == PER_CLASS
    # 360/1797 of each, to the nearest sample above or below.
    assert (np.abs(np.bincount(yt) - np.array(PER_CLASS) * 360 / 1797) < 1).all()


def test_the_first_lines_of_the_file_are_among_the_images():
    (x, y), (xt, yt) = data.digits()
    rows = {(*image.ravel().tolist(), int(label)) for image, label in zip(x, y, strict=True)}
    rows |= {(*image.ravel().tolist(), int(label)) for image, label in zip(xt, yt, strict=True)}
    with gzip.open(embedded._PATH, "rt") as file:
        assert rows == {tuple(map(int, line.split(","))) for line in file}


def test_two_loads_are_equal_and_independent():
    first, second = data.digits(), data.digits()
    np.testing.assert_array_equal(first.train[0], second.train[0])
    np.testing.assert_array_equal(first.test[1], second.test[1])
    first.train[0][:] = 0
    assert second.train[0].any()


def test_mean_and_std_are_those_of_the_scaled_training_part():
    digits = data.digits()
    scaled = digits.train[0].astype(np.float64) / 16
    assert digits.scale == 1 / 16
    # Sums of 92k terms of at most 1: the rounding of each is below 1e-11 in all.
    assert digits.mean == pytest.approx((scaled.mean(),), abs=1e-11)
    assert digits.std == pytest.approx((scaled.std(),), abs=1e-11)
    assert digits.classes == tuple("0123456789")


def test_a_damaged_copy_is_refused_by_name(tmp_path, monkeypatch):
    with gzip.open(embedded._PATH) as file:
        text = file.read()
    path = tmp_path / "digits.csv.gz"
    path.write_bytes(gzip.compress(text.replace(b"16,", b"15,", 1) + b" "))
    monkeypatch.setattr(embedded, "_PATH", str(path))
    with pytest.raises(data.DataError, match=r"digits\.csv\.gz: "):
        data.digits()


def test_the_licence_lies_beside_the_file():
    with open(os.path.join(os.path.dirname(embedded._PATH), "digits.LICENSE.txt")) as file:
        text = file.read()
    assert "CC BY 4.0" in text
    assert "Alpaydin" in text
    assert embedded._SHA256 in text
