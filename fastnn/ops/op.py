"""What an op is: shape, gradient, kernel calls, NumPy reference and examples in one class.

    @register
    class Square(Op):
        name = "square"
        ...

Attributes are annotated class attributes with defaults; Op(stride=(2, 2)) sets them by name. Two ops
of the same class and attributes are equal. The registry is what the tests walk through.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np

from fastnn.graph import Array, Node, Shape, Storage, Value

if TYPE_CHECKING:
    from fastnn.plan.builder import Builder

Spec = tuple[Shape, Any]  # shape, dtype
REGISTRY: dict[str, type[Op]] = {}
OpClass = TypeVar("OpClass", bound="type[Op]")


class Op:
    """Base of all ops. Subclasses say what they compute; instances carry the attributes."""

    name: ClassVar[str] = ""
    images: ClassVar[bool] = False  # wants its input image channels-last
    shrinks: ClassVar[bool] = False  # takes images in lanes and makes them small
    wants_moments: ClassVar[bool] = False  # has use for the moments of its input's channels
    wants_sums: ClassVar[bool] = False  # has use for a gradient's sums over each channel
    integer_inputs: ClassVar[tuple[int, ...]] = ()  # positions that are not converted to float
    any_dtype: ClassVar[bool] = False  # moves elements only: integers stay so until they are read

    def __init__(self, **attrs: Any) -> None:
        for key, value in attrs.items():
            if not hasattr(type(self), key):
                raise TypeError(f"{self.name}: no attribute is called {key!r}")
            setattr(self, key, value)

    @property
    def key(self) -> tuple[Any, ...]:
        """Hashable identity: class and attributes."""
        return (type(self), *sorted(vars(self).items()))

    def replace(self, **attrs: Any) -> Op:
        """The same op with some attributes changed."""
        return type(self)(**{**vars(self), **attrs})

    def __repr__(self) -> str:
        attrs = ", ".join(f"{k}={v}" for k, v in vars(self).items())
        return f"{self.name}({attrs})"

    def infer(self, *inputs: Any) -> list[Spec]:
        """Shapes and dtypes of the outputs; raises ValueError or TypeError naming the argument."""
        raise NotImplementedError

    def grad(self, node: Node, *douts: Value | None) -> Sequence[Value | None]:
        """Gradients for each input (None: there is none) from those of the outputs."""
        raise NotImplementedError(f"{self.name} has no gradient, used at {node.line}")

    def prepare(self, node: Node, b: Builder) -> None:
        """Before any node is lowered: say where inputs should better be computed."""

    @property
    def halves(self) -> bool:
        """Whether it is 2x2 max pooling, which may be part of what comes before."""
        return False

    def spreads(self, node: Node, b: Builder, lanes: bool) -> bool:
        """Whether it takes the gradient of 2x2 max pooling (in lanes) in place of its input's."""
        return False

    def scales(self, node: Node, value: Value, b: Any) -> bool:
        """Whether it can compute its input `value` from what a batch norm with ReLU leaves."""
        return False

    def lower(self, node: Node, b: Builder) -> None:
        """Emit the kernel calls that compute the node's outputs."""
        raise NotImplementedError

    def flops(self, node: Node) -> int:
        """Multiplications and additions, where they dominate; 0 where memory does."""
        return 0

    def reference(self, *inputs: Any) -> Any:
        """The same with NumPy, in the inputs' precision, as directly as can be."""
        raise NotImplementedError

    @classmethod
    def examples(cls) -> Iterable[Example]:
        """Small cases that the tests run: tails of every blocked dimension among them."""
        raise NotImplementedError


class Example:
    """An op with its inputs: a shape stands for seeded normal numbers, an array for itself.

    positive: the numbers are at least 0.5, for ops that want them so.
    """

    def __init__(self, op: Op, *inputs: Shape | Array | None, positive: bool = False) -> None:
        self.op, self.inputs, self.positive = op, inputs, positive

    def arrays(self, dtype: Any = np.float64) -> list[Array | None]:
        """The inputs as arrays of `dtype` (integer arrays stay as they are)."""
        rng = np.random.default_rng(0)
        out: list[Array | None] = []
        for x in self.inputs:
            if isinstance(x, tuple):
                values = rng.standard_normal(x)
                out.append((np.abs(values) + 0.5 if self.positive else values).astype(dtype))
            elif x is not None and x.dtype.kind == "f":
                out.append(x.astype(dtype))
            else:
                out.append(x)
        return out

    def __repr__(self) -> str:
        shapes = [x if isinstance(x, tuple) or x is None else x.shape for x in self.inputs]
        return f"{self.op!r}{shapes}"


def register(cls: OpClass) -> OpClass:
    """Class decorator: put an op into the registry under its name."""
    if cls.name in REGISTRY:
        raise ValueError(f"op {cls.name!r} is registered twice")
    REGISTRY[cls.name] = cls
    return cls


class Input(Op):
    """A leaf that is bound at each run."""

    name = "input"


class StorageLeaf(Op):
    """A leaf that lives in a Storage."""

    name = "storage"
    storage: Storage

    def __init__(self, storage: Storage) -> None:
        self.storage = storage


# --- checks that many ops share -----------------------------------------------------------------


def check_float(op: str, **values: Any) -> np.dtype[Any]:
    """The common float dtype of the given values (None is skipped); TypeError names the odd one."""
    dtype: np.dtype[Any] | None = None
    for name, v in values.items():
        if v is None:
            continue
        if v.dtype not in (np.float32, np.float64):
            raise TypeError(f"{op}: {name}: expected float32 or float64, got {v.dtype}")
        if dtype is not None and v.dtype != dtype:
            raise TypeError(f"{op}: {name}: expected {dtype} like the others, got {v.dtype}")
        dtype = v.dtype
    assert dtype is not None
    return dtype


def check_ndim(op: str, name: str, value: Any, *allowed: int) -> None:
    """ValueError if the value's number of dimensions is not among `allowed`."""
    if len(value.shape) not in allowed:
        expected = " or ".join(map(str, allowed))
        raise ValueError(f"{op}: {name}: expected {expected} dimensions, got shape {value.shape}")


def int_tuple(op: str, name: str, value: Any, least: int, count: int) -> tuple[int, ...]:
    """An int, or `count` ints, of at least `least` as a tuple; ValueError or TypeError otherwise."""
    alone = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    try:
        values = (value,) * count if alone else tuple(value)
    except TypeError:
        values = ()
    if len(values) != count or not all(isinstance(v, (int, np.integer)) for v in values):
        wanted = {1: "an int", 2: "an int or a pair of ints"}.get(count, f"{count} ints")
        raise TypeError(f"{op}: {name}: expected {wanted}, got {value!r}")
    if min(values) < least:
        raise ValueError(f"{op}: {name}: expected at least {least}, got {value!r}")
    return tuple(int(v) for v in values)


def broadcast(op: str, *shapes: Shape) -> Shape:
    """NumPy's broadcast of shapes; ValueError shows them."""
    try:
        return tuple(int(n) for n in np.broadcast_shapes(*shapes))
    except ValueError:
        shown = " and ".join(map(str, shapes))
        raise ValueError(f"{op}: shapes {shown} cannot be broadcast together") from None
