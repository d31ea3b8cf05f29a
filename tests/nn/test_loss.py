"""Losses against PyTorch's values and gradients, by hand where it has none, and at the edges."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastnn as fn
from fastnn import nn, ops
from fastnn.nn.module import value

GOLDEN = Path(__file__).parent / "golden"
MADE = runpy.run_path(str(GOLDEN / "make_losses.py"))
RECORDS = json.loads((GOLDEN / "losses.json").read_text())


class Free(nn.Module):
    """An output that is a parameter, so that the loss's gradient shows."""

    def __init__(self, x: Any) -> None:
        self.x = nn.Parameter(x)

    def forward(self, _: Any) -> Any:
        return value(self.x)


def weigh(loss: Any) -> Any:
    """The golden losses' sum, weighted."""
    return loss if loss.shape == () else (loss * weights(loss.shape)).sum()


def weights(shape: Any) -> Any:
    return np.linspace(0.5, 1.5, int(np.prod(shape))).reshape(shape)


IDS = [f"{name}-{i}" for i, (name, *_) in enumerate(MADE["CASES"])]


@pytest.mark.parametrize("case,want", list(zip(MADE["CASES"], RECORDS, strict=True)), ids=IDS)
def test_pytorchs_values_and_gradients(case: Any, want: Any) -> None:
    name, numbers, shape, kind = case
    module = getattr(nn, name)(**numbers)
    x, t = MADE["inputs"](shape, kind)
    other = (x[:, ::-1] + 0.5,) if name == "CosineEmbeddingLoss" else ()
    loss = module(x, *other, t)
    assert loss.shape == np.shape(np.reshape(want["loss"], loss.shape))
    np.testing.assert_allclose(np.ravel(loss), want["loss"], rtol=1e-12, atol=1e-12)

    def total(output: Any, target: Any) -> Any:
        loss = module(output, *other, target)
        return loss if loss.shape == () and "none" not in numbers.values() else weigh(loss)

    scale = 0.5 if loss.shape == () else 1.0  # linspace(0.5, 1.5, 1)
    got, grads = fn.value_and_grad(Free(x), total)(np.zeros(1), t)
    np.testing.assert_allclose(got, np.sum(loss * (1 if loss.shape == () else weights(loss.shape))))
    want_grad = np.reshape(want["grad"], shape)
    np.testing.assert_allclose(scale * grads["x"], want_grad, rtol=1e-12, atol=1e-12)


def test_the_mean_of_cross_entropy_is_one_call_with_its_gradient() -> None:
    """And the same as by the two calls that a factor on the loss asks for."""
    model, loss = nn.Sequential(nn.Linear(3, 4)), nn.CrossEntropyLoss()
    x, t = np.random.default_rng(0).standard_normal((9, 3)).astype(np.float32), np.arange(9) % 4
    value, grads = fn.value_and_grad(model, loss)(x, t)
    doubled, others = fn.value_and_grad(model, lambda o, t: loss(o, t) * 2.0)(x, t)
    assert doubled == 2 * value
    for name, grad in grads.items():
        np.testing.assert_allclose(others[name], 2 * grad, rtol=1e-5, atol=1e-7)


def test_hinge_by_hand() -> None:
    x, t = np.array([0.3, 2.0, -1.0, 0.5]), np.array([1, 1, 1, -1])
    np.testing.assert_allclose(nn.HingeLoss(reduction="none")(x, t), [0.7, 0, 2, 1.5])
    assert nn.HingeLoss()(x, t) == pytest.approx(4.2 / 4)
    assert nn.HingeLoss(margin=2.0, reduction="sum")(x, t) == pytest.approx(1.7 + 0 + 3 + 2.5)


def test_logits_of_any_size_keep_the_small_losses() -> None:
    x = np.array([800.0, -800.0, 30.0, -30.0])
    t = np.array([1.0, 0.0, 1.0, 0.0])
    small = np.exp(-np.abs(x))
    none = nn.BCEWithLogitsLoss(reduction="none")
    np.testing.assert_allclose(none(x, t), np.log1p(small), rtol=1e-14)
    np.testing.assert_allclose(none(x, 1 - t), np.abs(x) + np.log1p(small), rtol=1e-14)
    weighted = nn.BCEWithLogitsLoss(reduction="none", pos_weight=3.0)
    np.testing.assert_allclose(weighted(x, t), [0, 0, 3 * small[2], small[3]], rtol=1e-12)


