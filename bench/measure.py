"""Timing: the sides of a case run in turn, A B C A B C, and each round gives one ratio.

Within one round the machine is in one mood: a ratio of a round is worth more than one of medians.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .case import FASTNN, Case, Side
from .machine import busy_seconds
from .workers import NotRun, WorkerProcess, Workers


@dataclass(frozen=True)
class Effort:
    """How long a case may take: seconds of one timed slice, rounds at least and at most, seconds of
    all slices of one side together (the number of rounds follows)."""

    slice: float
    least: int
    most: int
    total: float

    def rounds(self, seconds: float) -> int:
        """Rounds of slices of so many seconds."""
        return max(self.least, min(self.most, int(self.total / seconds)))


EFFORTS = {
    "quick": Effort(0.05, 3, 5, 1.0),
    "normal": Effort(0.1, 5, 11, 3.0),
    "full": Effort(0.2, 5, 25, 20.0),
}


@dataclass
class Row:
    """One side of one case: seconds for a step, by round; why there are none; how it was called."""

    case: Case
    side: Side
    seconds: np.ndarray
    ratios: np.ndarray  # its seconds over fastnn's, by round
    difference: float = 0.0
    reason: str = ""
    via: str = ""

    @property
    def ran(self) -> bool:
        """Whether there are figures."""
        return bool(len(self.seconds))


@dataclass
class Result:
    """All rows of a case, fastnn's first, and the cores that other programs used meanwhile."""

    case: Case
    rows: list[Row]
    others: float = 0.0

    @property
    def ran(self) -> bool:
        """Whether fastnn was timed, alone or against somebody."""
        return self.rows[0].ran

    @property
    def wrong(self) -> bool:
        """Whether some side's result differs from fastnn's."""
        return any(row.reason.startswith("WRONG") for row in self.rows)


class _Open:
    """A side that is set up in its worker."""

    def __init__(self, case: Case, side: Side, workers: Workers, folder: Path) -> None:
        self.side, self.id = side, side.label
        self.out = folder / f"{side.label.replace(' ', '-')}.npz"
        self.worker: WorkerProcess = workers.get(side.library)
        spec = {**case.spec, **side.options}
        arrays = str(folder / "arrays.npz")
        self.via = self.worker.ask("open", id=self.id, kind=case.kind, spec=spec, arrays=arrays)[
            "via"
        ]

    def check(self) -> dict[str, np.ndarray]:
        """What the run gives."""
        self.worker.ask("check", id=self.id, out=str(self.out))
        with np.load(self.out) as file:
            return dict(file)

    def time(self, n: int, warm: int = 0) -> float:
        """Seconds of n iterations."""
        return float(self.worker.ask("time", id=self.id, n=n, warm=warm)["seconds"])

    def calibrate(self, target: float) -> int:
        """Warm up, and find how many iterations take about `target` seconds."""
        n, seconds = 1, self.time(1)
        while seconds < target / 2:
            n = math.ceil(n * min(10.0, 0.8 * target / max(seconds, 1e-9)))
            seconds = self.time(n)
        return max(1, round(n * target / seconds))

    def close(self) -> None:
        """Free it; a worker that died has done so already."""
        if self.worker.alive:
            self.worker.ask("close", id=self.id)


def run_case(
    case: Case, workers: Workers, effort: Effort, progress: Callable[[str], None]
) -> Result:
    """Set all sides up, compare their results, time those that agree."""
    rows = [Row(case, side, np.empty(0), np.empty(0)) for side in (FASTNN, *case.peers)]
    result = Result(case, rows)
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        try:
            arrays = case.arrays()
        except (ImportError, OSError, ValueError) as error:  # a data set that cannot be had
            rows[0].reason = f"not run: {error}"
            return _abandon(result)
        np.savez(folder / "arrays.npz", **arrays)
        sides: dict[int, _Open] = {}
        ours: dict[str, np.ndarray] = {}
        for i, row in enumerate(rows):
            progress(f"{case.name}: {row.side.label}")
            try:
                side = _Open(case, row.side, workers, folder)
                row.via = side.via
                theirs = side.check()
            except NotRun as error:
                row.reason = f"not run: {error}"
                if i == 0:
                    return _abandon(result)
                continue
            ours = ours or theirs
            row.difference = case.difference(arrays, ours, theirs)
            if not row.difference <= case.tolerance:
                row.reason = f"WRONG RESULT: differs by {row.difference:.1e} > {case.tolerance:.1e}"
                continue
            sides[i] = side
        _time(result, sides, workers, effort)
        for side in sides.values():
            side.close()
    return result


def _abandon(result: Result) -> Result:
    for row in result.rows[1:]:
        row.reason = "not run: nothing to compare with"
    return result


def _time(result: Result, sides: dict[int, _Open], workers: Workers, effort: Effort) -> None:
    counts, slowest = {}, 0.0
    for i, side in sides.items():
        workers.settle()
        counts[i] = side.calibrate(effort.slice)
        workers.settle()
        slowest = max(slowest, side.time(counts[i]))
    seconds: dict[int, list[float]] = {i: [] for i in sides}
    elapsed, used, busy = 0.0, 0.0, 0.0
    for _ in range(effort.rounds(slowest)):
        for i, side in sides.items():
            workers.settle()
            before = workers.cpu_seconds(), busy_seconds()
            taken = side.time(counts[i], warm=counts[i] // 10)
            used += workers.cpu_seconds() - before[0]
            busy += busy_seconds() - before[1]
            elapsed += taken * (1 + counts[i] // 10 / counts[i])
            seconds[i].append(taken / counts[i] / result.case.steps)
    for i in sides:
        row = result.rows[i]
        row.seconds = np.array(seconds[i])
        row.ratios = row.seconds / np.array(seconds[0])
    result.others = max(0.0, busy - used) / elapsed
