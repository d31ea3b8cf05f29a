"""Elementwise ops: one input or two that broadcast; any strides, the output lies as the input does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fastnn._core import BINARY, UNARY
from fastnn.graph import Array, Node, Value, apply
from fastnn.layout import Ref, coalesce
from fastnn.ops.op import Example, Op, Spec, broadcast, check_float, register

if TYPE_CHECKING:
    from fastnn.plan.builder import Builder

TAILS = [(), (1,), (7,), (15,), (16,), (17,), (31,), (32,), (33,), (2, 3, 65)]


class Unary(Op):
    """y = f(x); subclasses name f."""

    code: ClassVar[str]
    positive: ClassVar[bool] = False
    numpy: ClassVar[Callable[[Array], Array]]
    alpha: float = 0.0
    beta: float = 0.0

    def infer(self, x: Value) -> list[Spec]:
        return [(x.shape, check_float(self.name, x=x))]

    def lower(self, node: Node, b: Builder) -> None:
        (x,), (y,) = node.inputs, node.outputs
        assert x is not None
        lanes = b.in_lanes(x)
        ref = b.lanes(x) if lanes else b.dense(x, b.ref(x).order)
        b.step(
            "unary",
            x=ref,
            y=b.new_lanes(y) if lanes else b.new(y, ref.order),
            n=x.size,
            op=UNARY[self.code],
            alpha=self.alpha,
            beta=self.beta,
        )

    def reference(self, x: Array) -> Array:
        return type(self).numpy(x)

    @classmethod
    def examples(cls) -> Iterable[Example]:
        for shape in TAILS:
            yield Example(cls(), shape, positive=cls.positive)


def _unary(
    name: str,
    numpy: Callable[[Array], Array],
    grad: Callable[[Value, Value, Value], Any],
    positive: bool = False,
) -> type[Unary]:
    """Declare a unary op; grad(x, y, dy) builds its gradient."""

    def op_grad(self: Unary, node: Node, dy: Value | None) -> Sequence[Value | None]:
        assert node.inputs[0] is not None and dy is not None
        return [grad(node.inputs[0], node.outputs[0], dy)]

    body = {"name": name, "code": name, "numpy": staticmethod(numpy), "grad": op_grad}
    cls = type(name.capitalize(), (Unary,), {**body, "positive": positive})
    return register(cls)


def _act_grad(name: str) -> Callable[[Value, Value, Value], Any]:
    """The gradient of an activation in terms of its output."""
    return lambda x, y, dy: apply(BINARY_OPS[name](), y, dy)


Neg = _unary("neg", np.negative, lambda x, y, dy: neg(dy))
Abs = _unary("abs", np.abs, lambda x, y, dy: mul(dy, sign(x)))
Square = _unary("square", np.square, lambda x, y, dy: mul(dy, mul(x, 2.0)))
Sqrt = _unary("sqrt", np.sqrt, lambda x, y, dy: div(dy, mul(y, 2.0)), positive=True)
Exp = _unary("exp", np.exp, lambda x, y, dy: mul(dy, y))
Log = _unary("log", np.log, lambda x, y, dy: div(dy, x), positive=True)
Relu = _unary("relu", lambda x: np.maximum(x, 0), _act_grad("relu_grad"))
Sigmoid = _unary("sigmoid", lambda x: 1 / (1 + np.exp(-x)), _act_grad("sigmoid_grad"))
Tanh = _unary("tanh", np.tanh, _act_grad("tanh_grad"))
Sign = _unary("sign", np.sign, lambda x, y, dy: mul(dy, 0.0))
Reciprocal = _unary(
    "reciprocal", np.reciprocal, lambda x, y, dy: neg(mul(dy, square(y))), positive=True
)


@register
class Affine(Unary):
    """y = alpha * x + beta, with numbers alpha and beta."""

    name = "affine"
    code = "affine"
    alpha = 1.0

    def grad(self, node: Node, *douts: Value | None) -> Sequence[Value | None]:
        return [apply(Affine(alpha=self.alpha), douts[0])]

    def reference(self, x: Array) -> Array:
        return self.alpha * x + self.beta

    @classmethod
    def examples(cls) -> Iterable[Example]:
        for shape in TAILS:
            yield Example(cls(alpha=-1.5, beta=0.25), shape)


class Binary(Op):
    """y = f(a, b) with NumPy's broadcasting."""

    code: ClassVar[str]
    positive: ClassVar[bool] = False
    numpy: ClassVar[Callable[[Array, Array], Array]]

    def infer(self, a: Value, b: Value) -> list[Spec]:
        return [(broadcast(self.name, a.shape, b.shape), check_float(self.name, a=a, b=b))]

    def lower(self, node: Node, b: Builder) -> None:
        (left, right), (y,) = node.inputs, node.outputs
        assert left is not None and right is not None
        if left.shape == right.shape and b.in_lanes(left, right):
            a_ref, b_ref, out = b.lanes(left), b.lanes(right), b.new_lanes(y)
        else:
            a_ref, b_ref = expand(b.ref(left), y.shape), expand(b.ref(right), y.shape)
            out = b.new(y, (a_ref if left.size >= right.size else b_ref).order)
        order = out.order
        dims, (a_strides, b_strides, _) = coalesce(
            tuple(out.shape[d] for d in order),
            *(tuple(r.strides[d] for d in order) for r in (a_ref, b_ref, out)),
        )
        b.binary(BINARY[self.code], a_ref, b_ref, out, dims, a_strides, b_strides)

    def reference(self, a: Array, b: Array) -> Array:
        return type(self).numpy(a, b)

    @classmethod
    def examples(cls) -> Iterable[Example]:
        for shape in TAILS:
            yield Example(cls(), shape, shape, positive=cls.positive)
        for left, right in [((5, 17), (17,)), ((5, 1), (5, 33)), ((3, 1, 7), (2, 1)), ((), (4, 3))]:
            yield Example(cls(), left, right, positive=cls.positive)


