"""Groups, clipping, accumulation and averaged weights, in training and in checkpoints."""

from __future__ import annotations

import json

import numpy as np
import pytest

import fastnn as fn
from fastnn import nn, optim

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((23, 4)), RNG.integers(0, 3, 23)


def mlp(dropout=0.0):
    fn.manual_seed(1)
    parts = [nn.Linear(4, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 3)]
    return nn.Sequential(*parts).double()


def train(optimizer, model=None, **arguments):
    run = fn.Trainer(model or mlp(), nn.CrossEntropyLoss(), optimizer, seed=3)
    run.fit(X, Y, **{"epochs": 2, "batch_size": 8, "progress": False, **arguments})
    return run


def gradients(model, x=X, y=Y):
    return fn.value_and_grad(model, nn.CrossEntropyLoss())(x, y)[1]


def same(a, b, rtol=0.0):
    for name, want in b.items():
        np.testing.assert_allclose(a[name], want, rtol=rtol, atol=rtol / 100, err_msg=name)


# --- groups ---


def test_groups_have_their_own_numbers():
    """One step of SGD, by hand; the last layer's bias follows the optimizer's rate."""
    model = mlp()
    before, g = model.state_dict(), gradients(model)
    groups = [
        optim.Group("0.*", lr=0.5, momentum=0.9),
        optim.Group(model[3].weight, lr=0.25, weight_decay=0.1),
    ]
    run = fn.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(lr=0.125, groups=groups))
    run.step(X, Y)
    decayed = g["3.weight"] + 0.1 * before["3.weight"]
    want = {
        "0.weight": before["0.weight"] - 0.5 * g["0.weight"],
        "0.bias": before["0.bias"] - 0.5 * g["0.bias"],
        "3.weight": before["3.weight"] - 0.25 * decayed,
        "3.bias": before["3.bias"] - 0.125 * g["3.bias"],
    }
    same(model.state_dict(), want, rtol=1e-12)


def test_rates_of_groups_change_and_are_scheduled():
    """As one optimizer for all, where each group is given the same rate in the end."""
    groups = [optim.Group("3.*", lr=0.2), optim.Group("0.bias")]
    adam = optim.Adam(lr=0.1, groups=groups)
    adam.groups[0].lr = 0.1
    run = train(adam, schedule=optim.ExponentialLR(0.5))
    plain = train(optim.Adam(lr=0.1), schedule=optim.ExponentialLR(0.5))
    same(run.model.state_dict(), plain.model.state_dict())
    assert len(run._slab.segments) == 3 and len(plain._slab.segments) == 1


@pytest.mark.parametrize(
    "groups, error, words",
    [
        ([optim.Group("head.*")], ValueError, r"groups\[0\]: expected parameters of the model"),
        ([optim.Group("0.*"), optim.Group("*.bias")], ValueError, r"0\.bias is in groups\[0\] too"),
        ([optim.Group("0.*", beta=1)], TypeError, "groups: expected some of lr.* got beta"),
        ([optim.Group("0.*", lr=-1.0)], ValueError, "lr: expected 0 <= lr"),
    ],
)
def test_wrong_groups_are_named(groups, error, words):
    model = mlp()
    with pytest.raises(error, match=words):
        fn.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(groups=groups))


def test_wrong_options_are_named():
    with pytest.raises(ValueError, match="Adam: clip_norm: expected 0 <= clip_norm"):
        optim.Adam(clip_norm=-1.0)
    with pytest.raises(ValueError, match="ema_decay < 1, got 1"):
        optim.SGD(ema_decay=1)
    with pytest.raises(TypeError, match=r"SGD: expected arguments of its own and .* got clip"):
        optim.SGD(clip=1.0)
    with pytest.raises(TypeError, match="parameters: expected names"):
        optim.Group(3)


# --- clipping ---


def test_clipping_by_value_then_by_norm():
    model = mlp()
    before, g = model.state_dict(), gradients(model)
    clipped = {name: np.clip(a, -0.05, 0.05) for name, a in g.items()}
    norm = np.sqrt(sum((a**2).sum() for a in clipped.values()))
    sgd = optim.SGD(lr=1.0, clip_value=0.05, clip_norm=norm / 3)
    fn.Trainer(model, nn.CrossEntropyLoss(), sgd).step(X, Y)
    factor = norm / 3 / (norm + 1e-6)
    want = {name: before[name] - factor * a for name, a in clipped.items()}
    same(model.state_dict(), want, rtol=1e-12)


def test_clipping_leaves_small_gradients_alone():
    plain, clipped = (train(o) for o in (optim.Adam(), optim.Adam(clip_value=1e3, clip_norm=1e3)))
    same(plain.model.state_dict(), clipped.model.state_dict())


# --- accumulation ---


@pytest.mark.parametrize("batch, accumulate", [(2, 4), (4, 2), (3, 3), (23, 4)])
def test_micro_batches_are_one_batch(batch, accumulate):
    """The last step of an epoch has fewer batches, the last batch fewer rows."""
    whole = train(optim.Adam(lr=0.1), batch_size=min(23, batch * accumulate), epochs=3)
    parts = train(optim.Adam(lr=0.1), batch_size=batch, accumulate=accumulate, epochs=3)
    assert parts.steps == whole.steps
    # Rounding in another order: some 1e-16 an operation, grown by 9 steps of Adam.
    same(parts.model.state_dict(), whole.model.state_dict(), rtol=1e-10)


