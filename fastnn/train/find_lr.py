"""The learning-rate range test (Smith, 2017): loss while the rate grows from step to step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.graph import Array
from fastnn.train.rows import Rows
from fastnn.train.snapshot import Snapshot

if TYPE_CHECKING:
    from fastnn.train.trainer import Trainer

SMOOTHING = 0.9  # share of the past in the running mean of the loss
DIVERGED = 4.0  # times the best mean: no larger rate is tried


@dataclass(frozen=True, eq=False)
class LRCurve:
    """Learning rates, the loss at each, its running mean, and the rate to begin with.

    suggestion: a tenth of the rate at which the mean is lowest.
    """

    lr: Array
    loss: Array
    mean: Array
    suggestion: float

    def __repr__(self) -> str:
        return f"LRCurve({len(self.lr)} rates to {self.lr[-1]:.3g}: try {self.suggestion:.3g})"

    def plot(self, path: Any = None) -> Any:
        """Draw the curve; returns matplotlib's figure. See History.plot."""
        from fastnn.train.plot import plot_rates

        return plot_rates(self, path)


def find_lr(
    trainer: Trainer, rows: Rows, batch_size: int, start: float, end: float, steps: int
) -> LRCurve:
    """Train with rates from start to end, and leave everything as it was."""
    snapshot = Snapshot(trainer)
    order = np.random.Generator(np.random.Philox(trainer.seed)).permutation(len(rows))
    batch = min(batch_size, len(rows))
    rates = np.geomspace(start, end, steps)
    losses: list[float] = []
    means: list[float] = []
    running = 0.0
    try:
        for i, rate in enumerate(rates):
            trainer.optimizer.lr = float(rate)
            picked = np.arange(i * batch, (i + 1) * batch) % len(rows)
            loss = trainer.step(**rows[order[picked]].arrays)
            running = SMOOTHING * running + (1 - SMOOTHING) * loss
            mean = running / (1 - SMOOTHING ** (i + 1))
            if not np.isfinite(loss) or (means and mean > DIVERGED * min(means) > 0):
                break
            losses.append(loss)
            means.append(mean)
    finally:
        snapshot.restore(trainer)
    if len(means) < 3:
        raise ValueError(f"start: expected a rate at which training does not diverge, got {start}")
    tried, mean_loss = rates[: len(means)], np.array(means)
    return LRCurve(tried, np.array(losses), mean_loss, float(tried[mean_loss.argmin()]) / 10)
