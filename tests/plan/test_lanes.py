"""Few channels: images whose samples are lanes, from layer to layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastnn as fn
from fastnn import _core, nn, ops, optim


class Network(nn.Module):
    """Two convolutions with an activation and pooling after each, then one that reads lanes but
    does not know them."""

    def __init__(self, act: nn.Module, pool: nn.Module) -> None:
        self.conv1 = nn.Conv2d(1, 3, 3, padding=1)
        self.conv2 = nn.Conv2d(3, 4, (3, 2), bias=False)
        self.conv3 = nn.Conv2d(4, 4, 1)
        self.act, self.pool = act, pool
        self.linear = nn.Linear(4, 5)

    def forward(self, x: Any) -> Any:
        x = self.pool(self.act(self.conv1(x)))
        x = self.pool(self.act(self.conv2(x)))
        return self.linear(ops.mean(self.conv3(x) + x, (2, 3)))


def step(start: nn.Module, model: nn.Module, x: Any, y: Any) -> tuple[dict[str, Any], list[str]]:
    """What a step of gradient descent from `start` adds to each parameter, and its kernels."""
    model.load_state_dict(start.state_dict())
    trainer = fn.Trainer(model, nn.CrossEntropyLoss(reduction="sum"), optim.SGD(0.01))
    trainer.step(x, y)
    (plan,) = trainer._step_plans.values()
    change = {k: v - start.state_dict()[k] for k, v in model.state_dict().items()}
    return change, [s.kernel for s in plan.plan.builder.steps]


@pytest.mark.parametrize("act", [nn.ReLU, nn.Tanh, nn.GELU])
@pytest.mark.parametrize(
    "pool", [nn.MaxPool2d(2), nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(2)], ids=["max2", "max3", "avg"]
)
def test_lanes_compute_what_single_samples_do(
    request: pytest.FixtureRequest, act: type[nn.Module], pool: nn.Module
) -> None:
    """Gradients of a sum add up, and a sample less is no whole number of vectors."""
    rng = np.random.default_rng(0)
    n = 2 * _core.lanes(64)
    x, y = rng.standard_normal((n, 1, 11, 12)), rng.integers(0, 5, n)
    start, model = (Network(act(), pool).double() for _ in range(2))
    parts = [slice(None), slice(0, n - 1), slice(n - 1, n)]
    outputs = [start(x[part]) for part in parts]
    np.testing.assert_allclose(outputs[0], np.concatenate(outputs[1:]), rtol=1e-12, atol=1e-14)
    (whole, kernels), (most, plain), (last, _) = (step(start, model, x[p], y[p]) for p in parts)
    pooled = act is nn.ReLU and "max2" in request.node.name
    expected = set()
    if act is not nn.GELU and _core.lanes(64) >= 4:  # the first convolution's 3 channels fit
        expected = {"lanes_conv_pool" if pooled else "lanes_conv", "lanes_conv_bwd_weight"}
    if expected and _core.lanes(64) >= 2 * 3:  # the second one's, whose gradient goes on
        expected.add("lanes_conv")
    assert {k for k in kernels if k.startswith("lanes_conv")} == expected
    assert not any(k.startswith("lanes") for k in plain)
    for name, change in whole.items():
        np.testing.assert_allclose(change, most[name] + last[name], rtol=1e-10, atol=1e-14)
