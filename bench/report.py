"""Results as tables on the terminal and as JSON."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from statistics import geometric_mean
from typing import Any

import numpy as np

import fastnn as fn

from .case import FASTNN
from .machine import DISTURBED, Machine, trust
from .measure import Result, Row

HEADER = (
    f"{'side':<26}{'median':>10}{'IQR':>8}{'best':>10}{'GFLOP/s':>9}{'peak':>6}"
    f"{'ratio':>8}{'IQR':>14}{'best/best':>11}"
)


def duration(seconds: float) -> str:
    """Seconds in a readable unit."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def quartiles(values: np.ndarray) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile."""
    low, middle, high = np.percentile(values, [25, 50, 75])
    return float(low), float(middle), float(high)


def gflops(row: Row) -> float:
    """1e9 operations a second of the best slice, as the peak is; 0 where the case counts none."""
    return row.case.flops / row.case.steps / float(row.best.min()) / 1e9


def table(result: Result, machine: Machine) -> str:
    """A case's lines: one a side, and the best of the peers where there are several."""
    lost = result.lost.share
    tail = f"  ({lost:.0%} of the time lost)" if lost > DISTURBED else ""
    lines = [f"{result.case.theme}: {result.case.name}, one {result.case.unit}{tail}"]
    lines += [_line(row, result, machine) for row in result.rows]
    peers = [row for row in result.rows[1:] if row.ran]
    if len(peers) > 1:
        best = min(peers, key=result.best_ratio)
        ratios = f"{np.median(best.ratios):.2f}x, best {result.best_ratio(best):.2f}x"
        lines.append(f"  best peer: {best.side.label}, {ratios}")
    return "\n".join(lines)


def means(results: list[Result]) -> str:
    """A line for each peer that ran in several cases: the geometric means of its ratios."""
    found: dict[str, list[tuple[float, float]]] = {}
    for result in results:
        for row in result.rows[1:]:
            if row.ran:
                ratios = float(np.median(row.ratios)), result.best_ratio(row)
                found.setdefault(row.side.label, []).append(ratios)
    lines = []
    for label, ratios in found.items():
        if len(ratios) > 1:
            middle, best = (geometric_mean(values) for values in zip(*ratios, strict=True))
            text = f"geometric mean of {len(ratios)} cases: {middle:.2f}x, best {best:.2f}x"
            lines.append(f"{label}: {text}")
    return "\n".join(lines)


def _line(row: Row, result: Result, machine: Machine) -> str:
    if not row.ran:
        return f"  {row.side.label:<24}{row.reason}"
    low, middle, high = quartiles(row.seconds)
    line = f"  {row.side.label:<24}{duration(middle):>10}{(high - low) / middle:>8.0%}"
    line += f"{duration(float(row.best.min())):>10}"
    rate = gflops(row)
    line += f"{rate:>9.1f}{rate / machine.peak:>6.0%}" if rate else " " * 15
    if row.side is not FASTNN:
        low, middle, high = quartiles(row.ratios)
        spread = f"{low:.2f}..{high:.2f}"
        line += f"{middle:>7.2f}x{spread:>14}{result.best_ratio(row):>10.2f}x"
    return line


def _side_dict(row: Row, result: Result, machine: Machine) -> dict[str, Any]:
    entry: dict[str, Any] = {"side": row.side.label, "via": row.via, "ran": row.ran}
    if not row.ran:
        return {**entry, "reason": row.reason}
    low, middle, high = quartiles(row.seconds)
    entry |= {"median": middle, "q1": low, "q3": high, "best": float(row.best.min())}
    entry |= {"medians": row.seconds.tolist(), "bests": row.best.tolist(), "gflops": gflops(row)}
    entry |= {"share": entry["gflops"] / machine.peak, "difference": row.difference}
    if row.side is not FASTNN:
        low, middle, high = quartiles(row.ratios)
        ratio = {"median": middle, "q1": low, "q3": high, "best": result.best_ratio(row)}
        entry["ratio"] = ratio
    return entry


def case_dict(result: Result, machine: Machine) -> dict[str, Any]:
    """A case, for JSON."""
    case = result.case
    return {
        "name": case.name,
        "unit": case.unit,
        "flops": case.flops / case.steps,
        "tolerance": case.tolerance,
        "lost": result.lost.share,
        "sides": [_side_dict(row, result, machine) for row in result.rows],
    }


def write_json(
    path: Path,
    theme: str,
    rows: list[Any],
    machine: Machine,
    lost: float,
    versions: dict[str, str],
) -> None:
    """Everything that was measured, to `path`. lost: the share of the time, over all rows."""
    found = {"numpy": np.__version__, "fastnn": fn.__version__, **versions}
    content = {"theme": theme, "date": date.today().isoformat(), "machine": machine.as_dict()}
    content["lost"] = lost
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**content, "versions": found, "rows": rows}, indent=1) + "\n")
    print(trust(lost), path, sep="\n", flush=True)
