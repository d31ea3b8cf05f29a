"""AND, OR and XOR: a single neuron learns the first two, XOR takes a hidden layer.

A neuron splits the plane by a straight line; no line has XOR's ones on one side. The perceptron, a
neuron that says 0 or 1 and learns by its mistakes, notices that: its weights go round in a circle.
"""

from __future__ import annotations

import warnings

import numpy as np

import fastnn as fn
from fastnn import nn, optim

X = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
GATES = {"AND": [0, 0, 0, 1], "OR": [0, 1, 1, 1], "XOR": [0, 1, 1, 0]}


def perceptron(gate: str) -> np.ndarray:
    """A threshold unit's answers after its learning rule; what it warns of is printed."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        unit = fn.Perceptron().fit(X, GATES[gate])
    for warning in caught:
        print(warning.message)
    return unit.predict(X)


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
        for name in ("perceptron", "neuron", "hidden_layer"):
            fn.manual_seed(0)
            make = {"neuron": neuron, "hidden_layer": hidden_layer}.get(name)
            answers = learn(make(), gate) if make else perceptron(gate)
            right[gate, name] = answers.tolist() == wanted
            verdict = "learned" if right[gate, name] else "not learned"
            print(f"{gate:4}{name:14}{answers}  {verdict}")
    return right


if __name__ == "__main__":
    main()
