"""The sums of loss and metrics that a trainer's plans add to, and one pass over rows that does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.graph import Array, Storage, Value
from fastnn.train.metrics import Collected, Metric, as_metric

if TYPE_CHECKING:
    from fastnn.train.plans import BatchPlan


class Tally:
    """Where one trainer sums its loss and its metrics over batches."""

    def __init__(self, metrics: Sequence[Any]) -> None:
        if isinstance(metrics, str):
            raise ValueError(f"metrics: expected a sequence of metrics, got {metrics!r}")
        self.metrics = tuple(as_metric(m) for m in metrics)
        names = ["loss", *(m.name for m in self.metrics)]
        if len(set(names)) < len(names):
            raise ValueError(f"metrics: expected different names, got {names}")
        self.summed: list[Metric] = [m for m in self.metrics if not isinstance(m, Collected)]
        self.collects = len(self.summed) < len(self.metrics)
        self.loss = Storage(np.zeros(2))  # of losses, by rows or by weights, and of weights
        self._storages: dict[tuple[int, int], Storage] = {}

    def observe(self, output: Value, y: Value) -> list[Sequence[Value]]:
        """What each summed metric wants to be computed, within the trace."""
        return [m.values(output, y) for m in self.summed]

    def storages(self, output: Value) -> list[Storage]:
        """Where each summed metric's sums for such outputs lie."""
        places = [(i, m.size(output)) for i, m in enumerate(self.summed)]
        for i, size in places:
            if (i, size) not in self._storages:
                self._storages[i, size] = Storage(np.zeros(size))
        return [self._storages[place] for place in places]

    def clear(self) -> None:
        """Start again from 0."""
        self.loss.array[...] = 0
        for storage in self._storages.values():
            storage.array[...] = 0


class Pass:
    """One pass over rows: what their batches sum up to, and their outputs where a metric asks."""

    def __init__(self, tally: Tally) -> None:
        tally.clear()
        self.tally, self.rows = tally, 0
        self._plan: BatchPlan | None = None
        self._outputs: list[Array] = []
        self._targets: list[Array] = []

    def run(
        self,
        plan: BatchPlan,
        iterations: int,
        arrays: Mapping[str, Array],
        targets: Callable[[], Array],
    ) -> None:
        """Run so many batches on these arrays; targets() gives the y of their rows."""
        count = iterations * plan.size
        outputs = None
        if plan.kept is not None:
            shape, dtype = plan.kept
            outputs = np.empty((count, *shape), dtype)
            self._outputs.append(outputs)
            self._targets.append(targets())
        bound = plan.arrays({**arrays, "output": outputs})
        plan.plan.execute(bound, iterations, plan.strides)
        self._plan = plan
        self.rows += count

    @property
    def loss(self) -> float:
        """The mean loss so far: over the rows, or over their weights."""
        total, weights = self.tally.loss.array
        count = weights if self._plan is not None and self._plan.weighted else self.rows
        return float(total / count) if count else 0.0

    def result(self) -> dict[str, Any]:
        """{"loss": mean loss, each metric} over all rows."""
        assert self._plan is not None
        values: dict[str, Any] = {"loss": self.loss}
        sums = iter(self._plan.sums)
        for metric in self.tally.metrics:
            if isinstance(metric, Collected):
                outputs, targets = (np.concatenate(a) for a in (self._outputs, self._targets))
                values[metric.name] = metric.function(outputs, targets)
            else:
                values[metric.name] = metric.result(next(sums).array, self.rows)
        return values
