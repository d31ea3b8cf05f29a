import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastnn.data import train_test_split


def samples(y):
    """x that tells its index, y as an array."""
    return np.arange(len(y)), np.asarray(y)


def test_parts_are_disjoint_complete_and_keep_the_pairs():
    x, y = samples(np.arange(100) % 7)
    (a, ya), (b, yb) = train_test_split(x, y)
    assert len(b) == 20
    assert sorted([*a, *b]) == list(range(100))
    np.testing.assert_array_equal(ya, y[a])
    np.testing.assert_array_equal(yb, y[b])


def test_the_seed_decides_and_numpys_state_does_not():
    x, y = samples(np.arange(50) % 2)
    np.random.seed(1)
    first = train_test_split(x, y, seed=3)
    np.random.seed(2)
    again, other = train_test_split(x, y, seed=3), train_test_split(x, y, seed=4)
    np.testing.assert_array_equal(first[1][0], again[1][0])
    assert first[1][0].tolist() != other[1][0].tolist()


def test_the_split_of_seed_0_never_changes():
    (train, _), (test, _) = train_test_split(*samples([0] * 5 + [1] * 5))
    assert train.tolist() == [9, 3, 7, 5, 1, 2, 6, 4]
    assert test.tolist() == [0, 8]


@given(
    st.lists(st.integers(-2, 3), min_size=2, max_size=60),
    st.floats(0.01, 0.99),
    st.integers(0, 2**64),
)
def test_stratified_shares_are_within_a_sample(y, test_size, seed):
    x, y = samples(y)
    try:
        _, (_, test) = train_test_split(x, y, test_size, seed)
    except ValueError as error:
        assert "without a sample to train on" in str(error)
        return
    assert len(test) == min(max(1, int(np.ceil(len(y) * test_size - 1e-9))), len(y) - 1)
    labels, counts = np.unique(y, return_counts=True)
    got = np.array([(test == label).sum() for label in labels])
    share = counts * len(test) / len(y)
    assert (got < counts).all()
    assert (got >= np.floor(share)).all()
    if (np.floor(share) < counts - 1).all():  # else surplus of full labels goes to the others
        assert (got <= np.floor(share) + 1).all()


def test_exact_shares_are_exact():
    y = [0] * 50 + [1] * 30 + [2] * 20
    _, (_, test) = train_test_split(*samples(y), test_size=0.1)
    assert np.bincount(test).tolist() == [5, 3, 2]


def test_a_label_with_one_sample_is_trained_on():
    (_, train), (_, test) = train_test_split(*samples([0] * 9 + [5]), test_size=0.5)
    assert 5 in train
    assert 5 not in test


@pytest.mark.parametrize(
    ("n", "test_size", "expected"), [(1797, 0.2, 360), (100, 0.07, 7), (10, 3, 3), (2, 0.99, 1)]
)
def test_sizes(n, test_size, expected):
    _, (test, _) = train_test_split(*samples(np.zeros(n, int)), test_size=test_size)
    assert len(test) == expected


def test_unstratified_takes_any_targets():
    x, y = np.ones((10, 3)), np.linspace(0, 1, 20).reshape(10, 2)
    (_, train), (_, test) = train_test_split(x, y, stratify=False)
    assert train.shape == (8, 2)
    assert test.shape == (2, 2)


@pytest.mark.parametrize(
    ("y", "options", "message"),
    [
        ([0, 1, 2], {}, "^x and y: expected the same length"),
        ([0] * 10, {"test_size": 0.0}, "^test_size: "),
        ([0] * 10, {"test_size": 1.0}, "^test_size: "),
        ([0] * 10, {"test_size": float("nan")}, "^test_size: "),
        ([0] * 10, {"test_size": 10}, "^test_size: "),
        ([0] * 10, {"test_size": 0}, "^test_size: "),
        ([0] * 10, {"test_size": True}, "^test_size: "),
        ([0] * 10, {"test_size": "half"}, "^test_size: "),
        ([0] * 10, {"seed": -1}, "^seed: "),
        ([0] * 10, {"seed": 0.5}, "^seed: "),
        ([0.5] * 10, {}, "^y: stratify needs integer labels"),
        (list(range(10)), {}, "^test_size: .* without a sample to train on"),
    ],
)
def test_bad_arguments_are_named(y, options, message):
    with pytest.raises(ValueError, match=message):
        train_test_split(np.zeros((10, 2)), y, **options)


def test_one_sample_cannot_be_split():
    with pytest.raises(ValueError, match="at least 2 samples"):
        train_test_split([1], [0])
