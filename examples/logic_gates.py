"""AND, OR and XOR: a single neuron learns the first two, XOR takes a hidden layer.

A neuron splits the plane by a straight line; no line has XOR's ones on one side.
"""

from __future__ import annotations

import numpy as np

import fastnn as fn
from fastnn import nn, optim

X = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
GATES = {"AND": [0, 0, 0, 1], "OR": [0, 1, 1, 1], "XOR": [0, 1, 1, 0]}


def neuron() -> nn.Sequential:
    """Two inputs, one output between 0 and 1."""
    return nn.Sequential(nn.Linear(2, 1), nn.Sigmoid())


def hidden_layer() -> nn.Sequential:
    """The same with four hidden neurons."""
    return nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1), nn.Sigmoid())


def learn(model: nn.Sequential, gate: str) -> np.ndarray:
    """Train on the whole table; the model's answers as 0 and 1."""
    y = np.array(GATES[gate], np.float32)[:, None]
    trainer = fn.Trainer(model, nn.MSELoss(), optim.Adam(lr=0.1))
    for _ in range(400):
        trainer.step(X, y)
    return np.round(trainer.predict(X)[:, 0]).astype(int)


def main() -> dict[tuple[str, str], bool]:
    """Print every table that was learned; returns whether it is right."""
    right = {}
    for gate, wanted in GATES.items():
        for make in (neuron, hidden_layer):
            fn.manual_seed(0)
            answers = learn(make(), gate)
            right[gate, make.__name__] = answers.tolist() == wanted
            verdict = "learned" if right[gate, make.__name__] else "not learned"
            print(f"{gate:4}{make.__name__:14}{answers}  {verdict}")
    return right


if __name__ == "__main__":
    main()
