"""What a plan reads and writes outside of its arena: memories that stay, arrays of each run."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn import _core
from fastnn.graph import Array, Storage
from fastnn.layout import Buffer, Ref, dense_strides
from fastnn.plan.readers import Readers

HYPER_SIZE = 4  # step number, seed, learning rate, a micro-batch's part


class Outer(Readers):
    """The spaces of a program beside the arena."""

    def __init__(self, bits: int, arena: _core.Memory, fused: bool) -> None:
        super().__init__(fused)
        self.bits, self.arena = bits, arena
        self.program = _core.Program(bits, arena)
        self.array_labels: list[str] = []  # what run() must bind, in order
        self.hyper_size = HYPER_SIZE  # of what run() binds; more where groups have rates
        self.trains = False  # whether parameters change from run to run
        self._memories: dict[_core.Memory, int] = {}
        self._hyper: Buffer | None = None

    def memory(self, memory: _core.Memory, nbytes: int, offset: int = 0, label: str = "") -> Buffer:
        """A fixed buffer inside a Memory."""
        if memory not in self._memories:
            self._memories[memory] = self.program.memory_space(memory)
        return Buffer(nbytes, label, self._memories[memory], offset)

    def array(self, label: str, nbytes: int, dtype: Any) -> Buffer:
        """A fixed buffer that run() binds to an array, in the order of these calls."""
        self.array_labels.append(label)
        return Buffer(nbytes, label, self.program.array_space(nbytes, dtype))

    def storage(self, storage: Storage) -> Ref:
        """Where a storage lies."""
        buffer = self.memory(storage.memory, storage.nbytes, storage.offset, "storage")
        strides = dense_strides(storage.shape, storage.order)
        return Ref(buffer, storage.shape, strides, storage.dtype)

    def keeps(self, ref: Ref) -> bool:
        """Whether it is the same at each run, so that what is made of it is made once: prologue.py."""
        return not self.trains and ref.buffer.space in self._memories.values()

    def constant(self, array: Array) -> Ref:
        """Numbers that the plan brings along."""
        return self.storage(Storage(array))

    def hyper(self) -> Ref:
        """The scalars of a step, float64: step number, seed, learning rate..., bound at each run."""
        if self._hyper is None:
            self._hyper = self.array("hyper", 8 * self.hyper_size, np.float64)
        return Ref(self._hyper, (HYPER_SIZE,), (1,), np.dtype(np.float64))
