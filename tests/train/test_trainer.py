"""Trainer against NumPy transcriptions of training, and what a user relies on: bits, errors, Ctrl-C."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import numpy as np
import pytest

import fastnn as fn
from fastnn import nn, ops, optim
from fastnn.graph import Array
from fastnn.train.plans import BatchPlan
from fastnn.train.rows import Rows
from fastnn.train.tally import Tally


def blobs(n: int = 70, features: int = 4, classes: int = 3) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    y = rng.integers(0, classes, n)
    x = rng.standard_normal((n, features)) + 4.0 * np.eye(classes, features)[y]
    return x.astype(np.float32), y


def mlp(dtype: str = "float32") -> nn.Sequential:
    fn.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).to(dtype)


def cnn(dropout: float = 0.0) -> nn.Sequential:
    fn.manual_seed(2)
    return nn.Sequential(
        nn.Normalize([0.3], [0.4]),
        nn.Conv2d(1, 5, 3, padding=1),
        nn.BatchNorm2d(5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(dropout),
        nn.Flatten(),
        nn.Linear(5 * 3 * 4, 3),
    )


def images(n: int = 23) -> tuple[Array, Array]:
    rng = np.random.default_rng(1)
    return rng.integers(0, 256, (n, 1, 6, 8)).astype(np.uint8), rng.integers(0, 3, n)


def numpy_step(w: dict[str, Array], x: Array, y: Array, lr: float) -> float:
    """One step of gradient descent on the tanh MLP, by hand; returns the loss before it."""
    h = np.tanh(x @ w["0.weight"].T + w["0.bias"])
    z = h @ w["2.weight"].T + w["2.bias"]
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    loss = -np.log(p[np.arange(len(y)), y]).mean()
    dz = p.copy()
    dz[np.arange(len(y)), y] -= 1
    dz /= len(y)
    dh = dz @ w["2.weight"] * (1 - h * h)
    for name, g in {
        "2.weight": dz.T @ h,
        "2.bias": dz.sum(0),
        "0.weight": dh.T @ x,
        "0.bias": dh.sum(0),
    }.items():
        w[name] = w[name] - lr * g
    return float(loss)


def test_step_is_gradient_descent() -> None:
    x, y = blobs()
    x = x.astype(np.float64)
    model = mlp("float64")
    weights = model.state_dict()
    trainer = fn.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(lr=0.5))
    for _ in range(20):
        np.testing.assert_allclose(trainer.step(x, y), numpy_step(weights, x, y, 0.5), rtol=1e-12)
    for name, want in weights.items():
        np.testing.assert_allclose(model.state_dict()[name], want, rtol=1e-11, atol=1e-13)


def test_fit_equals_steps_last_small_batch_included() -> None:
    x, y = blobs(70)
    one, two = mlp(), mlp()
    history = fn.Trainer(one, nn.CrossEntropyLoss(), optim.Adam(lr=0.01)).fit(
        x, y, epochs=2, batch_size=32, shuffle=False, progress=False
    )
    stepper = fn.Trainer(two, nn.CrossEntropyLoss(), optim.Adam(lr=0.01))
    means = []
    for _ in range(2):
        losses = [
            (stepper.step(x[i : i + 32], y[i : i + 32]), len(x[i : i + 32])) for i in (0, 32, 64)
        ]
        means.append(sum(v * n for v, n in losses) / 70)
    assert stepper.steps == 6
    np.testing.assert_allclose(history["loss"], means, rtol=1e-6)
    for name, want in two.state_dict().items():
        np.testing.assert_array_equal(one.state_dict()[name], want)


def test_training_learns_and_reports() -> None:
    x, y = blobs(300)
    trainer = fn.Trainer(mlp(), nn.CrossEntropyLoss(), optim.Adam(lr=0.02), metrics=("accuracy",))
    history = trainer.fit(x, y, epochs=15, validation_data=(x, y), progress=False)
    assert set(history) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert len(history["loss"]) == len(history.seconds) == 15
    assert history["val_accuracy"][-1] > 0.9 > history["accuracy"][0]
    scores = trainer.predict(x, batch_size=64)
    result = trainer.evaluate(x, y, batch_size=77)
    assert result["accuracy"] == np.mean(scores.argmax(1) == y) == history["val_accuracy"][-1]


def test_evaluate_and_predict_use_inference_mode_and_change_nothing() -> None:
    x, y = images()
    model = cnn(dropout=0.5)
    trainer = fn.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(lr=0.1))
    trainer.fit(x, y, epochs=1, batch_size=8, progress=False)
    before = model.state_dict()
    first = trainer.predict(x, batch_size=5)
    np.testing.assert_array_equal(first, trainer.predict(x, batch_size=5))
    np.testing.assert_allclose(first, model.eval()(x), rtol=1e-5, atol=1e-5)
    trainer.evaluate(x, y)
    for name, want in before.items():
        np.testing.assert_array_equal(model.state_dict()[name], want)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_same_seed_same_bits_at_any_thread_count(dropout: float) -> None:
    x, y = images(40)
    states = []
    before = fn.get_num_threads()
    for threads in (1, 2, 3):
        fn.set_num_threads(threads)
        model = cnn(dropout)
        fn.Trainer(model, nn.CrossEntropyLoss(), optim.Adam(), seed=7).fit(
            x, y, epochs=2, batch_size=16, progress=False
        )
        states.append(model.state_dict())
    fn.set_num_threads(before)
    for name, want in states[0].items():
        for state in states[1:]:
            np.testing.assert_array_equal(state[name], want)


def test_fast_plan_agrees_with_the_debug_plan() -> None:
    x, y = images(16)
    results = []
    for debug in (False, True):
        model = cnn()
        trainer = fn.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(lr=0.1))
        slab = trainer._make_slab()
        rows = Rows.check(x, y)
        plan = BatchPlan(
            model,
            trainer.loss,
            Tally(()),
            rows.specs,
            len(rows),
            (slab, trainer.optimizer),
            debug=debug,
        )
        loss = np.zeros((), np.float32)
        hyper = np.array([1.0, 0.0, 0.1, 0.0])
        plan.plan.execute((x, y, hyper, loss))
        results.append((float(loss), model.state_dict()))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-6)
    for name, want in results[1][1].items():
        np.testing.assert_allclose(results[0][1][name], want, rtol=1e-4, atol=1e-6)


def test_frozen_parameters_stay_and_cost_nothing() -> None:
    x, y = images(16)
    model = cnn()
    model[1].requires_grad_(False)
    before = model.state_dict()
    trainer = fn.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(lr=0.1))
    trainer.step(x, y)
    after = model.state_dict()
    np.testing.assert_array_equal(after["1.weight"], before["1.weight"])
    assert np.any(after["7.weight"] != before["7.weight"])
    plan = str(trainer._plan("step", 16, Rows.check(x, y).specs, True, None).plan)
    assert "conv_bwd" not in plan
    model[1].requires_grad_(True)
    trainer.step(x, y)
    assert np.any(model.state_dict()["1.weight"] != before["1.weight"])


def test_batch_norm_counts_and_tracks() -> None:
    x, y = images(20)
    model = cnn()
    trainer = fn.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(lr=0.0))
    trainer.fit(x, y, epochs=2, batch_size=8, progress=False)
    assert model.state_dict()["2.num_batches_tracked"] == 6
    assert np.all(model.state_dict()["2.running_var"] != 1)


def test_bad_labels_leave_the_model_as_it_was() -> None:
    x, y = images(16)
    model = cnn()
    trainer = fn.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(lr=0.1))
    trainer.step(x, y)
    before = model.state_dict()
    for bad in (3, -1):
        labels = y.copy()
        labels[5] = bad
        with pytest.raises(ValueError, match="label"):
            trainer.step(x, labels)
        with pytest.raises(ValueError, match="label"):
            trainer.fit(x, labels, batch_size=16, progress=False)
    for name, want in before.items():
        np.testing.assert_array_equal(model.state_dict()[name], want)
    assert trainer.steps == 1


X, Y = blobs(8)
BAD: list[tuple[str, Any, type[Exception], str]] = [
    ("rows differ", lambda t: t.fit(X, Y[:5], progress=False), ValueError, "rows"),
    ("empty", lambda t: t.fit(X[:0], Y[:0], progress=False), ValueError, "at least one row"),
    ("features", lambda t: t.step(X[:, :3], Y), ValueError, "4 features"),
    ("strings", lambda t: t.step(np.array(["a"] * 8), Y), TypeError, "x: expected an array of num"),
    ("object", lambda t: t.predict(np.array([None])), TypeError, "numbers"),
    ("epochs", lambda t: t.fit(X, Y, epochs=-1), ValueError, "epochs"),
    ("batch", lambda t: t.fit(X, Y, batch_size=0), ValueError, "batch_size"),
    ("labels 2-d", lambda t: t.step(X, np.zeros((8, 2), int)), ValueError, "labels"),
    ("float labels", lambda t: t.step(X, Y.astype(float)), TypeError, "labels: expected integers"),
    ("validation", lambda t: t.fit(X, Y, validation_data=(X, Y[:2])), ValueError, "validation y"),
]


@pytest.mark.parametrize("call,error,words", [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_bad_input_is_named(call: Any, error: type[Exception], words: str) -> None:
    trainer = fn.Trainer(mlp(), nn.CrossEntropyLoss(), optim.SGD())
    with pytest.raises(error, match=words):
        call(trainer)
    trainer.step(X, Y)  # still works


def test_odd_but_right_inputs() -> None:
    trainer = fn.Trainer(mlp(), nn.CrossEntropyLoss(), optim.SGD(lr=0.0))
    want = trainer.step(X, Y)
    wide = np.zeros((8, 8), np.float32)
    wide[:, ::2] = X
    variants: list[tuple[Any, Any]] = [
        (wide[:, ::2], Y),
        (np.asfortranarray(X), Y.astype(np.uint8)),
        (X.astype(np.float64), Y.astype(np.int32)),
        (X.astype(">f4"), Y.astype(">i8")),
        (X.tolist(), Y.tolist()),
    ]
    for x, y in variants:
        assert trainer.step(x, y) == pytest.approx(want, rel=1e-6)


@pytest.mark.usefixtures("heard_sigint")
def test_ctrl_c_stops_at_a_step_boundary() -> None:
    x, y = blobs(20000)
    model = mlp()
    trainer = fn.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(lr=0.1))
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    history = trainer.fit(x, y, epochs=100000, batch_size=32, progress=False)
    timer.join()
    assert history.interrupted
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    twin = mlp()
    again = fn.Trainer(twin, nn.CrossEntropyLoss(), optim.SGD(lr=0.1))
    per_epoch = 20000 // 32
    again.fit(x, y, epochs=trainer.steps // per_epoch, batch_size=32, progress=False)
    assert trainer.steps >= again.steps
    assert np.isfinite(model.state_dict()["0.weight"]).all()


@pytest.mark.usefixtures("heard_sigint")
def test_an_ignored_sigint_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    x, y = blobs(64)

    class Sends(fn.train.Callback):
        def on_epoch_end(self, trainer: fn.Trainer, values: Any) -> None:
            os.kill(os.getpid(), signal.SIGINT)

    trainer = fn.Trainer(mlp(), nn.CrossEntropyLoss(), optim.SGD(lr=0.1))
    history = trainer.fit(x, y, epochs=3, batch_size=32, progress=False, callbacks=[Sends()])
    assert not history.interrupted
    assert trainer.steps == 6
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_value_and_grad_matches_by_hand_and_any_function_is_a_loss() -> None:
    model = mlp("float64")
    x, y = blobs(9)
    loss, grads = fn.value_and_grad(model, nn.CrossEntropyLoss())(x.astype(float), y)
    weights = model.state_dict()
    want = numpy_step(weights, x.astype(float), y, 1.0)
    assert loss == pytest.approx(want, rel=1e-12)
    for name, before in model.state_dict().items():
        np.testing.assert_allclose(grads[name], before - weights[name], rtol=1e-9, atol=1e-12)
    t = np.random.default_rng(5).standard_normal((9, 3))
    loss, grads = fn.value_and_grad(model, lambda o, t: (o * t).sum())(x.astype(float), t)
    out = model(x.astype(float))
    assert loss == pytest.approx((out * t).sum(), rel=1e-12)
    np.testing.assert_allclose(grads["2.bias"], t.sum(0), rtol=1e-12)


def test_losses_must_be_numbers() -> None:
    with pytest.raises(ValueError, match="one number"):
        fn.value_and_grad(mlp(), lambda o, t: o)(*blobs(4))
    with pytest.raises(TypeError, match="truth value"):
        fn.value_and_grad(mlp(), lambda o, t: o if o else t)(*blobs(4))
    _ = ops


def test_memory_does_not_grow() -> None:
    resource = pytest.importorskip("resource")
    x, y = blobs(32)
    trainer = fn.Trainer(mlp(), nn.CrossEntropyLoss(), optim.Adam())
    for _ in range(500):
        trainer.step(x, y)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(10_000):
        trainer.step(x, y)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 512  # kB: allocator slack, not one object a step


def test_schedule_scales_the_rate_of_each_step() -> None:
    x, y = blobs(70)
    model, twin = mlp(), mlp()
    fn.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(lr=0.4)).fit(
        x, y, epochs=2, batch_size=32, shuffle=False, progress=False, schedule=lambda t: 1 - t
    )
    stepper = fn.Trainer(twin, nn.CrossEntropyLoss(), optim.SGD(lr=0.4))
    for step in range(6):
        stepper.optimizer.lr = 0.4 * (1 - step / 6)
        batch = slice(32 * (step % 3), 32 * (step % 3) + 32)
        stepper.step(x[batch], y[batch])
    for name, want in twin.state_dict().items():
        np.testing.assert_array_equal(model.state_dict()[name], want)
    with pytest.raises(ValueError, match="schedule: expected factors"):
        fn.Trainer(model, nn.CrossEntropyLoss(), optim.SGD()).fit(
            x, y, progress=False, schedule=lambda t: t - 1
        )
