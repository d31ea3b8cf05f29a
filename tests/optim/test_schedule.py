"""Schedules against PyTorch's learning rates, and what fit makes of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import fastnn as fn
from fastnn import nn, optim

GOLDEN = json.loads((Path(__file__).parent / "golden" / "schedules.json").read_text())
PLAIN = [run for run in GOLDEN if run["schedule"] not in ("ReduceLROnPlateau", "Warmup")]
PLATEAUS = [run for run in GOLDEN if run["schedule"] == "ReduceLROnPlateau"]
RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((20, 4)).astype(np.float32), RNG.integers(0, 3, 20)


def name_of(run):
    return f"{run['schedule']}-{run['options']}"


def trainer(lr=0.1, **options):
    fn.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 3))
    return fn.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(lr=lr, **options))


def value(epoch):
    return round(1 / (1 + min(epoch, 6)) + 0.02 * ((7 * epoch) % 5), 6)


@pytest.mark.parametrize("run", PLAIN, ids=name_of)
def test_rates_are_pytorchs(run):
    made = getattr(optim, run["schedule"])(**run["options"])
    np.testing.assert_allclose(made(np.arange(24), 0.1), run["lr"], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("run", PLATEAUS, ids=name_of)
def test_plateaus_are_pytorchs(run):
    """The memory goes through JSON half-way, as in a checkpoint."""
    sgd, made = optim.SGD(lr=0.1), optim.ReduceLROnPlateau(**run["options"])
    found = []
    for epoch in range(24):
        found.append(sgd.lr)
        made.finish({"loss": 7.0, "val_loss": value(epoch)}, sgd)
        if epoch == 12:
            state = json.loads(json.dumps(made.state_dict()))
            made = optim.ReduceLROnPlateau(**run["options"])
            made.load_state_dict(state)
    np.testing.assert_allclose(found, run["lr"], rtol=1e-12)


@pytest.mark.parametrize("interval", ["step", "epoch"])
def test_warm_up_comes_before(interval):
    """As PyTorch's SequentialLR of LinearLR and CosineAnnealingLR."""
    cosine = optim.CosineAnnealingLR(20, interval=interval)
    wanted = next(run["lr"] for run in GOLDEN if run["schedule"] == "Warmup")
    made = optim.Warmup(cosine, 4, start_factor=0.1, interval=interval)
    np.testing.assert_allclose(made(np.arange(24), 0.1), wanted, rtol=1e-12, atol=1e-15)
    ramp = optim.LinearLR(0.1, total_iters=4, interval=interval)
    parts = optim.SequentialLR([ramp, cosine], [4], interval=interval)
    np.testing.assert_allclose(parts(np.arange(24), 0.1), wanted, rtol=1e-12, atol=1e-15)


