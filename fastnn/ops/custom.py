"""Ops that users write in Python: forward and gradient over arrays, compiled where Numba is there."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.graph import Array, Node, Shape, Storage, Value, apply, storage_value
from fastnn.ops.foreign import Argument, CompiledFunction, Function, PythonFunction, has_numba
from fastnn.ops.op import Example, Op, Spec, check_float, register

if TYPE_CHECKING:
    from fastnn.plan.builder import Builder

Shapes = Callable[..., Any]


class CustomOp:
    """What custom_op returns: call it on arrays, or in a model's forward on symbolic values."""

    def __init__(
        self,
        forward: Function,
        gradient: Function | None,
        shape: Shapes | None,
        name: str,
        integer_inputs: Sequence[int],
        compile: bool,
        boundscheck: bool,
    ) -> None:
        self.forward, self.gradient, self.shape, self.name = forward, gradient, shape, name
        self.integer_inputs = tuple(integer_inputs)
        self.compile, self.boundscheck = compile, boundscheck
        self._parameters = list(inspect.signature(forward).parameters.values())
        self._functions: dict[Any, CompiledFunction | PythonFunction] = {}
        self._lock = Lock()

    def __call__(self, *inputs: Any, **numbers: float) -> Any:
        """forward's outputs for arrays (or values) and numbers, which are given by keyword."""
        if not inputs:
            raise TypeError(f"{self.name}: expected at least one array")
        given = self._numbers(len(inputs), numbers)
        return apply(
            Custom(custom=self, integer_inputs=self.integer_inputs, numbers=given), *inputs
        )

    def __repr__(self) -> str:
        return f"custom_op({self.name})"

    def _numbers(self, inputs: int, given: dict[str, float]) -> tuple[float, ...]:
        """The numbers that forward takes after its arrays, by keyword or default."""
        known = {p.name: p.default for p in self._parameters[inputs:]}
        for name, number in given.items():
            if name not in known:
                raise TypeError(f"{self.name}: no argument is called {name!r}")
            if not isinstance(number, (int, float, np.integer, np.floating)):
                raise TypeError(f"{self.name}: {name}: expected a number, got {number!r}")
        named = {n: v for n, v in {**known, **given}.items() if v is not inspect.Parameter.empty}
        return tuple(v.item() if isinstance(v, np.generic) else v for v in named.values())

    def shapes(self, shapes: Sequence[Shape], numbers: int) -> list[Shape]:
        """The outputs' shapes; TypeError if they do not fit forward's parameters."""
        result: Any = shapes[0] if self.shape is None else self.shape(*shapes)
        several = [result] if all(isinstance(n, (int, np.integer)) for n in result) else result
        found = [tuple(int(n) for n in shape) for shape in several]
        if len(self._parameters) != len(shapes) + len(found) + numbers:
            raise TypeError(
                f"{self.name}: forward: expected {len(shapes)} inputs, {len(found)} outputs and "
                f"{numbers} numbers, but it has parameters {[p.name for p in self._parameters]}"
            )
        return found

    def function(
        self, python: Function, arguments: Sequence[Argument], numbers: Sequence[type]
    ) -> CompiledFunction | PythonFunction:
        """`python` (forward or gradient) as a C function for arrays of these kinds; made once."""
        key = (python, *arguments, *numbers)
        with self._lock:
            if key not in self._functions:
                self._functions[key] = (
                    CompiledFunction(self.name, python, arguments, numbers, self.boundscheck)
                    if self.compile
                    else PythonFunction(self.name, python, arguments, numbers)
                )
            return self._functions[key]


class _Call(Op):
    """A call of one of a CustomOp's functions: every input, every output, every number."""

    custom: CustomOp = None  # type: ignore[assignment]
    integer_inputs: tuple[int, ...] = ()  # type: ignore[misc]
    numbers: tuple[float, ...] = ()

    def __repr__(self) -> str:
        return f"{self.name}({self.custom.name})"

    def function(self) -> Function:
        """What it calls."""
        raise NotImplementedError

    def lower(self, node: Node, b: Builder) -> None:
        b.label(self.custom.name)
        inputs = [v for v in node.inputs if v is not None]
        refs = [
            b.labels(v) if i in self.integer_inputs else b.dense(v) for i, v in enumerate(inputs)
        ]
        for v in node.outputs:
            refs.append(b.new(v))
            b.step("fill", y=refs[-1], n=v.size, value=0.0)
        arguments = [Argument(r.dtype, len(r.shape), i >= len(inputs)) for i, r in enumerate(refs)]
        kinds = [float if isinstance(n, float) else int for n in self.numbers]
        fields: list[Any] = []
        for ref in refs:
            fields += [ref, *ref.shape]
        b.foreign(self.custom.function(self.function(), arguments, kinds), [*fields, *self.numbers])

    def reference(self, *inputs: Array) -> Any:
        specs = self.infer(*(i if isinstance(i, Value) else _Spec(i) for i in inputs))
        outputs = [np.zeros(*spec) for spec in specs]
        self.function()(*inputs, *outputs, *self.numbers)
        return tuple(outputs)


