"""When a training plan does what, and that it copies nothing twice."""

from __future__ import annotations

import numpy as np

import fastnn as fn
from fastnn import nn, optim


def steps(model: nn.Module, x: np.ndarray, capsys) -> list[tuple[str, str, str]]:
    """(kernel, op, shape) of a training step's plan, in order, from what print_plan says."""
    trainer = fn.Trainer(model, nn.MSELoss(), optim.SGD(lr=0.1))
    trainer.print_plan(x, model(x))
    lines = capsys.readouterr().out.splitlines()[1:-1]
    return [(line[6:22].strip(), line[22:44].strip(), line[44:66].strip()) for line in lines]


def test_an_input_is_brought_into_order_once(capsys) -> None:
    """For the convolution and for its weights' gradient."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(32, 5))
    done = steps(model, np.zeros((4, 3, 4, 4), np.float32), capsys)
    assert [op for kernel, op, shape in done if (kernel, shape) == ("copy", "4x3x4x4")] == [
        "conv2d"
    ]


def test_a_layers_gradients_follow_each_other(capsys) -> None:
    """Its weights' while dy is in the caches, and so that the memory of dy is soon free."""
    convs = nn.Conv2d(3, 24, 3), nn.Conv2d(24, 24, 3), nn.Conv2d(24, 9, 3)
    model = nn.Sequential(convs[0], nn.Tanh(), convs[1], nn.Tanh(), convs[2])
    ops = [op for _, op, _ in steps(model, np.zeros((2, 3, 9, 9), np.float32), capsys)]
    passes = [op for op, before in zip(ops[1:], ops, strict=False) if op != before]
    weight, data = "conv2d_grad_weight", "conv2d_grad_data"
    assert [op for op in passes if op in (weight, data)] == [weight, data, weight, data, weight]
