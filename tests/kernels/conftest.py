"""What every kernel test needs: each instruction set, both float types, guarded outputs."""

from __future__ import annotations

import numpy as np
import pytest

from fastnn import _core


@pytest.fixture(params=_core.isas())
def isa(request):
    """Runs the test on each instruction set; the one in use before comes back after it."""
    before = _core.isa()
    _core.set_isa(request.param)
    yield request.param
    _core.set_isa(before)


@pytest.fixture(params=[np.float32, np.float64], ids=["f32", "f64"])
def dtype(request):
    return request.param


@pytest.fixture
def threads():
    """set_num_threads, undone after the test."""
    before = _core.get_num_threads()
    yield _core.set_num_threads
    _core.set_num_threads(before)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def guarded():
    """guarded(shape, dtype, fill) -> an array between guard bytes, which the test's end checks."""
    blocks = []

    def make(shape, dtype, fill=None):
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        block = np.full(size + 256, 0xA5, np.uint8)
        blocks.append((block, size))
        array = block[128 : 128 + size].view(dtype).reshape(shape)
        if fill is not None:
            array[...] = fill
        return array

    yield make
    for block, size in blocks:
        assert np.all(block[:128] == 0xA5), "wrote before the output"
        assert np.all(block[128 + size :] == 0xA5), "wrote past the output"
