"""Pictures of models: what they show, read back from matplotlib's figures."""

from __future__ import annotations

import numpy as np
import pytest

import fastnn as fn
from fastnn import nn, plot

pytest.importorskip("matplotlib")


@pytest.fixture
def model():
    fn.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 5, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(320, 3))


def shown(figure):
    """The arrays of the images in a figure."""
    return [np.asarray(i.get_array()) for axis in figure.axes for i in axis.get_images()]


def test_confusion_matrix_shows_counts_and_parts(tmp_path):
    counts = np.array([[8, 2], [0, 0]])
    figure = plot.confusion_matrix(counts, ["cat", "dog"], tmp_path / "c.png")
    axis, bar = figure.axes
    assert bar.get_ylabel() == "part of the true class"
    assert [t.get_text() for t in axis.texts] == ["8", "2"]
    assert [t.get_text() for t in axis.get_yticklabels()] == ["cat", "dog"]
    np.testing.assert_allclose(shown(figure)[0], [[0.8, 0.2], [0, 0]])
    assert (tmp_path / "c.png").read_bytes()[:4] == b"\x89PNG"


def test_filters_are_the_weights(model):
    tiles = shown(plot.filters(model[0]))
    np.testing.assert_array_equal(tiles, model.state_dict()["0.weight"][:, 0])


def test_feature_maps_are_the_layers_output(model):
    x = np.random.default_rng(0).standard_normal((1, 8, 8)).astype(np.float32)
    wanted = nn.Sequential(model[0], model[1])(x[None])[0]
    for layer in ("1", model[1]):
        figure = plot.feature_maps(model, x, layer)
        np.testing.assert_allclose(shown(figure), wanted, rtol=1e-5)
        scales = {i.get_clim() for axis in figure.axes for i in axis.get_images()}
        assert len(scales) == 1 and figure.axes[-1].get_ylabel() == "activation"


def test_mistakes_come_with_the_most_confident_first():
    x = np.arange(4.0).reshape(4, 1, 1, 1) * np.ones((1, 1, 2, 2))
    scores = np.log([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.05, 0.95]])
    figure = plot.mistakes(x, np.array([1, 1, 0, 0]), scores, ["a", "b"])
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert titles == ["b (95%)\nis a", "a (90%)\nis b", "b (60%)\nis a"]
    assert [tile.flat[0] for tile in shown(figure)] == [1.0, 0.0, 2 / 3]


def test_curves_stand_in_rows_with_validation_in_the_same_panel():
    history = fn.History()
    for value in (2.0, 1.0):
        history.append({"loss": value, "val_loss": value, "mae": value, "r2": 0.5, "auc": 0.5}, 1.0)
    panels = [axis for axis in history.plot().axes if axis.axison]
    assert [axis.get_ylabel() for axis in panels] == ["loss", "mae", "r2", "auc"]
    assert [line.get_label() for line in panels[0].lines] == ["training", "validation"]
    assert panels[0].get_position().y0 > panels[3].get_position().y0
    np.testing.assert_array_equal(panels[0].lines[0].get_xydata(), [[1, 2], [2, 1]])


def test_wrong_arguments_are_named(model):
    x = np.ones((1, 8, 8), np.float32)
    for call, message in (
        (lambda: plot.confusion_matrix(np.ones((2, 3))), r"matrix: expected shape \(C, C\)"),
        (lambda: plot.confusion_matrix(np.ones((2, 2)), ["a"]), "classes: expected 2 names, got 1"),
        (lambda: plot.filters(nn.Linear(2, 2)), "layer: expected a module with a weight"),
        (lambda: plot.feature_maps(model, x, "9"), "layer: the model has none called '9'"),
        (lambda: plot.feature_maps(model, x, "3"), "layer: expected an output"),
        (lambda: plot.mistakes(x, [0], [[1, 2]]), "x: expected images"),
        (lambda: plot.mistakes(x[None], [0, 1], [[1, 2]]), "y, scores: expected 1 rows"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
