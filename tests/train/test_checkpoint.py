"""Checkpoints continue bit for bit, and refuse whatever does not fit before changing anything."""

import json
import os
import sys

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import fastnn as fn
from fastnn import nn, optim
from fastnn.train import CheckpointError, checkpoint

OPTIMIZERS = {
    "sgd": lambda: optim.SGD(lr=0.1),
    "momentum": lambda: optim.SGD(lr=0.05, momentum=0.9, nesterov=True),
    "adam": lambda: optim.Adam(lr=1e-2),
    "adamw": lambda: optim.AdamW(lr=1e-2, amsgrad=True),
    "nadam": lambda: optim.NAdam(lr=1e-2),
    "rmsprop": lambda: optim.RMSprop(lr=1e-2, centered=True, momentum=0.5),
    "lamb": lambda: optim.LAMB(lr=1e-2),
}


def mlp(hidden=8, seed=1):
    fn.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, hidden), nn.ReLU(), nn.Dropout(0.3), nn.Linear(hidden, 3))


def cnn(seed=1):
    fn.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(16, 3),
    )


def trainer(model, optimizer="adam"):
    made = OPTIMIZERS[optimizer]()
    return fn.Trainer(model, nn.CrossEntropyLoss(), made, metrics=("accuracy",), seed=7)


def resume(path, model, optimizer="adam"):
    made = OPTIMIZERS[optimizer]()
    return fn.Trainer.resume(path, model, nn.CrossEntropyLoss(), made, metrics=("accuracy",))


def samples(*shape):
    rng = np.random.default_rng(3)
    return rng.standard_normal((45, *shape)).astype(np.float32), rng.integers(0, 3, 45)


def content(run, path):
    """The bytes of all tensors of this trainer's checkpoint."""
    run.save(path)
    return {name: array.tobytes() for name, array in load_file(path).items()}


@pytest.fixture
def saved(tmp_path):
    """A checkpoint of mlp() under Adam."""
    trainer(mlp()).save(tmp_path / "saved")
    return str(tmp_path / "saved")


@pytest.fixture
def untouched():
    """A model to resume into; whatever the test does to it must leave its numbers alone."""
    model = mlp(seed=2)
    before = model.state_dict()
    yield model
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


# --- continuing ---


