"""The machine's facts, measured in the run that they explain."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sysconfig
from dataclasses import asdict, dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("machine.c")
FLAGS = {  # of an ISA: its vector width in bytes and how the compiler is told
    "avx512": (64, ["-march=x86-64-v4", "-mprefer-vector-width=512"]),
    "avx2": (32, ["-march=x86-64-v3"]),
    "baseline": (16, ["-march=x86-64-v2"]),
    "neon": (16, []),
}


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


def measure(isa: str, threads: int, folder: Path) -> Machine:
    """Compile machine.c for the ISA in use and run it with one thread and with `threads`."""
    load = os.getloadavg()[0]
    folder.mkdir(parents=True, exist_ok=True)
    binary = folder / f"machine-{isa}"
    width, flags = FLAGS[isa]
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    options = ["-O3", "-Wno-psabi", f"-DWIDTH={width}", *flags, "-pthread"]
    subprocess.run([*compiler, *options, str(SOURCE), "-o", str(binary)], check=True)
    limits = {}
    for n in sorted({1, threads}):
        answer = subprocess.run([str(binary), str(n)], check=True, capture_output=True, text=True)
        limits[n] = Limits(**json.loads(answer.stdout))
    return Machine(_cpu(), len(os.sched_getaffinity(0)), isa, threads, limits, load)


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
