"""Values and nodes: what a function of arrays becomes when it is called with symbolic values.

A Node is one application of an Op; its outputs are Values, which carry a logical shape and a dtype and
behave like arrays in arithmetic. Leaves are nodes without inputs: an Input that a plan binds at each
run, or a Storage (parameter, buffer, constant) that lives in memory of its own.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from threading import local
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from fastnn._core import Memory
from fastnn.arithmetic import Arithmetic, operations

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastnn.ops.op import Op

Shape: TypeAlias = tuple[int, ...]
Array: TypeAlias = np.ndarray[Any, Any]

_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
ALIGNMENT = 64  # bytes; every storage starts on a cache line


class Storage:
    """An array that lives in a Memory and may move to another one: a parameter, buffer or constant.

    `order` lists the logical dimensions from the outermost in memory to the innermost, so a
    convolution's (O, I, kH, kW) weight with order (2, 3, 1, 0) lies as kH, kW, I, O.
    """

    def __init__(self, array: Array, order: Sequence[int] | None = None) -> None:
        self.shape: Shape = array.shape
        self.dtype = array.dtype
        self.order = tuple(order) if order is not None else tuple(range(array.ndim))
        self.memory = Memory(self.nbytes)
        self.offset = 0
        self.array[...] = array

    @classmethod
    def placed(cls, like: Storage, memory: Memory, offset: int) -> Storage:
        """A storage shaped as `like` over what lies in `memory` at byte `offset`."""
        storage = Storage.__new__(Storage)
        storage.shape, storage.dtype, storage.order = like.shape, like.dtype, like.order
        storage.memory, storage.offset = memory, offset
        return storage

    @property
    def nbytes(self) -> int:
        """Bytes it takes, up to the next cache line."""
        raw: int = math.prod(self.shape) * self.dtype.itemsize
        return -(-raw // ALIGNMENT) * ALIGNMENT

    @property
    def array(self) -> Array:
        """A view with the logical shape; writing to it changes the storage."""
        physical = [self.shape[d] for d in self.order]
        view = self.memory.view(self.offset, physical, self.dtype)
        return view.transpose(np.argsort(self.order)) if self.order else view

    def convert(self, dtype: Any) -> None:
        """Hold the same numbers as another dtype, in memory of its own."""
        old = self.array
        self.dtype = np.dtype(dtype)
        self.memory, self.offset = Memory(self.nbytes), 0
        self.array[...] = old

    def move(self, memory: Memory, offset: int) -> None:
        """Move the content to `memory` at byte `offset`; views made before keep the old memory."""
        old = self.array
        self.memory, self.offset = memory, offset
        self.array[...] = old


class Seed(Storage):
    """The 1 that a backward pass starts from."""

    def __init__(self, dtype: Any) -> None:
        super().__init__(np.ones((), dtype))


class Value(Arithmetic):
    """A symbolic array: output `index` of `node`, with a shape and a dtype but no numbers."""

    __slots__ = ("dtype", "index", "node", "shape")

    def __init__(self, node: Node, index: int, shape: Shape, dtype: np.dtype[Any]) -> None:
        self.node, self.index, self.shape, self.dtype = node, index, shape, dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def __repr__(self) -> str:
        return f"Value({self.node.op.name}, shape={self.shape}, dtype={self.dtype})"

    def __bool__(self) -> bool:
        raise TypeError(f"a symbolic value has no truth value, at {caller()}: use ops, not `if`")

    def __float__(self) -> float:
        raise TypeError(f"a symbolic value is not a number yet, at {caller()}")

    __int__ = __index__ = __float__

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a 0-d value has no length")
        return self.shape[0]

    def __iter__(self) -> Iterator[Value]:
        raise TypeError(f"a symbolic value cannot be iterated over, at {caller()}")

    def __array__(self, *args: Any, **kwargs: Any) -> Array:
        raise TypeError(f"a symbolic value is not an array: use fastnn.ops, at {caller()}")

    def __gt__(self, other: Any) -> Any:
        return operations().greater(self, other)

    def __lt__(self, other: Any) -> Any:
        return operations().less(self, other)

    def __ge__(self, other: Any) -> Any:
        return operations().greater_equal(self, other)

    def __le__(self, other: Any) -> Any:
        return operations().less_equal(self, other)

    def __eq__(self, other: Any) -> Any:
        """Elementwise; use `is` for the same value."""
        return operations().equal(self, other) if _is_numeric(other) else NotImplemented

    def __ne__(self, other: Any) -> Any:
        return operations().not_equal(self, other) if _is_numeric(other) else NotImplemented

    __hash__ = object.__hash__


class Node:
    """One application of `op` to `inputs` (None where an optional one is missing)."""

    __slots__ = ("inputs", "line", "op", "outputs")

    def __init__(
        self,
        op: Op,
        inputs: tuple[Value | None, ...],
        specs: Iterable[tuple[Shape, Any]],
        line: str,
    ) -> None:
        self.op, self.inputs, self.line = op, inputs, line
        self.outputs = tuple(
            Value(self, i, tuple(shape), np.dtype(dtype)) for i, (shape, dtype) in enumerate(specs)
        )


class Trace(local):
    """What is collected beside the nodes while a model is being called with symbolic values."""

    def __init__(self) -> None:
        self.active = False
        self.dtype: Any = None  # what inputs of other dtypes are converted to
        self.counters: list[Any] = []
        self.updates: list[tuple[Storage, Value, float, float]] = []
        self.leaves: dict[int, Value] = {}
        self.keys = 0


_trace = Trace()


@contextmanager
def tracing(dtype: Any = None) -> Iterator[Trace]:
    """Collect leaves, buffer updates and random keys of the calls inside; traces do not nest."""
    if _trace.active:
        raise RuntimeError("a model is already being traced in this thread")
    _trace.__init__()  # type: ignore[misc]
    _trace.active, _trace.dtype = True, dtype
    try:
        yield _trace
    finally:
        _trace.active = False


def storage_value(storage: Storage) -> Value:
    """The leaf that stands for a storage: one a trace, however often it is used."""
    from fastnn.ops.op import StorageLeaf

    value = _trace.leaves.get(id(storage))
    if value is None:
        value = Node(StorageLeaf(storage), (), [(storage.shape, storage.dtype)], "").outputs[0]
        _trace.leaves[id(storage)] = value
    return value


def input_value(name: str, shape: Shape, dtype: Any) -> Value:
    """A leaf that a plan binds to an array at each run."""
    from fastnn.ops.op import Input

    return Node(Input(name=name), (), [(tuple(shape), dtype)], "").outputs[0]


def traced_dtype() -> Any:
    """The float dtype of the model that is being traced; None outside of a trace."""
    return _trace.dtype if _trace.active else None


def update(storage: Storage, value: Value, t: float, scale: float = 1.0) -> None:
    """At the end of the step: storage = (1 - t) * storage + t * scale * value."""
    _trace.updates.append((storage, value, t, scale))


def count_batch(owner: Any) -> None:
    """Let whoever runs this plan add the batches it ran to owner.num_batches_tracked."""
    _trace.counters.append(owner)


def next_key() -> int:
    """A number for the next random op of this trace, so that each draws its own stream."""
    _trace.keys += 1
    return _trace.keys


# --- what plans were made for ---

# Grows with every change to any module's structure, mode or attributes, and to settings: plans look
# no further while it stands still.
_changes = 0


def changes() -> int:
    """The number of structural changes so far in this process."""
    return _changes


def changed() -> None:
    """Tell that something is not what plans were made for."""
    global _changes
    _changes += 1


# --- applying ops -------------------------------------------------------------------------------


@cache
def _evaluator() -> Callable[[Op, tuple[Any, ...]], Any]:
    """What computes an op at once on arrays: the one look up the house, when it is first needed."""
    evaluate: Callable[[Op, tuple[Any, ...]], Any] = import_module("fastnn.plan.eager").evaluate
    return evaluate


def apply(op: Op, *inputs: Any) -> Any:
    """Record `op` if an input is symbolic, else compute it; one output comes bare, more as a tuple.

    A storage is symbolic while a model is being traced, and an array otherwise.
    """
    if _trace.active:
        inputs = tuple(storage_value(x) if isinstance(x, Storage) else x for x in inputs)
    if any(isinstance(x, Value) for x in inputs):
        outputs = record(op, *inputs).outputs
        return outputs[0] if len(outputs) == 1 else outputs
    return _evaluator()(op, tuple(x.array if isinstance(x, Storage) else x for x in inputs))


def record(op: Op, *inputs: Any) -> Node:
    """A new node; arrays among the inputs become constants. Raises what op.infer raises."""
    like = next(x for x in inputs if isinstance(x, Value))
    values = tuple(_as_value(x, like, integer=i in op.integer_inputs) for i, x in enumerate(inputs))
    if _trace.active and _trace.dtype is not None:
        keep = op.integer_inputs
        if op.any_dtype and len({v.dtype for v in values if v is not None}) == 1:
            keep = tuple(range(len(values)))
        values = tuple(v if i in keep else as_float(v) for i, v in enumerate(values))
    return Node(op, values, op.infer(*values), caller())


def _as_value(x: Any, like: Value, integer: bool) -> Value | None:
    if x is None or isinstance(x, Value):
        return x
    if isinstance(x, Storage):
        return storage_value(x)
    array = np.asarray(x)
    if integer and array.dtype.kind in "iu":
        array = array.astype(np.int64)
    elif array.dtype.kind in "fiub" and like.dtype.kind == "f":
        array = array.astype(like.dtype)
    return storage_value(Storage(array))


def as_float(value: Value | None) -> Value | None:
    """An Input of another dtype than the traced model's, or a part of one, converted to that."""
    from fastnn.ops.load import convert
    from fastnn.ops.op import Input

    if value is None or value.dtype == _trace.dtype:
        return value
    node = value.node
    if node.op.any_dtype:
        inputs = tuple(as_float(v) for v in node.inputs)
        return Node(node.op, inputs, node.op.infer(*inputs), node.line).outputs[value.index]
    if not isinstance(node.op, Input):
        return value
    if id(value) not in _trace.leaves:
        _trace.leaves[id(value)] = convert(value, _trace.dtype)
    return _trace.leaves[id(value)]


def caller() -> str:
    """file:line of the innermost frame outside this package."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back  # type: ignore[assignment]
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else "?"


def topological(outputs: Iterable[Value]) -> list[Node]:
    """All nodes that `outputs` need, each after its inputs, in a deterministic order."""
    order: list[Node] = []
    seen: set[int] = set()
    stack: list[tuple[Node, bool]] = [(v.node, False) for v in reversed(list(outputs))]
    while stack:
        node, ready = stack.pop()
        if ready:
            order.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((node, True))
            stack += [(v.node, False) for v in reversed(node.inputs) if v is not None]
    return order


def _is_numeric(x: Any) -> bool:
    """True for what a value can be compared with."""
    return isinstance(x, (Value, Storage, np.ndarray, np.generic, int, float))
