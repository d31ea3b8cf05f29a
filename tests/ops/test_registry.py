"""Every op of the registry, by its own examples: against its NumPy reference and central differences.

Forward: float64 against the reference in float64; float32 against the same, on every instruction set.
Gradient: what autodiff builds, against central differences of the op itself in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import fastnn.data.augment  # noqa: F401 - its ops register themselves
from fastnn import _core, ops
from fastnn.autodiff import gradients
from fastnn.graph import input_value, record, tracing
from fastnn.ops.op import REGISTRY, Example
from fastnn.plan.eager import one_op
from fastnn.plan.plan import Plan

Case = tuple[str, int]
CASES = [
    pytest.param(example, id=f"{name}-{i}")
    for name, cls in sorted(REGISTRY.items())
    for i, example in enumerate(cls.examples())
]
HYPER = np.zeros(4)  # step number, seed, learning rate, for ops that draw
STEP = 1e-5  # of the differences: error about STEP**2 from the curve, eps / STEP from rounding


@pytest.fixture(params=_core.isas())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set that this machine has, in turn."""
    before = _core.isa()
    _core.set_isa(request.param)
    yield request.param
    _core.set_isa(before)


def run(op: Any, arrays: list[Any], debug: bool = False) -> tuple[np.ndarray, ...]:
    plan = one_op(op, arrays, debug)
    given = [a for a in arrays if a is not None]
    bound = [np.ascontiguousarray(a, v.dtype) for a, v in zip(given, plan.inputs, strict=True)]
    return plan(*bound, hyper=HYPER)


def outputs(result: Any) -> tuple[np.ndarray, ...]:
    return result if isinstance(result, tuple) else (result,)


def test_every_op_has_examples_or_says_why() -> None:
    without = {name for name, cls in REGISTRY.items() if not list(cls.examples())}
    assert without == {"dropout", "mix_share"}


@pytest.mark.parametrize("example", CASES)
def test_float64_matches_reference(example: Example, isa: str) -> None:
    arrays = example.arrays(np.float64)
    for got, want in zip(
        run(example.op, arrays), outputs(example.op.reference(*arrays)), strict=True
    ):
        # Sums of up to some hundred terms of order 1 and functions good to a few ULP.
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("example", CASES)
def test_float32_matches_float64(example: Example, isa: str) -> None:
    if getattr(example.op, "dtype", "float32") == "float64":
        pytest.skip("an op that is told its dtype")
    arrays = example.arrays(np.float32)
    exact = [
        None if a is None else a.astype(np.float64) if a.dtype.kind == "f" else a for a in arrays
    ]
    for got, want in zip(
        run(example.op, arrays), outputs(example.op.reference(*exact)), strict=True
    ):
        assert got.dtype in (np.float32, np.int32, np.int64)
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("example", CASES)
def test_debug_plan_agrees_bit_for_bit(example: Example) -> None:
    arrays = example.arrays(np.float64)
    fast, debug = run(example.op, arrays), run(example.op, arrays, debug=True)
    for a, b in zip(fast, debug, strict=True):
        np.testing.assert_array_equal(a, b)


def differentiable() -> Iterator[Any]:
    for name, cls in sorted(REGISTRY.items()):
        for i, example in enumerate(cls.examples()):
            if any("grad" in vars(c) for c in cls.__mro__[:-2]) and not is_fused(example):
                yield pytest.param(example, id=f"{name}-{i}")


def is_fused(example: Example) -> bool:
    """Only plans make these nodes, after differentiation."""
    kinds = ("matmul", "conv2d", "conv2d_grad_data", "batch_norm_train", "batch_norm_apply")
    fused = getattr(example.op, "act", "") or len(example.inputs) > 3
    return bool(fused) and example.op.name in kinds


@pytest.mark.parametrize("example", list(differentiable()))
def test_gradient_matches_central_differences(example: Example) -> None:
    arrays = example.arrays(np.float64)
    weights: list[np.ndarray] = []

    def loss_and_grads(with_grads: bool) -> Plan:
        leaves = [None if a is None else input_value("x", a.shape, a.dtype) for a in arrays]
        with tracing():
            node = record(example.op, *leaves)
            y = node.outputs[0]
            if not weights:
                weights.append(np.random.default_rng(3).standard_normal(y.shape))
            loss = ops.sum(ops.mul(y, weights[0]))
            floats = [v for v in leaves if v is not None and v.dtype.kind == "f"]
            grads = gradients(loss, floats) if with_grads else []
        plan = Plan(64, _core.Memory(0))
        for v in leaves:
            if v is not None:
                plan.input(v)
        plan.output(loss)
        for g in grads:
            if g is not None:
                plan.output(g)
        plan.compute()
        plan.build()
        plan.missing = [g is None for g in grads]  # type: ignore[attr-defined]
        return plan

    forward, backward = loss_and_grads(False), loss_and_grads(True)
    given = [np.ascontiguousarray(a).reshape(a.shape) for a in arrays if a is not None]
    _, *grads = backward(*given, hyper=HYPER)
    floats = [a for a in given if a.dtype.kind == "f"]
    rng = np.random.default_rng(4)
    for array, missing in zip(floats, backward.missing, strict=True):  # type: ignore[attr-defined]
        if missing:
            continue  # statistics of an inference-mode batch norm: constants by definition
        grad = grads.pop(0)
        assert grad.shape == array.shape
        direction = rng.choice([-1.0, 1.0], array.shape)
        original = array.copy()
        array[...] = original + STEP * direction
        (up,) = forward(*given, hyper=HYPER)
        array[...] = original - STEP * direction
        (down,) = forward(*given, hyper=HYPER)
        array[...] = original
        numeric = (up - down) / (2 * STEP)
        scale = np.abs(grad).sum() + 1.0
        assert abs(numeric - (grad * direction).sum()) <= 1e-6 * scale
