"""Gradient descent with a small, a good and a too large rate, on one plot.

The loss is a parabola's, so that the theory is short: each step multiplies the distance from the
minimum by 1 - 2 * rate, which shrinks only for rates between 0 and 1.
"""

from __future__ import annotations

import sys

import numpy as np

import fastnn as fn
from fastnn import nn, optim

RATES = {"small": 0.03, "good": 0.3, "too large": 1.05}


def descend(rate: float, steps: int = 20) -> list[float]:
    """The loss (w - 3)^2 before each step from w = 0."""
    model = nn.Linear(1, 1, bias=False).double()
    model.load_state_dict({"weight": np.zeros((1, 1))})
    trainer = fn.Trainer(model, nn.MSELoss(), optim.SGD(lr=rate))
    x, target = np.ones((1, 1)), np.full((1, 1), 3.0)
    return [trainer.step(x, target) for _ in range(steps)]


def main(path: str | None = None) -> dict[str, list[float]]:
    """Print the last losses; draw all of them if there is a path (needs the `plot` extra)."""
    losses = {name: descend(rate) for name, rate in RATES.items()}
    for name, values in losses.items():
        print(f"{name:10}rate {RATES[name]:<5} loss {values[0]:.3g} -> {values[-1]:.3g}")
    if path is not None:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5, 3.6), layout="constrained")
        axis = figure.subplots()
        for name, values in losses.items():
            axis.plot(values, marker="o", markersize=3, label=f"{name}, {RATES[name]}")
        axis.set(xlabel="step", ylabel="loss", yscale="log")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        axis.legend()
        figure.savefig(path, dpi=120)
    return losses


if __name__ == "__main__":
    main(*sys.argv[1:2])
