"""Whole files, read with a bound on their size and written atomically."""

import os

from fastnn.data.dataset import DataError

_GZIP_MAGIC = b"\x1f\x8b"


def packed_limit(limit: int) -> int:
    """The most bytes a gzip file of ``limit`` bytes of content takes, stored or compressed."""
    return limit + limit // 1000 + (64 << 10)


def read_packed(path: str, limit: int) -> bytes:
    """The bytes of a file, as they are on disk; refused beyond ``packed_limit(limit)``."""
    most = packed_limit(limit)
    try:
        with open(path, "rb") as file:
            raw = file.read(most + 1) if os.fstat(file.fileno()).st_size <= most else None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if raw is None or len(raw) > most:
        raise DataError(f"{path}: larger than the {most:,} bytes it may have")
    return raw


def unpack(raw: bytes | bytearray, limit: int, name: str) -> bytearray:
    """The content of ``raw``, gzip (told by its magic) or plain, of at most ``limit`` bytes.

    Raises DataError, naming ``name``, when the gzip stream is damaged, truncated or followed by
    anything, or when there is more content than ``limit``: a small file cannot ask for much.
    """
    import zlib

    if not raw.startswith(_GZIP_MAGIC):
        content = bytearray(raw)
    else:
        stream = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)  # 16: gzip header and CRC
        try:
            content = bytearray(stream.decompress(raw, limit + 1))
        except zlib.error as error:
            raise DataError(f"{name}: damaged gzip file: {error}") from error
        if not stream.eof and len(content) <= limit:
            raise DataError(f"{name}: truncated gzip file")
        if stream.unused_data:
            raise DataError(f"{name}: {len(stream.unused_data):,} bytes after the gzip stream")
    if len(content) > limit:
        raise DataError(f"{name}: holds more than the {limit:,} bytes expected")
    return content


def check_sha256(content: bytes | bytearray, sha256: str, name: str) -> None:
    """Raise DataError unless ``content`` has this SHA-256 (64 hexadecimal digits)."""
    import hashlib

    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise DataError(
            f"{name}: SHA-256 of its content is {found}, expected {sha256}: damaged, or another "
            "file of that name"
        )


def write_atomic(path: str, content: bytes | bytearray) -> None:
    """Write a file that is either there whole or not at all; its folder is made when missing."""
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    # Not tempfile: its files are for their owner's eyes only, and stay so when renamed.
    temporary = os.path.join(folder, f".{os.urandom(8).hex()}.part")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    _sync_folder(folder)


def _sync_folder(folder: str) -> None:
    if os.name != "posix":  # elsewhere a folder cannot be opened
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