def expand(ref: Ref, shape: tuple[int, ...]) -> Ref:
    """`ref` broadcast to `shape`: strides of 0 where it repeats."""
    lead = len(shape) - len(ref.shape)
    strides = tuple(
        0 if d < lead or ref.shape[d - lead] == 1 else ref.strides[d - lead]
        for d in range(len(shape))
    )
    return ref.with_strides(shape, strides)


BINARY_OPS: dict[str, type[Binary]] = {}


def declare_binary(
    name: str,
    code: str,
    numpy: Callable[[Array, Array], Array],
    grad: Callable[[Value, Value, Value, Value], tuple[Any, Any]] | None,
    positive: bool = False,
) -> type[Binary]:
    """Declare a binary op; grad(a, b, y, dy) builds both gradients in the output's shape."""
    body: dict[str, Any] = {"name": name, "code": code, "numpy": staticmethod(numpy)}

    def op_grad(self: Binary, node: Node, dy: Value | None) -> Sequence[Value | None]:
        a, b = node.inputs
        assert grad is not None and a is not None and b is not None and dy is not None
        da, db = grad(a, b, node.outputs[0], dy)
        return [unbroadcast(da, a), unbroadcast(db, b)]

    if grad is not None:
        body["grad"] = op_grad
    cls = register(type(name.title().replace("_", ""), (Binary,), {**body, "positive": positive}))
    BINARY_OPS[name] = cls
    return cls


def unbroadcast(dx: Value | None, x: Value) -> Value | None:
    """Sum a gradient of the broadcast shape down to the shape of `x`."""
    if dx is None or dx.shape == x.shape:
        return dx
    from fastnn.ops.reduce import sum as sum_
    from fastnn.ops.shape import reshape

    lead = dx.ndim - x.ndim
    axes = [d for d in range(dx.ndim) if d < lead or (x.shape[d - lead] == 1 and dx.shape[d] != 1)]
    result: Value = reshape(sum_(dx, axes), x.shape)
    return result


def _masked(name: str) -> Callable[[Value, Value, Value, Value], tuple[Any, Any]]:
    """Gradient of max(a, b) and min(a, b): to the one that was chosen, halved where they are equal."""

    def grad(a: Value, b: Value, y: Value, dy: Value) -> tuple[Any, Any]:
        first, second = (a, b) if name == "maximum" else (b, a)
        half = mul(apply(Equal(), a, b), 0.5)
        return (
            mul(dy, add(apply(Greater(), first, second), half)),
            mul(dy, add(apply(Greater(), second, first), half)),
        )

    return grad


def _none(a: Value, b: Value, y: Value, dy: Value) -> tuple[Any, Any]:
    """A comparison passes no gradient on."""
    return None, None


def _pow_grad(a: Value, b: Value, y: Value, dy: Value) -> tuple[Any, Any]:
    return mul(dy, mul(b, pow(a, sub(b, 1.0)))), mul(dy, mul(y, log(a)))


