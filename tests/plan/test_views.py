"""When another shape shows the same memory, against what NumPy does with real arrays."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fastnn.layout import Buffer, Ref, view_strides


def ref(shape: tuple[int, ...], strides: tuple[int, ...]) -> Ref:
    return Ref(Buffer(8, ""), shape, strides, np.dtype(np.float64))


def numpy_strides(a: np.ndarray, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """In elements, where the array can be shown with this shape."""
    shown = a.reshape(shape)
    return tuple(s // a.itemsize for s in shown.strides) if np.shares_memory(a, shown) else None


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, tuple[int, ...]]:
    """A strided window of an array, and another shape of its size."""
    dims = draw(st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=1, max_size=4))
    steps = draw(st.lists(st.sampled_from([1, 1, 1, 2]), min_size=len(dims), max_size=len(dims)))
    a = np.zeros([n * s for n, s in zip(dims, steps, strict=True)])
    a = a[tuple(slice(None, None, s) for s in steps)].transpose(
        draw(st.permutations(range(len(dims))))
    )
    left, shape = math.prod(dims), []
    while left > 1 or draw(st.booleans()):
        n = draw(st.sampled_from([d for d in range(1, left + 1) if left % d == 0]))
        shape.append(n)
        left //= n
        if len(shape) > 6:
            shape.append(left)
            break
    return a, tuple(shape)


@given(cases())
def test_as_numpy(case: tuple[np.ndarray, tuple[int, ...]]) -> None:
    a, shape = case
    got = view_strides(ref(a.shape, tuple(s // 8 for s in a.strides)), shape)
    want = numpy_strides(a, shape)
    assert (got is None) == (want is None)
    if got is not None and want is not None:  # the stride of a single element says nothing
        assert [g for g, n in zip(got, shape, strict=True) if n > 1] == [
            w for w, n in zip(want, shape, strict=True) if n > 1
        ]


def test_no_memory_is_read() -> None:
    """Of images that lie channels-last, flattened: nothing of that size exists."""
    images = ref((1 << 20, 64, 512, 512), (64 << 18, 1, 64 << 9, 64))
    assert view_strides(images, (1 << 20, 64 << 18)) is None
    assert view_strides(images, (1 << 10, 1 << 10, 64, 1 << 18)) == (64 << 28, 64 << 18, 1, 64)


def test_nothing_can_be_shown_anyhow() -> None:
    assert view_strides(ref((0, 3), (3, 1)), (3, 0)) == (0, 1)
