"""The IDX format of the MNIST family: arrays behind a header of big-endian sizes.

Two zero bytes, a byte for the type of the elements, a byte for the number of dimensions, the
dimensions as big-endian uint32, then the elements in C order, big-endian, and nothing after them.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn.data.dataset import DataError

_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MAX_DIMS = 8


def idx_size(shape: tuple[int, ...]) -> int:
    """The bytes of an IDX file of uint8 elements with this shape."""
    return 4 + 4 * len(shape) + math.prod(shape)


def decode_idx(content: bytes | bytearray, name: str) -> NDArray[Any]:
    """The array an IDX file holds, in native byte order.

    The sizes in the header are compared with the bytes at hand, exactly, before an array is
    made; nothing is allocated for what a header only promises. A uint8 result is a view of
    ``content``. Raises DataError, naming ``name``.
    """
    if len(content) < 4:
        raise DataError(f"{name}: truncated IDX file: {len(content)} bytes, the magic alone has 4")
    code, dims = content[2], content[3]
    if content[:2] != b"\0\0" or code not in _DTYPES:
        raise DataError(f"{name}: not an IDX file: magic {bytes(content[:4]).hex()}")
    if not 1 <= dims <= _MAX_DIMS:
        raise DataError(f"{name}: IDX header has {dims} dimensions, expected 1 to {_MAX_DIMS}")
    start = 4 + 4 * dims
    if len(content) < start:
        raise DataError(
            f"{name}: truncated IDX file: {len(content)} bytes, the header alone has {start}"
        )
    shape = tuple(int.from_bytes(content[i : i + 4], "big") for i in range(4, start, 4))
    dtype = np.dtype(_DTYPES[code])
    size = math.prod(shape) * dtype.itemsize
    found = len(content) - start
    if found != size:
        what = "truncated IDX file" if found < size else "trailing bytes in IDX file"
        raise DataError(
            f"{name}: {what}: shape {shape} of {dtype.name} has {size:,} bytes, found {found:,}"
        )
    if size == 0:
        raise DataError(f"{name}: empty IDX array of shape {shape}")
    array = np.frombuffer(content, dtype, offset=start).reshape(shape)
    return array.astype(dtype.newbyteorder("="), copy=False)
