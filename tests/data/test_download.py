"""Downloads, from a server on this machine."""

import os
import sys
import types

import pytest

from fastnn import data
from fastnn.data import images
from fastnn.data.download import fetch

IMAGES = "train-images-idx3-ubyte.gz"


@pytest.fixture
def mirror(tiny, server, monkeypatch):
    """A mirror of ``mnist()`` that FASTNN_DATA_URL names."""
    for name, raw in tiny.items():
        server.reply(f"/sets/mnist/{name}", raw)
    monkeypatch.setenv("FASTNN_DATA_URL", server.url + "/sets/")
    # A proxy would be asked for what this machine serves itself.
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    return server


def cached(tmp_path) -> list[str]:
    return sorted(name for _, _, names in os.walk(tmp_path / "cache") for name in names)


def test_files_are_downloaded_once(tiny, mirror, tmp_path):
    first = data.mnist()
    assert sorted(mirror.asked) == sorted(mirror.replies)
    assert cached(tmp_path) == sorted(tiny)
    second = data.mnist()
    assert len(mirror.asked) == 4
    assert first.train[0].tobytes() == second.train[0].tobytes()


def test_a_damaged_cached_file_is_refused_not_replaced(mirror, tmp_path):
    data.mnist()
    path = tmp_path / "cache" / "mnist" / IMAGES
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(data.DataError, match=f"^{path}: truncated"):
        data.mnist()
    assert len(mirror.asked) == 4


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (lambda raw: {"body": raw[:-5], "declared": len(raw)}, "cut short|IncompleteRead"),
        (lambda raw: {"body": raw[:-5], "declared": -1}, "truncated gzip"),
        (lambda raw: {"body": b""}, "truncated IDX"),
        (lambda raw: {"body": b"<html>a captive portal</html>"}, "not an IDX file"),
        (lambda raw: {"body": b"\0" * 200_000}, "larger than"),
        (lambda raw: {"status": 404}, "404"),
        (lambda raw: {"status": 500}, "500"),
        (lambda raw: {"status": 302}, "302"),
        (lambda raw: {"status": 302, "headers": {"Location": "http://example.org/x"}}, "refused"),
        (
            lambda raw: {"status": 302, "headers": {"Location": "file:///etc/hosts"}},
            "refused|not al",
        ),
    ],
)
def test_a_bad_reply_is_refused_and_leaves_nothing(tiny, mirror, tmp_path, spoil, what):
    mirror.reply("/sets/mnist/" + IMAGES, **spoil(tiny[IMAGES]))
    with pytest.raises(data.DataError, match=f"^{mirror.url}/sets/mnist/{IMAGES}: .*({what})"):
        data.mnist()
    assert cached(tmp_path) == []


def test_a_wrong_checksum_is_refused_and_leaves_nothing(tiny, mirror, tmp_path):
    # Labels of the same shape, in the wrong place.
    train, test = "/sets/mnist/train-labels-idx1-ubyte.gz", "/sets/mnist/t10k-labels-idx1-ubyte.gz"
    source = images._MNIST
    swapped = source.files[3]._replace(sha256=source.files[1].sha256)
    images._MNIST = source._replace(files=(*source.files[:3], swapped))
    with pytest.raises(data.DataError, match=f"^{mirror.url}{test}: SHA-256"):
        data.mnist()
    assert "t10k-labels-idx1-ubyte.gz" not in cached(tmp_path)
    assert train in mirror.asked


def test_redirects_on_this_machine_are_followed(tiny, mirror):
    mirror.reply("/moved", tiny[IMAGES])
    mirror.reply("/sets/mnist/" + IMAGES, status=302, headers={"Location": mirror.url + "/moved"})
    assert len(data.mnist().train[0]) == 6


def test_an_unwritable_cache_is_a_warning(mirror, tmp_path):
    (tmp_path / "cache").write_text("a file in the folder's place")
    with pytest.warns(UserWarning, match="not kept") as warned:
        assert len(data.mnist().train[0]) == 6
    assert warned[0].filename == __file__


def test_where_nothing_answers_the_message_says_where_files_may_go(tiny, tmp_path):
    with pytest.raises(data.DownloadError, match=r"set FASTNN_DATA") as caught:
        data.mnist()
    assert isinstance(caught.value, OSError)
    assert str(tmp_path / "cache" / "mnist") in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/x",
        "http://127.0.0.1.example.org/x",
        "http://localhost.example.org/x",
        "http://user@example.org/x",
        "http://127.0.0.1@example.org/x",
        "http://10.0.0.1/x",
        "ftp://127.0.0.1/x",
        "file:///etc/hosts",
        "https:///x",
        "http://[::1",
        "mnist",
        "",
    ],
)
def test_urls_other_than_https_are_refused(url):
    with pytest.raises(data.DownloadError):
        fetch(url, 100)


def test_progress_is_a_line_where_stderr_is_no_terminal(mirror, capsys):
    data.mnist()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert all(line.startswith(f"fastnn: downloading {mirror.url}/") for line in lines)


def test_progress_is_a_bar_on_a_terminal(tiny, mirror, monkeypatch):
    totals = []

    class Bar:
        def __init__(self, total, **options):
            self.left = total
            totals.append(total)

        def __enter__(self):
            return self

        def __exit__(self, *args):
            assert self.left == 0

        def update(self, count):
            self.left -= count

    monkeypatch.setitem(sys.modules, "tqdm", types.SimpleNamespace(tqdm=Bar))
    monkeypatch.setattr(sys, "stderr", types.SimpleNamespace(isatty=lambda: True))
    data.mnist()
    assert totals == [len(raw) for raw in tiny.values()]
