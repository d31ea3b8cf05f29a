"""docs/performance.md, written from the JSON of the themes that were run."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from .budget import SIDE_BY_SIDE
from .machine import DISTURBED, Limits, Machine, trust
from .report import duration

TITLES = {
    "kernels": "Kernels",
    "convolutions": "Convolutions of every kind",
    "products": "Products of few rows or columns",
    "train": "Training steps",
    "infer": "Inference",
    "bandwidth": "Memory-bound kernels",
    "scaling": "Threads",
}
HOW = """# Performance

Written by `make bench` and then `make performance`, from what the benchmarks measured; not by hand.

## How it is measured

- **Same result first.** Both sides get the same weights and data; outputs, or the losses and all
  updated weights of two steps, must agree within a bound derived from float32's rounding and the
  lengths of the sums. A side that differs shows WRONG RESULT and no figure; one that is not
  installed, `not run`.
- **In turns.** Each library works in a process of its own, with the same number of threads on the
  same cores. The sides take turns of 30 ms, A B C A B C, each of many slices of 3 ms (or of one step,
  where that is longer), and a turn begins once nobody else's thread pool spins. A turn's first slice
  only warms up, as steps of a training follow each other; every turn has another one.
  Each round gives one ratio of medians. The tables give the median of the rounds' ratios, and the ratio
  of the best slices of all: `2.00x, 1.90x` took twice fastnn's time, and 1.9 times at best. The JSON
  has every round's medians and best.
- **Disturbed or not.** Other jobs, or the host of a virtual machine, may take the cores away. A loop
  that reads the clock, run again and again between the turns, tells how much time is lost. Each table
  says it; from 5 % on it has the best slices alone.
- **Cores alike or not.** A neighbour on the other half of a core takes no time that a clock shows, but
  cache and its bandwidth. A matrix product within L2, core by core, tells it.
- **Bounded.** Each case has its seconds to be set up and to be timed. A side that is not ready in
  time is `not run`; `--effort long` gives more.
- **As a good user would write it.** PyTorch eager with its fused optimizer, in both memory layouts;
  JAX under `jit` with donated buffers; TensorFlow as a graph and through XLA; ONNX Runtime for
  inference; Numba with `parallel=True` loops over channels-last arrays; NumPy with outputs given.
- **Limits of the same run.** The FMA rate of registers alone, and copies within L2 and from memory,
  are measured in the same run. GFLOP/s count two operations for a multiply-add of the plain
  algorithm, so that Winograd convolutions may pass 100 % of the peak.
- **Bandwidth** counts the bytes that a kernel has to read and write (batch norm reads its input
  twice) and compares them with a copy that moves as many, by as many threads: 256 KB, which stay in
  L2, and 128 MB. The best of many turns on either side.
- **Threads**: fastnn with one thread and with several, in turns in one process: the best turns' times,
  their ratio and the median of the rounds' ratios.
- **By themselves**: `python -m bench.winograd` tells when Winograd's convolution pays, `bench.curves`
  whether training notices it, `bench.ulp` the errors of exp, tanh and others, `bench.steps` where the
  time of a network's training step goes.
"""


def page(folder: Path) -> str:
    """The page, with a section for each theme whose results are in the folder."""
    parts = [HOW]
    for theme, title in TITLES.items():
        path = folder / f"{theme}.json"
        if path.exists():
            content = json.loads(path.read_text())
            shown = ("best",) if content["lost"] > DISTURBED else ("median", "best")
            table = SECTIONS[theme](content["rows"], shown)
            parts.append(f"## {title}\n\n{_facts(content)}\n\n{table}\n")
    if len(parts) == 1:
        raise SystemExit(f"no results in {folder}: run some benchmarks first")
    return "\n".join(parts)


def _facts(content: dict[str, Any]) -> str:
    found = content["machine"]
    limits = {int(n): Limits(**v) for n, v in found["limits"].items()}
    products = tuple(found.get("products", ()))
    machine = Machine(**{**found, "limits": limits, "products": products})
    versions = ", ".join(f"{k} {v}" for k, v in content["versions"].items())
    lines = [
        f"{content['date']}: {machine}".replace("\n", "  \n"),
        trust(content["lost"]),
        versions,
    ]
    return "  \n".join(lines) + "."


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _side_by_side(rows: list[dict[str, Any]], shown: tuple[str, ...]) -> str:
    found = [s["side"] for r in rows for s in r["sides"][1:]]
    peers = sorted(set(found), key=found.index)
    lines = [_case_line(r, peers, shown) for r in rows]
    lines.append(["geometric mean", "", "", *(_mean(rows, peer, shown) for peer in peers)])
    return _table((f"case ({', '.join(shown)})", "fastnn", "of peak", *peers), lines)


def _case_line(row: dict[str, Any], peers: list[str], shown: tuple[str, ...]) -> list[str]:
    ours, *theirs = row["sides"]
    cells = {s["side"]: _ratio(s, shown) for s in theirs}
    peak = f"{ours['share']:.0%}" if ours.get("share") else ""
    times = (duration(ours[k]) for k in shown if ours["ran"])
    time = ", ".join(times) or ours["reason"]
    return [row["name"], time, peak, *(cells.get(p, "") for p in peers)]


def _mean(rows: list[dict[str, Any]], peer: str, shown: tuple[str, ...]) -> str:
    """Of the ratios of a peer over the cases in which it ran."""
    found = [s["ratio"] for r in rows for s in r["sides"] if s["side"] == peer and s["ran"]]
    return ", ".join(f"{geometric_mean([f[k] for f in found]):.2f}x" for k in shown if found)


def _ratio(side: dict[str, Any], shown: tuple[str, ...]) -> str:
    if side["ran"]:
        return ", ".join(f"{side['ratio'][k]:.2f}x" for k in shown)
    return "WRONG RESULT" if side["reason"].startswith("WRONG") else "not run"


def _bandwidth(rows: list[dict[str, Any]], _: tuple[str, ...]) -> str:
    columns = sorted({(r["where"], r["threads"]) for r in rows})
    cells = {(r["name"], r["where"], r["threads"]): f"{r['share']:.2f}" for r in rows}
    copies = {(r["where"], r["threads"]): f"{r['copy']:.0f} GB/s" for r in rows}
    names = dict.fromkeys(r["name"] for r in rows)
    head = [f"{where}, {n} thread{'s'[: n > 1]}" for where, n in columns]
    lines = [[name, *(cells.get((name, *c), "") for c in columns)] for name in names]
    return _table(["share of a copy", *head], [["a copy", *map(copies.get, columns)], *lines])


def _scaling(rows: list[dict[str, Any]], shown: tuple[str, ...]) -> str:
    lines = []
    for r in rows:
        ratios = {"best": r["speedup"], "median": r["median"]}
        times = (duration(r["one"]), duration(r["several"]))
        lines.append([f"{r['theme']}: {r['name']}", *times, *(f"{ratios[k]:.2f}x" for k in shown)])
    return _table(("case", "one thread", "several", *(f"speedup ({k})" for k in shown)), lines)


SECTIONS = {
    **dict.fromkeys(SIDE_BY_SIDE, _side_by_side),
    "bandwidth": _bandwidth,
    "scaling": _scaling,
}
