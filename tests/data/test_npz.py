import os
import re

import numpy as np
import pytest

from fastnn.data import DataError, load_npz

RNG = np.random.default_rng(0)
X = RNG.normal(3, 2, (50, 4)).astype(np.float32)
Y = np.arange(50) % 5


@pytest.fixture
def save(tmp_path):
    def save(**arrays):
        path = tmp_path / "my.npz"
        np.savez(path, **arrays)
        return path

    return save


def test_x_and_y_are_split_and_described(save):
    dataset = load_npz(save(x=X, y=Y.astype(np.uint8)))
    (x, y), (xt, yt) = dataset
    assert len(x) == 40
    assert np.bincount(yt).tolist() == [2] * 5
    assert x.dtype == np.float32
    assert y.dtype == yt.dtype == np.int64
    assert dataset.classes == ("0", "1", "2", "3", "4")
    assert dataset.scale == 1
    np.testing.assert_array_equal(np.sort(np.concatenate([x, xt]), 0), np.sort(X, 0))
    # Sums of 40 terms in float64, by another order.
    np.testing.assert_allclose(dataset.mean, x.astype(float).mean(0), rtol=1e-13)
    np.testing.assert_allclose(dataset.std, x.astype(float).std(0), rtol=1e-13)


def test_seed_and_test_size_reach_the_split(save):
    path = save(x=X, y=Y)
    first, again, other = (load_npz(path, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.test[0], again.test[0])
    assert first.test[0].tolist() != other.test[0].tolist()
    assert len(load_npz(path, test_size=10).test[0]) == 10


def test_test_arrays_are_taken_as_they_are(save):
    dataset = load_npz(save(x_train=X, y_train=Y, x_test=X[:3], y_test=Y[:3] + 2))
    np.testing.assert_array_equal(dataset.train[0], X)
    np.testing.assert_array_equal(dataset.test[0], X[:3])
    assert len(dataset.classes) == 5


def test_uint8_images_keep_their_type_and_grey_ones_get_a_channel(save):
    images = RNG.integers(0, 256, (50, 6, 7), dtype=np.uint8)
    (x, _), _ = dataset = load_npz(save(x=images, y=Y))
    assert x.shape == (40, 1, 6, 7)
    assert x.dtype == np.uint8
    assert dataset.scale == 1 / 255
    assert dataset.mean == pytest.approx([(x / 255).mean()], rel=1e-12)


@pytest.mark.parametrize(
    ("given", "kept"),
    [("<f8", "f8"), (">f8", "f8"), (">f4", "f4"), ("f2", "f4"), ("i8", "f4"), (">u2", "f4")],
)
def test_types_of_x(save, given, kept):
    x = np.arange(100).reshape(50, 2).astype(given)
    (got, _), _ = load_npz(save(x=np.asfortranarray(x), y=Y))
    assert got.dtype == np.dtype(kept)
    assert got.dtype.isnative
    assert got.flags.c_contiguous
    assert set(got.ravel().tolist()) < set(range(100))


def test_floating_point_targets_are_for_regression(save):
    dataset = load_npz(save(x=X, y=RNG.random((50, 3))))
    assert dataset.classes == ()
    assert dataset.train[1].shape == (40, 3)


@pytest.mark.parametrize(
    ("arrays", "what"),
    [
        ({"a": X}, "expected arrays x and y, found a"),
        ({"x": X}, "array 'y' is missing"),
        ({"y": Y}, "array 'x' is missing"),
        ({"x_train": X, "y_train": Y, "x_test": X}, "array 'y_test' is missing"),
        ({"x_test": X, "y_test": Y}, "array 'x' is missing"),
        ({"x": X, "y": Y, "x_train": X, "y_train": Y}, "expected x and y or x_train"),
        ({"x": X, "y": Y[:-1]}, "'x' and 'y': expected the same length, got 50 and 49"),
        ({"x": X.astype(str), "y": Y}, "array 'x': expected real numbers"),
        ({"x": X.astype(complex), "y": Y}, "array 'x': expected real numbers"),
        ({"x": X.astype(bool), "y": Y}, "array 'x': expected real numbers"),
        ({"x": X[:, 0], "y": Y}, "array 'x': expected shape"),
        ({"x": X[:0], "y": Y[:0]}, "array 'x': expected shape"),
        ({"x": X[:, :0], "y": Y}, "array 'x': expected shape"),
        ({"x": np.where(X > 5, np.nan, X), "y": Y}, "array 'x': holds NaN"),
        ({"x": X, "y": Y + np.inf}, "array 'y': holds NaN"),
        ({"x": X, "y": Y[:, None]}, "array 'y': expected integer labels"),
        ({"x": X, "y": Y.astype(str)}, "array 'y': expected integer labels"),
        ({"x": X, "y": np.int64(3)}, "array 'y': expected integer labels"),
        ({"x": X, "y": Y - 1}, r"array 'y': expected labels 0..k-1, .* got -1..3"),
        ({"x": X, "y": Y.astype(np.uint64) << 61}, "array 'y': expected labels"),
        ({"x": X, "y": np.array([None] * 50)}, "array 'y' cannot be read: .*pickle"),
        ({"x": X, "y": np.arange(50)}, "no test part"),
        ({"x": X[:1], "y": Y[:1]}, "no test part"),
        ({"x_train": X, "y_train": Y, "x_test": X[:, :2], "y_test": Y}, "'x_train' and 'x_test'"),
        ({"x_train": X, "y_train": Y, "x_test": X, "y_test": Y / 2}, "'y_train' and 'y_test'"),
    ],
)
def test_what_is_wrong_is_named(save, arrays, what):
    path = save(**arrays)
    with pytest.raises(DataError, match=f"^{re.escape(str(path))}: .*{what}"):
        load_npz(path)


def test_no_pickle_is_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    np.savez(tmp_path / "trap.npz", x=X, y=np.array([Trap()] * 50))
    with pytest.raises(DataError):
        load_npz(tmp_path / "trap.npz")
    assert not (tmp_path / "sprung").exists()


def test_a_missing_file_is_the_usual_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_npz(tmp_path / "none.npz")


def test_a_single_array_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", X)
    with pytest.raises(DataError, match=r"a\.npy: expected an \.npz archive"):
        load_npz(tmp_path / "a.npy")


def test_damage_anywhere_is_refused_by_name_or_harmless(save):
    path = save(x=X[:10], y=Y[:10])
    good = path.read_bytes()
    for at in range(0, len(good), 7):
        for bad in (good[:at], good[:at] + bytes([good[at] ^ 0x55]) + good[at + 1 :]):
            path.write_bytes(bad)
            try:
                (x, _), (xt, _) = load_npz(path)
            except DataError as error:
                assert str(error).startswith(f"{path}: ")
            else:  # a time stamp, say: the numbers have a CRC
                assert sorted(np.concatenate([x, xt])[:, 0]) == sorted(X[:10, 0])