class _Spec:
    """Shape and dtype of an array, for infer."""

    def __init__(self, array: Array) -> None:
        self.shape, self.dtype = array.shape, array.dtype


@register
class Custom(_Call):
    """forward(*inputs, *outputs, *numbers) of a CustomOp."""

    name = "custom"

    def function(self) -> Function:
        return self.custom.forward

    def infer(self, *inputs: Any) -> list[Spec]:
        for i in self.integer_inputs:
            if i < len(inputs) and inputs[i].dtype.kind not in "iu":
                raise TypeError(
                    f"{self.custom.name}: input {i}: expected integers, got {inputs[i].dtype}"
                )
        floats = {f"input {i}": v for i, v in enumerate(inputs) if i not in self.integer_inputs}
        if not floats:
            raise TypeError(f"{self.custom.name}: expected at least one float input")
        dtype = check_float(self.custom.name, **floats)
        shapes = self.custom.shapes([v.shape for v in inputs], len(self.numbers))
        return [(shape, dtype) for shape in shapes]

    def grad(self, node: Node, *douts: Value | None) -> Sequence[Value | None]:
        if self.custom.gradient is None:
            raise NotImplementedError(f"{self.custom.name} has no gradient, used at {node.line}")
        full = [
            storage_value(Storage(np.zeros(v.shape, v.dtype))) if d is None else d
            for v, d in zip(node.outputs, douts, strict=True)
        ]
        op = CustomGrad(**vars(self), arrays=len(node.inputs))
        found = apply(op, *node.inputs, *node.outputs, *full)
        grads = iter(found if isinstance(found, tuple) else (found,))
        return [
            None if i in self.integer_inputs else next(grads) for i, _ in enumerate(node.inputs)
        ]

    @classmethod
    def examples(cls) -> Iterable[Example]:
        for shape in ((), (7,), (2, 3, 17)):
            yield Example(cls(custom=_EXAMPLE, numbers=(0.5, 3)), shape, shape)


@register
class CustomGrad(_Call):
    """gradient(*inputs, *outputs, *douts, *dinputs, *numbers) of a CustomOp."""

    name = "custom_grad"
    arrays: int = 1  # inputs of the forward op

    def function(self) -> Function:
        assert self.custom.gradient is not None
        return self.custom.gradient

    def infer(self, *inputs: Any) -> list[Spec]:
        floats = [i for i in range(self.arrays) if i not in self.integer_inputs]
        return [(inputs[i].shape, inputs[i].dtype) for i in floats]

    @classmethod
    def examples(cls) -> Iterable[Example]:
        shape = (2, 17)
        op = cls(custom=_EXAMPLE, numbers=(0.5, 3), arrays=2)
        yield Example(op, shape, shape, shape, shape)


def custom_op(
    forward: Function,
    gradient: Function | None = None,
    *,
    shape: Shapes | None = None,
    name: str | None = None,
    integer_inputs: Sequence[int] = (),
    compile: bool | None = None,
    boundscheck: bool = True,
) -> CustomOp:
    """An op from Python functions over arrays, to be used like those of fastnn.ops.

    forward(x1, ..., y1, ..., number1, ...) fills the outputs y from the inputs x; gradient(x1, ...,
    y1, ..., dy1, ..., dx1, ..., number1, ...) fills the dx of each float input from the dy. All
    arrays are C-contiguous, of the model's float dtype, and outputs arrive as zeros; inputs cannot
    be written. Numbers are given by keyword, or have defaults in forward.

    shape: from the inputs' shapes to the output's, or to a list of them; by default one output
    like the first input. integer_inputs: positions of inputs that are int64 and have no gradient
    (labels, indices). compile: True compiles with Numba (the `numba` extra; loops run as machine
    code with the GIL released), False calls Python, None compiles where Numba is installed.
    boundscheck=False lets compiled code index arrays unchecked: faster, but a wrong index then
    corrupts memory.

    Raises ImportError for compile=True without Numba; TypeError, when the op is used, for functions
    whose parameters do not fit or that Numba cannot compile. What a function raises comes out of the
    plan that called it as a RuntimeError.

        def forward(x, y, slope):
            for i in range(x.size):
                y.flat[i] = max(x.flat[i], slope * x.flat[i])
    """
    for role, function in (("forward", forward), ("gradient", gradient)):
        if not callable(function) and not (role == "gradient" and function is None):
            raise TypeError(f"{role}: expected a function, got {type(function).__name__}")
    if compile and not has_numba():
        raise ImportError("compile=True needs Numba: pip install 'fastnn-cpu[numba]'")
    compiled = has_numba() if compile is None else compile
    shown = name or str(getattr(forward, "__name__", "custom"))
    return CustomOp(forward, gradient, shape, shown, integer_inputs, compiled, boundscheck)


def _example(a: Array, b: Array, y: Array, scale: float, power: int) -> None:
    y[...] = scale * a**power * b


def _example_grad(
    a: Array, b: Array, y: Array, dy: Array, da: Array, db: Array, scale: float, power: int
) -> None:
    da[...] = dy * scale * power * a ** (power - 1) * b
    db[...] = dy * scale * a**power


_EXAMPLE = CustomOp(_example, _example_grad, None, "example", (), False, True)
