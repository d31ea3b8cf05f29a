"""A plan: a graph made ready to run, once, for given shapes.

    plan = Plan(bits, arena)
    plan.bind(x_value, "array"); plan.output(y_value); plan.build()
    (y,) = plan(x)

print(plan) lists its steps. With debug=True nothing is fused, no memory is reused and what is done with
is filled with NaN: the oracle for the fast plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any

import numpy as np

from fastnn import _core
from fastnn.graph import Array, Storage, Value
from fastnn.layout import Buffer, Ref, dense_strides
from fastnn.plan.builder import Builder, Source
from fastnn.plan.fuse import fuse


class Plan:
    """The steps of one computation and the arrays it is bound to at each run.

    needs_hyper: whether run() has to be given the step's scalars.
    """

    def __init__(self, bits: int, arena: _core.Memory, debug: bool = False) -> None:
        self.debug = debug
        self.builder = Builder(bits, arena, fused=not debug)
        self.inputs: list[Value] = []
        self.outputs: list[Value] = []
        self._targets: list[tuple[Value, Ref]] = []
        self._updates: list[tuple[Storage, Value, float, float]] = []
        self._keep: list[Any] = []

    # --- describing ---

    def input(self, value: Value) -> None:
        """Bind an Input leaf to an array of exactly its shape and dtype."""
        nbytes = value.size * value.dtype.itemsize
        buffer = self.builder.array(f"input {len(self.inputs)}", nbytes, value.dtype)
        self.inputs.append(value)
        self.builder.sources[value] = Source(buffer)

    def rows(self, value: Value, count: int, index: Ref | None) -> int:
        """Bind an Input leaf to a batch of rows of a larger array of `count` rows.

        `index`: int64 row numbers; None for consecutive rows, where the caller lets the returned
        space advance between iterations.
        """
        nbytes = value.size // max(1, value.shape[0]) * count * value.dtype.itemsize
        buffer = self.builder.array(f"rows {len(self.inputs)}", nbytes, value.dtype)
        self.inputs.append(value)
        rows = count if index is not None else value.shape[0]
        self.builder.sources[value] = Source(buffer, rows, index)
        return space(buffer)

    def output(self, value: Value) -> int:
        """Return this value from each run; gives the space of its array."""
        nbytes = value.size * value.dtype.itemsize
        buffer = self.builder.array(f"output {len(self.outputs)}", nbytes, value.dtype)
        self.outputs.append(value)
        strides = dense_strides(value.shape, range(value.ndim))
        self._targets.append((value, Ref(buffer, value.shape, strides, value.dtype)))
        return space(buffer)

    def store(self, value: Value, storage: Storage) -> None:
        """Write this value to a storage (a gradient to its place in the slab)."""
        self._targets.append((value, self.builder.storage(storage)))
        self._keep.append(storage)

    def updates(self, updates: Sequence[tuple[Storage, Value, float, float]]) -> None:
        """Apply (storage, value, t, scale) at the end of a run: storage moves to value by t."""
        self._updates += updates

    # --- building ---

    def compute(self, extra: Sequence[Value] = ()) -> dict[Value, Value]:
        """Emit everything asked for; returns what each of `extra` became. build() comes after."""
        # Gradients of the last layers first: each is taken while what it is made of is at hand.
        targets = [v for v, _ in reversed(self._targets)]
        wanted = targets + [u[1] for u in self._updates] + list(extra)
        now = {v: v for v in wanted}
        if not self.debug:
            fused = fuse(wanted)
            now = {v: fused[v] for v in wanted}
        for value, ref in self._targets:
            self.builder.target(now[value], ref)
        self.builder.lower(list(dict.fromkeys(now.values())))
        self.builder.label("update")
        for storage, value, t, scale in self._updates:
            place = self.builder.storage(storage)
            x = self.builder.dense(now[value], storage.order)
            self.builder.step("lerp", x=x, y=place, n=x.size, t=t, scale=scale)
            self._keep.append(storage)
        return now

    def build(self) -> Plan:
        """Place the buffers and fill the program."""
        self.builder.finish(poison=self.debug)
        self.program = self.builder.program
        self._bound = self._order_of_arrays()
        self.needs_hyper = "hyper" in self.builder.array_labels
        return self

    def _order_of_arrays(self) -> list[int]:
        """Where run() finds each array that the program binds, among inputs, outputs and hyper."""
        given, taken = count(), count(len(self.inputs))
        hyper = len(self.inputs) + len(self.outputs)
        return [
            hyper if label == "hyper" else next(taken if label.startswith("output") else given)
            for label in self.builder.array_labels
        ]

    # --- running ---

    def __call__(self, *arrays: Array, hyper: Array | None = None) -> tuple[Array, ...]:
        """Run once on arrays of the inputs' shapes and dtypes; returns new arrays."""
        outputs = tuple(np.empty(v.shape, v.dtype) for v in self.outputs)
        self.run(arrays, outputs, hyper)
        return outputs

    def run(
        self, arrays: Sequence[Array], outputs: Sequence[Array], hyper: Array | None = None
    ) -> None:
        """Run once into given arrays."""
        everything = (*arrays, *outputs, hyper)
        self.execute(tuple([everything[i] for i in self._bound]))

    def execute(
        self, arrays: tuple[Any, ...], iterations: int = 1, strides: dict[int, int] | None = None
    ) -> None:
        """Program.run, its errors in the user's words."""
        try:
            self.program.run(arrays, iterations, strides)
        except _core.KernelError as error:
            explained = self._explain(error)
            raise explained from explained.__cause__

    def _explain(self, error: _core.KernelError) -> Exception:
        if error.status == _core.FOREIGN:
            return self._failed(error.step)
        label = self.builder.steps[error.step].label if not self.debug else f"step {error.step}"
        if error.status == _core.BAD_LABEL:
            return ValueError(f"{label}: labels: a label lies outside 0..number of classes - 1")
        if error.status == _core.BAD_INDEX:
            return IndexError(f"{label}: an index lies outside the array")
        if error.status == _core.BAD_LENGTH:
            return ValueError(f"{label}: lengths: expected at least 1 and at most the steps of x")
        return MemoryError(f"{label}: no memory for a thread's scratch")

    def _failed(self, step: int) -> Exception:
        foreign = self.builder.steps[step].foreign if not self.debug else None
        return RuntimeError(f"step {step} failed") if foreign is None else foreign.failed()

    def __str__(self) -> str:
        """The steps: kernel, what it is for, shape, bytes touched, FLOPs."""
        lines = [f"{'step':>4}  {'kernel':<16}{'for':<22}{'shape':<22}{'bytes':>12}{'FLOPs':>14}"]
        for i, step in enumerate(self.builder.steps):
            if i == self.builder.prologue > 0:
                lines.append(
                    "      the steps above run again only if what they read was written to"
                )
            flops = f"{step.flops:,}" if step.flops else ""
            shape = "x".join(map(str, step.shape)) or "1"
            lines.append(
                f"{i:>4}  {step.kernel:<16}{step.label:<22}{shape:<22}{step.nbytes:>12,}{flops:>14}"
            )
        total = sum(step.flops for step in self.builder.steps)
        lines.append(f"arena {self.builder.arena_bytes:,} bytes, {total:,} FLOPs a run")
        return "\n".join(lines)


def space(buffer: Buffer) -> int:
    """The space of a fixed buffer."""
    assert buffer.space is not None
    return buffer.space
