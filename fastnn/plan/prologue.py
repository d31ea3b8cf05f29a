"""Which steps of a plan give the same at each run: packed weights, batch norm folded into weights.

They become the program's prologue, which runs again only when someone may have written to the
parameters. A training plan writes to them itself, so there it is empty.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastnn.layout import Buffer
    from fastnn.plan.step import StepRecord


def constant_steps(steps: Sequence[StepRecord], memories: Collection[int]) -> list[StepRecord]:
    """The steps that depend on nothing but these spaces, where no step writes to them, in order.

    memories: the spaces of parameters, buffers and constants.
    """
    writes = [step.written() for step in steps]
    writers = Counter(buffer for written in writes for buffer in written)
    changing = {buffer.space for buffer in writers}
    constant: set[Buffer] = set()
    found = []
    for step, written in zip(steps, writes, strict=True):
        read = [buffer for buffer in step.buffers() if buffer not in written]
        if (
            step.foreign is None
            and all(b.space is None and writers[b] == 1 for b in written)
            and all(
                b in constant or (b.space in memories and b.space not in changing) for b in read
            )
        ):
            constant |= written
            found.append(step)
    return found
