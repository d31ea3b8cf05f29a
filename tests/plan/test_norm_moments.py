"""A batch norm after a convolution takes the moments that the convolution found."""

from __future__ import annotations

import numpy as np
import pytest

from fastnn import nn, ops
from fastnn._core import Memory
from fastnn.graph import input_value
from fastnn.nn.run import Traced
from fastnn.plan.plan import Plan


def run(model: nn.Module, x: np.ndarray, debug: bool = False) -> tuple[np.ndarray, list[bool]]:
    """The output of a training plan, and whether each batch norm was given moments."""
    leaf = input_value("x", x.shape, x.dtype)
    plan = Plan(8 * x.itemsize, Memory(0), debug)
    plan.input(leaf)
    plan.output(Traced(model.forward, [leaf], x.dtype).output)
    plan.compute()
    plan.build()
    norms = [step for step in plan.builder.steps if step.kernel == "bn_fwd"]
    return plan(x)[0], [step.fields["moments"] is not None for step in norms]


@pytest.mark.parametrize("algorithm", ["direct", "winograd"])
def test_computes_the_same(algorithm: str) -> None:
    model = nn.Sequential(
        *(nn.Conv2d(3, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU()),
        *(nn.Conv2d(24, 40, 3, bias=False), nn.BatchNorm2d(40)),
    ).double()
    x = np.random.default_rng(0).standard_normal((4, 3, 9, 8))
    before = ops.conv_algorithm.conv_algorithm()
    ops.conv_algorithm.set_conv_algorithm(algorithm)
    try:
        got, given = run(model, x)
        want, plain = run(model, x, debug=True)
    finally:
        ops.conv_algorithm.set_conv_algorithm(before)
    assert given == [True, True] and plain == [False, False]
    np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-11)


def test_not_where_the_convolution_cannot() -> None:
    model = nn.Sequential(nn.Conv2d(6, 6, 3, groups=6), nn.BatchNorm2d(6)).double()
    x = np.random.default_rng(0).standard_normal((4, 6, 9, 8))
    got, given = run(model, x)
    assert given == [False]
    np.testing.assert_allclose(got, run(model, x, debug=True)[0], rtol=1e-12, atol=1e-12)
