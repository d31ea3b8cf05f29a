"""unary, binary and lerp against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastnn import _core

SIZES = [0, 1, 7, 15, 16, 17, 31, 32, 33, 100, 40000]
UNARY = {
    "neg": np.negative,
    "abs": np.abs,
    "square": np.square,
    "sqrt": np.sqrt,
    "relu": lambda x: np.where(x < 0, 0, x),
    "sign": lambda x: np.where(x == 0, 0, np.sign(x)),
    "reciprocal": lambda x: 1 / x,
}
BINARY = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "max": np.maximum,
    "min": np.minimum,
    "greater": np.greater,
    "equal": np.equal,
    "relu_grad": lambda y, dy: np.where(y > 0, dy, 0),
}
GRADS = {
    "sigmoid_grad": lambda y, dy: dy * y * (1 - y),
    "tanh_grad": lambda y, dy: dy * (1 - y * y),
}


def bits(dtype):
    return 8 * np.dtype(dtype).itemsize


def unary(op, x, y, alpha=0.0, beta=0.0):
    code = _core.UNARY[op]
    _core.call("unary", bits(x.dtype), x=x, y=y, n=x.size, op=code, alpha=alpha, beta=beta)


def binary(op, a, b, y):
    """y = op(a, b); a and b are views of y's shape, with the strides of their broadcasting."""
    lead = 6 - y.ndim
    fields = {}
    for i in range(6):
        fields[f"d{i}"] = 1 if i < lead else y.shape[i - lead]
        fields[f"as{i}"] = 0 if i < lead else a.strides[i - lead] // a.itemsize
        fields[f"bs{i}"] = 0 if i < lead else b.strides[i - lead] // b.itemsize
    _core.call("binary", bits(y.dtype), a=a, b=b, y=y, op=_core.BINARY[op], **fields)


def samples(rng, n, dtype):
    """Numbers of both signs with the values that need care strewn in."""
    x = rng.standard_normal(n).astype(dtype)
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, np.finfo(dtype).smallest_subnormal]
    x[: len(special)] = special[:n]
    return rng.permutation(x)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("op", UNARY)
def test_unary(isa, dtype, rng, guarded, op, n):
    x = samples(rng, n, dtype)
    y = guarded(n, dtype)
    unary(op, x, y)
    with np.errstate(all="ignore"):
        want = UNARY[op](x).astype(dtype)
    np.testing.assert_array_equal(y, want)
    unary(op, x, x)
    np.testing.assert_array_equal(x, y)


def test_negative_zero(isa, dtype):
    x, y = np.array([0.0, -0.0], dtype), np.empty(2, dtype)
    unary("neg", x, y)
    assert list(np.signbit(y)) == [True, False]
    unary("abs", x, y)
    assert not np.signbit(y).any()


def test_affine(isa, dtype, rng):
    x, y = rng.standard_normal(50).astype(dtype), np.empty(50, dtype)
    unary("affine", x, y, alpha=2.5, beta=-1.5)
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(y, 2.5 * x.astype(float) - 1.5, rtol=0, atol=8 * eps * 4)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("op", BINARY)
def test_binary_dense(isa, dtype, rng, guarded, op, n):
    a, b = samples(rng, n, dtype), samples(rng, n, dtype)
    y = guarded(n, dtype)
    binary(op, a, b, y)
    with np.errstate(all="ignore"):
        want = BINARY[op](a, b).astype(dtype)
    np.testing.assert_array_equal(y, want)
    for operand in (a, b):
        x, other = operand.copy(), (b if operand is a else a)
        binary(op, *((x, other) if operand is a else (other, x)), x)
        np.testing.assert_array_equal(x, want)


@pytest.mark.parametrize("op", GRADS)
def test_gradients(isa, dtype, rng, op):
    y, dy = rng.uniform(-1, 1, 77).astype(dtype), rng.standard_normal(77).astype(dtype)
    out = np.empty(77, dtype)
    binary(op, y, dy, out)
    want = GRADS[op](y.astype(float), dy.astype(float))
    # Three roundings, and 1 - y^2 may cancel: relative to |dy| (1 + |y|).
    np.testing.assert_array_less(
        np.abs(out - want), 4 * np.finfo(dtype).eps * np.abs(dy) * (1 + np.abs(y)) + 1e-300
    )


def test_power(isa, dtype):
    a = np.array([0, -0.0, 1, -1, 2, -2, np.inf, -np.inf, np.nan, 0.5, 3], dtype)
    for exponent in (2.0, 0.0, -1.0, 1.5, 3.0, np.inf, np.nan):
        b = np.array(exponent, dtype)
        y = np.empty_like(a)
        binary("pow", a, np.broadcast_to(b, a.shape), y)
        with np.errstate(all="ignore"):
            want = np.power(a, b)
        np.testing.assert_allclose(y, want, rtol=4 * np.finfo(dtype).eps)


