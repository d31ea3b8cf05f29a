"""The results as pictures: how many times faster than each peer, and how near to the FMA peak."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import pyplot as plt

from .machine import Machine
from .measure import Result
from .report import gflops, quartiles

matplotlib.use("Agg")


def draw(results: list[Result], machine: Machine, folder: Path) -> list[Path]:
    """Write ratio-THEME.png and peak-THEME.png for each theme that ran; returns their paths."""
    paths = []
    for theme in dict.fromkeys(r.case.theme for r in results if r.ran):
        chosen = [r for r in results if r.case.theme == theme and r.ran]
        for name, draw_bars in (("ratio", _ratios), ("peak", _peaks)):
            figure, axes = plt.subplots(figsize=(9, 1.5 + 0.6 * len(chosen)))
            if draw_bars(axes, chosen, machine):
                axes.set_yticks(range(len(chosen)), [r.case.name for r in chosen])
                axes.invert_yaxis()
                axes.set_title(f"{theme}: {machine.cpu}, {machine.isa}, {machine.threads} threads")
                axes.legend(fontsize="small", loc="lower right")
                figure.tight_layout()
                paths.append(folder / f"{name}-{theme}.png")
                figure.savefig(paths[-1], dpi=120)
            plt.close(figure)
    return paths


def _labels(results: list[Result], first: int) -> list[str]:
    rows = (row for r in results for row in r.rows[first:] if row.ran)
    return list(dict.fromkeys(row.side.label for row in rows))


def _ratios(axes: plt.Axes, results: list[Result], _: Machine) -> bool:
    """Time of the peer over fastnn's, with quartiles and the bests', on a logarithmic axis."""
    labels = _labels(results, 1)
    height = 0.8 / max(1, len(labels))
    for k, label in enumerate(labels):
        found = [(i, r) for i, c in enumerate(results) for r in c.rows if r.side.label == label]
        found = [(i, r) for i, r in found if r.ran]
        at = np.array([i for i, _ in found]) + (k - (len(labels) - 1) / 2) * height
        low, middle, high = np.array([quartiles(r.ratios) for _, r in found]).T
        spread = np.array([middle - low, high - middle])
        axes.barh(at, middle - 1, height, left=1, xerr=spread, label=label)
        best = [results[i].best_ratio(r) for i, r in found]
        axes.plot(best, at, "k|", label="best against best" if k == len(labels) - 1 else None)
    axes.set_xscale("log")
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xlabel("times faster than the peer (1: as fast)")
    return bool(labels)


def _peaks(axes: plt.Axes, results: list[Result], machine: Machine) -> bool:
    """Share of the FMA peak, of the cases that count FLOPs."""
    labels = _labels(results, 0) if any(r.case.flops for r in results) else []
    height = 0.8 / max(1, len(labels))
    for k, label in enumerate(labels):
        found = [(i, r) for i, c in enumerate(results) for r in c.rows if r.side.label == label]
        found = [(i, r) for i, r in found if r.ran]
        at = np.array([i for i, _ in found]) + (k - (len(labels) - 1) / 2) * height
        axes.barh(at, [100 * gflops(r) / machine.peak for _, r in found], height, label=label)
    axes.set_xlabel("% of the FMA peak")
    return bool(labels)
