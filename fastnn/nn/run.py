"""Tracing models and running them: the plan of a model for given shapes, looked up or made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastnn import _core
from fastnn.graph import Array, Storage, Value, as_float, changes, input_value, tracing
from fastnn.nn.module import Module, Parameter
from fastnn.ops.conv_algorithm import conv_algorithm
from fastnn.plan.plan import Plan

KEPT = 64  # plans of one model; the oldest goes first


class Traced:
    """A model's output for symbolic inputs, and what its layers asked for on the side."""

    def __init__(self, function: Callable[..., Any], inputs: Sequence[Value], dtype: Any) -> None:
        with tracing(dtype) as trace:
            self.inputs = list(inputs)
            self.output: Any = _floats(function(*inputs))
            self.updates = list(trace.updates)
            self.counters = list(trace.counters)
            self.leaves = list(trace.leaves.values())

    def count(self, batches: int) -> None:
        """Add batches to the modules that count them."""
        for module in self.counters:
            module.num_batches_tracked.data[...] += batches


def _floats(output: Any) -> Any:
    """What a traced function returned, inputs that it passed on as they came converted."""
    if isinstance(output, Value):
        return as_float(output)
    return tuple(map(_floats, output)) if isinstance(output, tuple) else output


class Plans:
    """The plans of one model, all in one arena; forgotten when the model changes."""

    def __init__(self, model: Module) -> None:
        self.model = model
        self.arena = _core.Memory(0)
        self._plans: dict[Any, Any] = {}
        self._calls: dict[Any, _Call] = {}  # by the shape and dtype of a single input
        self._seen = -1
        self._signature: Any = None

    def get(self, key: Any, make: Callable[[], Any]) -> Any:
        """What make() returned for this key and the model as it is now."""
        if self._seen != changes():
            self._signature = signature(self.model)
            self._seen = changes()
            self._calls.clear()
        key = (self._signature, key)
        plan = self._plans.get(key)
        if plan is None:
            plan = make()
            self._plans[key] = plan
            while len(self._plans) > KEPT:
                del self._plans[next(iter(self._plans))]
                self._calls.clear()
        return plan

    def call(self, x: Array) -> _Call | None:
        """The plan of the last model(x) with an array like this one, if there is one."""
        return self._calls.get((x.shape, x.dtype)) if self._seen == changes() else None

    def remember(self, x: Array, call: _Call) -> None:
        """What `call` is to find; x needs no conversion."""
        self._calls[x.shape, x.dtype] = call


def signature(model: Module) -> tuple[Any, ...]:
    """Everything about a model that a plan depends on, as something to compare."""
    parts: list[Any] = [_core.isa(), conv_algorithm()]
    for module in model.modules():
        parts.append(id(module))
        for name, attribute in vars(module).items():
            if isinstance(attribute, Storage):
                frozen = not isinstance(attribute, Parameter) or not attribute.requires_grad
                place = (id(attribute.memory), attribute.offset, attribute.dtype.char)
                parts.append((name, id(attribute), frozen, *place))
            elif isinstance(attribute, (int, float, str, tuple, type(None))):
                parts.append((name, attribute))
    return tuple(parts)


def plans_of(model: Module) -> Plans:
    """The model's plans; they live and die with it."""
    plans = vars(model).get("_plans")
    if not isinstance(plans, Plans) or plans.model is not model:
        plans = Plans(model)
        object.__setattr__(model, "_plans", plans)
    return plans


def model_dtype(model: Module, *arrays: Any) -> np.dtype[Any]:
    """The dtype of the model's parameters; without any, that of the first float array, or float32."""
    for parameter in model.parameters():
        return np.dtype(parameter.dtype)
    floats = [a.dtype for a in arrays if a is not None and a.dtype in (np.float32, np.float64)]
    return np.dtype(floats[0]) if floats else np.dtype(np.float32)


def as_array(name: str, x: Any) -> Array:
    """Numbers as a C-contiguous native array; TypeError names the argument otherwise."""
    array = np.asarray(x)
    if array.dtype.kind == "b":
        array = array.astype(np.uint8)
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        array = array.astype(np.int64)
    if array.dtype.kind == "f" and array.dtype.itemsize not in (4, 8):
        array = array.astype(np.float32 if array.dtype.itemsize < 4 else np.float64)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name}: expected an array of numbers, got {array.dtype}")
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    return np.ascontiguousarray(array).reshape(array.shape)


def spread(x: Any, name: str, leaves: list[Any]) -> Any:
    """Collect the arrays or values of nested tuples; gives their structure, for `gathered`."""
    if x is None:
        return None
    if isinstance(x, tuple) and all(v is None or isinstance(v, tuple) or _is_array(v) for v in x):
        return tuple(spread(v, name, leaves) for v in x)
    leaves.append(x if isinstance(x, Value) else as_array(name, x))
    return len(leaves) - 1


def _is_array(x: Any) -> bool:
    return isinstance(x, Value) or hasattr(x, "__array__")


def gathered(structure: Any, leaves: Sequence[Any]) -> Any:
    """The nested tuples of this structure, from their leaves."""
    if isinstance(structure, tuple):
        return tuple(gathered(part, leaves) for part in structure)
    return None if structure is None else leaves[structure]


def run(model: Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """model(*arrays): returns what forward returns, with arrays as its values."""
    single = len(inputs) == 1 and not named and type(inputs[0]) is np.ndarray
    if single and inputs[0].flags.c_contiguous and "_plans" in vars(model):
        call = plans_of(model).call(inputs[0])
        if call is not None:
            return call(inputs)
    arrays: list[Array] = []
    places = tuple(spread(x, f"input {i}", arrays) for i, x in enumerate(inputs))
    names = tuple((k, spread(x, k, arrays)) for k, x in named.items())
    key = ("call", places, names, *[(a.shape, a.dtype.char) for a in arrays])
    runner = plans_of(model).get(key, lambda: _Call(model, arrays, places, names))
    if single and arrays[0].dtype == inputs[0].dtype:
        plans_of(model).remember(arrays[0], runner)
    return runner(arrays)


class _Call:
    """A plan that returns what forward returned."""

    def __init__(self, model: Module, arrays: Sequence[Array], places: Any, names: Any) -> None:
        leaves = [input_value(f"input {i}", a.shape, a.dtype) for i, a in enumerate(arrays)]
        dtype = model_dtype(model, *arrays)

        def forward(*values: Value) -> Any:
            named = {k: gathered(place, values) for k, place in names}
            return model.forward(*gathered(places, values), **named)

        self.traced = Traced(forward, leaves, dtype)
        output = self.traced.output
        outputs: list[Value] = []
        self.structure = spread(
            tuple(output) if isinstance(output, list) else output, "forward", outputs
        )
        self.plan = Plan(dtype.itemsize * 8, plans_of(model).arena)
        for leaf in leaves:
            self.plan.input(leaf)
        for v in outputs:
            if not isinstance(v, Value):
                raise TypeError(f"forward: expected to return symbolic values, got {type(v)}")
            self.plan.output(v)
        self.plan.updates(self.traced.updates)
        self.plan.compute()
        self.plan.build()
        self.calls = 0

    def __call__(self, arrays: Sequence[Array]) -> Any:
        self.calls += 1
        hyper = np.array([self.calls, 0.0, 0.0, 0.0]) if self.plan.needs_hyper else None
        outputs = self.plan(*arrays, hyper=hyper)
        self.traced.count(1)
        return outputs[0] if self.structure == 0 else gathered(self.structure, outputs)
