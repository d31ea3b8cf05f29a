"""A user's function over arrays as a C function that a plan can call: through Numba, or ctypes.

The C function gets the address of a list of eight-byte slots: for each array its address and its
sizes, then the numbers. Through Numba it is machine code and runs without the GIL; through ctypes it
takes the GIL and calls Python.
"""

from __future__ import annotations

import ctypes
import math
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np

from fastnn import _core
from fastnn.graph import Array

Function = Callable[..., Any]


class Argument(NamedTuple):
    """An array of a foreign function: dtype, number of dimensions, and if the function writes it."""

    dtype: np.dtype[Any]
    ndim: int
    output: bool


def has_numba() -> bool:
    """True if the `numba` extra is installed."""
    return find_spec("numba") is not None


class PythonFunction:
    """A C function that takes the GIL and calls `function` on copies of its arrays.

    Copies, so that a function that keeps its arguments for later keeps nothing of a plan's memory.
    """

    def __init__(
        self, name: str, function: Function, arguments: Sequence[Argument], numbers: Sequence[type]
    ) -> None:
        self.name, self.function = name, function
        self.arguments, self.numbers = arguments, numbers
        self.count = sum(1 + a.ndim for a in arguments) + len(numbers)
        self._raised = threading.local()
        self._pointer = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(self._call)
        self.address = ctypes.cast(self._pointer, ctypes.c_void_p).value or 0

    def _call(self, args: int) -> int:
        try:
            self._compute(args)
        except BaseException as error:  # of the user's function; raised again by Plan.execute
            self._raised.error = error
            return _core.FOREIGN
        return 0

    def _compute(self, args: int) -> None:
        slots = (ctypes.c_int64 * self.count).from_address(args)
        reals = (ctypes.c_double * self.count).from_address(args)
        values: list[Any] = []
        results: list[tuple[Array, Array]] = []
        i = 0
        for argument in self.arguments:
            place = _array_at(slots[i], tuple(slots[i + 1 : i + 1 + argument.ndim]), argument.dtype)
            values.append(np.zeros_like(place) if argument.output else place.copy())
            values[-1].flags.writeable = argument.output
            if argument.output:
                results.append((place, values[-1]))
            i += 1 + argument.ndim
        for kind in self.numbers:
            values.append(reals[i] if kind is float else slots[i])
            i += 1
        self.function(*values)
        for place, value in results:
            place[...] = value

    def failed(self) -> Exception:
        """What the function raised in this thread, with the op's name."""
        error: BaseException = self._raised.error
        del self._raised.error
        if not isinstance(error, Exception):
            raise error
        result = RuntimeError(f"{self.name}: {type(error).__name__}: {error}")
        result.__cause__ = error
        return result


class CompiledFunction:
    """A C function that Numba made of `function`; it runs without the GIL.

    TypeError where Numba cannot compile it, or where it would write to an input.
    """

    def __init__(
        self,
        name: str,
        function: Function,
        arguments: Sequence[Argument],
        numbers: Sequence[type],
        boundscheck: bool,
    ) -> None:
        import numba

        self.name = name
        types = [_numba_type(a) for a in arguments]
        types += [numba.float64 if n is float else numba.int64 for n in numbers]
        plain = getattr(function, "py_func", function)
        try:
            body = numba.njit(numba.void(*types), boundscheck=boundscheck)(plain)
        except numba.core.errors.NumbaError as error:
            start = " ".join(str(error).split())[:300]  # the rest is in the chained error
            raise TypeError(
                f"{name}: Numba cannot compile {plain.__name__}, compile=False runs it: {start}"
            ) from error
        space = {**_casts(), "body": body, "carray": numba.carray, "failed": _core.FOREIGN}
        exec(_entry(arguments, numbers), space)
        self._cfunc = numba.cfunc(numba.intc(numba.types.CPointer(numba.int64)))(space["entry"])
        self.address = int(self._cfunc.address)

    def failed(self) -> Exception:
        """Compiled code says no more than that it failed."""
        return RuntimeError(f"{self.name}: the compiled function raised; compile=False shows what")


def _array_at(address: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """The plan's memory as an array."""
    nbytes = math.prod(shape) * dtype.itemsize
    memory: Any = (ctypes.c_char * nbytes).from_address(address)
    return np.frombuffer(memory, dtype).reshape(shape)


def _numba_type(argument: Argument) -> Any:
    import numba

    scalar = numba.from_dtype(argument.dtype)
    return numba.types.Array(scalar, argument.ndim, "C", readonly=not argument.output)


def _entry(arguments: Sequence[Argument], numbers: Sequence[type]) -> str:
    """The source of entry(args): it shows the slots as arrays and numbers, and calls body on them."""
    lines, names, slot = [], [], 0
    for argument in arguments:
        name, sizes = f"x{slot}", "".join(f"args[{slot + 1 + d}], " for d in range(argument.ndim))
        lines.append(f"{name} = carray({argument.dtype.name}_at(args[{slot}]), ({sizes}))")
        names.append(name)
        slot += 1 + argument.ndim
    for kind in numbers:
        names.append(f"real(args[{slot}])" if kind is float else f"args[{slot}]")
        slot += 1
    lines.append(f"body({', '.join(names)})")
    body = "".join(f"        {line}\n" for line in lines)
    tail = "    except Exception:\n        return failed\n    return 0\n"
    return f"def entry(args):\n    try:\n{body}{tail}"


@lru_cache(maxsize=1)
def _casts() -> dict[str, Any]:
    """Functions for compiled code that read a slot as a pointer or as a double."""
    import numba
    from numba.extending import intrinsic

    def reading(result: Any, instruction: str) -> Any:
        def typed(context: Any, slot: Any) -> Any:
            def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                target = context.get_value_type(signature.return_type)
                return getattr(builder, instruction)(args[0], target)

            return result(numba.int64), generate

        return intrinsic(typed)

    kinds = {"float32": numba.float32, "float64": numba.float64, "int64": numba.int64}
    pointers = {f"{n}_at": reading(numba.types.CPointer(t), "inttoptr") for n, t in kinds.items()}
    return {**pointers, "real": reading(numba.float64, "bitcast")}
