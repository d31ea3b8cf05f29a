"""What a benchmark is: a case declares it, the harness runs it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Side:
    """A library and how it is used: `options` go into its spec."""

    library: str
    variant: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Its name in tables."""
        return f"{self.library} {self.variant}".strip()


@dataclass(frozen=True)
class Case:
    """One comparison of fastnn with its peers.

    kind, spec: what the adapters are asked for. arrays: makes their data. difference: (arrays,
    ours, theirs) -> relative difference, which must be at most tolerance. flops and steps: of one
    iteration; times are reported for one step, which is called `unit`. weight: its part of the
    time, before what follows from the flops.
    """

    theme: str
    name: str
    kind: str
    spec: Mapping[str, Any]
    arrays: Callable[[], dict[str, np.ndarray]]
    peers: tuple[Side, ...]
    difference: Callable[[Arrays, Arrays, Arrays], float]
    tolerance: float
    flops: float = 0.0
    steps: int = 1
    unit: str = "step"
    weight: float = 1.0

    @property
    def part(self) -> float:
        """Its part of a theme's time."""
        return self.weight + self.flops / 2e10


FASTNN = Side("fastnn")


CHECK_STEPS = 2  # the second one uses the optimizer's state


def output_difference(_: Arrays, ours: Arrays, theirs: Arrays) -> float:
    """The largest relative L2 difference among the arrays of two results; NaN if there is one."""
    return float(np.max([_relative(ours[k], theirs[k]) for k in theirs]))


def update_difference(before: Arrays, ours: Arrays, theirs: Arrays) -> float:
    """The largest relative L2 difference among losses and updates (new minus old state).

    An update counts relative to its own size, or a thousandth of the whole update's where that is
    larger: a bias before a softmax hardly moves, and rounding is all there is of it. What rounding
    the new weights costs (half an eps a step and side) is taken off.
    """
    eps = float(np.finfo(np.float32).eps)
    change = {k: _minus(v, before[k]) for k, v in theirs.items() if k in before}
    whole = math.sqrt(sum(float(np.sum(np.square(v))) for v in change.values()))
    differences = [_relative(ours["loss"], theirs["loss"])]
    for k, v in change.items():
        stored = CHECK_STEPS * eps * float(np.linalg.norm(before[k]))
        error = float(np.linalg.norm(_minus(ours[k], theirs[k])))
        size = max(float(np.linalg.norm(v)), 1e-3 * whole)
        differences.append(0.0 if error <= stored else (error - stored) / size)
    return float(np.max(differences))


def _minus(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if a.shape != b.shape:
        raise ValueError(f"shapes {a.shape} and {b.shape} differ")
    return a.astype(np.float64) - b.astype(np.float64)


def _relative(a: np.ndarray, b: np.ndarray) -> float:
    norm = float(np.linalg.norm(b.astype(np.float64)))
    error = float(np.linalg.norm(_minus(a, b)))
    return error / norm if norm else error
