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
COPIED, FMA_ROUNDS, REPEATS = 16 << 20, 600_000, 50  # a millisecond or two each
GAP = 200e-6  # seconds between two readings of the clock that tell that something else ran
PRODUCT, ALIKE = 256, 0.9  # rows of a product; the least share of the best core's that is as good
DISTURBED = 0.05  # share of lost time from which a table is to be read with care


@dataclass(frozen=True)
class Limits:
    """What some threads can do at most: 1e9 float32 operations a second (a multiply-add is two),
    1e9 bytes copied a second within L2 and from memory."""

    gflops: float
    cache_gbs: float
    memory_gbs: float


@dataclass(frozen=True)
class Machine:
    """CPU, instruction set in use, threads, limits by number of threads, time lost meanwhile, and
    what each core computes in matrix products within L2, 1e9 operations a second: a neighbour on the
    other half of a core takes its caches."""

    cpu: str
    cores: int
    isa: str
    threads: int
    limits: dict[int, Limits]
    lost: float
    products: tuple[float, ...] = ()

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
        if self.products:
            each = ", ".join(f"{rate:.0f}" for rate in self.products)
            alike = min(self.products) > ALIKE * max(self.products)
            uneven = "" if alike else ": UNEVEN, other jobs share a core's caches"
            lines.append(f"products within L2, core by core: {each} GFLOP/s{uneven}")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def measure(isa: str, threads: int) -> Machine:
    """Measure the ISA in use with one thread and with `threads`."""
    limits, lost = {}, Lost()
    for n in sorted({1, threads}):
        lost.look(0.1)
        limits[n] = _limits(n)
    cores = sorted(os.sched_getaffinity(0))
    products = tuple(map(_products, cores))
    return Machine(_cpu(), len(cores), isa, threads, limits, lost.share, products)


class Lost:
    """How much of its time a loop that reads the clock does not run, because other jobs or the
    host of a virtual machine have the core: looked at again and again during a benchmark."""

    def __init__(self) -> None:
        self.lost = self.ran = 0.0

    def look(self, seconds: float = 0.01) -> None:
        """Loop until it has run for so many seconds."""
        end, last = self.ran + seconds, time.perf_counter()
        while self.ran < end:
            now = time.perf_counter()
            if now - last > GAP:
                self.lost += now - last
            else:
                self.ran += now - last
            last = now

    @property
    def share(self) -> float:
        """Lost time in all time so far."""
        return self.lost / max(self.lost + self.ran, 1e-9)


def trust(lost: float) -> str:
    """What a share of lost time says about a table."""
    if lost < DISTURBED:
        return f"undisturbed: {lost:.1%} of the time was lost to other jobs or the host"
    return (
        f"DISTURBED: {lost:.0%} of the time was lost to other jobs or the host; medians mean"
        " little, best against best more"
    )


def _limits(threads: int) -> Limits:
    cache = copy_rate(2 * threads * CACHE_BYTES, threads) / 2
    memory = copy_rate(2 * MEMORY_BYTES, threads) / 2
    return Limits(_together(threads, _multiply_adds), cache, memory)


def copy_rate(moved: int, threads: int) -> float:
    """GB/s read and written by threads that each copy their part of it, `moved` bytes in all."""
    nbytes = moved // 2 // threads
    rounds = max(1, COPIED // nbytes)
    return 2 * _together(threads, lambda: _copies(nbytes, rounds))


def _products(core: int) -> float:
    """Of one thread bound to that core: the median moment, as neighbours come and go."""
    n, rates = PRODUCT, []
    a = _core.Memory(3 * 4 * n * n).view(0, (3, n, n), np.float32)
    a[:] = 1
    strides = dict(a_rs=n, a_cs=1, b_rs=n, b_cs=1, c_rs=n, residual_rs=0, saved_rs=0)
    batch = dict(batch=1, a_bs=0, b_bs=0, c_bs=0, residual_bs=0, saved_bs=0)
    sizes = dict(m=n, n=n, k=n, beta=0.0, act=0, **strides, **batch)

    def run() -> None:
        os.sched_setaffinity(0, {core})  # of this thread alone
        for _ in range(4 * REPEATS):
            start = time.perf_counter()
            _core.call("gemm", 32, a=a[0], b=a[1], c=a[2], **sizes)
            rates.append(2e-9 * n**3 / (time.perf_counter() - start))

    before = _core.get_num_threads()
    _core.set_num_threads(1)
    try:
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    finally:
        _core.set_num_threads(before)
    return float(np.median(rates))


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
    """1e9 a second of some threads at work at once: their best round, as others may be at work too."""
    barrier = threading.Barrier(threads)

    def run(_: int) -> list[float]:
        work, rates = make(), []
        for _ in range(REPEATS):
            barrier.wait()
            start = time.perf_counter()
            amount = work()
            rates.append(amount / (time.perf_counter() - start))
        return rates

    with ThreadPoolExecutor(threads) as pool:
        return float(np.sum(list(pool.map(run, range(threads))), axis=0).max()) / 1e9


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
