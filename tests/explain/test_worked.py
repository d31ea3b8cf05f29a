"""backprop's page: its numbers against the formulas in NumPy, and against the pages in docs/."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest

from fastnn import nn, ops
from fastnn.explain import backprop

WEIGHTS = {
    "0.weight": np.array([[0.15, 0.2], [0.25, 0.3]]),
    "0.bias": np.array([0.35, 0.35]),
    "2.weight": np.array([[0.4, 0.45]]),
    "2.bias": np.array([0.6]),
}


@pytest.fixture
def model():
    model = nn.Sequential(nn.Linear(2, 2), nn.Sigmoid(), nn.Linear(2, 1), nn.Sigmoid()).double()
    model.load_state_dict(WEIGHTS)
    return model


def by_hand(x, t, lr):
    """The step for the 2-2-1 network, formula by formula."""
    w1, b1, w2, b2 = WEIGHTS.values()
    a1 = 1 / (1 + np.exp(-(w1 @ x + b1)))
    a2 = 1 / (1 + np.exp(-(w2 @ a1 + b2)))
    d2 = (a2 - t) * a2 * (1 - a2)
    d1 = (w2.T @ d2) * a1 * (1 - a1)
    new = [w1 - lr * np.outer(d1, x), b1 - lr * d1, w2 - lr * np.outer(d2, a1), b2 - lr * d2]
    return 0.5 * float((a2 - t) @ (a2 - t)), dict(zip(WEIGHTS, new, strict=True))


def test_new_weights_and_loss_are_those_of_the_formulas(model, capsys):
    x, t = np.array([0.05, 0.1]), np.array([0.01])
    new = backprop(model, x, t, lr=0.5, digits=10)
    error, wanted = by_hand(x, t, 0.5)
    for name, array in wanted.items():
        np.testing.assert_allclose(new[name], array, rtol=1e-12, err_msg=name)
    assert f"= {error:.10g}\n" in capsys.readouterr().out
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, WEIGHTS[name])


def test_every_line_with_an_equals_sign_comes_out(model, capsys):
    """What stands between two equals signs has one value, computed from the page alone."""
    backprop(model, [0.05, -0.1], [0.01], digits=12)
    checked = 0
    for line in capsys.readouterr().out.splitlines():
        parts = [p.strip() for p in line.split("=")[1:]] if line.startswith("  ") else []
        sums = [p for p in parts if re.fullmatch(r"[-+*/ ().\d\[\]^e]+", p)]
        for left, right in pairwise(sums):
            values = [eval(p.replace("^", "**").replace("1/2 [", "0.5*(").replace("]", ")"))
                      for p in (left, right)]  # fmt: skip
            assert values[0] == pytest.approx(values[1], rel=1e-9), line
            checked += 1
    assert checked == 25


def test_another_loss_and_wrong_arguments(model, capsys):
    new = backprop(model, [0.05, 0.1], [0.01], loss=lambda o, t: ops.mean(ops.abs(o - t)))
    assert new["2.weight"].shape == (1, 2)
    assert "a2_1 - t1" not in capsys.readouterr().out
    with pytest.raises(TypeError, match=r"model: expected an nn\.Sequential, got Linear"):
        backprop(nn.Linear(2, 1), [1, 2], [1])
    with pytest.raises(ValueError, match=r"x, y: expected one sample each"):
        backprop(model, [[1, 2]], [1])
    with pytest.raises(ValueError, match=r"y: expected shape \(1,\), got \(2,\)"):
        backprop(model, [1, 2], [1, 2])
