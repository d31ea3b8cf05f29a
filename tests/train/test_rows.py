"""What belongs to each row beside x and y: weights of the loss, lengths of sequences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastnn as fn
from fastnn import nn, ops, optim
from fastnn.graph import Array

RNG = np.random.default_rng(0)
X = RNG.standard_normal((21, 4))
Y = RNG.integers(0, 3, 21)
W = RNG.uniform(0, 2, 21)
L = RNG.integers(1, 5, 21)


def linear(loss: Any = None, lr: float = 0.5) -> fn.Trainer:
    fn.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 3)).double()
    return fn.Trainer(model, loss or nn.CrossEntropyLoss(), optim.SGD(lr=lr))


def losses(trainer: fn.Trainer, x: Array, y: Array) -> Array:
    z = trainer.predict(x)
    result: Array = np.log(np.exp(z).sum(1)) - z[np.arange(len(y)), y]
    return result


def weighted_gradient(trainer: fn.Trainer, x: Array, y: Array, w: Array) -> Array:
    z = trainer.predict(x)
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    p[np.arange(len(y)), y] -= 1
    result: Array = (p * (w / w.sum())[:, None]).T @ x
    return result


@pytest.mark.parametrize(
    "loss",
    [nn.CrossEntropyLoss(), ops.cross_entropy, lambda o, t: ops.cross_entropy(o, t, "none")],
    ids=["module", "function with reduction", "one a row"],
)
def test_weighted_step(loss: Any) -> None:
    trainer = linear(loss)
    before = trainer.model.state_dict()["0.weight"]
    want = np.average(losses(trainer, X, Y), weights=W)
    grad = weighted_gradient(trainer, X, Y, W)
    assert trainer.step(X, Y, sample_weight=W) == pytest.approx(want, rel=1e-12)
    after = trainer.model.state_dict()["0.weight"]
    np.testing.assert_allclose(before - after, 0.5 * grad, rtol=1e-9, atol=1e-13)


def test_fit_and_evaluate_weigh_the_mean_over_uneven_batches() -> None:
    trainer = linear(lr=0.0)
    want = np.average(losses(trainer, X, Y), weights=W)
    history = trainer.fit(
        X, Y, sample_weight=W, batch_size=8, validation_data={"x": X, "y": Y, "sample_weight": W},
        progress=False,
    )  # fmt: skip
    assert history["loss"][0] == pytest.approx(want, rel=1e-12)
    assert history["val_loss"][0] == pytest.approx(want, rel=1e-12)
    result = trainer.evaluate(X, Y, batch_size=5, sample_weight=W)
    assert result["loss"] == pytest.approx(want, rel=1e-12)


def test_fit_with_weights_is_steps_with_weights() -> None:
    one, two = linear(), linear()
    one.fit(X, Y, sample_weight=W, batch_size=8, shuffle=False, progress=False)
    for i in (0, 8, 16):
        two.step(X[i : i + 8], Y[i : i + 8], sample_weight=W[i : i + 8])
    for name, want in two.model.state_dict().items():
        np.testing.assert_array_equal(one.model.state_dict()[name], want)


def test_equal_weights_and_none_agree_and_zeros_do_nothing() -> None:
    one, two = linear(), linear()
    assert one.step(X, Y) == pytest.approx(two.step(X, Y, sample_weight=np.full(21, 3.0)))
    before = one.model.state_dict()["0.weight"]
    assert one.step(X, Y, sample_weight=np.zeros(21)) == 0
    np.testing.assert_array_equal(one.model.state_dict()["0.weight"], before)


def test_sum_reduction_stays_a_sum() -> None:
    trainer = linear(nn.CrossEntropyLoss(reduction="sum"))
    want = (W * losses(trainer, X, Y)).sum()
    assert trainer.step(X, Y, sample_weight=W) == pytest.approx(want, rel=1e-12)


def test_losses_of_many_numbers_a_row_are_averaged() -> None:
    fn.manual_seed(0)
    trainer = fn.Trainer(nn.Linear(4, 3).double(), nn.MSELoss(), optim.SGD(lr=0.0))
    t = RNG.standard_normal((21, 3))
    want = np.average(((trainer.predict(X) - t) ** 2).mean(1), weights=W)
    assert trainer.step(X, t, sample_weight=W) == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize("given", ["balanced", {0: 2.0, 2: 0.5}, [2.0, 1.0, 0.5]])
def test_class_weight_is_the_weight_of_each_row(given: Any) -> None:
    table = [2.0, 1.0, 0.5] if given != "balanced" else 21 / (3 * np.bincount(Y))
    one, two = linear(), linear()
    one.fit(X, Y, class_weight=given, sample_weight=W, batch_size=8, progress=False)
    two.fit(X, Y, sample_weight=W * np.take(table, Y), batch_size=8, progress=False)
    for name, want in two.model.state_dict().items():
        np.testing.assert_array_equal(one.model.state_dict()[name], want)


class Last(nn.Module):
    """Takes what stands at each sequence's last step; the rest may be anything."""

    def __init__(self) -> None:
        self.linear = nn.Linear(1, 3)

    def forward(self, x: Any, lengths: Any = None) -> Any:
        if lengths is not None:
            steps = np.arange(1, 5)
            distance = ops.reshape(ops.mul(lengths, 1.0), (-1, 1)) - steps
            x = x * (1.0 - ops.minimum(ops.abs(distance), 1.0))
        return self.linear(ops.sum(x, 1, keepdims=True))


