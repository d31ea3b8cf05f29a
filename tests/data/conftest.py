"""Small stand-ins for MNIST, and a server on this machine that hands out what it is told to."""

import gzip
import hashlib
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

from fastnn.data import images

settings.register_profile("untimed", deadline=None)  # a busy machine is no failure
settings.load_profile("untimed")


@dataclass
class Reply:
    """What the server sends: a status, headers beside the length, a body, a length declared."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    declared: int | None = None


class Server:
    """Answers GET from ``replies`` (404 for the rest) and keeps the paths asked for."""

    def __init__(self) -> None:
        self.replies: dict[str, Reply] = {}
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                reply = outer.replies.get(self.path, Reply(status=404))
                self.send_response(reply.status)
                length = len(reply.body) if reply.declared is None else reply.declared
                if length >= 0:
                    self.send_header("Content-Length", str(length))
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(reply.body)

            def log_message(self, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"

    def reply(self, path: str, body: bytes = b"", **other: Any) -> None:
        self.replies[path] = Reply(body, **other)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.http.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.http.shutdown()
    thread.join()
    server.http.server_close()


def idx_bytes(array: np.ndarray) -> bytes:
    """An IDX file of uint8, built by hand."""
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, bytes]:
    """``mnist()`` of 6 + 4 images of 2x3 pixels, nowhere to be found; the gzip files by name."""
    rng = np.random.default_rng(0)
    arrays = {
        "train-images-idx3-ubyte": rng.integers(0, 256, (6, 2, 3)),
        "train-labels-idx1-ubyte": np.arange(6),
        "t10k-images-idx3-ubyte": rng.integers(0, 256, (4, 2, 3)),
        "t10k-labels-idx1-ubyte": np.arange(4),
    }
    contents = {name: idx_bytes(array) for name, array in arrays.items()}
    files = [
        images._File(name, array.shape, hashlib.sha256(contents[name]).hexdigest())
        for name, array in arrays.items()
    ]
    source = images._Source("mnist", "https://[::1]:1", None, tuple(files), tuple("012345"))
    monkeypatch.setattr(images, "_MNIST", source)
    monkeypatch.delenv("FASTNN_DATA", raising=False)
    monkeypatch.delenv("FASTNN_DATA_URL", raising=False)
    monkeypatch.setenv("FASTNN_CACHE", str(tmp_path / "cache"))
    return {name + ".gz": gzip.compress(content) for name, content in contents.items()}
