"""Worker processes, seen from the parent: started on demand, asked over pipes, watched."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

PARENT = Path(__file__).resolve().parent.parent
OWN = ("fastnn", "numpy", "numba")  # run by this interpreter; the others by that of the peers
# Behind everything else on the path: a peer's interpreter has a NumPy of its own.
START = "import sys; sys.path.append(sys.argv[1]); from {}.worker import main; main(sys.argv[2])"
ANSWER_SECONDS = 120.0
STILL_SECONDS, STILL_SHARE, PATIENCE = 0.01, 0.05, 1.0


class NotRun(Exception):
    """A side cannot run; the message says why."""


def peers_python() -> Path:
    """The interpreter that has the frameworks: of the environment $FASTNN_PEERS; else of
    .venv-peers beside this package (make bench-peers), if there; else this one."""
    given, made = os.environ.get("FASTNN_PEERS"), PARENT / ".venv-peers"
    folder = Path(given) if given else made if made.is_dir() else None
    return folder / "bin" / "python" if folder else Path(sys.executable)


class WorkerProcess:
    """One running worker."""

    def __init__(self, adapter: str, threads: int) -> None:
        python = Path(sys.executable) if adapter in OWN else peers_python()
        if not python.exists():
            raise NotRun(f"no interpreter at {python}")
        n = str(threads)
        names = ("FASTNN", "OMP", "MKL", "OPENBLAS", "NUMBA")
        env = {**os.environ, **{f"{name}_NUM_THREADS": n for name in names}}
        env |= {"TF_CPP_MIN_LOG_LEVEL": "3", "JAX_PLATFORMS": "cpu"}
        cpus = sorted(os.sched_getaffinity(0))[:threads]
        self.adapter = adapter
        self.process = subprocess.Popen(
            [str(python), "-c", START.format(__package__), str(PARENT), adapter],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=env,
            text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, cpus),
        )

    def greet(self) -> str:
        """Wait until the library is imported; its version."""
        return str(self._answer(ANSWER_SECONDS)["version"])

    def ask(self, do: str, patience: float = ANSWER_SECONDS, **fields: Any) -> dict[str, Any]:
        """Send a command and wait for its answer; NotRun if the worker cannot, has died or lets
        wait longer than `patience` seconds, which ends it."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps({"do": do, **fields}) + "\n")
            self.process.stdin.flush()
        except OSError:
            raise NotRun(self._death()) from None
        return self._answer(patience)

    def _answer(self, patience: float) -> dict[str, Any]:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], patience)
        if not ready:
            self.stop()
            raise NotRun(f"{self.adapter}: no answer in {patience:.0f} s")
        line = self.process.stdout.readline()
        if not line:
            raise NotRun(self._death())
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise NotRun(answer["error"])
        return answer

    def _death(self) -> str:
        return f"{self.adapter}: the worker ended with status {self.process.wait()}"

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return self.process.poll() is None

    def cpu_seconds(self) -> float:
        """CPU time of all its threads so far (Linux)."""
        total = 0
        for task in Path(f"/proc/{self.process.pid}/task").glob("*/schedstat"):
            try:
                total += int(task.read_text().split()[0])
            except (OSError, IndexError):  # the thread has just ended
                continue
        return total / 1e9

    def stop(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()


class Workers:
    """The workers of a benchmark run, one for each library."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._running: dict[str, WorkerProcess] = {}
        self._refused: dict[str, str] = {}
        self.versions: dict[str, str] = {}

    def start(self, adapters: Iterable[str]) -> None:
        """Start those that do not run, all at once: importing a framework takes seconds."""
        wanted = [a for a in adapters if a not in self._refused and not self._alive(a)]
        for adapter in wanted:
            try:
                self._running[adapter] = WorkerProcess(adapter, self.threads)
            except NotRun as error:
                self._refused[adapter] = str(error)
        for adapter in wanted:
            if adapter in self._refused:
                continue
            try:
                self.versions[adapter] = self._running[adapter].greet()
            except NotRun as error:
                self._refused[adapter] = str(error)

    def get(self, adapter: str) -> WorkerProcess:
        """The library's worker; NotRun with the reason if there can be none."""
        self.start([adapter])
        if adapter in self._refused:
            raise NotRun(self._refused[adapter])
        return self._running[adapter]

    def _alive(self, adapter: str) -> bool:
        return adapter in self._running and self._running[adapter].alive

    def settle(self) -> None:
        """Wait until no worker uses the CPU any more: thread pools spin on after their work.

        So a peer keeps its own settings for spinning, and still disturbs nobody.
        """
        end = time.perf_counter() + PATIENCE
        before = self.cpu_seconds()
        while time.perf_counter() < end:
            time.sleep(STILL_SECONDS)
            now = self.cpu_seconds()
            if now - before < STILL_SHARE * STILL_SECONDS:
                return
            before = now

    def cpu_seconds(self) -> float:
        """CPU time of all workers so far."""
        return sum(w.cpu_seconds() for w in self._running.values() if w.alive)

    def stop(self) -> None:
        """End all workers."""
        for worker in self._running.values():
            worker.stop()
        self._running.clear()
