"""Schedules made of others: one after another, and a warm-up before any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.graph import Array
from fastnn.optim.schedule import ConstantLR, LinearLR, Schedule

if TYPE_CHECKING:
    from fastnn.optim.optimizer import Optimizer


class SequentialLR(Schedule):
    """One schedule after another: the next begins, from its own 0, at each milestone.

    schedulers: without Warmup, which goes around, and ReduceLROnPlateau; all count this one's interval.
    milestones: one less, growing. Raises ValueError for others.
    """

    def __init__(
        self, schedulers: Sequence[Schedule], milestones: Sequence[int], interval: str = "epoch"
    ) -> None:
        super().__init__(interval)
        if not schedulers or len(schedulers) != len(milestones) + 1:
            raise ValueError(
                f"milestones: expected one less than the {len(schedulers)} schedulers, "
                f"got {len(milestones)}"
            )
        for schedule in schedulers:
            if type(schedule).finish is not Schedule.finish:
                raise ValueError(
                    f"schedulers: {type(schedule).__name__} cannot be one of several: "
                    "a Warmup goes around them, a ReduceLROnPlateau stands alone"
                )
        self.schedulers, self.milestones = list(schedulers), list(milestones)

    def at(self, t: Array, lr: float, total: int) -> Any:
        result = self.schedulers[0].at(t, lr, total)
        for schedule, first in zip(self.schedulers[1:], self.milestones, strict=True):
            later = schedule.at(np.maximum(t - first, 0), lr, total - first)
            result = np.where(t >= first, later, result)
        return result


class Warmup(Schedule):
    """Before any schedule (None: a constant rate): its rates times a factor that grows linearly to 1.

    The factor begins at start_factor and is 1 after total_iters steps (or epochs: interval). Where
    both count the same, `schedule` begins after that; else it counts along.
    """

    def __init__(
        self,
        schedule: Schedule | None,
        total_iters: int,
        start_factor: float = 1 / 3,
        interval: str = "step",
    ) -> None:
        super().__init__(interval)
        self.ramp = LinearLR(start_factor, 1.0, total_iters, interval)
        self.schedule = ConstantLR(1.0) if schedule is None else schedule

    def rates(self, steps: Array, epochs: Array, lr: float, total: tuple[int, int]) -> Array:
        factors = self.ramp.rates(steps, epochs, 1.0, total)
        wait = self.ramp.total_iters if self.schedule.interval == self.interval else 0
        steps, epochs = np.maximum(steps - wait, 0), np.maximum(epochs - wait, 0)
        after = (total[0] - wait, total[1] - wait)
        return factors * self.schedule.rates(steps, epochs, lr, after)

    def finish(self, values: Mapping[str, Any], optimizer: Optimizer) -> None:
        self.schedule.finish(values, optimizer)

    def state_dict(self) -> dict[str, Any]:
        return self.schedule.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.schedule.load_state_dict(state)
