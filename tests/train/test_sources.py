"""Batches from iterables and mapped files; freezing by name."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastnn as fn
from fastnn import nn, optim
from fastnn.graph import Array

RNG = np.random.default_rng(0)
X = RNG.standard_normal((70, 4)).astype(np.float32)
Y = RNG.integers(0, 3, 70)


def trainer(**options: Any) -> fn.Trainer:
    fn.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 3))
    return fn.Trainer(model, nn.CrossEntropyLoss(), optim.Adam(lr=0.01), seed=5, **options)


def assert_equal(one: fn.Trainer, two: fn.Trainer) -> None:
    assert (one.steps, one.epochs) == (two.steps, two.epochs)
    for name, want in two.model.state_dict().items():
        np.testing.assert_array_equal(one.model.state_dict()[name], want)


class Batches:
    """The batches that fit would make without shuffling; tells the epochs that it was asked for."""

    def __init__(self, mapping: bool = False) -> None:
        self.mapping, self.told = mapping, []

    def __len__(self) -> int:
        return 3

    def set_epoch(self, epoch: int) -> None:
        self.told.append(epoch)

    def __iter__(self) -> Iterator[Any]:
        for i in (0, 32, 64):
            x, y = X[i : i + 32], Y[i : i + 32]
            yield {"x": x, "y": y} if self.mapping else (x, y)


@pytest.mark.parametrize("mapping", [False, True])
def test_batches_train_as_arrays_do(mapping: bool) -> None:
    one, two = trainer(metrics=("accuracy", "r2")[:1]), trainer(metrics=("accuracy",))
    batches = Batches(mapping)
    options: Any = {"epochs": 2, "progress": False, "schedule": lambda t: 1 - t}
    got = one.fit(batches, validation_data=batches, **options)
    want = two.fit(X, Y, shuffle=False, validation_data=(X, Y), **options)
    assert_equal(one, two)
    assert batches.told[::2] == [0, 1]
    for name in want:
        np.testing.assert_allclose(got[name], want[name], rtol=1e-6)


def test_weights_and_classes_come_with_batches() -> None:
    one, two = trainer(), trainer()
    w = RNG.integers(1, 100, 70) / 64  # exact in float32, whatever they are multiplied with
    parts = [slice(0, 32), slice(32, 64), slice(64, 70)]
    batches = [{"x": X[p], "y": Y[p], "sample_weight": w[p]} for p in parts]
    one.fit(batches, class_weight=[1.0, 2.0, 3.0], progress=False)
    two.fit(X, Y, sample_weight=w * (Y + 1), shuffle=False, progress=False)
    assert_equal(one, two)
    assert one.evaluate(batches)["loss"] == pytest.approx(
        two.evaluate(X, Y, sample_weight=w)["loss"], rel=1e-6
    )


def test_what_an_iterable_raises_comes_through_and_its_thread_ends() -> None:
    def broken() -> Iterator[Any]:
        yield X[:8], Y[:8]
        raise OSError("disk")

    def endless() -> Iterator[Any]:
        while True:
            yield X[:8], Y[:8]

    class Stop(fn.train.Callback):
        def on_tick(self, trainer: fn.Trainer, values: Any) -> None:
            trainer.stop()

    before = threading.active_count()
    with pytest.raises(OSError, match="disk"):
        trainer().fit(broken(), progress=False)
    run = trainer()
    run.fit(endless(), progress=False, callbacks=[Stop()])
    assert run.steps == 1
    assert threading.active_count() == before
    once = iter([(X, Y)])
    with pytest.raises(ValueError, match="iterator can be used only once"):
        run.fit(once, epochs=2, progress=False)


BAD: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
    (X, {}, TypeError, "x: without y"),
    (5, {}, TypeError, "x: without y"),
    ([(X, Y), (X, Y[:3])], {}, ValueError, "batch 1: y: expected as many rows"),
    ([(X, Y, Y, Y)], {}, ValueError, "batch 0: expected"),
    ([{"x": X, "labels": Y}], {}, ValueError, r"batch 0: expected .*labels"),
    ([(X, Y)], {"sample_weight": Y}, ValueError, "sample_weight: expected none without y"),
    ([(X, Y)], {"validation_split": 0.5}, ValueError, "validation_split: expected none"),
    (iter([(X, Y)]), {"schedule": lambda t: 1 - t}, ValueError, "schedule: expected batches"),
]


@pytest.mark.parametrize("batches,options,error,words", BAD, ids=[b[3] for b in BAD])
def test_bad_batches_are_named(batches: Any, options: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        trainer().fit(batches, progress=False, **options)


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_mapped_files_give_the_bits_of_arrays(tmp_path: Path, dtype: str) -> None:
    x = (X * 10).astype(dtype) if dtype != "uint8" else np.abs(X * 10).astype(dtype)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", Y)
    mapped = [np.load(tmp_path / name, mmap_mode="r") for name in ("x.npy", "y.npy")]
    one, two = trainer(metrics=("accuracy", "auc")), trainer(metrics=("accuracy", "auc"))
    options: Any = {"epochs": 2, "batch_size": 16, "validation_split": 0.2, "progress": False}
    got = one.fit(*mapped, **options)
    want = two.fit(x, Y, **options)
    assert_equal(one, two)
    for name in want:
        np.testing.assert_allclose(got[name], want[name], rtol=1e-6)


def momentum(run: fn.Trainer) -> dict[str, Array]:
    slab = run._make_slab()
    named = run.model.named_parameters()
    return {n: slab.state("exp_avg", p).copy() for n, p in named if p.requires_grad}


def test_freezing_by_name_keeps_the_state_of_the_others() -> None:
    run = trainer()
    run.fit(X, Y, progress=False)
    before, weights = momentum(run), run.model.state_dict()
    run.model.freeze("0.*")
    after = momentum(run)
    assert set(after) == {"3.weight", "3.bias"}
    for name, state in after.items():
        np.testing.assert_array_equal(state, before[name])
    run.step(X, Y)
    run.fit(X, Y, progress=False)
    now = run.model.state_dict()
    for name, was in weights.items():
        assert np.array_equal(now[name], was) == name.startswith("0.")
    kept = momentum(run)
    run.model.unfreeze("0.weight")
    thawed = momentum(run)
    assert set(thawed) == {"0.weight", "3.weight", "3.bias"}
    np.testing.assert_array_equal(thawed["3.weight"], kept["3.weight"])
    assert not thawed["0.weight"].any()
    run.step(X, Y)
    assert np.any(run.model.state_dict()["0.weight"] != weights["0.weight"])
    run.model.unfreeze()
    assert all(p.requires_grad for p in run.model.parameters())
    with pytest.raises(ValueError, match=r"patterns: '1.\*' matches none of 0.weight"):
        run.model.freeze("0.*", "1.*")
    assert all(p.requires_grad for p in run.model.parameters())
