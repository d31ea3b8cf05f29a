"""Metrics against definitions written out in NumPy, over uneven batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastnn as fn
from fastnn import nn, optim
from fastnn.graph import Array
from fastnn.train import metrics

RNG = np.random.default_rng(0)
N = 37


class Given(nn.Module):
    """Returns its input: what is measured is in the test's hands."""

    def __init__(self) -> None:
        self.zero = nn.Parameter(np.zeros(1))

    def forward(self, x: Any) -> Any:
        from fastnn.nn.module import value

        return x + value(self.zero)


def measure(x: Array, y: Array, *wanted: Any, loss: Any = None) -> dict[str, Any]:
    trainer = fn.Trainer(
        Given().to(x.dtype), loss or (lambda o, t: o.mean()), optim.SGD(lr=0.0), metrics=wanted
    )
    result = trainer.evaluate(x, y, batch_size=10)
    history = trainer.fit(x, y, batch_size=10, progress=False)
    for name, value in result.items():  # in training, shuffled, the same
        np.testing.assert_allclose(history[name][0], value, rtol=1e-6)
    return result


def confusion(labels: Array, predicted: Array, classes: int) -> Array:
    table = np.zeros((classes, classes), int)
    for a, b in zip(labels, predicted, strict=True):
        table[a, b] += 1
    return table


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_classes(dtype: str) -> None:
    x = RNG.standard_normal((N, 5)).astype(dtype)
    y = np.where(RNG.random(N) < 0.5, x.argmax(1), RNG.integers(0, 4, N))
    p = x.argmax(1)
    got = measure(x, y, "accuracy", "top3", "confusion_matrix", "precision", "recall", "f1")
    assert got["accuracy"] == np.mean(p == y)
    assert got["top3"] == np.mean([y[i] in np.argsort(-x[i])[:3] for i in range(N)])
    table = confusion(y, p, 5)
    np.testing.assert_array_equal(got["confusion_matrix"], table)
    precision = [np.mean(y[p == c] == c) if np.any(p == c) else 0 for c in range(5)]
    recall = [np.mean(p[y == c] == c) if np.any(y == c) else 0 for c in range(5)]
    f1 = [2 * a * b / (a + b) if a + b else 0 for a, b in zip(precision, recall, strict=True)]
    assert got["precision"] == pytest.approx(np.mean(precision))
    assert got["recall"] == pytest.approx(np.mean(recall))
    assert got["f1"] == pytest.approx(np.mean(f1))


def test_averages() -> None:
    x = RNG.standard_normal((N, 3))
    x[:, 2] = -9  # a class that is neither label nor prediction leaves the macro mean
    y = RNG.integers(0, 2, N)
    p = x.argmax(1)
    averages = ("macro", "micro", "weighted")
    got = measure(x, y, *(metrics.Recall(average=a, name=a) for a in averages))
    recall = np.array([np.mean(p[y == c] == c) for c in (0, 1)])
    assert got["macro"] == pytest.approx(recall.mean())
    assert got["micro"] == got["weighted"] == pytest.approx(np.mean(p == y))
    assert metrics.Precision(average="binary").average == "binary"
    with pytest.raises(ValueError, match="average: expected"):
        metrics.F1(average="mean")


@pytest.mark.parametrize("shape", [(N,), (N, 1)])
@pytest.mark.parametrize("kind", [int, float])
def test_two_classes_by_one_score(shape: Any, kind: Any) -> None:
    x = RNG.standard_normal(N)
    y = (x + RNG.standard_normal(N) > 0).astype(int)
    labels = y.astype(kind).reshape(shape if kind is float else (N,))
    wanted = ("accuracy", "precision", "recall", "f1", "confusion_matrix", "auc")
    got = measure(x.reshape(shape), labels, *wanted)
    p = x > 0
    hits = np.sum(p & (y == 1))
    assert got["accuracy"] == np.mean(p == y)
    assert got["precision"] == pytest.approx(hits / p.sum())
    assert got["recall"] == pytest.approx(hits / y.sum())
    assert got["f1"] == pytest.approx(2 * hits / (p.sum() + y.sum()))
    np.testing.assert_array_equal(got["confusion_matrix"], confusion(y, p.astype(int), 2))
    pairs = x[y == 1][:, None] - x[y == 0]
    assert got["auc"] == pytest.approx(np.mean((pairs > 0) + 0.5 * (pairs == 0)))
    shifted = measure(x.reshape(shape), labels, metrics.Accuracy(threshold=0.5))
    assert shifted["accuracy"] == np.mean((x > 0.5) == y)


def test_labels_at_every_place_and_none_ignored() -> None:
    x = RNG.standard_normal((N, 3, 4))
    y = RNG.integers(0, 3, (N, 4))
    y[RNG.random(y.shape) < 0.3] = -100
    got = measure(x, y, "accuracy", "confusion_matrix")
    counted = y >= 0
    assert got["accuracy"] == pytest.approx(np.mean(x.argmax(1)[counted] == y[counted]))
    assert got["confusion_matrix"].sum() == counted.sum()


def test_auc_counts_ties_half_and_classes_against_the_rest() -> None:
    score = RNG.integers(0, 4, N).astype(float)
    y = RNG.integers(0, 2, N)
    pairs = score[y == 1][:, None] - score[y == 0]
    want = np.mean((pairs > 0) + 0.5 * (pairs == 0))
    assert metrics.auc(score, y) == pytest.approx(want)
    assert metrics.auc(np.stack([np.zeros(N), score], 1), y) == pytest.approx(want)
    x = RNG.standard_normal((N, 3))
    y = RNG.integers(0, 3, N)
    each = [metrics.auc(x[:, c], (y == c).astype(int)) for c in range(3)]
    assert metrics.auc(x, y) == pytest.approx(np.mean(each))
    assert np.isnan(metrics.auc(score, np.ones(N, int)))


@pytest.mark.parametrize("shape", [(N,), (N, 3)])
def test_regression(shape: Any) -> None:
    y = RNG.standard_normal(shape)
    x = y + 0.3 * RNG.standard_normal(shape)
    got = measure(x, y, "mae", "r2", lambda o, t: np.abs(o - t).max())
    assert got["mae"] == pytest.approx(np.abs(x - y).mean())
    spread = ((y - y.mean(0)) ** 2).sum(0)
    assert got["r2"] == pytest.approx(np.mean(1 - ((x - y) ** 2).sum(0) / spread))
    assert got["<lambda>"] == np.abs(x - y).max()


def test_wrong_metrics_are_named() -> None:
    x, y = RNG.standard_normal((N, 3)), RNG.integers(0, 3, N)
    for bad in (("acuracy",), (3,), "accuracy", ("mae", "mae"), ("top0",)):
        with pytest.raises(ValueError, match="metrics: expected"):
            measure(x, y, *bad) if bad != "accuracy" else fn.Trainer(
                Given(), nn.MSELoss(), optim.SGD(), metrics="accuracy"
            )
    with pytest.raises(ValueError, match="accuracy: expected scores"):
        measure(x, x[:, :2], "accuracy")
    with pytest.raises(ValueError, match="mae: expected"):
        measure(x, y, "mae")
    with pytest.raises(ValueError, match="r2: expected"):
        measure(x, y, "r2")
