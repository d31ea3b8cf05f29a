"""Checkpoints: one safetensors file from which training continues bit for bit.

Tensors: model.<key> for each key of the state dict, optimizer.<state>.<parameter name> for each
state of each trained parameter. Metadata: "fastnn", JSON with steps, epochs, seed, the optimizer's
class and numbers and, where there are any, the steps done before a parameter was trained ("starts")
and what a schedule remembers, and "sha256" of that and of all tensors. Random numbers are
counter-based, so no generator has a state to keep.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.graph import Array

if TYPE_CHECKING:
    from fastnn.nn.module import Module
    from fastnn.optim.optimizer import Optimizer
    from fastnn.train.trainer import Trainer

VERSION = 1


class CheckpointError(ValueError):
    """A file is no checkpoint, is damaged, or belongs to another model or optimizer."""


def save(trainer: Trainer, path: str | os.PathLike[str]) -> None:
    """Write the trainer's model, optimizer states and counts; the file is whole or not there."""
    from fastnn.data.files import write_atomic

    numpy_format = _safetensors().numpy
    slab = trainer._make_slab()
    tensors = {f"model.{name}": array for name, array in trainer.model.state_dict().items()}
    for name, parameter in _trained(trainer.model).items():
        for state in slab.states:
            tensors[f"optimizer.{state}.{name}"] = np.array(slab.state(state, parameter), order="C")
    described: dict[str, Any] = {
        "version": VERSION,
        "steps": trainer.steps,
        "epochs": trainer.epochs,
        "seed": trainer.seed,
        "optimizer": _described(trainer.optimizer),
    }
    starts = {name: slab.start(p) for name, p in _trained(trainer.model).items()}
    if any(starts.values()):
        described["starts"] = starts
    schedule = trainer._schedule
    if schedule is not None and schedule.state_dict():
        described["schedule"] = {"class": type(schedule).__name__, "state": schedule.state_dict()}
    about = json.dumps(described)
    metadata = {"fastnn": about, "sha256": _digest(about, tensors)}
    write_atomic(os.path.abspath(path), numpy_format.save(tensors, metadata))


class Checkpoint:
    """A checkpoint file, read and checked as a whole; CheckpointError names path and key."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        metadata, self.tensors = self._read()
        if "fastnn" not in metadata:
            raise self._error("not a checkpoint: its metadata has no key 'fastnn'")
        if metadata.get("sha256") != _digest(metadata["fastnn"], self.tensors):
            raise self._error("damaged: the key 'sha256' does not fit its content")
        try:
            about = json.loads(metadata["fastnn"])
            self.steps, self.epochs, self.seed = (
                int(about[k]) for k in ("steps", "epochs", "seed")
            )
            self.optimizer = dict(about["optimizer"])
            self.starts = {name: int(start) for name, start in about.get("starts", {}).items()}
            self.schedule = about.get("schedule")
            version = about["version"]
        except (KeyError, TypeError, ValueError) as error:
            raise self._error(
                f"its key 'fastnn' is not what a checkpoint has: {error!r}"
            ) from error
        if version != VERSION:
            raise self._error(f"'version': expected {VERSION}, got {version!r}")

    def _read(self) -> tuple[dict[str, str], dict[str, Array]]:
        safetensors = _safetensors()
        with open(self.path, "rb"):  # raises OSError with the path where it cannot be read
            pass
        try:
            with safetensors.safe_open(self.path, framework="numpy") as file:
                metadata = file.metadata() or {}
                names = file.keys() if "fastnn" in metadata else ()
                return metadata, {name: file.get_tensor(name) for name in names}
        except (safetensors.SafetensorError, OSError, TypeError, ValueError) as error:
            raise self._error(f"not a readable safetensors file: {error}") from error

    def _error(self, what: str) -> CheckpointError:
        return CheckpointError(f"{self.path}: {what}")

    def check(self, trainer: Trainer) -> None:
        """CheckpointError unless it was saved from such a model and optimizer."""
        model, optimizer = trainer.model, trainer.optimizer
        wanted = {f"model.{k}": (s.shape, s.dtype) for k, s in model.state_dict().items()}
        for name, p in _trained(model).items():
            for state in optimizer.state_names():
                wanted[f"optimizer.{state}.{name}"] = p.shape, p.dtype
        now = _described(optimizer)
        for key in {**self.optimizer, **now}:
            saved = self.optimizer.get(key)
            if key == "lr":
                fits = isinstance(saved, float)
            elif key == "groups":
                fits = _without_rates(saved) == _without_rates(now.get(key))
            else:
                fits = saved == now.get(key)
            if not fits:
                raise self._error(f"optimizer {key!r}: saved {saved!r}, now {now.get(key)!r}")
        for key, (shape, dtype) in wanted.items():
            array = self.tensors.get(key)
            if array is None:
                raise self._error(f"key {key!r} is missing")
            if array.shape != shape or array.dtype != dtype:
                raise self._error(
                    f"key {key!r}: expected {dtype} of shape {shape}, "
                    f"got {array.dtype} of shape {array.shape}"
                )
        for key in self.tensors.keys() - wanted.keys():
            raise self._error(f"key {key!r} is not of this model and optimizer")

    def restore(self, trainer: Trainer) -> None:
        """Copy everything into a trainer that `check` found fitting."""
        trainer.optimizer.lr = self.optimizer["lr"]
        for group, saved in zip(
            trainer.optimizer.groups, self.optimizer.get("groups", ()), strict=True
        ):
            group.lr = saved.get("lr")
        part = len("model.")
        state = {k[part:]: a for k, a in self.tensors.items() if k.startswith("model.")}
        trainer.model.load_state_dict(state)
        if self.starts:
            named = trainer.model.named_parameters()
            trainer._slab = trainer.optimizer.attach(named, None, self.starts)
        slab = trainer._make_slab()
        for name, parameter in _trained(trainer.model).items():
            for kind in slab.states:
                slab.state(kind, parameter)[...] = self.tensors[f"optimizer.{kind}.{name}"]
        trainer.steps, trainer.epochs = self.steps, self.epochs
        trainer._schedule_state = self.schedule


def _safetensors() -> Any:
    try:
        import safetensors
        import safetensors.numpy
    except ImportError as error:
        raise ImportError(
            "checkpoints need safetensors: pip install 'fastnn-cpu[files]'"
        ) from error
    return safetensors


def _trained(model: Module) -> dict[str, Any]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def _described(optimizer: Optimizer) -> dict[str, Any]:
    """Class and numbers as they come back from JSON."""
    described: dict[str, Any] = {"class": type(optimizer).__name__, **optimizer.config}
    described = json.loads(json.dumps(described))
    return described


def _without_rates(groups: Any) -> Any:
    """Groups as they are described, but for what may change between steps."""
    if not isinstance(groups, list) or not all(isinstance(group, dict) for group in groups):
        return groups
    return [{k: v for k, v in group.items() if k != "lr"} for group in groups]


def _digest(about: str, tensors: Mapping[str, Array]) -> str:
    import hashlib

    digest = hashlib.sha256(about.encode())
    for name in sorted(tensors):
        array = tensors[name]
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
