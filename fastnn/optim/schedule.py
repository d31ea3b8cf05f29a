"""Schedules of the learning rate under the names of torch.optim.lr_scheduler.

A schedule is a function of how many epochs (or steps) are done, so it has no state, needs no optimizer
to be made, and a resumed training goes on where it was; only ReduceLROnPlateau remembers something.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.graph import Array

if TYPE_CHECKING:
    from fastnn.optim.optimizer import Optimizer


class Schedule:
    """Base: subclass it and write `at`; Trainer.fit(schedule=...) takes it.

    interval: "epoch" or "step", what it counts, from the trainer's first one on.
    """

    def __init__(self, interval: str = "epoch") -> None:
        if interval not in ("epoch", "step"):
            raise ValueError(f"interval: expected 'epoch' or 'step', got {interval!r}")
        self.interval = interval

    def at(self, t: Array, lr: float, total: int) -> Any:
        """Learning rates where the array `t` of epochs or steps is done.

        lr: the optimizer's, or a group's. total: epochs or steps that are done when the fit ends.
        """
        raise NotImplementedError

    def rates(self, steps: Array, epochs: Array, lr: float, total: tuple[int, int]) -> Array:
        """Learning rates of steps, numbered from 0, in these epochs; total: of steps and epochs."""
        by_step = self.interval == "step"
        t, end = (steps, total[0]) if by_step else (epochs, total[1])
        return np.broadcast_to(np.asarray(self.at(t, lr, end), float), t.shape)

    def __call__(self, t: Any, lr: float = 1.0, total: int = 0) -> Array:
        """The learning rates where `t` epochs or steps are done; to look at or to plot."""
        t = np.asarray(t, float)
        return self.rates(t, t, lr, (total, total))

    def finish(self, values: Mapping[str, Any], optimizer: Optimizer) -> None:
        """An epoch with these values (loss, val_loss, ...) has ended."""

    def state_dict(self) -> dict[str, Any]:
        """What it remembers, as numbers that JSON can hold."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what state_dict() gave."""


class LambdaLR(Schedule):
    """lr * lr_lambda(t), with one number t at a time."""

    def __init__(self, lr_lambda: Callable[[int], float], interval: str = "epoch") -> None:
        super().__init__(interval)
        self.lr_lambda = lr_lambda

    def at(self, t: Array, lr: float, total: int) -> Any:
        return lr * np.array([float(self.lr_lambda(int(i))) for i in t.ravel()]).reshape(t.shape)


class ConstantLR(Schedule):
    """lr * factor for total_iters, then lr; ConstantLR(1.0) changes nothing."""

    def __init__(
        self, factor: float = 1 / 3, total_iters: int = 5, interval: str = "epoch"
    ) -> None:
        super().__init__(interval)
        self.factor, self.total_iters = _positive("factor", factor), total_iters

    def at(self, t: Array, lr: float, total: int) -> Any:
        return lr * np.where(t < self.total_iters, self.factor, 1.0)


class LinearLR(Schedule):
    """From lr * start_factor to lr * end_factor in total_iters, in equal steps; then it stays."""

    def __init__(
        self,
        start_factor: float = 1 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        interval: str = "epoch",
    ) -> None:
        super().__init__(interval)
        self.start_factor = _positive("start_factor", start_factor)
        self.end_factor = _number("end_factor", end_factor)
        self.total_iters = _whole("total_iters", total_iters)

    def at(self, t: Array, lr: float, total: int) -> Any:
        done = np.minimum(t, self.total_iters) / self.total_iters
        return lr * (self.start_factor + (self.end_factor - self.start_factor) * done)


class PolynomialLR(Schedule):
    """lr * (1 - t / total_iters)^power, 0 from total_iters on."""

    def __init__(self, total_iters: int = 5, power: float = 1.0, interval: str = "epoch") -> None:
        super().__init__(interval)
        self.total_iters = _whole("total_iters", total_iters)
        self.power = _number("power", power)

    def at(self, t: Array, lr: float, total: int) -> Any:
        return lr * (1 - np.minimum(t, self.total_iters) / self.total_iters) ** self.power