SHAPES = [
    ((32, 10), (10,)),
    ((32, 10), (32, 1)),
    ((10,), (32, 10)),
    ((1,), (40000,)),
    ((300, 200), (200,)),
    ((300, 200), (300, 1)),
    ((2, 30000), (2, 1)),
    ((4, 3, 5, 7), (1, 3, 1, 1)),
    ((4, 1, 5, 1), (1, 3, 1, 7)),
    ((2, 1, 2, 1, 3, 1), (1, 2, 1, 2, 1, 17)),
    ((0, 5), (5,)),
    ((5, 0), (5, 1)),
]


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("op", ["sub", "div"])
def test_binary_broadcast(isa, dtype, rng, guarded, shapes, op):
    a, b = (rng.standard_normal(s).astype(dtype) for s in shapes)
    want = BINARY[op](a, b)
    y = guarded(want.shape, dtype)
    binary(op, np.broadcast_to(a, y.shape), np.broadcast_to(b, y.shape), y)
    np.testing.assert_array_equal(y, want)


@st.composite
def operand(draw, shape):
    """An array of `shape` whose axes are broadcast, permuted or stepped through."""
    sizes = [draw(st.sampled_from([1, n])) for n in shape]
    order = draw(st.permutations(range(len(shape))))
    steps = [draw(st.integers(1, 2)) for _ in shape]
    base = np.arange(1, 1 + np.prod([n * s for n, s in zip(sizes, steps, strict=True)]))
    base = base.reshape([sizes[i] * steps[i] for i in order]).transpose(np.argsort(order))
    view = base[tuple(slice(None, None, s) for s in steps)]
    return view, draw(st.sampled_from([np.float32, np.float64]))


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_binary_any_strides(isa, data):
    shape = tuple(data.draw(st.lists(st.integers(0, 9), min_size=1, max_size=6)))
    a, dtype = data.draw(operand(shape))
    b, _ = data.draw(operand(shape))
    # astype(order="K") keeps the permutation but not the steps: index a typed base instead.
    a, b = (np.lib.stride_tricks.as_strided(x.base.astype(dtype), x.shape,
            [s // x.itemsize * np.dtype(dtype).itemsize for s in x.strides])
            if x.base is not None else x.astype(dtype) for x in (a, b))  # fmt: skip
    a, b = np.broadcast_to(a, shape), np.broadcast_to(b, shape)
    y = np.empty(shape, dtype)
    binary("sub", a, b, y)
    np.testing.assert_array_equal(y, a - b)


@pytest.mark.parametrize("n", [1, 17, 40000])
def test_lerp(isa, dtype, rng, guarded, n):
    x, old = rng.standard_normal(n).astype(dtype), rng.standard_normal(n).astype(dtype)
    y = guarded(n, dtype, old)
    _core.call("lerp", bits(dtype), x=x, y=y, n=n, t=0.1, scale=1.25)
    want = 0.9 * old.astype(float) + 0.125 * x.astype(float)
    bound = 4 * np.finfo(dtype).eps * (np.abs(old) + np.abs(x))
    assert np.all(np.abs(y - want) <= bound)


# The curves' formulae, with alpha and beta, against NumPy: see tests/ops; here what shapes cannot show.
CURVES = [name for name, code in _core.UNARY.items() if code >= _core.UNARY["erf"]]


@pytest.mark.parametrize("op", CURVES)
def test_curves_in_chunks_and_in_place(isa, dtype, rng, guarded, op):
    """Each part of a long array as it is alone; NaN stays NaN; dx may be x or dy."""
    x, dy = rng.standard_normal((2, 40003)).astype(dtype)
    x[7] = np.nan
    y, dx = guarded(x.size, dtype), guarded(x.size, dtype)
    fields = {"op": _core.UNARY[op], "alpha": 0.5, "beta": 1.5}
    unary(op, x, y, 0.5, 1.5)
    _core.call("unary_grad", bits(dtype), x=x, dy=dy, dx=dx, n=x.size, **fields)
    assert np.isnan(y[7]) and np.isfinite(np.delete(y, 7)).all()
    for n in (1, 17, 40003):
        part, other = x[-n:].copy(), dy[-n:].copy()
        _core.call("unary_grad", bits(dtype), x=part, dy=other, dx=other, n=n, **fields)
        unary(op, part, part, 0.5, 1.5)
        np.testing.assert_array_equal(part, y[-n:])
        np.testing.assert_array_equal(other, dx[-n:])


def test_threads_do_not_matter(isa, dtype, rng, threads):
    a, b = rng.standard_normal((2, 1000, 301)).astype(dtype)
    results = []
    for n in (1, 2):
        threads(n)
        y, z = np.empty_like(a), np.empty_like(a)
        unary("tanh", a, y)
        binary("add", a, np.broadcast_to(b[0], a.shape), z)
        results.append((y, z))
    assert np.array_equal(results[0], results[1])