def test_each_micro_batch_drops_other_units():
    """With a rate of 0 the losses of two equal batches differ by their dropout alone."""
    x, y = np.tile(X[:4], (2, 1)), np.tile(Y[:4], 2)
    run = fn.Trainer(mlp(0.5), nn.CrossEntropyLoss(), optim.SGD(lr=0.0))
    arguments = {"shuffle": False, "progress": False}
    once = run.fit(x[:4], y[:4], batch_size=4, **arguments)["loss"][0]
    run.steps = 0
    twice = run.fit(x, y, batch_size=4, accumulate=2, **arguments)["loss"][0]
    assert run.steps == 1 and abs(once - twice) > 1e-3


def test_schedules_count_optimizer_steps():
    halved = optim.ExponentialLR(0.5, interval="step")
    whole = train(optim.SGD(lr=0.5), batch_size=8, schedule=halved)
    parts = train(optim.SGD(lr=0.5), batch_size=4, accumulate=2, schedule=halved)
    same(parts.model.state_dict(), whole.model.state_dict(), rtol=1e-10)


# --- averaged weights ---


def test_averaged_weights():
    """The average by hand; evaluate and predict use it, the model itself goes on as without."""
    model = mlp()
    run = fn.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(lr=0.5, ema_decay=0.75))
    with run.averaged_weights():
        same(model.state_dict(), mlp().state_dict())
    model.load_state_dict({k: 2 * v for k, v in model.state_dict().items()})
    average = None
    for _ in range(4):
        run.step(X, Y)
        now = model.state_dict()
        average = average or now
        average = {k: 0.75 * average[k] + 0.25 * now[k] for k in now}
    with run.averaged_weights():
        same(model.state_dict(), average, rtol=1e-12)
        inside = run.evaluate(X, Y)
    same(model.state_dict(), now)
    other = mlp()
    other.load_state_dict(average)
    np.testing.assert_allclose(run.predict(X), other(X), rtol=1e-10)
    assert run.evaluate(X, Y) == inside
    same(model.state_dict(), now)


# --- all of it, and checkpoints ---


def everything(momentum=0.5):
    groups = [optim.Group("3.*", lr=0.1, momentum=momentum)]
    return optim.SGD(lr=0.2, groups=groups, clip_value=0.5, clip_norm=0.4, ema_decay=0.9)


def states(run, path):
    from safetensors.numpy import load_file

    run.save(path)
    return load_file(path)


def test_checkpoints_continue_bit_for_bit(tmp_path):
    def made():
        return train(everything(), mlp(0.3), epochs=2, accumulate=2)

    straight, first = made(), made()
    first.optimizer.groups[0].lr = straight.optimizer.groups[0].lr = 0.05
    first.save(tmp_path / "half")
    loss = nn.CrossEntropyLoss()
    second = fn.Trainer.resume(tmp_path / "half", mlp(0.3), loss, everything())
    for run in (straight, second):
        run.fit(X, Y, epochs=2, batch_size=4, accumulate=3, progress=False)
    want = states(straight, tmp_path / "a")
    assert "optimizer.ema.0.weight" in want and "optimizer.momentum_buffer.3.bias" in want
    same(states(second, tmp_path / "b"), want)
    assert second.optimizer.rates() == [0.2, 0.05]
    with pytest.raises(ValueError, match="optimizer 'groups': saved"):
        fn.Trainer.resume(tmp_path / "half", mlp(0.3), loss, everything(momentum=0.6))
    with pytest.raises(ValueError, match=r"optimizer 'clip_value': saved 0\.5, now None"):
        fn.Trainer.resume(tmp_path / "half", mlp(0.3), loss, optim.SGD(lr=0.2))


def test_what_is_unfrozen_starts_anew(tmp_path):
    """Bias correction counts from there; the others keep their states, and so does a checkpoint."""
    model = mlp()
    model[0].requires_grad_(False)
    run = fn.Trainer(model, nn.CrossEntropyLoss(), optim.Adam(lr=0.1))
    for _ in range(5):
        run.step(X, Y)
    before = model.state_dict()
    model[0].requires_grad_(True)
    g = gradients(model)
    run.step(X, Y)
    moved = before["0.bias"] - model.state_dict()["0.bias"]
    np.testing.assert_allclose(moved, 0.1 * g["0.bias"] / (np.abs(g["0.bias"]) + 1e-8), rtol=1e-9)
    run.save(tmp_path / "file")
    again = fn.Trainer.resume(tmp_path / "file", mlp(), run.loss, optim.Adam(lr=0.1))
    for one in (run, again):
        one.step(X, Y)
    same(again.model.state_dict(), run.model.state_dict())
    about = json.loads(_metadata(tmp_path / "file")["fastnn"])
    assert about["starts"] == {"0.weight": 5, "0.bias": 5, "3.weight": 0, "3.bias": 0}


def _metadata(path):
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return file.metadata()


def test_plans_without_options_have_no_more_steps():
    run = fn.Trainer(mlp(), nn.CrossEntropyLoss(), optim.Adam())
    kernels = [
        step.kernel for step in run._plan("fit", 8, _specs(run), True, 23).plan.builder.steps
    ]
    assert kernels.count("adam") == 1
    assert not {"clamp", "grad_norm", "grad_mean", "ema"} & set(kernels)


def _specs(run):
    return run._rows(X, Y).specs