def test_zeros_of_probabilities() -> None:
    x, t = np.log([[0.5, 0.25, 0.25]]), np.array([[1.0, 0.0, 0.0]])
    assert nn.KLDivLoss(reduction="batchmean")(x, t) == pytest.approx(np.log(2))
    np.testing.assert_array_equal(ops.xlogy(np.zeros(2), np.array([0.0, 3.0])), 0)


def test_ignored_rows_may_hold_anything() -> None:
    x, t = np.zeros((3, 4), np.float32), np.array([1, -100, 2])
    x[1] = np.nan
    model = Free(x)
    loss, grads = fn.value_and_grad(model, nn.CrossEntropyLoss())(np.zeros(1), t)
    assert loss == pytest.approx(np.log(4))
    assert not grads["x"][1].any() and np.isfinite(grads["x"]).all()
    assert np.isnan(nn.CrossEntropyLoss()(x, np.full(3, -100)))
    assert nn.CrossEntropyLoss(reduction="sum")(x, np.full(3, -100)) == 0


def test_losses_train_a_model_in_its_dtype() -> None:
    """Labels, signs and weights of any dtype meet a float32 model."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 3))
    t = (x[:, 0] > 0).astype(np.int32)
    losses: list[tuple[nn.Module, Any, int]] = [
        (nn.CrossEntropyLoss(weight=[1, 2], label_smoothing=0.1), t, 2),
        (nn.MultiMarginLoss(weight=[1.0, 2.0]), t, 2),
        (nn.BCEWithLogitsLoss(pos_weight=2), t[:, None], 1),
        (nn.HingeLoss(), 2 * t[:, None] - 1, 1),
        (nn.HuberLoss(), x[:, :1], 1),
    ]
    for loss, target, outputs in losses:
        model = nn.Linear(3, outputs)
        trainer = fn.Trainer(model, loss, fn.optim.SGD(lr=0.1))
        history = trainer.fit(x, target, epochs=5, batch_size=8, progress=False)
        assert history["loss"][-1] < history["loss"][0]


X = np.zeros((5, 4))
ERRORS: list[tuple[Any, type[Exception], str]] = [
    (lambda: nn.MSELoss("average"), ValueError, "reduction: expected one of 'mean'"),
    (lambda: nn.MSELoss("batchmean"), ValueError, "reduction"),
    (lambda: nn.CrossEntropyLoss(label_smoothing=1.5), ValueError, "label_smoothing"),
    (lambda: nn.CrossEntropyLoss(weight=["a"]), ValueError, "weight: expected numbers"),
    (lambda: nn.CrossEntropyLoss(weight=[1, 2])(X, np.zeros(5, int)), ValueError, "weight"),
    (lambda: nn.CrossEntropyLoss()(X, np.zeros(4, int)), ValueError, r"expected shape \(5,\)"),
    (lambda: nn.CrossEntropyLoss()(X, np.zeros(5)), TypeError, "expected integers"),
    (lambda: nn.CrossEntropyLoss()(X[0], np.zeros(5, int)), ValueError, r"\(N, C, ...\)"),
    (lambda: nn.CrossEntropyLoss(ignore_index=-1)(X, np.full(5, -100)), ValueError, "label"),
    (lambda: nn.MSELoss()(X, X[:1]), ValueError, "target: expected shape"),
    (lambda: nn.HuberLoss(delta=0), ValueError, "delta"),
    (lambda: nn.SmoothL1Loss(beta=-1), ValueError, "beta"),
    (lambda: nn.MultiMarginLoss(p=3), ValueError, "p: expected 1 or 2"),
    (lambda: nn.BCEWithLogitsLoss(weight=[1, 2])(X, X), ValueError, "cannot be broadcast"),
    (lambda: nn.BCEWithLogitsLoss(weight=np.ones((2, 5, 4)))(X, X), ValueError, "weight"),
    (lambda: nn.CosineEmbeddingLoss()(X, X[:2], X[:, 0]), ValueError, "x1, x2"),
    (lambda: ops.kl_div(X, X, "none!"), ValueError, "reduction"),
]


@pytest.mark.parametrize("call,error,words", ERRORS)
def test_errors_name_the_argument(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()
