"""Module: parameters, buffers and submodules under PyTorch's names, and a forward that is traced."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, TypeVar

import numpy as np

from fastnn.arithmetic import Arithmetic
from fastnn.graph import Array, Storage, Value, changed, storage_value, update

M = TypeVar("M", bound="Module")


class Parameter(Arithmetic, Storage):
    """A trainable array of a Module. `.data` reads and writes it; requires_grad=False freezes it.

    In a forward it takes part in arithmetic like its other values.

    order: how it lies in memory, see Storage. sparse: its gradient is kept as the rows that
    ops.embedding looked up, and optimizers move no others.
    """

    def __init__(
        self,
        data: Any,
        requires_grad: bool = True,
        order: tuple[int, ...] | None = None,
        sparse: bool = False,
    ) -> None:
        array = np.asarray(data)
        if array.dtype not in (np.float32, np.float64):
            array = array.astype(np.float32)
        super().__init__(array, order)
        self._requires_grad, self.sparse = requires_grad, sparse

    @property
    def data(self) -> Array:
        """A view of the numbers: writing to it changes the parameter."""
        return self.array

    @data.setter
    def data(self, value: Any) -> None:
        self.array[...] = value

    @property
    def requires_grad(self) -> bool:
        """False for a frozen parameter: no gradient is computed, no optimizer touches it."""
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if bool(value) != self._requires_grad:
            self._requires_grad = bool(value)
            changed()

    def __repr__(self) -> str:
        return f"Parameter({self.array!r})"


class Buffer(Storage):
    """An array that belongs to a Module's state but is not trained (running statistics, states)."""

    @property
    def data(self) -> Array:
        """A view of the numbers: writing to it changes the buffer."""
        return self.array

    @data.setter
    def data(self, value: Any) -> None:
        self.array[...] = value

    def assign(self, value: Value) -> None:
        """Within forward: when this run (a step, a call of the model) ends, hold `value`.

        The buffer is a constant to each run, so no gradient flows from one into the run before: the
        state of a recurrent layer carried this way is truncated backpropagation through time (Williams
        and Peng, 1990). Trainer.evaluate and predict leave buffers alone. Raises ValueError for another
        shape.
        """
        if value.shape != self.shape:
            raise ValueError(f"assign: value: expected shape {self.shape}, got {value.shape}")
        update(self, value, 1.0)


@cache
def _run() -> Any:
    """nn.run.run, found when the first model is called: it stands on modules itself."""
    from fastnn.nn.run import run

    return run