def test_warm_up_by_steps_of_a_schedule_by_epochs():
    made = optim.Warmup(optim.StepLR(1, 0.5), 4, start_factor=0.2)
    steps = np.arange(9)
    rates = made.rates(steps, steps // 3, 1.0, (9, 3))
    wanted = [0.2, 0.4, 0.6, 0.8 * 0.5, 0.5, 0.5, 0.25, 0.25, 0.25]
    np.testing.assert_allclose(rates, wanted, rtol=1e-12)


def test_lambda_and_lengths_until_the_fit_ends():
    np.testing.assert_allclose(optim.LambdaLR(lambda t: 1 / (1 + t))([0, 1, 3]), [1, 0.5, 0.25])
    steps = np.arange(10.0)
    for made, given in (
        (optim.CosineAnnealingLR(), optim.CosineAnnealingLR(10)),
        (optim.OneCycleLR(0.3), optim.OneCycleLR(0.3, 10)),
        (optim.OneCycleLR(total_steps=10), optim.OneCycleLR(0.1)),
    ):
        np.testing.assert_array_equal(made(steps, 0.1, 10), given(steps, 0.1, 10))


def fit_rates(run, monkeypatch, **arguments):
    """The learning rates of the steps of a fit, as the kernels read them."""
    from fastnn.train import tally

    found, real = [], tally.Pass.run

    def spy(self, plan, iterations, arrays, targets):
        if "hyper" in arrays:
            found.append(arrays["hyper"][:, 2].copy())
        return real(self, plan, iterations, arrays, targets)

    monkeypatch.setattr(tally.Pass, "run", spy)
    run.fit(X, Y, batch_size=8, progress=False, **arguments)
    return np.concatenate(found)


def test_fit_counts_epochs_and_steps(monkeypatch):
    run = trainer()
    epochs = fit_rates(run, monkeypatch, epochs=3, schedule=optim.ExponentialLR(0.5))
    np.testing.assert_allclose(epochs, np.repeat([0.1, 0.05, 0.025], 3))
    after = fit_rates(run, monkeypatch, epochs=1, schedule=optim.ExponentialLR(0.5))
    np.testing.assert_allclose(after, [0.0125] * 3)  # from the trainer's first epoch on
    steps = optim.ExponentialLR(0.5, interval="step")
    found = fit_rates(trainer(), monkeypatch, epochs=2, schedule=steps)
    np.testing.assert_allclose(found, 0.1 * 0.5 ** np.arange(6))


def test_fit_watches_the_plateau():
    run = trainer(lr=0.0)  # nothing improves
    run.optimizer.lr = 1e-6
    plateau = optim.ReduceLROnPlateau(patience=1, threshold=0.5, eps=0.0)
    run.fit(X, Y, epochs=5, progress=False, schedule=plateau, validation_data=(X, Y))
    np.testing.assert_allclose(run.optimizer.lr, 1e-8)
    assert plateau.num_bad_epochs == 0
    wrong = optim.ReduceLROnPlateau(monitor="val_f1")
    with pytest.raises(ValueError, match="monitor: expected one of loss, got 'val_f1'"):
        run.fit(X, Y, progress=False, schedule=wrong)


def test_plateau_goes_on_from_a_checkpoint(tmp_path):
    def plateau():
        return optim.ReduceLROnPlateau(patience=1, threshold=0.9, factor=0.5)

    def states(run):
        return [*run.model.state_dict().values(), run.optimizer.lr, run._schedule.state_dict()]

    straight, first = trainer(), trainer()
    straight.fit(X, Y, epochs=7, progress=False, schedule=plateau())
    first.fit(X, Y, epochs=4, progress=False, schedule=plateau())
    first.save(tmp_path / "half")
    fn.manual_seed(2)
    model = nn.Sequential(nn.Linear(4, 3))
    second = fn.Trainer.resume(tmp_path / "half", model, nn.CrossEntropyLoss(), optim.SGD())
    second.fit(X, Y, epochs=3, progress=False, schedule=plateau())
    assert straight.optimizer.lr < 0.1
    for a, b in zip(states(second), states(straight), strict=True):
        np.testing.assert_equal(a, b)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: optim.StepLR(0), "step_size: expected an int of at least 1"),
        (lambda: optim.ExponentialLR(-1.0), "gamma: expected a finite number"),
        (lambda: optim.LinearLR(start_factor=0.0), "start_factor: expected a number above 0"),
        (lambda: optim.OneCycleLR(1.0, 10, anneal_strategy="x"), "anneal_strategy: expected"),
        (lambda: optim.ReduceLROnPlateau(mode="least"), "mode: expected 'min' or 'max'"),
        (lambda: optim.StepLR(3, interval="day"), "interval: expected 'epoch' or 'step'"),
        (lambda: optim.SequentialLR([optim.StepLR(1)], [3]), "milestones: expected one less"),
        (
            lambda: optim.SequentialLR([optim.Warmup(None, 3), optim.StepLR(1)], [3]),
            "schedulers: Warmup cannot be one of several",
        ),
    ],
)
def test_wrong_numbers_are_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_fit_refuses_what_is_no_schedule():
    with pytest.raises(TypeError, match="schedule: expected a Schedule or a function, got float"):
        trainer().fit(X, Y, progress=False, schedule=0.1)
    down = optim.LambdaLR(lambda t: -1.0)
    with pytest.raises(ValueError, match="schedule: expected learning rates of at least 0"):
        trainer().fit(X, Y, progress=False, schedule=down)