def last() -> fn.Trainer:
    fn.manual_seed(3)
    return fn.Trainer(Last().double(), nn.CrossEntropyLoss(), optim.SGD(lr=0.5))


def test_lengths_reach_forward_everywhere() -> None:
    trainer = last()
    w, b = trainer.model.state_dict().values()
    z = X[np.arange(21), L - 1][:, None] @ w.T + b
    np.testing.assert_allclose(trainer.predict(X, batch_size=8, lengths=L), z, rtol=1e-12)
    want = float(np.mean(np.log(np.exp(z).sum(1)) - z[np.arange(21), Y]))
    result = trainer.evaluate(X, Y, batch_size=8, lengths=L)
    assert result["loss"] == pytest.approx(want, rel=1e-12)
    loss, grads = fn.value_and_grad(trainer.model, trainer.loss)(X, Y, lengths=L)
    assert loss == pytest.approx(want, rel=1e-12)
    before = trainer.model.state_dict()
    assert trainer.step(X, Y, lengths=L) == pytest.approx(want, rel=1e-12)
    for name, value in trainer.model.state_dict().items():
        np.testing.assert_allclose(before[name] - value, 0.5 * grads[name], rtol=1e-9, atol=1e-12)


def test_fit_gathers_lengths_with_their_rows() -> None:
    one, two = last(), last()
    one.fit(X, Y, lengths=L, batch_size=8, progress=False, epochs=2)
    picked = np.zeros_like(X)
    picked[:, 0] = X[np.arange(21), L - 1]
    two.fit(picked, Y, lengths=np.ones(21, int), batch_size=8, progress=False, epochs=2)
    for name, want in two.model.state_dict().items():
        np.testing.assert_allclose(one.model.state_dict()[name], want, rtol=1e-12)


NAN = np.where(np.arange(21) == 3, np.nan, 1.0)
BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"sample_weight": W[:5]}, ValueError, "sample_weight: expected as many rows as"),
    ({"sample_weight": -W}, ValueError, "sample_weight: expected finite numbers of at least 0"),
    ({"sample_weight": NAN}, ValueError, "sample_weight: expected finite"),
    ({"sample_weight": X}, ValueError, "sample_weight: expected one number a row"),
    ({"lengths": L[:5]}, ValueError, "lengths: expected as many rows as"),
    ({"lengths": L - 1}, ValueError, "lengths: expected 1 to 4.*got 0 in row"),
    ({"lengths": L + 1}, ValueError, "lengths: expected 1 to 4.*got 5 in row"),
    ({"lengths": L * 1.0}, TypeError, "lengths: expected integers"),
]


@pytest.mark.parametrize("given,error,words", BAD)
def test_bad_rows_are_named(given: Any, error: type[Exception], words: str) -> None:
    trainer = last()
    calls: list[Any] = [trainer.step, trainer.evaluate, lambda *a, **k: trainer.fit(*a, **k)]
    for call in calls:
        with pytest.raises(error, match=words):
            call(X, Y, **given)
    with pytest.raises(error, match="validation " + words):
        trainer.fit(X, Y, validation_data={"x": X, "y": Y, **given})
    assert trainer.steps == 0


def test_bad_class_weights_and_models_without_lengths_are_named() -> None:
    trainer = linear()
    for bad in ("even", [1.0, 2.0], {0: -1.0}):
        with pytest.raises(ValueError, match="class_weight"):
            trainer.fit(X, Y, class_weight=bad, progress=False)
    with pytest.raises(ValueError, match="class_weight: expected integer labels"):
        trainer.fit(X, X, class_weight="balanced", progress=False)
    with pytest.raises(ValueError, match=r"lengths: expected a model whose forward.*Sequential"):
        trainer.step(X, Y, lengths=L)
    with pytest.raises(ValueError, match="sample_weight needs one number a row"):
        linear(lambda o, t: (o * o).sum()).step(X, Y, sample_weight=W)
    with pytest.raises(ValueError, match="validation_data: expected"):
        trainer.fit(X, Y, validation_data=(X, Y, L), progress=False)
