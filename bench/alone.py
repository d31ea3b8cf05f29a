"""fastnn alone, in this process: memory-bound kernels against copies, one thread against several."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import numpy as np

import fastnn as fn
from fastnn import _core

from .adapters.fastnn import KINDS
from .budget import Budget, Effort
from .case import Case
from .cases import bandwidth
from .machine import Lost, copy_rate
from .report import duration

Run = Callable[[int], object]
SIZES = {"cache": 256 << 10, "memory": 128 << 20}  # bytes moved
SLICE, LEAST = 0.002, 5  # seconds; rounds, if there is time


@dataclass(frozen=True)
class Share:
    """A kernel's bandwidth: GB/s read and written, and what a copy moves of the same size."""

    name: str
    where: str
    threads: int
    gbs: float
    copy: float

    @property
    def share(self) -> float:
        """Of the copy's bandwidth."""
        return self.gbs / self.copy

    def __str__(self) -> str:
        low = "  <" if self.share < 0.8 else ""
        threads = f"{self.threads} thread{'s'[: self.threads > 1]}"
        rate = f"{self.gbs:7.1f} GB/s {self.share:7.0%} of a copy's"
        return f"{self.name:<34}{self.where:<8}{threads:<10}{rate}{low}"

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {**asdict(self), "share": self.share}


@dataclass(frozen=True)
class Scaling:
    """Best seconds of one step with one thread and with several, their ratio, and the median of the
    rounds' ratios."""

    theme: str
    name: str
    one: float
    several: float
    speedup: float
    median: float

    def __str__(self) -> str:
        low = "  <" if self.speedup < 0.97 else ""
        times = f"{duration(self.one):>9} {duration(self.several):>9}"
        ratios = f"{self.speedup:6.2f}x{self.median:6.2f}x"
        return f"{self.theme:<8} {self.name:<40}{times} {ratios}{low}"

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def interleaved(runs: list[Run], seconds: float, lost: Lost) -> np.ndarray:
    """Seconds of one iteration, [round, run]: the runs take turns of a slice each."""
    start = time.perf_counter()
    counts = [_count(run) for run in runs]
    rounds: list[list[float]] = []
    while not rounds or time.perf_counter() - start < (1 if len(rounds) >= LEAST else 3) * seconds:
        rounds.append([])
        for run, n in zip(runs, counts, strict=True):
            if n > 1:
                run(1 + n // 10)  # what the other left in the caches
            rounds[-1].append(_slice(run, n) / n)
        lost.look(0.001)
    return np.array(rounds)


def _slice(run: Run, n: int) -> float:
    start = time.perf_counter()
    run(n)
    return time.perf_counter() - start


def _count(run: Run) -> int:
    """Iterations of a slice; the better of two looks, one may be disturbed."""
    n, taken = 1, min(_slice(run, 1), _slice(run, 1))
    while taken < SLICE / 2:
        n = int(n * min(10.0, SLICE / max(taken, 1e-9))) + 1
        taken = min(_slice(run, n), _slice(run, n))
    return max(1, round(n * SLICE / taken))


def _program(made: bandwidth.Pass) -> Run:
    """A program of this one call: iterations cost no Python."""
    program = _core.Program(32, _core.Memory(0))
    arrays, fields = [], dict(made.fields)
    for name, value in made.fields.items():
        if isinstance(value, np.ndarray):
            fields[name] = (program.array_space(value.nbytes, value.dtype), 0)
            arrays.append(value)
    program.add(made.kernel, fields)
    given = tuple(arrays)
    return lambda n: program.run(given, n)


def with_threads(run: Run, threads: int) -> Run:
    """The run with that many threads."""

    def go(n: int) -> None:
        fn.set_num_threads(threads)
        run(n)

    return go


def shares(
    seconds: float, wanted: Callable[[str], bool], threads: int, effort: Effort, lost: Lost
) -> Iterator[Share]:
    """The wanted memory-bound kernels' best with one thread and with `threads`, and a copy's."""
    counts = sorted({1, threads})
    copies = {(s, n): copy_rate(SIZES[s], n) for s in SIZES for n in counts}
    chosen = [k for k in bandwidth.kernels() if wanted(k.name)]
    budget = Budget(seconds, [len(SIZES)] * len(chosen))
    for kernel in chosen:
        for where, nbytes in SIZES.items():
            made = kernel.of_bytes(nbytes)
            run = _program(made)
            runs = [with_threads(run, n) for n in counts]
            turns = interleaved(runs, min(effort.timed / 2, budget.next(1)), lost)
            for n, seconds in zip(counts, turns.min(0), strict=True):
                gbs = made.moved / seconds / 1e9
                yield Share(kernel.name, where, n, gbs, copies[where, n])


def scaling(
    seconds: float, cases: list[Case], threads: int, effort: Effort, lost: Lost
) -> Iterator[Scaling]:
    """The cases' steps with one thread and with `threads`, in turns, while there is time."""
    budget = Budget(seconds, [case.part for case in cases])
    for case in cases:
        share = budget.next(case.part)
        if share <= 0:
            return
        try:
            arrays = case.arrays()
        except OSError as error:  # a data set that is neither here nor within reach
            print(f"{case.theme}: {case.name}: not run: {error}", file=sys.stderr)
            continue
        run = KINDS[case.kind](dict(case.spec), arrays).run
        runs = [with_threads(run, n) for n in (1, threads)]
        turns = interleaved(runs, min(effort.timed / 2 * case.part, share), lost) / case.steps
        one, several = turns.min(0)
        median = float(np.median(turns[:, 0] / turns[:, 1]))
        yield Scaling(case.theme, case.name, float(one), float(several), one / several, median)
