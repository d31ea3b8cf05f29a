"""Batch norms that share their work with neighbours: moments from the convolution before, and results
computed where convolutions and pooling read them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from fastnn import nn
from fastnn._core import Memory
from fastnn.graph import input_value
from fastnn.ops.conv_algorithm import conv_algorithm, set_conv_algorithm
from fastnn.plan.plan import Plan
from fastnn.train.grad import Differentiated


@pytest.fixture
def winograd() -> Iterator[None]:
    """For convolutions too small for it to pay."""
    before = conv_algorithm()
    set_conv_algorithm("winograd")
    yield
    set_conv_algorithm(before)


Shared = list[tuple[bool, bool]]


def gradients(
    model: nn.Module, x: np.ndarray, debug: bool = False
) -> tuple[list[np.ndarray], Shared, list[bool]]:
    """Loss and gradients of a training plan; of each batch norm, whether it was given moments and
    whether it left its output to the readers; of each one's gradient, whether it was given sums."""
    inputs = {"x": input_value("x", x.shape, x.dtype), "y": input_value("y", (len(x),), np.int64)}
    parts = Differentiated(model, nn.CrossEntropyLoss(), inputs)
    plan = Plan(8 * x.itemsize, Memory(0), debug)
    for leaf in inputs.values():
        plan.input(leaf)
    for value in (parts.loss, *(g for _, _, g in parts.pairs() if g is not None)):
        plan.output(value)
    plan.compute()
    plan.build()
    fields = {"bn_fwd": [], "bn_bwd": []}
    for step in plan.builder.steps:
        fields.get(step.kernel, []).append(step.fields)
    norms = [(f["moments"] is not None, f["y"] is None) for f in fields["bn_fwd"]]
    sums = [f["sums"] is not None for f in fields["bn_bwd"]]
    return list(plan(x, np.arange(len(x)) % 3)), norms, sums


def check(model: nn.Module, x: np.ndarray, shared: Shared, summed: list[bool]) -> None:
    """That plain and sharing plans agree."""
    got, *done = gradients(model, x)
    want, *plain = gradients(model, x, debug=True)
    assert done == [shared, summed]
    assert plain == [[(False, False)] * len(shared), [False] * len(shared)]
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9 * np.abs(b).max())


def block(c: int, k: int) -> list[nn.Module]:
    return [nn.Conv2d(c, k, 3, padding=1, bias=False), nn.BatchNorm2d(k), nn.ReLU()]


def images(channels: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((6, channels, 9, 8))


def test_between_convolutions_and_before_pooling(winograd: None) -> None:
    last = nn.MaxPool2d(2), nn.Flatten(), nn.Linear(33 * 4 * 4, 3)
    model = nn.Sequential(*block(3, 17), *block(17, 33), *last).double()
    check(model, images(3), [(True, True), (True, True)], [False, True])


def test_one_that_others_read_too_is_written(winograd: None) -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            self.first, self.second = nn.Sequential(*block(3, 20)), nn.Sequential(*block(20, 20))
            self.head = nn.Sequential(nn.Flatten(), nn.Linear(20 * 9 * 8, 3))

        def forward(self, x):
            y = self.first(x)
            return self.head(y + self.second(y))

    check(Both().double(), images(3), [(True, False), (True, False)], [False, False])


def test_direct_convolutions_want_it_written() -> None:
    strided = nn.Conv2d(20, 24, 3, stride=2), nn.Flatten(), nn.Linear(24 * 4 * 3, 3)
    model = nn.Sequential(*block(3, 20), *strided).double()
    check(model, images(3), [(True, False)], [False])


def test_1x1_convolutions_find_moments_where_they_are_wanted() -> None:
    model = nn.Sequential(
        *(nn.Conv2d(6, 20, 1, bias=False), nn.BatchNorm2d(20), nn.ReLU(), nn.Conv2d(20, 5, 1)),
        *(nn.Flatten(), nn.Linear(5 * 9 * 8, 3)),
    ).double()
    check(model, images(6), [(True, False)], [False])


def test_depthwise_convolutions_find_no_moments() -> None:
    model = nn.Sequential(
        *(nn.Conv2d(6, 6, 3, groups=6), nn.BatchNorm2d(6), nn.Tanh()),
        *(nn.Flatten(), nn.Linear(6 * 7 * 6, 3)),
    ).double()
    check(model, images(6), [(False, False)], [False])


@pytest.mark.parametrize("size", [8, 9])
def test_pooling_before_it_on_the_way_back(winograd: None, size: int) -> None:
    """Images of even sizes: the gradient of the whole image is never written."""
    model = nn.Sequential(*block(3, 17), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(17 * 16, 3))
    x = images(3)[:, :, :size].copy()
    check(model.double(), x, [(True, True)], [] if size == 8 else [False])
