"""The machine's facts, measured in the run that they explain."""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from fastnn import _core

CACHE_BYTES, MEMORY_BYTES = 256 << 10, 64 << 20  # copied by one thread within L2; by all
PART = 2 << 20  # of a copy: below what memcpy writes around the cache
COPIED, FMA_ROUNDS, REPEATS = 64 << 20, 3_000_000, 10  # some milliseconds each


@dataclass(frozen=True)
class Limits:
    """What some threads can do at most: 1e9 float32 operations a second (a multiply-add is two),
    1e9 bytes copied a second within L2 and from memory."""

    gflops: float
    cache_gbs: float
    memory_gbs: float


@dataclass(frozen=True)
class Machine:
    """CPU, instruction set in use, threads, limits by number of threads, load before the run."""

    cpu: str
    cores: int
    isa: str
    threads: int
    limits: dict[int, Limits]
    load: float

    @property
    def peak(self) -> float:
        """GFLOP/s of the threads in use."""
        return self.limits[self.threads].gflops

    def __str__(self) -> str:
        lines = [f"{self.cpu}, {self.cores} cores, {self.isa}, {self.threads} threads"]
        for n, v in self.limits.items():
            lines.append(
                f"{n} thread{'s'[: n > 1]}: {v.gflops:.0f} GFLOP/s of FMA, "
                f"copies {v.cache_gbs:.0f} GB/s in cache, {v.memory_gbs:.0f} GB/s from memory"
            )
        if self.load > 0.5:
            lines.append(f"load average before the run {self.load:.1f}: other jobs disturb it")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def measure(isa: str, threads: int) -> Machine:
    """Measure the ISA in use with one thread and with `threads`."""
    load = os.getloadavg()[0]
    limits = {n: _limits(n) for n in sorted({1, threads})}
    return Machine(_cpu(), len(os.sched_getaffinity(0)), isa, threads, limits, load)


def _limits(threads: int) -> Limits:
    cache = copy_rate(2 * threads * CACHE_BYTES, threads) / 2
    memory = copy_rate(2 * MEMORY_BYTES, threads) / 2
    return Limits(_together(threads, _multiply_adds), cache, memory)


def copy_rate(moved: int, threads: int) -> float:
    """GB/s read and written by threads that each copy their part of it, `moved` bytes in all."""
    nbytes = moved // 2 // threads
    rounds = max(1, COPIED // nbytes)
    return 2 * _together(threads, lambda: _copies(nbytes, rounds))


def _multiply_adds() -> Callable[[], float]:
    count = np.zeros(1)

    def work() -> float:
        _core.call("peak_fma", 32, y=count, rounds=FMA_ROUNDS)
        return float(count[0])

    return work


def _copies(nbytes: int, rounds: int) -> Callable[[], float]:
    x, y = (_core.Memory(nbytes).view(0, (nbytes,), np.uint8) for _ in "xy")
    x[:] = y[:] = 1

    def work() -> float:
        _core.call("peak_copy", 32, x=x, y=y, bytes=nbytes, part=PART, rounds=rounds)
        return float(nbytes * rounds)

    return work


def _together(threads: int, make: Callable[[], Callable[[], float]]) -> float:
    """1e9 a second of some threads at work at once: the best moment of each, as others may be at
    work too."""
    barrier = threading.Barrier(threads)

    def run(_: int) -> float:
        work, best = make(), 0.0
        for _ in range(REPEATS):
            barrier.wait()
            start = time.perf_counter()
            amount = work()
            best = max(best, amount / (time.perf_counter() - start))
        return best / 1e9

    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(run, range(threads)))


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def busy_seconds() -> float:
    """CPU seconds, of all cores, that were not idle since the start: worked or stolen (Linux)."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    user, nice, system, _, _, irq, softirq, steal, *_ = map(int, fields)
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
