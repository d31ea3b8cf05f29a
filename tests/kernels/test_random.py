"""Philox4x32-10 against its authors' known answers; dropout and uniform against Philox again."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from fastnn import _core


def philox(counter, key):
    """One block of Philox4x32-10: four 32-bit words (Salmon et al., SC 2011)."""
    c, (k0, k1) = list(counter), key
    for _ in range(10):
        p0, p1 = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [(p1 >> 32) ^ c[1] ^ k0, p1 & 0xFFFFFFFF, (p0 >> 32) ^ c[3] ^ k1, p0 & 0xFFFFFFFF]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c


def stream(n, seed, step, key):
    """The words of elements 0..n-1."""
    seeds = (seed & 0xFFFFFFFF, seed >> 32)
    blocks = [philox((i & 0xFFFFFFFF, i >> 32, step, key), seeds) for i in range(-(-n // 4))]
    return np.array(blocks, np.uint64).reshape(-1)[:n]


def halves(n, seed, step, key):
    """What dropout's elements 0..n-1 take: low and high halves of the words."""
    words = stream(-(-n // 2), seed, step, key)
    return np.stack([words & 0xFFFF, words >> 16], 1).reshape(-1)[:n]


def uniform(guarded, n, dtype, seed=0, step=0, key=0):
    y = guarded((n,), dtype)
    hyper = np.array([step, seed], np.float64)
    _core.call("uniform", y.itemsize * 8, hyper=hyper, y=y, n=n, key=key)
    return y


def dropout(guarded, x, p, seed=0, step=0, key=0):
    y = guarded(x.shape, x.dtype)
    hyper = np.array([step, seed], np.float64)
    _core.call("dropout", x.itemsize * 8, x=x, hyper=hyper, y=y, n=x.size, key=key, p=p)
    return y


# kat_vectors of Random123, philox4x32 with 10 rounds: counter, key, answer
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000",
     "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff",
     "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0",
     "d16cfe09 94fdcceb 5001e420 24126ea1"),
]  # fmt: skip


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_reference_gives_the_known_answers(counter, key, answer):
    def words(text):
        return [int(word, 16) for word in text.split()]

    assert philox(words(counter), words(key)) == words(answer)


def test_kernel_gives_the_known_answer(isa, guarded):
    words = uniform(guarded, 4, np.float64) * 2.0**32
    assert [f"{int(w):08x}" for w in words] == KNOWN[0][2].split()


SETTINGS = [(0, 1, 0), (1, 2, 3), (2**53 - 1, 2**32 - 1, 2**32 - 1), (0x1234567890ABC, 77, 5)]


@pytest.mark.parametrize(("seed", "step", "key"), SETTINGS)
@pytest.mark.parametrize("n", [1, 3, 7, 15, 16, 17, 31, 32, 33, 1000])
def test_uniform_is_the_stream(isa, dtype, guarded, n, seed, step, key):
    words = stream(n, seed, step, key)
    expected = (words >> 8) * 2.0**-24 if dtype == np.float32 else words * 2.0**-32
    np.testing.assert_array_equal(uniform(guarded, n, dtype, seed, step, key), expected)


@pytest.mark.parametrize("p", [2**-16, 0.1, 0.25, 0.5, 0.9, 1 - 2**-16])
@pytest.mark.parametrize("n", [1, 5, 15, 16, 17, 33, 63, 64, 65, 300])
def test_dropout_keeps_where_the_half_word_reaches_p(isa, dtype, guarded, rng, n, p):
    x = rng.standard_normal(n).astype(dtype)
    rounded = round(p * 2**16) / 2**16
    kept = halves(n, 11, 4, 9) * 2.0**-16 >= rounded
    expected = np.where(kept, x * dtype(1 / (1 - rounded)), dtype(0))
    np.testing.assert_array_equal(dropout(guarded, x, p, 11, 4, 9), expected)


@pytest.mark.parametrize(("none", "all_"), [(0.0, 1.0), (1e-9, 1 - 1e-9)])
def test_dropout_with_p_0_copies_and_with_p_1_clears(isa, dtype, guarded, none, all_):
    x = np.array([1.0, -0.0, np.inf, np.nan, -3.0] * 7, dtype)
    assert dropout(guarded, x, none).tobytes() == x.tobytes()
    assert dropout(guarded, x, all_).tobytes() == bytes(x.nbytes)


def test_dropped_elements_are_zero_whatever_they_were(isa, dtype, guarded):
    x = np.full(200, np.nan, dtype)
    kept = halves(200, 0, 0, 0) * 2.0**-16 >= 0.5
    np.testing.assert_array_equal(np.isnan(dropout(guarded, x, 0.5)), kept)


def test_dropout_in_place(isa, dtype, guarded, rng):
    x = rng.standard_normal(100).astype(dtype)
    expected = dropout(guarded, x, 0.3)
    hyper = np.zeros(2)
    _core.call("dropout", x.itemsize * 8, x=x, hyper=hyper, y=x, n=100, key=0, p=0.3)
    np.testing.assert_array_equal(x, expected)


def test_threads_and_instruction_sets_give_the_same_bits(dtype, threads, guarded, rng):
    x = rng.standard_normal(100_003).astype(dtype)
    before, results = _core.isa(), set()
    try:
        for name, count in itertools.product(_core.isas(), (1, 2)):
            _core.set_isa(name)
            threads(count)
            y, u = dropout(guarded, x, 0.4), uniform(guarded, x.size, dtype)
            results.add(y.tobytes() + u.tobytes())
    finally:
        _core.set_isa(before)
    assert len(results) == 1


def test_uniform_is_uniform(dtype, guarded):
    """Chi-square over 64 cells: 5 standard deviations of its own spread."""
    n, cells = 1 << 20, 64
    u = uniform(guarded, n, dtype, seed=3)
    assert u.min() >= 0 and u.max() < 1
    counts = np.bincount((u * cells).astype(int), minlength=cells)
    chi2 = ((counts - n / cells) ** 2 / (n / cells)).sum()
    assert abs(chi2 - (cells - 1)) < 5 * np.sqrt(2 * (cells - 1))
