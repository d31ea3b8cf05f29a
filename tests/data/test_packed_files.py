"""fastnn/data/files.py: gzip or plain, bounded, whole or not at all."""

import gzip
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastnn.data import DataError
from fastnn.data.files import packed_limit, read_packed, unpack, write_atomic


@given(st.binary(max_size=200), st.integers(0, 9))
def test_gzip_and_plain_content_come_back(content, level):
    assert unpack(gzip.compress(content, level), len(content), "f") == content
    if content[:2] != b"\x1f\x8b":
        assert unpack(content, len(content), "f") == content


@given(st.data())
def test_a_changed_or_cut_gzip_file_is_refused_or_gives_the_content(data):
    content = bytes(range(50))
    raw = bytearray(gzip.compress(content))
    cut = data.draw(st.integers(2, len(raw)))
    at = data.draw(st.integers(2, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(0, 255))
    try:
        assert unpack(raw[:cut], len(content), "f") == content  # a flipped time stamp, say
    except DataError as error:
        assert str(error).startswith("f: ")


def test_a_bomb_is_refused_after_the_limit():
    bomb = gzip.compress(b"\0" * 10_000_000)
    with pytest.raises(DataError, match=r"^f: holds more than the 1,000 bytes"):
        unpack(bomb, 1000, "f")


def test_bytes_after_the_gzip_stream_are_refused():
    with pytest.raises(DataError, match=r"^f: 1 bytes after the gzip stream"):
        unpack(gzip.compress(b"abc") + b"x", 3, "f")


def test_truncated_gzip_is_refused_wherever_it_ends():
    raw = gzip.compress(b"some content")
    for cut in range(2, len(raw)):
        with pytest.raises(DataError, match=r"^f: truncated gzip file"):
            unpack(raw[:cut], 12, "f")


def test_the_packed_limit_holds_incompressible_content():
    content = os.urandom(1_000_000)
    assert len(gzip.compress(content)) <= packed_limit(len(content))


def test_a_file_too_large_to_be_right_is_not_read(tmp_path):
    path = tmp_path / "huge"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # sparse
    with pytest.raises(DataError, match=r"huge: larger than"):
        read_packed(str(path), 1000)


def test_a_folder_in_place_of_a_file_is_refused_by_name(tmp_path):
    with pytest.raises(DataError, match=f"{tmp_path}: cannot be read"):
        read_packed(str(tmp_path), 1000)


def test_write_atomic_makes_the_folder_and_replaces(tmp_path):
    path = tmp_path / "a" / "b" / "file"
    write_atomic(str(path), b"one")
    write_atomic(str(path), b"two")
    assert path.read_bytes() == b"two"
    assert os.listdir(path.parent) == ["file"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, step, interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(str(path), b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]
