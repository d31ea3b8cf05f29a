import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastnn.data.dataset import channel_stats, make_dataset


def pair(x):
    return x, np.zeros(len(x), np.int64)


def test_a_dataset_is_frozen_and_unpacks():
    train, test = pair(np.ones((3, 2))), pair(np.zeros((1, 2)))
    dataset = make_dataset(train, test, ("a",), 1.0)
    (x, _), (xt, _) = dataset
    assert x is train[0]
    assert xt is test[0]
    with pytest.raises(AttributeError):
        dataset.scale = 2.0
    assert repr(dataset) == "Dataset(train=(3, 2) float64, test=(1, 2) float64, classes=1)"


@pytest.mark.parametrize("shape", [(300, 3), (300, 3, 5), (257, 2, 4, 5), (1, 1, 1)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_stats_are_numpys(shape, dtype):
    x = (np.random.default_rng(0).random(shape) * 250).astype(dtype)
    mean, std = channel_stats(x)
    axes = (0, *range(2, x.ndim))
    # Both sum n float64 terms of at most 250 (their squares), so to within n * eps * size.
    bound = x.size * np.finfo(float).eps
    np.testing.assert_allclose(mean, x.mean(axis=axes, dtype=np.float64), rtol=bound)
    np.testing.assert_allclose(std, x.astype(float).std(axis=axes), rtol=bound, atol=bound)


@given(st.floats(-(2.0**100), 2.0**100, width=32), st.integers(1, 400))
def test_a_constant_channel_has_std_1_in_a_dataset(value, n):
    x = np.full((n, 1), value, np.float32)
    assert channel_stats(x)[1].tolist() == [0]
    assert make_dataset(pair(x), pair(x), (), 1.0).std == (1.0,)


def test_importing_data_loads_nothing_slow():
    code = (
        "import sys, numpy; before = set(sys.modules); import fastnn.data; "
        "print(*sorted(set(sys.modules) - before))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, text=True
    )
    slow = {
        "gzip",
        "hashlib",
        "http.client",
        "ssl",
        "tempfile",
        "tqdm",
        "urllib.request",
        "zipfile",
    }
    assert not slow & set(loaded.stdout.split())