Add = declare_binary("add", "add", np.add, lambda a, b, y, dy: (dy, dy))
Sub = declare_binary("sub", "sub", np.subtract, lambda a, b, y, dy: (dy, neg(dy)))
Mul = declare_binary("mul", "mul", np.multiply, lambda a, b, y, dy: (mul(dy, b), mul(dy, a)))
Div = declare_binary(
    "div",
    "div",
    np.divide,
    lambda a, b, y, dy: (div(dy, b), neg(div(mul(dy, y), b))),
    positive=True,
)
Maximum = declare_binary("maximum", "max", np.maximum, _masked("maximum"))
Minimum = declare_binary("minimum", "min", np.minimum, _masked("minimum"))
Pow = declare_binary("pow", "pow", np.power, _pow_grad, positive=True)
Greater = declare_binary("greater", "greater", lambda a, b: (a > b) * np.ones_like(a), _none)
Equal = declare_binary("equal", "equal", lambda a, b: (a == b) * np.ones_like(a), _none)
ReluGrad = declare_binary("relu_grad", "relu_grad", lambda y, dy: np.where(y > 0, dy, 0 * dy), None)
SigmoidGrad = declare_binary("sigmoid_grad", "sigmoid_grad", lambda y, dy: dy * y * (1 - y), None)
TanhGrad = declare_binary("tanh_grad", "tanh_grad", lambda y, dy: dy * (1 - y * y), None)


# --- the public functions -----------------------------------------------------------------------


def _is_number(x: Any) -> bool:
    return isinstance(x, (int, float, np.integer, np.floating)) and not isinstance(x, bool)


def add(a: Any, b: Any) -> Any:
    """a + b, broadcasting; float32 or float64 arrays, values or numbers."""
    if _is_number(b):
        return apply(Affine(beta=float(b)), a)
    return add(b, a) if _is_number(a) else apply(Add(), a, b)


def sub(a: Any, b: Any) -> Any:
    """a - b, broadcasting."""
    if _is_number(b):
        return apply(Affine(beta=-float(b)), a)
    return apply(Affine(alpha=-1.0, beta=float(a)), b) if _is_number(a) else apply(Sub(), a, b)


def mul(a: Any, b: Any) -> Any:
    """a * b, broadcasting."""
    if _is_number(b):
        return apply(Affine(alpha=float(b)), a)
    return mul(b, a) if _is_number(a) else apply(Mul(), a, b)


def div(a: Any, b: Any) -> Any:
    """a / b, broadcasting."""
    if _is_number(b):
        return apply(Affine(alpha=1.0 / float(b)), a) if b != 0 else apply(Div(), a, _like(b, a))
    return mul(reciprocal(b), a) if _is_number(a) else apply(Div(), a, b)


def pow(a: Any, b: Any) -> Any:
    """a ** b, broadcasting; b = 2, 1, 0.5 and -1 have kernels of their own."""
    special = {2: square, 0.5: sqrt, -1: reciprocal}
    if _is_number(b):
        if b == 1:
            return mul(a, 1.0)
        return special[b](a) if b in special else apply(Pow(), a, _like(b, a))
    return apply(Pow(), _like(a, b) if _is_number(a) else a, b)


def _like(number: Any, other: Any) -> Array:
    return np.asarray(number, dtype=other.dtype)


def maximum(a: Any, b: Any) -> Any:
    """The larger of a and b, broadcasting; NaN wins."""
    return apply(Maximum(), a, _like(b, a) if _is_number(b) else b)


def minimum(a: Any, b: Any) -> Any:
    """The smaller of a and b, broadcasting; NaN wins."""
    return apply(Minimum(), a, _like(b, a) if _is_number(b) else b)


def neg(x: Any) -> Any:
    """-x, elementwise."""
    return apply(Neg(), x)


def abs(x: Any) -> Any:
    """|x|, elementwise; its gradient at 0 is 0."""
    return apply(Abs(), x)


def sign(x: Any) -> Any:
    """-1, 0 or 1, elementwise; its gradient is 0."""
    return apply(Sign(), x)


def square(x: Any) -> Any:
    """x * x, elementwise."""
    return apply(Square(), x)


def sqrt(x: Any) -> Any:
    """The square root, elementwise; NaN below 0."""
    return apply(Sqrt(), x)


def exp(x: Any) -> Any:
    """e ** x, elementwise."""
    return apply(Exp(), x)


def log(x: Any) -> Any:
    """The natural logarithm, elementwise; -inf at 0, NaN below."""
    return apply(Log(), x)


def relu(x: Any) -> Any:
    """max(x, 0), elementwise; its gradient at 0 is 0."""
    return apply(Relu(), x)


def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)), elementwise."""
    return apply(Sigmoid(), x)


def tanh(x: Any) -> Any:
    """The hyperbolic tangent, elementwise."""
    return apply(Tanh(), x)


def reciprocal(x: Any) -> Any:
    """1 / x, elementwise."""
    return apply(Reciprocal(), x)