class StepLR(Schedule):
    """lr * gamma^(t // step_size)."""

    def __init__(self, step_size: int, gamma: float = 0.1, interval: str = "epoch") -> None:
        super().__init__(interval)
        self.step_size, self.gamma = _whole("step_size", step_size), _number("gamma", gamma)

    def at(self, t: Array, lr: float, total: int) -> Any:
        return lr * self.gamma ** (t // self.step_size)


class MultiStepLR(Schedule):
    """lr * gamma^(number of milestones reached)."""

    def __init__(
        self, milestones: Sequence[int], gamma: float = 0.1, interval: str = "epoch"
    ) -> None:
        super().__init__(interval)
        self.milestones = sorted(milestones)
        self.gamma = _number("gamma", gamma)

    def at(self, t: Array, lr: float, total: int) -> Any:
        return lr * self.gamma ** np.searchsorted(self.milestones, t, "right").astype(float)


class ExponentialLR(Schedule):
    """lr * gamma^t."""

    def __init__(self, gamma: float, interval: str = "epoch") -> None:
        super().__init__(interval)
        self.gamma = _number("gamma", gamma)

    def at(self, t: Array, lr: float, total: int) -> Any:
        return lr * self.gamma**t


class CosineAnnealingLR(Schedule):
    """eta_min + (lr - eta_min) * (1 + cos(pi * t / T_max)) / 2 (Loshchilov and Hutter, 2017).

    T_max: half a period; None: until the fit ends.
    """

    def __init__(
        self, T_max: int | None = None, eta_min: float = 0.0, interval: str = "epoch"
    ) -> None:
        super().__init__(interval)
        self.T_max = None if T_max is None else _whole("T_max", T_max)
        self.eta_min = _number("eta_min", eta_min)

    def at(self, t: Array, lr: float, total: int) -> Any:
        return _cosine(lr, self.eta_min, t / (self.T_max or max(1, total)))


class CosineAnnealingWarmRestarts(Schedule):
    """Cosine annealing from lr to eta_min, again and again: in T_0, T_0 * T_mult, T_0 * T_mult^2, ..."""

    def __init__(
        self, T_0: int, T_mult: int = 1, eta_min: float = 0.0, interval: str = "epoch"
    ) -> None:
        super().__init__(interval)
        self.T_0, self.T_mult = _whole("T_0", T_0), _whole("T_mult", T_mult)
        self.eta_min = _number("eta_min", eta_min)

    def at(self, t: Array, lr: float, total: int) -> Any:
        first, length = np.zeros(t.shape), np.full(t.shape, float(self.T_0))
        if self.T_mult == 1:
            first = t // self.T_0 * self.T_0
        while np.any(over := t >= first + length):
            first, length = first + over * length, np.where(over, length * self.T_mult, length)
        return _cosine(lr, self.eta_min, (t - first) / length)


class OneCycleLR(Schedule):
    """Up from max_lr / div_factor to max_lr, down to that / final_div_factor (Smith and Topin, 2018).

    max_lr: None for the optimizer's (and each group's) rate. total_steps: None, all steps until the
    fit ends. pct_start: the part that goes up. anneal_strategy: "cos" or "linear". three_phase: down to
    max_lr / div_factor as long as up, then to the end. It counts steps; momentum stays as it is.
    """

    def __init__(
        self,
        max_lr: float | None = None,
        total_steps: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        interval: str = "step",
    ) -> None:
        super().__init__(interval)
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(
                f"anneal_strategy: expected 'cos' or 'linear', got {anneal_strategy!r}"
            )
        if not 0 <= pct_start <= 1:
            raise ValueError(f"pct_start: expected a number from 0 to 1, got {pct_start!r}")
        self.max_lr = None if max_lr is None else _number("max_lr", max_lr)
        self.total_steps = None if total_steps is None else _whole("total_steps", total_steps)
        self.pct_start, self.anneal_strategy = pct_start, anneal_strategy
        self.div_factor = _positive("div_factor", div_factor)
        self.final_div_factor = _positive("final_div_factor", final_div_factor)
        self.three_phase = three_phase

    def at(self, t: Array, lr: float, total: int) -> Any:
        total = self.total_steps or max(1, total)
        top = lr if self.max_lr is None else self.max_lr
        low = top / self.div_factor
        ends, values = [self.pct_start * total - 1], [low, top]
        if self.three_phase:
            ends.append(2 * self.pct_start * total - 2)
            values.append(low)
        ends.append(total - 1)
        values.append(low / self.final_div_factor)
        t = np.minimum(t, total - 1)
        result, start = np.full(t.shape, values[-1]), ends[-1]
        for i in reversed(range(len(ends))):
            start = ends[i - 1] if i else 0.0
            part = np.clip((t - start) / (ends[i] - start if ends[i] > start else 1.0), 0, 1)
            shaped = (1 - np.cos(np.pi * part)) / 2 if self.anneal_strategy == "cos" else part
            inside = t <= ends[i]
            result = np.where(inside, values[i] + (values[i + 1] - values[i]) * shaped, result)
        return result


def _cosine(lr: float, least: float, part: Array) -> Any:
    return least + (lr - least) * (1 + np.cos(np.pi * part)) / 2


def _number(name: str, value: float) -> float:
    if not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
        raise ValueError(f"{name}: expected a finite number of at least 0, got {value!r}")
    return float(value)


def _positive(name: str, value: float) -> float:
    if not _number(name, value):
        raise ValueError(f"{name}: expected a number above 0, got {value!r}")
    return float(value)


def _whole(name: str, value: int) -> int:
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name}: expected an int of at least 1, got {value!r}")
    return int(value)
