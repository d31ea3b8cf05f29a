"""Activation modules: PyTorch's arguments and defaults, by hand; gradients in a layer of their own."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import fastnn as fn
from fastnn import nn, ops

X = np.array([-30.0, -4.0, -2.0, -0.5, 0.0, 0.5, 2.0, 4.0, 30.0])


def erf_part(x: float) -> float:
    return x * (1 + math.erf(x / math.sqrt(2))) / 2


BY_HAND: list[tuple[nn.Module, Any]] = [
    (nn.Threshold(0.5, 20.0), lambda x: x if x > 0.5 else 20.0),
    (nn.Heaviside(), lambda x: float(x >= 0)),
    (nn.Heaviside(0.5), lambda x: 0.5 if x == 0 else float(x > 0)),
    (nn.ReLU6(), lambda x: min(max(x, 0), 6)),
    (nn.Hardtanh(-2.0, 3.0), lambda x: min(max(x, -2), 3)),
    (nn.LeakyReLU(), lambda x: x if x > 0 else 0.01 * x),
    (nn.LeakyReLU(0.3), lambda x: x if x > 0 else 0.3 * x),
    (nn.PReLU(), lambda x: x if x > 0 else 0.25 * x),
    (nn.ELU(2.0), lambda x: x if x > 0 else 2 * math.expm1(x)),
    (nn.SELU(), lambda x: 1.0507009873554805 * (x if x > 0 else 1.6732632423543772 * math.expm1(x))),
    (nn.GELU(), erf_part),
    (nn.SiLU(), lambda x: x / (1 + math.exp(-x))),
    (nn.Mish(), lambda x: x * math.tanh(math.log1p(math.exp(x)))),
    (nn.Softplus(), lambda x: math.log1p(math.exp(x))),
    (nn.Softplus(2.0, 3.0), lambda x: x if 2 * x > 3 else math.log1p(math.exp(2 * x)) / 2),
    (nn.Softsign(), lambda x: x / (1 + abs(x))),
    (nn.Hardsigmoid(), lambda x: min(max(x + 3, 0), 6) / 6),
    (nn.Hardswish(), lambda x: x * min(max(x + 3, 0), 6) / 6),
]  # fmt: skip


@pytest.mark.parametrize("module,scalar", BY_HAND, ids=[repr(m) for m, _ in BY_HAND])
def test_values(module: nn.Module, scalar: Any) -> None:
    module.to("float64")
    np.testing.assert_allclose(module(X), [scalar(x) for x in X], rtol=1e-14, atol=1e-15)


def test_prelu_learns_a_slope_for_each_channel() -> None:
    """weight's gradient is the sum of dy * x below 0, over all but the channel."""
    module = nn.PReLU(3, init=0.1).to("float64")
    x, t = np.random.default_rng(0).standard_normal((2, 4, 3, 5, 2))
    loss, grads = fn.value_and_grad(module, lambda y, t: (y * t).sum())(x, t)
    slopes = np.full(3, np.float32(0.1), float).reshape(1, 3, 1, 1)
    np.testing.assert_allclose(loss, (np.where(x > 0, x, slopes * x) * t).sum(), rtol=1e-12)
    want = (np.minimum(x, 0) * t).sum((0, 2, 3))
    np.testing.assert_allclose(grads["weight"], want, rtol=1e-12)
    assert list(module.state_dict()) == ["weight"]


def test_softmax_over_any_dimension() -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 4))
    want = np.exp(x) / np.exp(x).sum(1, keepdims=True)
    np.testing.assert_allclose(nn.Softmax(dim=1)(x), want, rtol=1e-13)
    np.testing.assert_allclose(nn.LogSoftmax(dim=1)(x), np.log(want), rtol=1e-12)


ERRORS: list[tuple[Any, str]] = [
    (lambda: nn.GELU("erf"), "approximate: expected 'none' or 'tanh'"),
    (lambda: nn.Softplus(beta=0.0), "beta: expected a positive"),
    (lambda: nn.Hardtanh(1.0, -1.0), "max_val: expected more than 1.0"),
    (lambda: nn.PReLU(0), "num_parameters"),
    (lambda: nn.PReLU(4)(np.zeros((2, 3))), r"weight: expected shape \(1,\) or \(3,\)"),
    (lambda: nn.Softmax(3)(np.zeros((2, 3))), "dim: expected one of 2"),
    (lambda: ops.prelu(np.zeros(3), np.zeros((1, 1))), "weight"),
]


@pytest.mark.parametrize("call,words", ERRORS)
def test_errors_name_the_argument(call: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()
