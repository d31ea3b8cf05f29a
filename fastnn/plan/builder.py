"""Turns nodes into steps: ops ask the Builder where values lie and tell it which kernels to call.

An op's lower() reads its inputs with ref() (any strides) or dense() (a wanted order, copied only if
need be), makes room for its outputs with new() or shows them as views with alias(), and emits
kernel calls with step(). finish() places all buffers in the arena and fills a core Program.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastnn import _core
from fastnn.graph import Node, Shape, Value, topological
from fastnn.layout import (
    CHANNELS_LAST,
    Buffer,
    Ref,
    Strides,
    coalesce,
    dense_strides,
    split_samples,
)
from fastnn.ops.op import Input, StorageLeaf
from fastnn.plan.memory import place
from fastnn.plan.outer import Outer
from fastnn.plan.prologue import constant_steps
from fastnn.plan.step import Foreign, StepRecord

DTYPE_CODES = {
    np.dtype(name): code
    for code, name in enumerate(("float32", "float64", "uint8", "int8", "int16", "int32", "int64"))
}
MAX_DIMS = 6  # of the copy and binary kernels


class Source:
    """What an Input leaf is bound to: an array of the batch itself, or rows of a larger one.

    rows: number of rows of the array, of which `index` (a buffer of int64, None: the rows in order)
    picks a batch.
    """

    def __init__(self, buffer: Buffer, rows: int | None = None, index: Ref | None = None) -> None:
        self.buffer, self.rows, self.index = buffer, rows, index


class Builder(Outer):
    """Collects the steps of one plan; see the module's docstring."""

    def __init__(self, bits: int, arena: _core.Memory, fused: bool = True) -> None:
        super().__init__(bits, arena, fused)
        self.dtype = np.dtype(f"float{bits}")
        self.vector = int(_core.lanes(bits))  # elements of the kernels' vectors
        self.arena_space = self.program.memory_space(arena)
        self.steps: list[StepRecord] = []
        self.prologue = 0  # the first steps that do not run each time, see prologue.py
        self.sources: dict[Value, Source] = {}
        self._refs: dict[Value, Ref] = {}
        self.moments: dict[Value, Ref] = {}  # of channels, found when the value was made
        self._copies: dict[tuple[Value, tuple[int, ...]], Ref] = {}  # in other orders
        self.sums: dict[Value, tuple[Ref, Ref]] = {}  # of gradients, for the batch norm of an x
        self._scaled: dict[Value, tuple[Ref, Ref]] = {}  # what readers compute themselves
        self._lanes: dict[Value, Ref] = {}  # images with samples as lanes
        self._targets: dict[Value, list[Ref]] = {}
        self._wishes: dict[Value, Ref] = {}
        self._label = ""
        self._orders: dict[int, tuple[int, ...]] = {}

    def element_order(self, value: Value, key: int) -> tuple[int, ...]:
        """The order that a random op's first call saw its elements in, for all calls with its key."""
        return self._orders.setdefault(key, self.ref(value).order)

    def target(self, value: Value, ref: Ref) -> None:
        """Ask that `value` ends up in `ref`: written there at once if its producer can, else copied."""
        self._targets.setdefault(value, []).append(ref)

    def wish(self, value: Value, ref: Ref) -> None:
        """Let the producer of `value` write to `ref` if it can; who wishes looks whether it did."""
        self._wishes.setdefault(value, ref)

    # --- where values lie ---

    def ref(self, value: Value) -> Ref:
        """Where `value` lies, with whatever strides."""
        ref = self._refs.get(value)
        if ref is None:
            if value in self._lanes:
                ref = self.new(value, CHANNELS_LAST)
                self.copy(self._lanes[value], split_samples(ref, self.vector))
            elif isinstance(value.node.op, StorageLeaf):
                ref = self.storage(value.node.op.storage)
            else:
                ref = self._load_input(value)
            self._refs[value] = ref
        return ref

    def elements(self, value: Value) -> Ref:
        """Where `value` lies, as something to be shown in parts: integers of inputs as int64."""
        ref = self.ref(value)
        if value in self.sources and value.dtype.kind in "iu" and ref.dtype != np.int64:
            ref = self._refs[value] = self._take_labels(value)
        return ref

    def dense(self, value: Value, order: Sequence[int] | None = None) -> Ref:
        """`value` without gaps in this order of dimensions (row-major by default); a copy that this
        takes serves whoever asks again."""
        ref = self.ref(value)
        order = tuple(range(value.ndim)) if order is None else tuple(order)
        if ref.is_dense(order):
            return ref
        if (value, order) not in self._copies:
            self._copies[value, order] = self.copied(ref, order)
        return self._copies[value, order]

    def channels_last(self, value: Value) -> Ref:
        """An image, (N, C, H, W), lying as N, H, W, C."""
        return self.dense(value, CHANNELS_LAST)

    def leave_scaled(self, value: Value, x: Ref) -> Ref:
        """Leave an image to its readers, all of whom take it so: as x and the table that is returned,
        see kernels/scaled.h."""
        vectors = -(-value.shape[1] // self.vector)
        table = self.temp(((3 * vectors + 1) * self.vector,))
        self._scaled[value] = x, table
        return table

    def scaled(self, value: Value) -> tuple[Ref, Ref | None]:
        """An image lying as N, H, W, C, or x and the table that it is to be computed from."""
        return self._scaled.get(value) or (self.channels_last(value), None)

    def in_lanes(self, *values: Value | None) -> bool:
        """Whether all of these lie with samples as lanes."""
        return all(value in self._lanes for value in values)

    def meets_lanes(self, value: Value) -> bool:
        """Whether a node reads `value` together with something that lies with samples as lanes."""
        return any(v in self._lanes for node in self.readers(value) for v in node.inputs)

    def lanes(self, value: Value) -> Ref:
        """Images (N, C, H, W) with samples as lanes: (N / vector, C, H, W, vector), dense."""
        ref = self._lanes.get(value)
        if ref is None:
            source = split_samples(self.ref(value), self.vector)
            ref = self._lanes[value] = self.copied(source, range(5))
        return ref

    def new_lanes(self, value: Value) -> Ref:
        """Room for an output with samples as lanes."""
        n, *image = value.shape
        shape = (n // self.vector, *image, self.vector)
        ref = self._lanes[value] = self.temp(shape, value.dtype)
        return ref

    def copied(self, ref: Ref, order: Sequence[int]) -> Ref:
        """A dense copy in this order."""
        out = self.temp(ref.shape, ref.dtype, order)
        self.copy(ref, out)
        return out

    def copy(self, source: Ref, out: Ref) -> None:
        """Emit a copy between two strided places of one shape."""
        order = range(len(out.shape)) if 0 in out.shape else out.order
        shape = tuple(source.shape[d] for d in order)
        dims, (xs, ys) = coalesce(
            shape,
            tuple(source.strides[d] for d in order),
            tuple(out.strides[d] for d in order),
        )
        self.step("copy", x=source, y=out, **six("d", dims, 1), **six("xs", xs), **six("ys", ys))
        self.steps[-1].bits = 8 * out.dtype.itemsize

    def fill(self, out: Ref, value: float) -> None:
        """Emit the filling of a dense place with a number (0 if it holds integers)."""
        self.step("fill", y=out, n=out.size, value=value)
        self.steps[-1].bits = 8 * out.dtype.itemsize

    def binary(
        self, op: int, left: Ref, right: Ref, out: Ref, dims: list[int], *strides: list[int]
    ) -> None:
        """Emit an elementwise step over coalesced dimensions."""
        a_strides, b_strides = strides
        sizes = {**six("d", dims, 1), **six("as", a_strides), **six("bs", b_strides)}
        self.step("binary", a=left, b=right, y=out, op=op, **sizes)

    def temp(self, shape: Shape, dtype: Any = None, order: Sequence[int] | None = None) -> Ref:
        """New room in the arena, dense in this order."""
        dtype = np.dtype(dtype or self.dtype)
        size = int(np.prod(shape, dtype=np.int64))
        order = tuple(range(len(shape))) if order is None else order
        return Ref(
            Buffer(size * dtype.itemsize, self._label), shape, dense_strides(shape, order), dtype
        )

    def new(self, value: Value, order: Sequence[int] | None = None) -> Ref:
        """Room for an output, dense in this order; its final place if it has one of that order."""
        order = tuple(range(value.ndim)) if order is None else tuple(order)
        wishes = [self._wishes[value]] if value in self._wishes else []
        for target in self._targets.get(value, []) + wishes:
            if target.is_dense(order):
                self._refs[value] = target
                return target
        ref = self._refs[value] = self.temp(value.shape, value.dtype, order)
        return ref

    def alias(self, value: Value, ref: Ref) -> None:
        """`value` is a view of what lies at `ref`."""
        self._refs[value] = ref

    def is_last_reader(self, node: Node, value: Value) -> bool:
        """True if only `node` reads `value`, which lies in the arena: node may write over it."""
        return self.ref(value).buffer.space is None and self.only_reader(value) is node

    def buffer_bytes(self, kernel: str, **numbers: Any) -> int:
        """Bytes of the kernel's `work` or `packed` buffer for these integers."""
        return int(_core.buffer_bytes(kernel, self.bits, **numbers))

    # --- steps ---

    def step(self, kernel: str, flops: int = 0, **fields: Any) -> None:
        """Emit a kernel call; pointers are Refs or None. A `work` buffer is made if it needs one."""
        if "work" in _core.kernels()[kernel]:
            numbers = {k: v for k, v in fields.items() if isinstance(v, (int, float))}
            nbytes = self.buffer_bytes(kernel, **numbers)
            if nbytes:
                fields["work"] = self.temp((nbytes,), np.uint8)
        self.steps.append(StepRecord(kernel, fields, self._label, flops))

    def foreign(self, function: Foreign, fields: Sequence[Ref | int | float]) -> None:
        """Emit a call of a function made elsewhere; its arguments in order."""
        record = StepRecord("foreign", {str(i): x for i, x in enumerate(fields)}, self._label, 0)
        record.foreign = function
        self.steps.append(record)

    def lower(self, outputs: Sequence[Value]) -> None:
        """Emit the steps of every node that `outputs` need, then fill the targets."""
        nodes = topological(outputs)
        self.find_readers(nodes, outputs)
        for node in reversed(nodes):  # a place inside a place has to know the outer one
            node.op.prepare(node, self)
        for node in nodes:
            if not isinstance(node.op, (Input, StorageLeaf)) and not self.is_lowered(node):
                self._label = node.op.name
                node.op.lower(node, self)
        self._label = "copy"
        for value, targets in self._targets.items():
            ref = self.ref(value)
            for target in targets:
                if target is not ref:
                    self.copy(ref, target)

    def label(self, text: str) -> None:
        """Name the steps that follow in the printed plan."""
        self._label = text

    def finish(self, poison: bool = False) -> None:
        """Place the buffers and fill the program. poison: no reuse, and NaN in what is done with."""
        prologue = [] if poison else constant_steps(self.steps, set(self._memories.values()))
        once = set(map(id, prologue))
        self.prologue = len(prologue)
        self.steps = prologue + [s for s in self.steps if id(s) not in once]
        self._place(reuse=not poison)
        for i, record in enumerate(self.steps):
            if i == self.prologue and prologue:
                self.program.end_prologue()
            self._add(record)
            for buffer in record.buffers() if poison else ():
                if buffer.last == i and buffer.space == self.arena_space:
                    count = buffer.nbytes // (self.bits // 8)
                    pointer = (buffer.space, buffer.offset)
                    nan = float("nan")
                    self.program.add("fill", {"y": pointer, "n": count, "value": nan})

    def _place(self, reuse: bool) -> None:
        """Give every buffer its place: in the arena, or beside it where it outlives a run."""
        buffers: dict[Buffer, None] = {}
        for i, record in enumerate(self.steps):
            for buffer in record.buffers():
                if buffer.space is None:
                    buffer.last = i
                    if buffer not in buffers:
                        buffers[buffer] = None
                        buffer.first = i
        passing = [b for b in buffers if b.last < self.prologue or b.first >= self.prologue]
        kept = [b for b in buffers if b.first < self.prologue <= b.last]
        self.arena_bytes = place(passing, reuse)
        self.arena.ensure(self.arena_bytes)
        for buffer in passing:
            buffer.space = self.arena_space
        if kept:
            self.arena.kept.ensure(place(kept, reuse=False))
            space = self.program.memory_space(self.arena.kept)
            for buffer in kept:
                buffer.space = space

    def _add(self, record: StepRecord) -> None:
        fields = record.resolved()
        if record.foreign is not None:
            function = record.foreign
            self.program.add_foreign(function.address, tuple(fields.values()), function)
        else:
            self.program.add(record.kernel, fields, record.bits)

    # --- inputs ---

    def _load_input(self, value: Value) -> Ref:
        """An Input leaf that an op reads as it is: in place, or gathered by rows."""
        source = self.sources[value]
        if source.rows is None:
            return self._source_ref(value)
        return self.take(value, value) if value.dtype == self.dtype else self._take_labels(value)

    def labels(self, value: Value) -> Ref:
        """Integers as dense int64, converted if they come in as another type, floats too."""
        if value in self.sources and value.dtype.kind == "f":
            return self._take_labels(value)
        self.elements(value)
        return self.dense(value)

    def _take_labels(self, value: Value) -> Ref:
        source = self.sources[value]
        ref = self.temp(value.shape, np.int64)
        self.step(
            "take_labels",
            src=self._source_ref(value),
            idx=source.index,
            out=ref,
            rows=batch_size(value),
            src_rows=batch_size(value) if source.rows is None else source.rows,
            row_size=ref.size // max(1, batch_size(value)),
            dtype=DTYPE_CODES[value.dtype],
        )
        return ref

    def take(
        self, value: Value, out: Value, scale: Ref | None = None, shift: Ref | None = None
    ) -> Ref:
        """Emit the load of Input `value` as float `out`, converted, scaled and channels-last."""
        source = self.sources[value]
        n, row = batch_size(value), value.shape[1:]
        images = len(row) == 3 and (scale is not None or self.image_consumer(out))
        ref = self.new(out, CHANNELS_LAST if images else None)
        channels = row[0] if images else 1
        self.step(
            "take",
            src=self._source_ref(value),
            idx=source.index,
            scale=scale,
            shift=shift,
            out=ref,
            rows=n,
            src_rows=n if source.rows is None else source.rows,
            c=channels,
            hw=int(np.prod(row, dtype=np.int64)) // channels,
            dtype=DTYPE_CODES[value.dtype],
        )
        return ref

    def _source_ref(self, value: Value) -> Ref:
        strides: Strides = dense_strides(value.shape, range(value.ndim))
        return Ref(self.sources[value].buffer, value.shape, strides, value.dtype)


def batch_size(value: Value) -> int:
    """Rows of an input; a single number is one."""
    return value.shape[0] if value.shape else 1


def six(name: str, numbers: Sequence[int], fill: int = 0) -> dict[str, int]:
    """Fields name0..name5 of a six-dimensional kernel, outermost first, padded in front."""
    if len(numbers) > MAX_DIMS:
        raise NotImplementedError(f"more than {MAX_DIMS} separate dimensions in one operation")
    padded = [fill] * (MAX_DIMS - len(numbers)) + list(numbers)
    return {f"{name}{i}": n for i, n in enumerate(padded)}