class Module:
    """Base of all layers and models: subclass it, make layers in __init__, use them in forward.

    model(x) with an array runs a compiled plan and returns an array; inside forward, x is symbolic.
    """

    training: bool = True

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """The computation, written with layers, fastnn.ops and operators."""
        raise NotImplementedError(f"{type(self).__name__}.forward is not written yet")

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """Run on arrays (tuples of them, None), or record on symbolic values."""
        for x in (*inputs, *named.values()):
            if isinstance(x, Value):
                return self.forward(*inputs, **named)
        return _run()(self, inputs, named)

    # --- what it consists of ---

    def __setattr__(self, name: str, value: Any) -> None:
        changed()
        object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        changed()
        object.__delattr__(self, name)

    def _own(self, kind: type[Any]) -> Iterator[tuple[str, Any]]:
        return ((k, v) for k, v in vars(self).items() if isinstance(v, kind))

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """(name, submodule) of the modules directly inside."""
        return self._own(Module)

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """(dotted name, module) of this module ("") and all inside, each once."""
        seen: set[int] = set()
        stack: list[tuple[str, Module]] = [(prefix, self)]
        while stack:
            name, module = stack.pop()
            if id(module) in seen:
                continue
            seen.add(id(module))
            yield name, module
            dot = name + "." if name else ""
            stack += [(dot + k, m) for k, m in reversed(list(module.named_children()))]

    def modules(self) -> Iterator[Module]:
        """This module and all inside, each once."""
        return (m for _, m in self.named_modules())

    def _named(self, kind: type[Any]) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        for prefix, module in self.named_modules():
            for name, storage in module._own(kind):
                if id(storage) not in seen:
                    seen.add(id(storage))
                    yield (f"{prefix}.{name}" if prefix else name), storage

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """(dotted name, Parameter), each once, in the order of definition."""
        return self._named(Parameter)

    def parameters(self) -> Iterator[Parameter]:
        """All parameters, each once."""
        return (p for _, p in self.named_parameters())

    def named_buffers(self) -> Iterator[tuple[str, Buffer]]:
        """(dotted name, Buffer), each once."""
        return self._named(Buffer)

    # --- modes and dtypes ---

    def train(self: M, mode: bool = True) -> M:
        """Switch this module and all inside to training mode (dropout on, batch statistics)."""
        for module in self.modules():
            if module.training != mode:
                module.training = mode
        return self

    def eval(self: M) -> M:
        """Switch this module and all inside to inference mode."""
        return self.train(False)

    def requires_grad_(self: M, requires_grad: bool = True) -> M:
        """Freeze (False) or unfreeze all parameters inside."""
        for parameter in self.parameters():
            parameter.requires_grad = requires_grad
        return self

    def freeze(self: M, *patterns: str) -> M:
        """Freeze the parameters whose names match: freeze("0.weight", "body.*").

        Patterns are names with *, ? and [...]; without any, all parameters are frozen. The plan is
        made anew at the next step; a Trainer keeps the optimizer's state of the others. Raises
        ValueError for a pattern that no name matches; then nothing is changed.
        """
        return self._require_grad(patterns, False)

    def unfreeze(self: M, *patterns: str) -> M:
        """Train the parameters whose names match again; see freeze."""
        return self._require_grad(patterns, True)

    def _require_grad(self: M, patterns: tuple[str, ...], requires_grad: bool) -> M:
        named = dict(self.named_parameters())
        chosen: set[str] = set()
        for pattern in patterns or ("*",):
            found = fnmatch.filter(named, pattern)
            if not found:
                raise ValueError(f"patterns: {pattern!r} matches none of {', '.join(named)}")
            chosen.update(found)
        for name in chosen:
            named[name].requires_grad = requires_grad
        return self

    def to(self: M, dtype: Any) -> M:
        """Convert all float parameters and buffers to "float32" or "float64"."""
        dtype = np.dtype(dtype)
        if dtype not in (np.float32, np.float64):
            raise TypeError(f"dtype: expected float32 or float64, got {dtype}")
        for _, storage in (*self.named_parameters(), *self.named_buffers()):
            if storage.dtype.kind == "f" and storage.dtype != dtype:
                storage.convert(dtype)
        changed()
        return self

    def double(self: M) -> M:
        """Convert to float64."""
        return self.to(np.float64)

    def float(self: M) -> M:
        """Convert to float32."""
        return self.to(np.float32)

    # --- state ---

    def _state(self) -> dict[str, Storage]:
        """Parameters and buffers by name, in PyTorch's order: module by module."""
        state: dict[str, Storage] = {}
        for prefix, module in self.named_modules():
            for kind in (Parameter, Buffer):
                for name, storage in module._own(kind):
                    state[f"{prefix}.{name}" if prefix else name] = storage
        return state

    def state_dict(self) -> dict[str, Array]:
        """Copies of all parameters and buffers under PyTorch's keys and in its shapes."""
        return {name: np.array(s.array, order="C") for name, s in self._state().items()}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> None:
        """Copy arrays into the parameters and buffers of the same names.

        Raises KeyError for missing and unexpected names (strict) and ValueError for a wrong shape or
        dtype, before anything is changed.
        """
        state = self._state()
        missing, unexpected = state.keys() - state_dict.keys(), state_dict.keys() - state.keys()
        if strict and (missing or unexpected):
            raise KeyError(
                f"state_dict: missing {sorted(missing)}, unexpected {sorted(unexpected)}"
            )
        found = {name: np.asarray(state_dict[name]) for name in state.keys() - missing}
        for name, array in found.items():
            if array.shape != state[name].shape:
                raise ValueError(
                    f"state_dict[{name!r}]: expected shape {state[name].shape}, got {array.shape}"
                )
            if array.dtype.kind not in "fiub":
                raise ValueError(f"state_dict[{name!r}]: expected numbers, got {array.dtype}")
        for name, array in found.items():
            state[name].array[...] = array

    def summary(self, input_shape: tuple[int, ...]) -> None:
        """Print layer, output shape, parameters and FLOPs for one sample of `input_shape`."""
        from fastnn.nn.summary import summary

        print(summary(self, input_shape))

    # --- printing ---

    def extra_repr(self) -> str:
        """What stands in the parentheses of the printed layer."""
        return ""

    def __repr__(self) -> str:
        children = [f"  ({k}): " + repr(m).replace("\n", "\n  ") for k, m in self.named_children()]
        if not children:
            return f"{type(self).__name__}({self.extra_repr()})"
        return "\n".join([f"{type(self).__name__}(", *children, ")"])


def value(storage: Storage | None) -> Value | None:
    """A parameter or buffer as a symbolic value, None if there is none."""
    return None if storage is None else storage_value(storage)
