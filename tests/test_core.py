"""The core's own promises: kernels by name, memory, programs that refuse what they cannot run."""

from __future__ import annotations

import numpy as np
import pytest

from fastnn import _core


def test_arguments_go_by_name() -> None:
    y = np.zeros(5, np.float32)
    _core.call("fill", 32, y=y, n=5, value=2.5)
    np.testing.assert_array_equal(y, 2.5)
    with pytest.raises(TypeError, match="no argument is called 'size'"):
        _core.call("fill", 32, y=y, n=5, value=2.5, size=3)
    with pytest.raises(TypeError, match="argument 'value' is missing"):
        _core.call("fill", 32, y=y, n=5)
    with pytest.raises(ValueError, match="no kernel is called 'fil'"):
        _core.call("fil", 32)


def test_memory_views_stay_alive_and_in_bounds() -> None:
    memory = _core.Memory(64)
    view = memory.view(16, (4,), np.float32)
    del memory
    view[...] = 3
    assert view.sum() == 12
    memory = _core.Memory(64)
    with pytest.raises(ValueError, match="offset"):
        memory.view(60, (2,), np.float32)
    memory.view(0, (2,), np.float32)
    with pytest.raises(RuntimeError, match="cannot move"):
        memory.ensure(128)
    with pytest.raises(ValueError, match="nbytes"):
        _core.Memory(-1)


def program() -> _core.Program:
    """y = x, then y = 2 y + 1."""
    p = _core.Program(32, _core.Memory(0))
    x, y = p.array_space(16, np.float32), p.array_space(16, np.float32)
    affine = {"n": 4, "op": 11, "alpha": 2.0, "beta": 1.0}
    p.add("unary", {"x": (x, 0), "y": (y, 0), **affine})
    return p


def test_program_binds_and_advances() -> None:
    p = program()
    x, y = np.arange(12, dtype=np.float32), np.zeros(12, np.float32)
    p.run((x, y), 3, {0: 16, 1: 16})
    np.testing.assert_array_equal(y, 2 * x + 1)
    y[:] = 0
    p.run((x[4:], y))
    np.testing.assert_array_equal(y[:4], 2 * x[4:8] + 1)
    assert np.all(y[4:] == 0)


def test_program_refuses_wrong_arrays() -> None:
    p = program()
    x = np.zeros(4, np.float32)
    for arrays, words in [
        ((x,), "expected more"),
        ((x, x, x), "expected 2"),
        ((x, x.astype(np.float64)), "wrong dtype"),
        ((x, np.zeros(8, np.float32)[::2]), "C-contiguous"),
    ]:
        with pytest.raises(TypeError, match=words):
            p.run(arrays)
    with pytest.raises(ValueError, match="16 bytes"):
        p.run((x, x[:3]))
    with pytest.raises(TypeError):
        p.run((x, [0, 0, 0, 0]))  # type: ignore[arg-type]


def test_kernel_status_becomes_an_error() -> None:
    logits, labels = np.zeros((2, 3), np.float32), np.array([0, 3])
    out = np.full(2, 7, np.float32)
    with pytest.raises(_core.KernelError) as error:
        sizes = {"n": 2, "c": 3, "ignore": -100, "mean": 0, "scale": 1.0}
        _core.call("xent_fwd", 32, x=logits, labels=labels, lse=out, losses=out, **sizes)
    assert error.value.status == _core.BAD_LABEL
    np.testing.assert_array_equal(out, 7)
