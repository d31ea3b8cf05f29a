"""Layers against PyTorch's numbers, kept by golden/make_layers.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastnn as fn
from fastnn import nn
from fastnn.graph import Array
from fastnn.nn.module import value

RUNS = json.loads((Path(__file__).parent / "golden" / "layers.json").read_text())


def numbers(shape: tuple[int, ...], key: int) -> Array:
    """As in golden/make_layers.py."""
    i = np.arange(np.prod(shape, dtype=int), dtype=np.float64)
    made: Array = ((((2 * key + 37) * i + 11 * key) % 101 - 50) / 16).reshape(shape)
    return made


class Shifted(nn.Module):
    """A layer behind a trainable shift of its input."""

    def __init__(self, layer: nn.Module, shape: tuple[int, ...]) -> None:
        self.x = nn.Parameter(np.zeros(shape))
        self.layer = layer

    def forward(self, x: Any) -> Any:
        return self.layer(x + value(self.x))


@pytest.mark.parametrize("run", RUNS, ids=[f"{r['layer']}-{i}" for i, r in enumerate(RUNS)])
def test_layer_gives_pytorchs_numbers(run: dict[str, Any]) -> None:
    shape = tuple(run["shape"])
    layer = getattr(nn, run["layer"])(**run["options"])
    model = Shifted(layer, shape).double()
    for i, p in enumerate(layer.parameters()):
        p.data = numbers(p.shape, i + 2)
    x, weights = numbers(shape, 0), numbers(tuple(run["output"]), 1)
    y = layer(x)
    assert list(y.shape) == run["output"]
    # Sums of at most some thousand terms of up to ten decimal digits that cancel.
    close = {"rtol": 1e-11, "atol": 1e-9}
    np.testing.assert_allclose((y * weights).sum(), run["dot"], **close)
    _, grads = fn.value_and_grad(model, lambda o, t: (o * t).sum())(x, weights)
    for name, want in run["grads"].items():
        g = grads["x" if name == "x" else f"layer.{name}"]
        np.testing.assert_allclose((g * numbers(g.shape, 1)).sum(), want, **close)
