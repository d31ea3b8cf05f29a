"""Attributions against what they must be: derivatives, sums that come out, places that are known."""

from __future__ import annotations

import numpy as np
import pytest

import fastnn as fn
from fastnn import nn
from fastnn.explain import grad_cam, integrated_gradients, occlusion, saliency


@pytest.fixture
def model():
    fn.manual_seed(0)
    return nn.Sequential(
        nn.Normalize([0.5], [0.5]),
        nn.Conv2d(1, 4, 3, padding=1),
        nn.Tanh(),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(4 * 36, 3),
    ).double()


@pytest.fixture
def x():
    return np.random.default_rng(0).integers(0, 256, (2, 1, 6, 6), np.uint8)


def score(model, x, target):
    model.eval()
    result = model(x)[:, target].copy()
    model.train()
    return result


def test_saliency_is_the_derivative(model, x):
    found = saliency(model, x, 1)
    step = 1e-4
    for row, column in ((0, 0), (2, 3), (5, 5)):
        up, down = x.astype(np.float64), x.astype(np.float64)
        up[:, 0, row, column] += step
        down[:, 0, row, column] -= step
        slope = (score(model, up, 1) - score(model, down, 1)) / (2 * step)
        np.testing.assert_allclose(found[:, 0, row, column], np.abs(slope), rtol=1e-6)
    assert model.training


def test_integrated_gradients_sum_to_the_difference(model, x):
    difference = score(model, x, 2) - score(model, np.full_like(x, 7), 2)
    found = integrated_gradients(model, x, 2, baseline=7, steps=200)
    # The midpoint rule's error falls with the square of the number of points.
    np.testing.assert_allclose(found.sum((1, 2, 3)), difference, rtol=1e-3)


def test_the_predicted_class_is_the_default(model, x):
    model.eval()
    predicted = model(x).argmax(1)
    np.testing.assert_array_equal(saliency(model, x), saliency(model, x, predicted))


def test_grad_cam_of_a_linear_head_is_its_weighted_sum():
    """Over one pixel a channel, the gradient's mean is the head's weight times the pooling's."""
    model = nn.Sequential(
        nn.Conv2d(1, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2)
    )
    model.double()
    x = np.random.default_rng(0).standard_normal((3, 1, 4, 4))
    state = model.state_dict()
    inner = x * state["0.weight"].reshape(1, 2, 1, 1) + state["0.bias"].reshape(1, 2, 1, 1)
    weights = state["3.weight"][1] / 16
    wanted = np.maximum((inner * weights.reshape(1, 2, 1, 1)).sum(1), 0)
    np.testing.assert_allclose(grad_cam(model, x, 1), wanted, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(grad_cam(model, x, 1, "0"), wanted, rtol=1e-10, atol=1e-14)


def test_occlusion_of_a_linear_model_is_its_weight_times_the_pixel():
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).double()
    x = np.random.default_rng(0).standard_normal((3, 1, 4, 4))
    wanted = x[:, 0] * model.state_dict()["1.weight"][1].reshape(4, 4)
    np.testing.assert_allclose(occlusion(model, x, 1, window=1), wanted, rtol=1e-9, atol=1e-12)
    assert np.ptp(occlusion(model, x, 1, window=4), (1, 2)).max() == 0  # one window covers all


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, x: saliency(m, x, 3), "target: expected classes from 0 to 2, got 3"),
        (lambda m, x: saliency(m, x, 0.5), "target: expected classes"),
        (lambda m, x: integrated_gradients(m, x, steps=0), "steps: expected a positive int"),
        (lambda m, x: occlusion(m, x, window=9), "expected a window of 1 to 6"),
        (lambda m, x: grad_cam(m, x, layer="nine"), "layer: expected one of"),
        (lambda m, x: grad_cam(m, x, layer=nn.ReLU()), "layer: the model's forward does not call"),
        (lambda m, x: grad_cam(m, x, layer="5"), "expected an output"),
        (lambda m, x: grad_cam(nn.Linear(2, 2), np.ones((3, 2))), "expected images"),
        (lambda m, x: saliency(m[1], x), "model: expected scores"),
    ],
)
def test_wrong_arguments_are_named(model, x, call, message):
    with pytest.raises(ValueError, match=message):
        call(model, x)
