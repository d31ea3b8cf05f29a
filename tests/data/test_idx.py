import struct

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fastnn.data import DataError
from fastnn.data.idx import decode_idx, idx_size

GOLDEN = bytes.fromhex("00000802 00000002 00000003 0a0b0c 0d0eff")


def test_golden_bytes_of_two_rows_of_three():
    array = decode_idx(GOLDEN, "f")
    assert array.dtype == np.uint8
    assert array.flags.c_contiguous
    np.testing.assert_array_equal(array, [[10, 11, 12], [13, 14, 255]])


@pytest.mark.parametrize(
    ("code", "form", "dtype", "values"),
    [
        (0x08, "B", np.uint8, [0, 255]),
        (0x09, "b", np.int8, [-128, 127]),
        (0x0B, "h", np.int16, [-(2**15), 2**15 - 1]),
        (0x0C, "i", np.int32, [-(2**31), 2**31 - 1]),
        (0x0D, "f", np.float32, [1.5, -np.inf]),
        (0x0E, "d", np.float64, [np.pi, -1e300]),
    ],
)
def test_every_type_comes_in_native_byte_order(code, form, dtype, values):
    array = decode_idx(bytes([0, 0, code, 1, 0, 0, 0, 2]) + struct.pack(f">2{form}", *values), "f")
    assert array.dtype == dtype
    assert array.dtype.isnative
    np.testing.assert_array_equal(array, np.array(values, dtype))


def test_idx_size_is_the_size_of_the_file():
    assert idx_size((2, 3)) == len(GOLDEN)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "truncated"),
        (GOLDEN[:3], "truncated"),
        (GOLDEN[:11], "truncated"),
        (GOLDEN[:-1], "truncated"),
        (GOLDEN + b"\0", "trailing"),
        (b"\1" + GOLDEN[1:], "not an IDX file"),
        (GOLDEN[:2] + b"\x0a" + GOLDEN[3:], "not an IDX file"),
        (GOLDEN[:3] + b"\0" + GOLDEN[4:], "dimensions"),
        (GOLDEN[:3] + b"\xff" + GOLDEN[4:], "dimensions"),
        (bytes([0, 0, 8, 1, 0, 0, 0, 0]), "empty"),
        # 2**96 and 2**256 bytes: the product of the sizes must not wrap around to what is there.
        (bytes([0, 0, 8, 3]) + b"\xff" * 12 + b"\0" * 64, "truncated"),
        (bytes([0, 0, 14, 8]) + b"\x80\0\0\0" * 8, "truncated"),
        (bytes([0, 0, 8, 2]) + b"\xff" * 4 + b"\0" * 4, "empty"),
    ],
)
def test_damage_is_refused_by_name(content, what):
    with pytest.raises(DataError, match=f"^some/file: .*{what}"):
        decode_idx(content, "some/file")


@given(st.binary(max_size=64))
@example(GOLDEN)
def test_any_bytes_give_an_array_or_a_data_error(content):
    try:
        array = decode_idx(content, "f")
    except DataError as error:
        assert str(error).startswith("f: ")
    else:
        assert content[3] == array.ndim
        assert len(content) == 4 + 4 * array.ndim + array.nbytes


@given(
    st.sampled_from([8, 9, 11, 12, 13, 14]),
    st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=8),
    st.binary(max_size=64),
)
def test_any_sizes_give_an_array_or_a_data_error(code, shape, payload):
    header = struct.pack(f">BBBB{len(shape)}I", 0, 0, code, len(shape), *shape)
    try:
        array = decode_idx(header + payload, "f")
    except DataError:
        return
    assert array.shape == tuple(shape)
