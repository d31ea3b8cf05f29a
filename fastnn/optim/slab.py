"""All trained parameters in one block of memory, their gradients and optimizer states in others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastnn._core import Memory
from fastnn.graph import Array, Storage, changed
from fastnn.layout import Ref
from fastnn.nn.module import Parameter
from fastnn.plan.builder import Builder


class Slab:
    """Moves parameters next to each other; offsets are the same in every block.

    The gaps between parameters (up to a cache line) are zero and stay zero under every optimizer.
    """

    def __init__(self, parameters: Sequence[Parameter], states: Sequence[str]) -> None:
        if not parameters:
            raise ValueError("model: no parameter requires a gradient")
        dtypes = {p.dtype for p in parameters}
        if len(dtypes) > 1:
            raise TypeError(
                f"model: expected parameters of one dtype, got {sorted(map(str, dtypes))}"
            )
        self.parameters = list(parameters)
        self.dtype = dtypes.pop()
        self.nbytes = sum(p.nbytes for p in parameters)
        self.values, self.grads = Memory(self.nbytes), Memory(self.nbytes)
        self.states = {name: Memory(self.nbytes) for name in states}
        offset = 0
        for p in self.parameters:
            p.move(self.values, offset)
            offset += p.nbytes
        changed()

    def grad(self, parameter: Parameter) -> Storage:
        """Where the gradient of a parameter lies."""
        return Storage.placed(parameter, self.grads, parameter.offset)

    def state(self, name: str, parameter: Parameter) -> Array:
        """A view of one optimizer state of a parameter, in the parameter's shape."""
        return Storage.placed(parameter, self.states[name], parameter.offset).array

    def owns(self, parameters: Sequence[Parameter]) -> bool:
        """True if these are the slab's parameters, still in their places."""
        return len(parameters) == len(self.parameters) and all(
            p is q and p.memory is self.values
            for p, q in zip(parameters, self.parameters, strict=True)
        )

    def ref(self, b: Builder, memory: Memory) -> Ref:
        """A whole block as one flat array."""
        size = self.nbytes // self.dtype.itemsize
        return Ref(b.memory(memory, self.nbytes), (size,), (1,), np.dtype(self.dtype))
