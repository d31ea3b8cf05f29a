"""Batch norm with given statistics becomes part of its convolution where that is less work."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastnn import nn, ops
from fastnn._core import Memory
from fastnn.graph import input_value
from fastnn.nn.run import Traced
from fastnn.plan.plan import Plan


class Residual(nn.Module):
    """relu(bn(conv(x)) + x)"""

    def __init__(self, bias: bool, affine: bool) -> None:
        self.conv = nn.Conv2d(5, 5, 3, padding=1, bias=bias)
        self.norm = nn.BatchNorm2d(5, affine=affine)
        self.relu = nn.ReLU()

    def forward(self, x: Any) -> Any:
        return self.relu(self.norm(self.conv(x)) + x)


def run(model: nn.Module, x: np.ndarray, debug: bool = False) -> tuple[np.ndarray, list[str]]:
    """The output of a plan, and its kernels."""
    leaf = input_value("x", x.shape, x.dtype)
    output = Traced(model.forward, [leaf], x.dtype).output
    plan = Plan(8 * x.itemsize, Memory(0), debug)
    plan.input(leaf)
    plan.output(output)
    plan.compute()
    plan.build()
    return plan(x)[0], [step.kernel for step in plan.builder.steps]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("affine", [False, True])
def test_folded_norm_computes_the_same(bias: bool, affine: bool) -> None:
    rng = np.random.default_rng(0)
    model = Residual(bias, affine).double().eval()
    model.norm.running_mean.data[...] = rng.standard_normal(5)  # type: ignore[union-attr]
    model.norm.running_var.data[...] = rng.uniform(0.5, 2, 5)  # type: ignore[union-attr]
    for p in model.parameters():
        p.data = rng.standard_normal(p.shape)
    x = rng.standard_normal((3, 5, 6, 7))
    got, kernels = run(model, x)
    want, plain = run(model, x, debug=True)
    assert "bn_apply" in plain and "bn_apply" not in kernels
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)


class Halved(Residual):
    """Its weights are computed at each run."""

    def forward(self, x: Any) -> Any:
        return self.norm(ops.conv2d(x, ops.mul(self.conv.weight, 0.5), padding=1))


@pytest.mark.parametrize(("module", "folded"), [(Residual, True), (Halved, False)])
def test_a_small_image_is_worth_other_weights_only_once(
    module: type[Residual], folded: bool
) -> None:
    kernels = run(module(False, True).double().eval(), np.ones((1, 5, 3, 3)))[1]
    assert ("bn_apply" not in kernels) == folded
