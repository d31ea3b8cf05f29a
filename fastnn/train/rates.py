"""What a fit tells the plan of each step: its number, its learning rates and its micro-batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.graph import Array
from fastnn.optim.optimizer import LR_AT, Optimizer
from fastnn.optim.schedule import Schedule
from fastnn.plan.outer import HYPER_SIZE

if TYPE_CHECKING:
    from fastnn.train.trainer import Trainer

LEFT = 2.0**32  # times the micro-batches that are left of a step, in its number
PART_AT = 3  # where a micro-batch's part in the mean of gradients so far stands

AnySchedule = Schedule | Callable[[Array], Any]


class Rates:
    """The learning rates of a fit; done, coming: its steps (None: unknown) and epochs."""

    def __init__(
        self,
        optimizer: Optimizer,
        schedule: AnySchedule | None,
        done: tuple[int, int],
        coming: tuple[int | None, int],
    ) -> None:
        if schedule is not None and not callable(schedule):
            raise TypeError(
                f"schedule: expected a Schedule or a function, got {type(schedule).__name__}"
            )
        steps, epochs = coming
        if schedule is not None and steps is None:
            raise ValueError("schedule: expected batches with a length to go by")
        self.optimizer, self.schedule = optimizer, schedule
        self.first, self.total = done[0], steps or 1
        self.ends = done[0] + self.total, done[1] + epochs

    def fill(self, hyper: Array, steps: Array, epoch: int) -> None:
        """Write the rates of steps, numbered from 1, in this epoch to the rows of their scalars."""
        columns = [LR_AT, *range(HYPER_SIZE, hyper.shape[1])]
        for column, lr in zip(columns, self.optimizer.rates(), strict=True):
            hyper[:, column] = self._of(lr, steps, epoch)

    def _of(self, lr: float, steps: Array, epoch: int) -> Any:
        if self.schedule is None:
            return lr
        if isinstance(self.schedule, Schedule):
            rates = self.schedule.rates(steps - 1, np.full(steps.shape, epoch), lr, self.ends)
            if not np.all((rates >= 0) & (rates < np.inf)):
                raise ValueError(f"schedule: expected learning rates of at least 0, got {rates}")
            return rates
        factors = np.asarray(self.schedule((steps - 1 - self.first) / self.total))
        if factors.shape not in ((), steps.shape) or not np.all(factors >= 0):
            raise ValueError(f"schedule: expected factors of at least 0, got {factors}")
        return lr * factors

    def finish(self, values: Mapping[str, Any]) -> None:
        """An epoch with these values has ended."""
        if isinstance(self.schedule, Schedule):
            self.schedule.finish(values, self.optimizer)


def remember(trainer: Trainer, schedule: Any) -> None:
    """Keep a schedule for checkpoints; after `resume` it goes on from what the file holds of it."""
    trainer._schedule = schedule if isinstance(schedule, Schedule) else None
    saved, trainer._schedule_state = trainer._schedule_state, None
    if saved and trainer._schedule and saved["class"] == type(schedule).__name__:
        schedule.load_state_dict(saved["state"])


class MicroBatches:
    """Which step each batch of an epoch belongs to: `every` batches make one, the last has the rest.

    batches: of an epoch; None, unknown, only where every batch is a step.
    """

    def __init__(self, every: int, batches: int | None) -> None:
        if batches is None and every > 1:
            raise ValueError("accumulate: expected batches with a length to go by")
        self.every, self.batches = every, batches
        self.steps = None if batches is None else -(-batches // every)
        self.begin()

    def begin(self) -> None:
        """A new epoch."""
        self.done = self.rows = 0  # batches of the epoch, rows of the step that goes on
        self.mark()

    def mark(self) -> None:
        """Remember this place for `rewind`."""
        self._marked = self.done, self.rows

    def rewind(self) -> None:
        """Go back to the last mark."""
        self.done, self.rows = self._marked

    def fill(self, hyper: Array, size: int, steps: int) -> Array:
        """Write the scalars of the next batches, each of `size` rows; returns their steps' numbers.

        steps: those done so far. A written number carries the batches that are left of the step.
        """
        i = self.done + np.arange(len(hyper))
        within = i % self.every
        ahead = (self.rows if self.done % self.every else 0) - size * (self.done % self.every)
        before = size * within + np.where(i // self.every == self.done // self.every, ahead, 0)
        left = self.every - 1 - within
        if self.batches is not None:
            left = np.minimum(left, self.batches - 1 - i)
        numbers = steps + 1 + i // self.every - self.done // self.every
        hyper[:, 0] = numbers + LEFT * left
        hyper[:, PART_AT] = size / (before + size)
        self.done, self.rows = self.done + len(hyper), int(before[-1]) + size
        return np.asarray(numbers)
