"""A worker: one library in its own process and interpreter, run by commands over its stdin.

main(ADAPTER) reads one JSON object a line and answers each with one. Between
commands it blocks on the pipe. Commands: open (id, kind, spec, arrays: an .npz), check (id, out: an
.npz), time (id, n, seconds), close (id). An answer with "error" leaves the worker usable.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from typing import Any

import numpy as np


class Worker:
    """The runs that are open in this process."""

    def __init__(self, adapter: str) -> None:
        self.adapter = importlib.import_module(f"{__package__}.adapters.{adapter}")
        self.runs: dict[str, Any] = {}

    def hello(self) -> dict[str, Any]:
        """Sent once, when the library is imported."""
        return {"version": self.adapter.VERSION}

    def open(self, id: str, kind: str, spec: dict[str, Any], arrays: str) -> dict[str, Any]:
        """Set a run up."""
        with np.load(arrays) as file:
            self.runs[id] = self.adapter.KINDS[kind](spec, dict(file))
        return {"via": getattr(self.runs[id], "via", "")}

    def check(self, id: str, out: str) -> dict[str, Any]:
        """Write what the other side's result is compared with."""
        np.savez(out, **self.runs[id].check())
        return {}

    def time(self, id: str, n: int, seconds: float) -> dict[str, Any]:
        """Seconds of slices of n iterations, until so many have passed; the first, which is not
        among them, only warms up: a long step, too, follows others in training."""
        run, slices, start = self.runs[id].run, [], time.perf_counter()
        end, now = start + seconds, start
        while now < end or len(slices) < 2:
            run(n)
            now, before = time.perf_counter(), now
            slices.append(now - before)
        return {"seconds": slices[1:]}

    def close(self, id: str) -> dict[str, Any]:
        """Drop a run and its memory."""
        self.runs.pop(id, None)
        return {}


def main(adapter: str) -> None:
    """Serve until stdin ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print does not mix with the answers
    try:
        worker = Worker(adapter)
    except ModuleNotFoundError as error:
        print(json.dumps({"error": f"{error.name} is not installed"}), file=answers)
        return
    except Exception as error:
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), file=answers)
        return
    print(json.dumps(worker.hello()), file=answers)
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = getattr(worker, command.pop("do"))(**command)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers)
