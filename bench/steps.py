"""Where a training step's time goes: python -m bench.steps NET BATCH [SECONDS] [THREADS]

Prints each kernel call of the plan with its best time, its share of the sum of these, and the two
rates that bound it: GFLOP/s as a share of the FMA peak measured in the same run, and the GB/s of the
bytes that it names.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import numpy as np

import fastnn as fn
from fastnn.plan.plan import Plan

from . import machine
from .adapters.fastnn import Train
from .nets import NETS, batch, weights

SECONDS, LEAST = 3.0, 0.002  # to run for; the share from which a step has a line of its own


def best_times(train: Train, seconds: float) -> tuple[Plan, np.ndarray]:
    """The plan, and the best nanoseconds of each of its steps over so many seconds."""
    train.run(1)
    (kept,) = train.trainer._step_plans.values()
    plan, best = kept.plan, np.full(len(kept.plan.program), np.inf)
    arrays = (train.x, train.y, train.trainer._hyper, train.trainer._loss_out)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        timings = np.zeros(len(best))
        plan.program.run(arrays, 1, None, timings)
        best = np.minimum(best, timings)
    return plan, best


def table(plan: Plan, best: np.ndarray, peak: float) -> Iterator[str]:
    """A line for each step that counts, and their sum."""
    yield f"{'kernel':<22}{'for':<26}{'shape':<20}{'us':>9}{'share':>8}{'peak':>7}{'GB/s':>7}"
    for step, ns in zip(plan.builder.steps, best, strict=True):
        if ns < LEAST * best.sum():
            continue
        shape = "x".join(map(str, step.shape))
        of_peak = f"{step.flops / ns / peak:.2f}" if step.flops else ""
        yield (
            f"{step.kernel:<22}{step.label:<26}{shape:<20}{ns / 1e3:9.1f}{ns / best.sum():8.1%}"
            f"{of_peak:>7}{step.nbytes / ns:7.1f}"
        )
    yield f"sum of the best: {best.sum() / 1e3:,.1f} us"


def main(name: str, size: str, seconds: str = str(SECONDS), threads: str = "") -> None:
    """Measure and print."""
    if threads:
        fn.set_num_threads(int(threads))
    net = NETS[name]
    arrays = {**weights(net), **batch(net, int(size))}
    train = Train({"net": name, "lr": 1e-3, "optimizer": "sgd"}, arrays)
    facts = machine.measure(fn.isa(), fn.get_num_threads())
    print(facts)
    print("\n".join(table(*best_times(train, float(seconds)), facts.peak)))
    print(machine.trust(facts.lost))


if __name__ == "__main__":
    main(*sys.argv[1:])
