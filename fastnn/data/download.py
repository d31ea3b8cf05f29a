"""Bytes over HTTPS, with progress on standard error."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fastnn.data.dataset import DataError

if TYPE_CHECKING:
    from urllib.request import OpenerDirector

_TIMEOUT = 30.0  # seconds without a byte
_CHUNK = 1 << 16


class DownloadError(DataError, OSError):
    """A file could not be downloaded; the message names its URL."""


def fetch(url: str, limit: int) -> bytearray:
    """The bytes behind a URL, at most ``limit`` of them.

    The scheme is HTTPS, here and after every redirect; plain HTTP only where the host is this
    machine (a loopback address, "localhost"), and then past any proxy. Raises DownloadError for
    whatever goes wrong, be it a refused URL, the network, or a response cut short or too long.
    """
    import http.client

    if not _is_allowed(url):
        raise DownloadError(f"{url}: refused: expected https:// (http:// from this machine only)")
    try:
        with _opener(url).open(url, timeout=_TIMEOUT) as response:
            return _receive(response, url, limit)
    except DownloadError:
        raise
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DownloadError(f"{url}: {error}") from error


def _is_allowed(url: str) -> bool:
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return False
    return bool(host) and (
        parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host))
    )


def _is_loopback(host: str) -> bool:
    import ipaddress

    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _opener(url: str) -> "OpenerDirector":
    from urllib import request

    class Redirect(request.HTTPRedirectHandler):
        def redirect_request(
            self, req: request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
        ) -> request.Request | None:
            downgraded = req.type == "https" and not newurl.startswith("https:")
            if downgraded or not _is_allowed(newurl):
                raise DownloadError(f"{url}: refused: redirects to {newurl}")
            return super().redirect_request(req, fp, code, msg, headers, newurl)

    handlers: list[request.BaseHandler] = [Redirect()]
    if url.startswith("http:"):
        handlers.append(request.ProxyHandler({}))
    return request.build_opener(*handlers)


def _receive(response: Any, url: str, limit: int) -> bytearray:
    declared = response.headers.get("Content-Length", "")
    total = int(declared) if declared.isdigit() else None
    received = bytearray()
    with _progress(url, total) as advance:
        while len(received) <= limit and (chunk := response.read(_CHUNK)):
            received += chunk
            advance(len(chunk))
    if len(received) > limit:
        raise DownloadError(f"{url}: larger than the {limit:,} bytes it may have")
    if total is not None and len(received) != total:
        raise DownloadError(f"{url}: cut short: {len(received):,} of {total:,} bytes arrived")
    return received


@contextmanager
def _progress(url: str, total: int | None) -> Iterator[Callable[[int], object]]:
    """A tqdm bar where tqdm is installed and standard error is a terminal, else a line."""
    if sys.stderr is not None and sys.stderr.isatty():
        import importlib

        try:
            tqdm = importlib.import_module("tqdm").tqdm
        except ImportError:
            pass
        else:
            name = url.rsplit("/", 1)[-1]
            with tqdm(total=total, desc=name, unit="B", unit_scale=True) as bar:
                yield bar.update
            return
    if sys.stderr is not None:
        size = "" if total is None else f" ({total / 1e6:.1f} MB)"
        print(f"fastnn: downloading {url}{size}", file=sys.stderr, flush=True)
    yield lambda count: None
