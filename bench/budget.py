"""How long themes and their cases may take: a run ends in time, whatever the machine does."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Effort:
    """Seconds in which a case of weight 1 is timed, at most; what all themes' seconds are times."""

    timed: float
    factor: float


EFFORTS = {
    "quick": Effort(0.5, 0.2),  # 4 minutes
    "normal": Effort(2.0, 1.0),  # some 18 minutes
    "long": Effort(4.0, 4.0),  # an hour: for a machine that others disturb
    "full": Effort(15.0, 10.0),  # two and a half hours, and larger cases
}
SIDE_BY_SIDE = {"kernels": 180, "convolutions": 90, "products": 60, "train": 300, "infer": 240}
SECONDS = {**SIDE_BY_SIDE, "bandwidth": 90, "scaling": 150}


class Budget:
    """The seconds of a theme: each case may take its part of what those before it have left."""

    def __init__(self, seconds: float, weights: Iterable[float]) -> None:
        self.end = time.perf_counter() + seconds
        self.weight = sum(weights)

    def next(self, weight: float) -> float:
        """Seconds for a case of this weight; none are left where it is below 0."""
        share = (self.end - time.perf_counter()) * weight / max(self.weight, weight)
        self.weight -= weight
        return share
