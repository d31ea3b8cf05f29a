"""The learning rates of the steps of one fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastnn.graph import Array
from fastnn.optim.optimizer import Optimizer

Schedule = Callable[[Array], Any]


class Rates:
    """The rates of steps, numbered from 1, of a fit of `total` steps (None: unknown) after `first`."""

    def __init__(
        self, optimizer: Optimizer, schedule: Schedule | None, first: int, total: int | None
    ) -> None:
        if schedule is not None and total is None:
            raise ValueError("schedule: expected batches with a length to go by")
        self.optimizer, self.schedule, self.first, self.total = (
            optimizer,
            schedule,
            first,
            total or 1,
        )

    def __call__(self, steps: Array) -> Any:
        if self.schedule is None:
            return self.optimizer.lr
        factors = np.asarray(self.schedule((steps - 1 - self.first) / self.total))
        if factors.shape not in ((), steps.shape) or not np.all(factors >= 0):
            raise ValueError(f"schedule: expected factors of at least 0, got {factors}")
        return self.optimizer.lr * factors
