"""Timing: the sides of a case run in turn, A B C A B C, many short slices in each turn.

Within one round the machine is in one mood: a ratio of a round is worth more than one of medians. Where
other jobs or the host take the cores away for milliseconds at a time, some slices still run whole: the
best of them, of either side, is the second figure.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .case import FASTNN, Case, Side
from .machine import Lost
from .workers import NotRun, WorkerProcess, Workers

SLICE, TURN, LEAST = 0.003, 0.03, 3  # seconds of a slice and of a turn; rounds, if there is time
BEGUN = 20.0  # seconds that a side has at least to get ready, once it is begun


@dataclass
class Row:
    """One side of one case: by round the median and the best seconds for a step, over its slices;
    why there are none; how it was called."""

    case: Case
    side: Side
    seconds: np.ndarray = field(default_factory=lambda: np.empty(0))
    best: np.ndarray = field(default_factory=lambda: np.empty(0))
    ratios: np.ndarray = field(default_factory=lambda: np.empty(0))  # over fastnn's, by round
    difference: float = 0.0
    reason: str = ""
    via: str = ""

    @property
    def ran(self) -> bool:
        """Whether there are figures."""
        return bool(len(self.seconds))


@dataclass
class Result:
    """All rows of a case, fastnn's first, and the time lost meanwhile."""

    case: Case
    rows: list[Row]
    lost: Lost = field(default_factory=Lost)

    @property
    def ran(self) -> bool:
        """Whether fastnn was timed, alone or against somebody."""
        return self.rows[0].ran

    @property
    def wrong(self) -> bool:
        """Whether some side's result differs from fastnn's."""
        return any(row.reason.startswith("WRONG") for row in self.rows)

    def best_ratio(self, row: Row) -> float:
        """A side's best slice over fastnn's best."""
        return float(row.best.min() / self.rows[0].best.min())


class _Open:
    """A side that is set up in its worker, which has until `end` for it."""

    def __init__(self, case: Case, side: Side, workers: Workers, folder: Path, end: float) -> None:
        self.side, self.id, self.end = side, side.label, end
        self.out = folder / f"{side.label.replace(' ', '-')}.npz"
        self.worker: WorkerProcess = workers.get(side.library)
        given = {"spec": {**case.spec, **side.options}, "arrays": str(folder / "arrays.npz")}
        answer = self.worker.ask("open", self._patience(), id=self.id, kind=case.kind, **given)
        self.via = answer["via"]

    def _patience(self) -> float:
        return max(BEGUN, self.end - time.perf_counter())

    def check(self) -> dict[str, np.ndarray]:
        """What the run gives."""
        self.worker.ask("check", self._patience(), id=self.id, out=str(self.out))
        with np.load(self.out) as file:
            return dict(file)

    def turn(self, n: int, seconds: float) -> np.ndarray:
        """Seconds of an iteration, in slices of n."""
        answer = self.worker.ask("time", id=self.id, n=n, seconds=seconds)
        return np.array(answer["seconds"]) / n

    def calibrate(self) -> int:
        """Find how many iterations make a slice."""
        n, least = 1, self.turn(1, SLICE).min()
        while n * least < SLICE / 2:
            n = math.ceil(n * min(10.0, 0.8 * SLICE / max(n * least, 1e-9)))
            least = self.turn(n, SLICE).min()
        return max(1, round(SLICE / least))

    def close(self) -> None:
        """Free it; a worker that died has done so already."""
        if self.worker.alive:
            self.worker.ask("close", id=self.id)


def run_case(
    case: Case, workers: Workers, share: float, timed: float, progress: Callable[[str], None]
) -> Result:
    """Set all sides up, compare their results, time those that agree.

    share: the case's seconds; of them, at most half and at most `timed` are those of timing.
    """
    result = Result(case, [Row(case, side) for side in (FASTNN, *case.peers)])
    timed = min(timed, share / 2)
    until = time.perf_counter() + share - timed
    if share <= 0:
        result.rows[0].reason = "not run: the theme's time was over"
        return _abandon(result)
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        try:
            arrays = case.arrays()
        except (ImportError, OSError, ValueError) as error:  # a data set that cannot be had
            result.rows[0].reason = f"not run: {error}"
            return _abandon(result)
        np.savez(folder / "arrays.npz", **arrays)
        sides: dict[int, _Open] = {}
        ours: dict[str, np.ndarray] = {}
        for i, row in enumerate(result.rows):
            progress(f"{case.name}: {row.side.label}")
            try:
                if i > 0 and time.perf_counter() > until:
                    raise NotRun("the case's time was over, see --effort")
                side = _Open(case, row.side, workers, folder, until)
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
                side.close()
                continue
            sides[i] = side
        progress(f"{case.name}: timing")
        _time(result, sides, workers, timed)
        for side in sides.values():
            side.close()
    return result


def _abandon(result: Result) -> Result:
    for row in result.rows[1:]:
        row.reason = "not run: nothing to compare with"
    return result


def _time(result: Result, sides: dict[int, _Open], workers: Workers, seconds: float) -> None:
    start = time.perf_counter()
    counts: dict[int, int] = {}
    rounds: list[dict[int, np.ndarray]] = []
    while not rounds or time.perf_counter() - start < (1 if len(rounds) >= LEAST else 3) * seconds:
        rounds.append({})
        for i, side in list(sides.items()):
            workers.settle()
            try:
                counts[i] = counts.get(i) or side.calibrate()
                rounds[-1][i] = side.turn(counts[i], TURN) / result.case.steps
            except NotRun as error:
                result.rows[i].reason = f"not run: {error}"
                del sides[i]
        if 0 not in sides:
            _abandon(result)
            return
        result.lost.look()
    for i in sides:
        row = result.rows[i]
        row.seconds = np.array([np.median(r[i]) for r in rounds])
        row.best = np.array([r[i].min() for r in rounds])
        row.ratios = row.seconds / [np.median(r[0]) for r in rounds]
