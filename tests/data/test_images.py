"""fastnn/data/images.py: where files are found, and that a damaged one is never used."""

import gzip
import hashlib
import os
import re
from pathlib import Path

import numpy as np
import pytest

from fastnn import data
from fastnn.data import images

DEBIAN = images._FASHION_MNIST.system_folder
IMAGES = "train-images-idx3-ubyte.gz"


def put(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, raw in files.items():
        (folder / name).write_bytes(raw)
    return folder


@pytest.fixture
def folder(tiny, tmp_path, monkeypatch):
    """$FASTNN_DATA/mnist with the four files."""
    monkeypatch.setenv("FASTNN_DATA", str(tmp_path / "own"))
    return put(tmp_path / "own" / "mnist", tiny)


def refused(folder: Path, name: str, what: str) -> None:
    with pytest.raises(data.DataError, match=f"^{re.escape(str(folder / name))}: .*{what}"):
        data.mnist()


def test_arrays_are_those_of_the_files(tiny, folder):
    dataset = data.mnist()
    (x, y), (xt, yt) = dataset
    assert x.shape == (6, 1, 2, 3)
    assert xt.shape == (4, 1, 2, 3)
    assert x.dtype == np.uint8
    assert x.flags.c_contiguous
    assert y.dtype == np.int64
    assert x.tobytes() == gzip.decompress(tiny[IMAGES])[16:]
    assert y.tolist() == list(range(6))
    assert yt.tolist() == list(range(4))
    assert dataset.scale == 1 / 255
    # 36 terms of at most 1, each rounded to eps.
    assert dataset.mean[0] == pytest.approx((x / 255).mean(), abs=1e-14)
    assert dataset.std[0] == pytest.approx((x / 255).std(), abs=1e-14)


def test_plain_and_dotted_names_are_found(tiny, folder):
    for name, raw in tiny.items():
        (folder / name).unlink()
        plain = name.removesuffix(".gz")
        plain = plain.replace("-idx", ".idx") if "t10k" in name else plain
        (folder / plain).write_bytes(gzip.decompress(raw))
    assert len(data.mnist().train[0]) == 6


def test_a_recompressed_file_is_the_same_file(tiny, folder):
    (folder / IMAGES).write_bytes(gzip.compress(gzip.decompress(tiny[IMAGES]), 0, mtime=1))
    assert len(data.mnist().train[0]) == 6


def test_the_folders_are_searched_in_order(tiny, tmp_path, monkeypatch):
    system = put(tmp_path / "system", tiny)
    monkeypatch.setattr(images, "_MNIST", images._MNIST._replace(system_folder=str(system)))
    bad = {IMAGES: b"bad"}
    assert len(data.mnist().train[0]) == 6
    refused(put(tmp_path / "cache" / "mnist", bad), IMAGES, "truncated")
    monkeypatch.setenv("FASTNN_DATA", str(tmp_path / "own"))
    refused(put(tmp_path / "own", bad), IMAGES, "truncated")
    refused(put(tmp_path / "own" / "mnist", bad), IMAGES, "truncated")
    put(tmp_path / "own" / "mnist", tiny)
    assert len(data.mnist().train[0]) == 6


def test_the_cache_follows_the_platform(tiny, tmp_path, monkeypatch):
    monkeypatch.delenv("FASTNN_CACHE")
    monkeypatch.setattr(images.importlib, "import_module", lambda name: exec("raise ImportError"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    put(tmp_path / "xdg" / "fastnn" / "mnist", tiny)
    assert len(data.mnist().train[0]) == 6


def other_shape(content: bytes) -> bytes:
    """6 images of 2x3 turned to 6 of 3x2: as many bytes."""
    return content[:8] + bytes([0, 0, 0, 3, 0, 0, 0, 2]) + content[16:]


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (lambda content: gzip.compress(content)[:-1], "truncated gzip"),
        (lambda content: gzip.compress(content)[:20], "truncated gzip"),
        (lambda content: gzip.compress(content)[:-8] + b"\0" * 8, "damaged gzip"),
        (lambda content: gzip.compress(content) + b"\0", "after the gzip stream"),
        (lambda content: gzip.compress(content[:-1]), "truncated IDX"),
        (lambda content: content[:10], "truncated IDX"),
        (lambda content: b"", "truncated IDX"),
        (lambda content: content + b"\0", "more than the 52 bytes"),
        (lambda content: b"\x89PNG" + content[4:], "not an IDX file"),
        (lambda content: b"\0\0\x09" + content[3:], "expected uint8"),
        (other_shape, r"expected uint8 of shape \(6, 2, 3\)"),
        (lambda content: content[:-1] + bytes([content[-1] ^ 1]), "SHA-256"),
    ],
)
def test_damage_is_refused_by_name(tiny, folder, damage, what):
    (folder / IMAGES).write_bytes(damage(gzip.decompress(tiny[IMAGES])))
    refused(folder, IMAGES, what)


def test_a_dangling_link_is_refused_by_name(folder):
    (folder / IMAGES).unlink()
    (folder / IMAGES).symlink_to(folder / "gone")
    refused(folder, IMAGES, "cannot be read")


@pytest.mark.skipif(
    not os.path.isdir(str(DEBIAN)),
    reason=f"{DEBIAN} is missing: install Debian's package dataset-fashion-mnist",
)
def test_fashion_mnist_from_debian(tmp_path, monkeypatch):
    monkeypatch.delenv("FASTNN_DATA", raising=False)
    monkeypatch.setenv("FASTNN_CACHE", str(tmp_path))
    monkeypatch.setattr(images, "fetch", None)
    dataset = data.fashion_mnist()
    (x, y), (xt, yt) = dataset
    assert x.shape == (60_000, 1, 28, 28)
    assert xt.shape == (10_000, 1, 28, 28)
    assert np.bincount(y).tolist() == [6_000] * 10
    assert np.bincount(yt).tolist() == [1_000] * 10
    # As its makers publish them, to four digits.
    assert dataset.mean[0] == pytest.approx(0.2860, abs=5e-5)
    assert dataset.std[0] == pytest.approx(0.3530, abs=5e-5)
    assert dataset.classes[int(y[0])] == "Ankle boot"
    assert len(dataset.classes) == 10


def test_the_checksums_are_distinct_sha256s():
    sums = [file.sha256 for s in (images._MNIST, images._FASHION_MNIST) for file in s.files]
    assert len(set(sums)) == 8
    assert all(len(bytes.fromhex(s)) == hashlib.sha256().digest_size for s in sums)
