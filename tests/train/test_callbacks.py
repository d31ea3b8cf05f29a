"""Callbacks, validation_split and find_lr, on models small enough to follow by hand."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastnn as fn
from fastnn import nn, ops, optim
from fastnn.graph import Array
from fastnn.nn.module import value
from fastnn.train import (
    Callback,
    CSVLogger,
    EarlyStopping,
    ModelCheckpoint,
    StopOnNaN,
    TensorBoard,
)

ONE = np.ones((1, 1))


def scalar(lr: float = 0.05, **options: Any) -> fn.Trainer:
    """y = w x from w = 0; a step on x = y = 1 takes w to w + 2 lr (1 - w)."""
    model = nn.Linear(1, 1, bias=False).double()
    model.weight.data = 0.0
    return fn.Trainer(model, nn.MSELoss(), optim.SGD(lr=lr), **options)


def fit(trainer: fn.Trainer, *callbacks: Callback, epochs: int = 30, target: float = 0.5) -> Any:
    return trainer.fit(
        ONE, ONE, epochs=epochs, validation_data=(ONE, target * ONE), callbacks=callbacks,
        progress=False,
    )  # fmt: skip


@pytest.mark.parametrize("restore", [True, False])
def test_early_stopping(restore: bool) -> None:
    stop = EarlyStopping(patience=3, restore_best_weights=restore)
    history = fit(scalar(), stop)
    w = 1 - 0.9 ** np.arange(1, 31)
    best = int(np.argmin((w - 0.5) ** 2))  # in epoch best + 1
    np.testing.assert_allclose(history["val_loss"], (w[: best + 4] - 0.5) ** 2, rtol=1e-10)
    assert stop.best_epoch == best + 1
    assert f"epoch {best + 1}" in history.stopped
    trainer = scalar()
    fit(trainer, EarlyStopping(patience=3, restore_best_weights=restore))
    got = trainer.model.state_dict()["weight"][0, 0]
    assert got == pytest.approx(w[best if restore else best + 3], rel=1e-10)


def test_early_stopping_does_not_stop_what_gets_better_and_may_be_used_again() -> None:
    stop = EarlyStopping(monitor="loss", patience=1)
    for _ in range(2):
        trainer = scalar()
        assert len(fit(trainer, stop, epochs=5)["loss"]) == 5
    assert fit(trainer, EarlyStopping("loss", patience=2, min_delta=1.0)).stopped
    with pytest.raises(ValueError, match="monitor: expected one of loss, val_loss, got 'acc'"):
        fit(trainer, EarlyStopping("acc"))
    with pytest.raises(ValueError, match="mode: expected"):
        EarlyStopping(mode="best")


def test_scores_are_to_grow() -> None:
    assert EarlyStopping("val_accuracy").sign == EarlyStopping("top5").sign == 1
    assert EarlyStopping("val_loss").sign == EarlyStopping("f1", mode="min").sign == -1


def test_model_checkpoint_keeps_the_best_and_each(tmp_path: Path) -> None:
    best, each = tmp_path / "best", str(tmp_path / "{epoch:02d}-{val_loss:.3f}")
    trainer = scalar()
    history = fit(trainer, ModelCheckpoint(best, "val_loss"), ModelCheckpoint(each), epochs=10)
    epoch = int(np.argmin(history["val_loss"])) + 1
    model = nn.Linear(1, 1, bias=False).double()
    assert fn.Trainer.resume(best, model, nn.MSELoss(), optim.SGD()).epochs == epoch
    names = [f"{i:02d}-{v:.3f}" for i, v in enumerate(history["val_loss"], 1)]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*names, "best"])
    with pytest.raises(ValueError, match="path: expected only"):
        fit(trainer, ModelCheckpoint(tmp_path / "{acc}"), epochs=1)


def test_csv_logger(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    trainer = scalar()
    history = fit(trainer, CSVLogger(path), epochs=3)
    more = fit(trainer, CSVLogger(path, append=True), epochs=2)
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [r["epoch"] for r in rows] == ["1", "2", "3", "4", "5"]
    assert [float(r["val_loss"]) for r in rows] == history["val_loss"] + more["val_loss"]
    with pytest.raises(ValueError, match=r"log.csv: expected columns epoch, loss, its header"):
        trainer.fit(ONE, ONE, callbacks=[CSVLogger(path, append=True)], progress=False)
    fit(trainer, CSVLogger(path), epochs=1)
    assert len(path.read_text().splitlines()) == 2


def test_tensorboard(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    history = fit(scalar(), TensorBoard(tmp_path), epochs=3)
    events = accumulator.EventAccumulator(str(tmp_path / "validation")).Reload()
    got = [float(e.tensor_proto.float_val[0]) for e in events.Tensors("loss")]
    np.testing.assert_allclose(got, history["val_loss"], rtol=1e-6)


def test_callbacks_are_told_in_order_and_can_stop() -> None:
    told: list[str] = []

    class Tell(Callback):
        def __getattribute__(self, name: str) -> Any:
            if name.startswith("on_"):
                told.append(name)
            return super().__getattribute__(name)

        def on_tick(self, trainer: fn.Trainer, values: Any) -> None:
            if trainer.epochs == 1:
                trainer.stop("enough")

    trainer = scalar()
    history = fit(trainer, Tell())
    epoch = ["on_epoch_begin", "on_tick_begin", "on_tick"]
    assert told == ["on_fit_begin", *epoch, "on_epoch_end", *epoch, "on_fit_end"]
    assert history.stopped == "enough"
    assert not history.interrupted
    assert len(history["loss"]) == trainer.epochs == 1
    assert trainer.running is None


class Log(nn.Module):
    def forward(self, x: Any) -> Any:
        return ops.log(x)


class Root(nn.Module):
    """sqrt(w x): a gradient of infinity where it is 0."""

    def __init__(self) -> None:
        self.w = nn.Parameter(np.ones(()))

    def forward(self, x: Any) -> Any:
        return ops.sqrt(value(self.w) * x)


def stopped(model: nn.Module, x: Array, lr: float = 0.0, shuffle: bool = True) -> tuple[Any, ...]:
    trainer = fn.Trainer(model.double(), nn.MSELoss(), optim.SGD(lr=lr, momentum=0.5))
    with pytest.warns(RuntimeWarning, match="training stopped at step"):
        history = trainer.fit(
            x, np.ones_like(x), batch_size=4, epochs=3, callbacks=[StopOnNaN()], progress=False,
            shuffle=shuffle,
        )  # fmt: skip
    assert len(history) == 0
    assert all(np.isfinite(a).all() for a in model.state_dict().values())
    return trainer, history.stopped


def test_stop_on_nan_names_the_first_bad_layer() -> None:
    fn.manual_seed(0)
    first, last = nn.Linear(1, 1), nn.Linear(1, 1)
    first.weight.data, first.bias.data = 1.0, 0.0
    model = nn.Sequential(first, nn.Dropout(0.0), nn.Sequential(Log()), last)
    x = np.ones((40, 1))
    x[22] = -1.0
    trainer, why = stopped(model, x, lr=1e-3, shuffle=False)
    assert why == "step 6: layer '2.0' (Log): its output is not finite"
    assert trainer.steps == 5
    twin = nn.Sequential(nn.Linear(1, 1), nn.Dropout(0.0), Log(), nn.Linear(1, 1)).double()
    for (_, p), (_, q) in zip(twin.named_parameters(), model.named_parameters(), strict=True):
        p.data = q.data
    assert np.isfinite(trainer.step(x[:4], x[:4]))


def test_stop_on_nan_names_input_loss_gradient_and_update() -> None:
    x = np.ones((40, 1))
    bad = x.copy()
    bad[5] = np.nan
    assert "x: the batch is not finite" in stopped(nn.Linear(1, 1), bad)[1]
    zero = x.copy()
    zero[:4] = 0
    trainer, why = stopped(Root(), zero, shuffle=False)
    assert why == "step 1: the gradient of 'w' is not finite"
    assert trainer.steps == 0
    assert "the update of" in stopped(nn.Linear(1, 1), 100 * x, lr=1e308)[1]
    wide = nn.Linear(1, 1)
    wide.weight.data = 1e30
    huge = fn.Trainer(wide, nn.MSELoss(), optim.SGD(lr=0.0))
    with pytest.warns(RuntimeWarning, match="the loss is not finite, while"):
        huge.fit(x, x, callbacks=[StopOnNaN()], progress=False)


def test_stop_on_nan_lets_good_training_be() -> None:
    one, two = scalar(), scalar()
    assert fit(one, StopOnNaN())["loss"] == fit(two)["loss"]


def test_validation_split_holds_rows_back() -> None:
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], [20, 40, 20])
    x = rng.standard_normal((80, 4))
    seen: dict[str, Array] = {}

    def rows(output: Array, target: Array) -> float:
        seen["train" if len(target) > 40 else "held"] = np.sort(target)
        return 0.0

    trainer = fn.Trainer(
        nn.Linear(4, 3).double(), nn.CrossEntropyLoss(), optim.SGD(), metrics=(rows,), seed=3
    )
    history = trainer.fit(x, y, validation_split=0.25, progress=False)
    assert set(history) == {"loss", "rows", "val_loss", "val_rows"}
    np.testing.assert_array_equal(seen["held"], np.repeat([0, 1, 2], [5, 10, 5]))
    np.testing.assert_array_equal(seen["train"], np.repeat([0, 1, 2], [15, 30, 15]))
    for bad in (1.0, -0.1, 2, True):
        with pytest.raises(ValueError, match="validation_split"):
            trainer.fit(x, y, validation_split=bad, progress=False)
    with pytest.raises(ValueError, match="validation_split: expected none beside"):
        trainer.fit(x, y, validation_split=0.5, validation_data=(x, y), progress=False)


def test_find_lr_suggests_a_rate_and_leaves_no_trace() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 200)
    x = rng.standard_normal((200, 4)) + 2.0 * np.eye(3, 4)[y]
    fn.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, 3))
    trainer = fn.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(lr=0.1, momentum=0.9))
    trainer.fit(x, y, progress=False)
    before = model.state_dict()
    slab = trainer._make_slab()
    momentum = [slab.state("momentum_buffer", p).copy() for p in slab.parameters]
    steps = trainer.steps
    curve = trainer.find_lr(x, y, end=1e4, steps=60)
    assert (trainer.steps, trainer.optimizer.lr) == (steps, 0.1)
    for name, want in before.items():
        np.testing.assert_array_equal(model.state_dict()[name], want)
    for p, was in zip(slab.parameters, momentum, strict=True):
        np.testing.assert_array_equal(slab.state("momentum_buffer", p), was)
    assert len(curve.lr) == len(curve.loss) == len(curve.mean) < 60  # it diverged on the way
    assert curve.suggestion == curve.lr[curve.mean.argmin()] / 10
    assert 1e-3 < curve.suggestion < 1
    assert curve.plot().axes[0].get_xscale() == "log"
    with pytest.raises(ValueError, match="start, end"):
        trainer.find_lr(x, y, start=0.0)
    with pytest.raises(ValueError, match="start: expected a rate"):
        trainer.find_lr(x * 1e30, y, start=1e30, end=1e38)