@pytest.mark.parametrize("make, shape", [(mlp, (5,)), (cnn, (1, 4, 4))], ids=["mlp", "cnn"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_two_and_three_epochs_are_five(tmp_path, make, shape, optimizer):
    x, y = samples(*shape)
    straight = trainer(make(), optimizer)
    whole = straight.fit(x, y, epochs=5, batch_size=16, progress=False)

    first = trainer(make(), optimizer)
    first.fit(x, y, epochs=2, batch_size=16, progress=False)
    first.save(tmp_path / "half")
    second = resume(tmp_path / "half", make(seed=2), optimizer)
    rest = second.fit(x, y, epochs=3, batch_size=16, progress=False)

    assert rest["loss"] == whole["loss"][2:]
    assert (second.steps, second.epochs, second.seed) == (15, 5, 7)
    assert content(second, tmp_path / "b") == content(straight, tmp_path / "a")


def test_steps_continue_too(tmp_path):
    x, y = samples(5)
    straight, first = trainer(mlp()), trainer(mlp())
    losses = [straight.step(x, y) for _ in range(6)]
    for _ in range(3):
        first.step(x, y)
    first.save(tmp_path / "half")
    second = resume(tmp_path / "half", mlp(seed=2))
    assert [second.step(x, y) for _ in range(3)] == losses[3:]


def test_the_learning_rate_of_the_file_counts(tmp_path):
    run = trainer(mlp())
    run.optimizer.lr = 0.125
    run.save(tmp_path / "file")
    assert resume(tmp_path / "file", mlp()).optimizer.lr == 0.125


def test_frozen_parameters_have_no_optimizer_state(tmp_path):
    model = mlp()
    model[0].requires_grad_(False)
    run = trainer(model)
    names = content(run, tmp_path / "file").keys()
    assert {n for n in names if n.startswith("optimizer.")} == {
        f"optimizer.{state}.3.{p}"
        for state in ("exp_avg", "exp_avg_sq")
        for p in ("weight", "bias")
    }
    again = mlp(seed=2)
    again[0].requires_grad_(False)
    assert content(resume(tmp_path / "file", again), tmp_path / "b") == content(run, tmp_path / "a")


def test_float64(tmp_path):
    run = trainer(mlp().double())
    run.save(tmp_path / "file")
    again = resume(tmp_path / "file", mlp(seed=2).double())
    assert content(again, tmp_path / "b") == content(run, tmp_path / "a")
    with pytest.raises(CheckpointError, match=r"'model\.0\.weight': expected float32"):
        resume(tmp_path / "file", mlp())


# --- the file ---


def test_content(saved):
    with safe_open(saved, framework="numpy") as file:
        about = json.loads(file.metadata()["fastnn"])
        assert set(file.keys()) == {
            f"{prefix}.{layer}.{p}"
            for prefix in ("model", "optimizer.exp_avg", "optimizer.exp_avg_sq")
            for layer in (0, 3)
            for p in ("weight", "bias")
        }
    adam = {"class": "Adam", "lr": 0.01, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.0}
    adam |= {"amsgrad": False}
    assert about == {"version": 1, "steps": 0, "epochs": 0, "seed": 7, "optimizer": adam}
    np.testing.assert_array_equal(load_file(saved)["model.0.weight"], mlp()[0].weight.data)


def test_relative_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trainer(mlp()).save("here")
    resume("here", mlp())
    assert os.listdir(tmp_path) == ["here"]


def test_a_failed_save_leaves_the_old_file(saved, monkeypatch):
    with open(saved, "rb") as file:
        before = file.read()

    def fail(descriptor):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space left"):
        trainer(mlp(seed=2)).save(saved)
    with open(saved, "rb") as file:
        assert file.read() == before
    assert os.listdir(os.path.dirname(saved)) == ["saved"]


def test_without_safetensors(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ImportError, match=r"fastnn-cpu\[files\]"):
        trainer(mlp()).save(tmp_path / "file")
    with pytest.raises(ImportError, match=r"fastnn-cpu\[files\]"):
        resume(tmp_path / "file", mlp())


# --- what is refused ---


def test_no_file(tmp_path, untouched):
    with pytest.raises(FileNotFoundError, match="absent"):
        resume(tmp_path / "absent", untouched)


@pytest.mark.parametrize("size", [0, 1, 7, 8, 100, -1])
def test_truncated(saved, untouched, size):
    with open(saved, "rb") as file:
        whole = file.read()
    with open(saved, "wb") as file:
        file.write(whole[:size])
    with pytest.raises(CheckpointError, match=f"{saved}: not a readable safetensors file"):
        resume(saved, untouched)


def test_any_flipped_bit_is_found(saved, untouched):
    with open(saved, "rb") as file:
        whole = bytearray(file.read())
    for i in range(0, len(whole), 41):
        damaged = whole.copy()
        damaged[i] ^= 0x10
        with open(saved, "wb") as file:
            file.write(damaged)
        with pytest.raises(CheckpointError, match=saved):
            resume(saved, untouched)


def test_foreign_files(tmp_path, untouched):
    path = str(tmp_path / "file")
    save_file({"weight": np.zeros(3)}, path)
    with pytest.raises(CheckpointError, match="no key 'fastnn'"):
        resume(path, untouched)
    with open(path, "wb") as file:
        file.write(b"PK\x03\x04 some other format")
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        resume(path, untouched)


def edited(path, edit):
    """Do `edit(tensors, about)` to a checkpoint and give it a digest that fits again."""
    with safe_open(path, framework="numpy") as file:
        about = json.loads(file.metadata()["fastnn"])
    tensors = load_file(path)
    edit(tensors, about)
    text = json.dumps(about)
    save_file(tensors, path, {"fastnn": text, "sha256": checkpoint._digest(text, tensors)})
    return path


def _replace(name, array):
    return lambda tensors, about: tensors.update({name: array})


@pytest.mark.parametrize(
    "edit, message",
    [
        (lambda t, a: t.pop("model.3.bias"), r"key 'model\.3\.bias' is missing"),
        (lambda t, a: t.pop("optimizer.exp_avg.0.weight"), r"'optimizer\.exp_avg\.0\.weight' is m"),
        (_replace("model.9.bias", np.zeros(2)), r"key 'model\.9\.bias' is not of this model"),
        (_replace("model.3.bias", np.zeros(3)), r"'model\.3\.bias': expected float32"),
        (_replace("model.3.bias", np.zeros(2, np.float32)), r"of shape \(3,\), got .* \(2,\)"),
        (lambda t, a: a.update(version=2), "'version': expected 1, got 2"),
        (lambda t, a: a.update(steps="many"), "its key 'fastnn'"),
        (lambda t, a: a.pop("optimizer"), "its key 'fastnn'"),
        (lambda t, a: a["optimizer"].pop("lr"), "optimizer 'lr'"),
        (lambda t, a: a["optimizer"].update(eps=1e-7), "optimizer 'eps': saved 1e-07, now 1e-08"),
    ],
)
def test_wrong_keys_shapes_and_numbers(saved, untouched, edit, message):
    edited(saved, edit)
    with pytest.raises(CheckpointError, match=message) as error:
        resume(saved, untouched)
    assert saved in str(error.value)


def test_another_optimizer(saved, untouched):
    with pytest.raises(CheckpointError, match="optimizer 'class': saved 'Adam', now 'SGD'"):
        resume(saved, untouched, "momentum")


def test_another_model(saved):
    with pytest.raises(CheckpointError, match=r"'model\.0\.weight': expected .* \(9, 5\), got"):
        resume(saved, mlp(hidden=9))
