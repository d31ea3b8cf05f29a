"""A layer, a loss and a kernel of one's own.

The kernel is a pair of Python functions over arrays; with the `numba` extra they become machine code
that runs inside the plan. Its gradient is checked against central differences first.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import fastnn as fn
from fastnn import data, nn, ops, optim


def swish(x: Any, y: Any, beta: float = 1.0) -> None:
    """y = x / (1 + exp(-beta x))."""
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            y[i, j] = x[i, j] / (1.0 + math.exp(-beta * x[i, j]))


def swish_gradient(x: Any, y: Any, dy: Any, dx: Any, beta: float) -> None:
    """dx = dy (s + beta y (1 - s)) with s the sigmoid of beta x."""
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            s = 1.0 / (1.0 + math.exp(-beta * x[i, j]))
            dx[i, j] = dy[i, j] * (s + beta * y[i, j] * (1.0 - s))


def error_of_gradient(op: Any) -> float:
    """The largest difference between the op's gradient and central differences, in float64."""
    model = nn.Linear(3, 3).double()
    model.load_state_dict({"weight": np.eye(3), "bias": np.zeros(3)})
    point = np.random.default_rng(0).standard_normal((1, 3))
    _, grads = fn.value_and_grad(model, lambda y, t: ops.sum(op(y, beta=1.5)))(point, point)
    step = 1e-6
    numeric = (op(point + step, beta=1.5) - op(point - step, beta=1.5)) / (2 * step)
    return float(np.abs(grads["bias"] - numeric[0]).max())


class Gate(nn.Module):
    """A layer: the kernel on a linear map, with a gain that is learned."""

    def __init__(self, inputs: int, outputs: int, op: Any) -> None:
        self.linear = nn.Linear(inputs, outputs)
        self.gain = nn.Parameter(np.ones(outputs, np.float32))
        self.op = op

    def forward(self, x: Any) -> Any:
        return self.op(self.linear(x), beta=1.5) * self.gain


def log_cosh(output: Any, target: Any) -> Any:
    """A loss: mean log cosh of the errors, written with ops."""
    error = output - target
    return ops.mean(ops.log(ops.exp(error) + ops.exp(-error)) - math.log(2.0))


def main(compile: bool | None = None) -> tuple[float, float]:
    """Check the gradient and train on digits' one-hot labels; returns error and test accuracy."""
    op = fn.custom_op(swish, swish_gradient, compile=compile)
    error = error_of_gradient(op)
    (x, y), (xt, yt) = d = data.digits()
    fn.manual_seed(0)
    model = nn.Sequential(
        nn.Normalize(d.mean, d.std, d.scale), nn.Flatten(), Gate(64, 32, op), nn.Linear(32, 10)
    )
    trainer = fn.Trainer(model, log_cosh, optim.Adam(lr=1e-2))
    trainer.fit(x, np.eye(10, dtype=np.float32)[y], epochs=3, batch_size=64, progress=False)
    accuracy = float((trainer.predict(xt).argmax(1) == yt).mean())
    print(f"gradient right to {error:.1e}, test accuracy {accuracy:.3f}")
    return error, accuracy


if __name__ == "__main__":
    main()
