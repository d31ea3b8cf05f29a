"""All trained parameters in one block of memory, their gradients and optimizer states in others."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np

from fastnn._core import Memory
from fastnn.graph import Array, Storage, changed
from fastnn.layout import Ref
from fastnn.nn.module import Parameter
from fastnn.plan.builder import Builder

PIECE = 16384  # elements of a parameter that one task of a kernel takes


class Segment:
    """Parameters that lie next to each other in a slab and are updated by one kernel call.

    group: their group's number, 0 for none. start: steps that were done before they came. offset,
    nbytes: where they lie in each block. A sparse parameter is a segment of its own.
    """

    def __init__(self, group: int, start: int, offset: int) -> None:
        self.group, self.start, self.offset, self.nbytes = group, start, offset, 0
        self.parameters: list[Parameter] = []

    @property
    def sparse(self) -> bool:
        """True if this is one parameter whose gradient comes as rows."""
        return self.parameters[0].sparse

    def append(self, parameter: Parameter) -> None:
        """Add a parameter at the end."""
        self.parameters.append(parameter)
        self.nbytes += parameter.nbytes

    def ref(self, b: Builder, memory: Memory) -> Ref:
        """These parameters' part of a block as one flat array."""
        dtype = np.dtype(self.parameters[0].dtype)
        buffer = b.memory(memory, self.nbytes, self.offset)
        return Ref(buffer, (self.nbytes // dtype.itemsize,), (1,), dtype)

    def pieces(self) -> Array:
        """int64 (pieces, 3): first element, number of elements and parameter (0, 1, ...) of each."""
        rows, first = [], 0
        for number, p in enumerate(self.parameters):
            size = math.prod(p.shape)
            for at in range(0, size, PIECE):
                rows.append((first + at, min(PIECE, size - at), number))
            first += p.nbytes // p.dtype.itemsize
        return np.array(rows, np.int64).reshape(-1, 3)


class Slab:
    """Moves parameters next to each other; offsets are the same in every block.

    states: names, and what each is filled with. starts: for each parameter the steps done before it
    came; groups: its group. The gaps between parameters (up to a cache line) are zero, and those of the
    gradients stay so. Sparse parameters come last, and the blocks of gradients end before them.
    """

    def __init__(
        self,
        parameters: Sequence[Parameter],
        states: Mapping[str, float],
        starts: Sequence[int],
        groups: Sequence[int],
    ) -> None:
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
        self.dense_nbytes = sum(p.nbytes for p in parameters if not p.sparse)
        self.values, self.grads = Memory(self.nbytes), Memory(self.dense_nbytes)
        self.states = {name: self._filled(value) for name, value in states.items()}
        self.segments: list[Segment] = []
        self._starts: dict[int, int] = {}  # by id of the parameter
        self._places: dict[int, Storage] = {}  # over the values
        self._touched: dict[int, Memory] = {}
        self._means: Memory | None = None
        self._swapped = False
        self._place(list(zip(groups, starts, strict=True)))
        changed()

    def _filled(self, value: float) -> Memory:
        memory = Memory(self.nbytes)
        if value:
            self.flat(memory)[...] = value
        return memory

    def _place(self, kinds: Sequence[tuple[int, int]]) -> None:
        offset = 0
        parameters = self.parameters
        for i in sorted(range(len(parameters)), key=lambda i: (parameters[i].sparse, *kinds[i])):
            p, last = parameters[i], self.segments[-1] if self.segments else None
            if last is None or p.sparse or (last.group, last.start) != kinds[i]:
                self.segments.append(Segment(*kinds[i], offset))
            self.segments[-1].append(p)
            p.move(self.values, offset)
            self._starts[id(p)] = kinds[i][1]
            self._places[id(p)] = Storage.placed(p, self.values, offset)
            offset += p.nbytes

    def has(self, parameter: Parameter) -> bool:
        """True if this is one of the slab's parameters."""
        return id(parameter) in self._places

    def start(self, parameter: Parameter) -> int:
        """Steps that were done before a parameter came."""
        return self._starts[id(parameter)]

    def grad(self, parameter: Parameter) -> Storage:
        """Where the gradient of a parameter that is not sparse lies."""
        place = self._places[id(parameter)]
        return Storage.placed(place, self.grads, place.offset)

    def state(self, name: str, parameter: Parameter) -> Array:
        """A view of one optimizer state of a parameter, in the parameter's shape."""
        place = self._places[id(parameter)]
        if id(parameter) in self._touched:
            self._forget(self._touched[id(parameter)])
        return Storage.placed(place, self.states[name], place.offset).array

    def take(self, old: Slab) -> None:
        """Copy the states of the parameters that an older slab has too."""
        for p in filter(old.has, self.parameters):
            for name in self.states:
                self.state(name, p)[...] = old.state(name, p)

    def fill(self, name: str) -> None:
        """Copy the parameters to one of their states."""
        self.flat(self.states[name])[...] = self.flat(self.values)

    @contextmanager
    def swapped(self, name: str) -> Iterator[None]:
        """While inside, the parameters have the numbers of one of their states, and it has theirs."""
        if self._swapped:
            yield
            return
        self._swapped = True
        self._swap(name)
        try:
            yield
        finally:
            self._swap(name)
            self._swapped = False

    def _swap(self, name: str) -> None:
        values, state = self.flat(self.values), self.flat(self.states[name])
        before = values.copy()
        values[...] = state
        state[...] = before

    def touched(self, parameter: Parameter, size: int) -> Memory:
        """What SGD's kernel remembers of a sparse parameter's rows: `size` int64."""
        if id(parameter) not in self._touched:
            self._touched[id(parameter)] = memory = Memory(8 * size)
            self._forget(memory)
        return self._touched[id(parameter)]

    @staticmethod
    def _forget(touched: Memory) -> None:
        touched.view(0, (1,), np.dtype(np.int64))[0] = -1

    @property
    def means(self) -> Memory:
        """A block for the mean of the gradients of several batches."""
        if self._means is None:
            self._means = Memory(self.dense_nbytes)
        return self._means

    def means_copy(self) -> Array | None:
        """What is in that block, if there is one."""
        return None if self._means is None else self.flat(self._means).copy()

    def flat(self, memory: Memory) -> Array:
        """A view of a whole block."""
        return memory.view(0, (memory.nbytes // self.dtype.itemsize,), self.dtype)

    def whole_grad(self, b: Builder, memory: Memory) -> Ref:
        """A whole block of gradients as one flat array."""
        size = memory.nbytes // self.dtype.itemsize
        return Ref(b.memory(memory, memory.nbytes), (size,), (1,), np.dtype(self.dtype))

    def owns(self, parameters: Sequence[Parameter]) -> bool:
        """True if these are the slab's parameters, still in their places."""
        return len(parameters) == len(self.parameters) and all(
            p is q and p.memory is self.values
            for p, q in zip(parameters, self.parameters, strict=True)
        )
