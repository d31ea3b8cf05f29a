"""Activation functions: each is one line of a table, with a kernel for it and one for its gradient."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn._core import UNARY
from fastnn.graph import Array, Node, Value, apply
from fastnn.ops import elementwise as ew
from fastnn.ops.op import Example, Op, Spec, register
from fastnn.ops.shape import reshape

if TYPE_CHECKING:
    from fastnn.plan.builder import Builder

Formula = Callable[[Array, float, float], Any]  # of x, alpha and beta


class Curve(ew.Unary):
    """y = f(x; alpha, beta), whose gradient is one kernel too; subclasses name f and its slope."""

    formula: Formula
    slope: Formula

    def grad(self, node: Node, *douts: Value | None) -> Sequence[Value | None]:
        op = CurveGrad(code=self.code, alpha=self.alpha, beta=self.beta)
        return [apply(op, node.inputs[0], douts[0])]

    def reference(self, x: Array) -> Any:
        return type(self).formula(x, self.alpha, self.beta)

    @classmethod
    def examples(cls) -> Iterable[Example]:
        for shape in ew.TAILS:
            yield Example(cls(), shape)
        # Both sides of every bend.
        yield Example(cls(), np.linspace(-25.125, 25.125, 102))


@register
class CurveGrad(Op):
    """dx = dy * f'(x; alpha, beta) of a Curve."""

    name = "curve_grad"
    code: str = ""
    alpha: float = 0.0
    beta: float = 0.0

    def infer(self, x: Value, dy: Value) -> list[Spec]:
        return [(x.shape, x.dtype)]

    def lower(self, node: Node, b: Builder) -> None:
        (x, dy), (dx,) = node.inputs, node.outputs
        assert x is not None and dy is not None
        ref = b.dense(x, b.ref(x).order)
        b.step(
            "unary_grad",
            x=ref,
            dy=b.dense(dy, ref.order),
            dx=b.new(dx, ref.order),
            n=x.size,
            op=UNARY[self.code],
            alpha=self.alpha,
            beta=self.beta,
        )

    def reference(self, x: Array, dy: Array) -> Any:
        return dy * CURVES[self.code].slope(x, self.alpha, self.beta)

    @classmethod
    def examples(cls) -> Iterable[Example]:
        for code, curve in CURVES.items():
            op = cls(code=code, alpha=curve.alpha, beta=curve.beta)
            for shape in ((1,), (17,), (2, 33)):
                yield Example(op, shape, shape)


CURVES: dict[str, type[Curve]] = {}


def _curve(
    name: str, formula: Formula, slope: Formula, alpha: float = 0.0, beta: float = 0.0
) -> type[Curve]:
    """Declare a function of x, its slope and what alpha and beta are by default."""
    body = {"name": name, "code": name, "alpha": alpha, "beta": beta}
    functions = {"formula": staticmethod(formula), "slope": staticmethod(slope)}
    CURVES[name] = register(type(name.title().replace("_", ""), (Curve,), {**body, **functions}))
    return CURVES[name]


# --- the formulae in NumPy ----------------------------------------------------------------------

_erf = np.vectorize(math.erf, otypes=[np.float64])


def _expit(x: Array) -> Any:
    return np.exp(-np.logaddexp(0, -x))


def _phi(x: Array) -> Any:
    return (1 + _erf(x / math.sqrt(2))) / 2


def _gelu_tanh(x: Array) -> tuple[Any, Any]:
    """tanh(u) and u' of u = sqrt(2 / pi) (x + 0.044715 x^3)."""
    c = math.sqrt(2 / math.pi)
    return np.tanh(c * (x + 0.044715 * x**3)), c * (1 + 3 * 0.044715 * x * x)


def _gelu_tanh_slope(x: Array) -> Any:
    t, du = _gelu_tanh(x)
    return (1 + t) / 2 + x * (1 - t * t) * du / 2


def _mish_slope(x: Array) -> Any:
    t = np.tanh(np.logaddexp(0, x))
    return t + x * (1 - t * t) * _expit(x)


Erf = _curve(
    "erf", lambda x, a, b: _erf(x), lambda x, a, b: 2 / math.sqrt(math.pi) * np.exp(-x * x)
)
Threshold = _curve(
    "threshold", lambda x, a, b: np.where(x > a, x, b), lambda x, a, b: (x > a) * 1.0, 0.1, -2.0
)
Hardtanh = _curve(
    "hardtanh", lambda x, a, b: np.clip(x, a, b), lambda x, a, b: (a < x) * (x < b) * 1.0, -1.0, 1.0
)
LeakyRelu = _curve(
    "leaky_relu", lambda x, a, b: np.where(x > 0, x, a * x), lambda x, a, b: np.where(x > 0, 1, a), 0.01
)  # fmt: skip
Elu = _curve(
    "elu",
    lambda x, a, b: b * np.where(x > 0, x, a * np.expm1(np.minimum(x, 0))),
    lambda x, a, b: b * np.where(x > 0, 1, a * np.exp(np.minimum(x, 0))),
    1.0,
    1.0,
)
Gelu = _curve(
    "gelu",
    lambda x, a, b: x * _phi(x),
    lambda x, a, b: _phi(x) + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi),
)
GeluTanh = _curve(
    "gelu_tanh",
    lambda x, a, b: x * (1 + _gelu_tanh(x)[0]) / 2,
    lambda x, a, b: _gelu_tanh_slope(x),
)
Silu = _curve(
    "silu",
    lambda x, a, b: x * _expit(x),
    lambda x, a, b: _expit(x) * (1 + x * (1 - _expit(x))),
)
Mish = _curve(
    "mish", lambda x, a, b: x * np.tanh(np.logaddexp(0, x)), lambda x, a, b: _mish_slope(x)
)
Softplus = _curve(
    "softplus",
    lambda x, a, b: np.where(a * x > b, x, np.logaddexp(0, a * x) / a),
    lambda x, a, b: np.where(a * x > b, 1, _expit(a * x)),
    1.0,
    20.0,
)
Softsign = _curve(
    "softsign", lambda x, a, b: x / (1 + np.abs(x)), lambda x, a, b: 1 / (1 + np.abs(x)) ** 2
)
Hardsigmoid = _curve(
    "hardsigmoid",
    lambda x, a, b: np.clip(x + 3, 0, 6) / 6,
    lambda x, a, b: (np.abs(x) < 3) / 6,
)
Hardswish = _curve(
    "hardswish",
    lambda x, a, b: x * np.clip(x + 3, 0, 6) / 6,
    lambda x, a, b: np.where(x <= -3, 0, np.where(x < 3, x / 3 + 0.5, 1)),
)
Huber = _curve(
    "huber",
    lambda x, a, b: b * np.where(np.abs(x) > a, a * (np.abs(x) - a / 2), x * x / 2),
    lambda x, a, b: b * np.clip(x, -a, a),
    1.0,
    1.0,
)


@register
class Heaviside(ew.Unary):
    """0 below 0, 1 above, alpha at 0; no gradient flows through it."""

    name = "heaviside"
    code = "heaviside"

    def grad(self, node: Node, *douts: Value | None) -> Sequence[Value | None]:
        return [None]

    def reference(self, x: Array) -> Any:
        return np.heaviside(x, self.alpha)

    @classmethod
    def examples(cls) -> Iterable[Example]:
        for shape in ew.TAILS:
            yield Example(cls(alpha=0.5), shape)
        yield Example(cls(alpha=0.5), np.array([-2.0, -0.0, 0.0, 3.0]))


PreluSlope = ew.declare_binary(
    "prelu_slope", "prelu_slope", lambda x, w: np.where(x > 0, 1 + 0 * w, w), None
)
Prelu = ew.declare_binary(
    "prelu",
    "prelu",
    lambda x, w: np.where(x > 0, x, w * x),
    lambda x, w, y, dy: (ew.mul(dy, apply(PreluSlope(), x, w)), ew.mul(dy, ew.minimum(x, 0.0))),
)


# --- the public functions -----------------------------------------------------------------------

SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805


def heaviside(x: Any, values: float = 1.0) -> Any:
    """The threshold unit: 0 for x < 0, `values` at 0, 1 above, elementwise; its gradient is 0."""
    return apply(Heaviside(alpha=float(values)), x)


def erf(x: Any) -> Any:
    """The error function, 2 / sqrt(pi) times the integral of exp(-t^2) from 0 to x, elementwise."""
    return apply(Erf(), x)


def threshold(x: Any, threshold: float, value: float) -> Any:
    """x where it is larger than `threshold`, else `value`, elementwise."""
    return apply(Threshold(alpha=float(threshold), beta=float(value)), x)


def hardtanh(x: Any, min_val: float = -1.0, max_val: float = 1.0) -> Any:
    """x limited to min_val..max_val, elementwise; its gradient is 0 at and beyond both."""
    if not min_val < max_val:
        raise ValueError(f"hardtanh: max_val: expected more than {min_val}, got {max_val}")
    return apply(Hardtanh(alpha=float(min_val), beta=float(max_val)), x)


def relu6(x: Any) -> Any:
    """x limited to 0..6, elementwise."""
    return hardtanh(x, 0.0, 6.0)


def leaky_relu(x: Any, negative_slope: float = 0.01) -> Any:
    """x above 0, negative_slope * x below, elementwise."""
    return apply(LeakyRelu(alpha=float(negative_slope)), x)


def prelu(x: Any, weight: Any) -> Any:
    """x above 0, weight * x below; weight (1,), or (C,) for x (N, C, ...). He et al., 2015."""
    if tuple(weight.shape) not in ((1,), tuple(x.shape[1:2])):
        raise ValueError(
            f"prelu: weight: expected shape (1,) or {x.shape[1:2]} for x {x.shape}, "
            f"got {weight.shape}"
        )
    column = (-1, *[1] * (len(x.shape) - 2)) if len(x.shape) > 1 else (-1,)
    return apply(Prelu(), x, reshape(weight, column))


def elu(x: Any, alpha: float = 1.0) -> Any:
    """x above 0, alpha * (exp(x) - 1) below, elementwise. Clevert et al., 2015."""
    return apply(Elu(alpha=float(alpha)), x)


def selu(x: Any) -> Any:
    """elu(x, 1.6733) * 1.0507, which keeps mean 0 and variance 1. Klambauer et al., 2017."""
    return apply(Elu(alpha=SELU_ALPHA, beta=SELU_SCALE), x)


def gelu(x: Any, approximate: str = "none") -> Any:
    """x * Phi(x) with the normal distribution's Phi; approximate="tanh": by tanh.

    Hendrycks and Gimpel, 2016. Other words raise ValueError.
    """
    if approximate not in ("none", "tanh"):
        raise ValueError(f"gelu: approximate: expected 'none' or 'tanh', got {approximate!r}")
    return apply(Gelu() if approximate == "none" else GeluTanh(), x)


def silu(x: Any) -> Any:
    """x * sigmoid(x), elementwise (also called swish)."""
    return apply(Silu(), x)


def mish(x: Any) -> Any:
    """x * tanh(softplus(x)), elementwise. Misra, 2019."""
    return apply(Mish(), x)


def softplus(x: Any, beta: float = 1.0, threshold: float = 20.0) -> Any:
    """log(1 + exp(beta x)) / beta, and x itself where beta x > threshold, elementwise."""
    if not beta > 0:
        raise ValueError(f"softplus: beta: expected a positive number, got {beta}")
    return apply(Softplus(alpha=float(beta), beta=float(threshold)), x)


def softsign(x: Any) -> Any:
    """x / (1 + |x|), elementwise."""
    return apply(Softsign(), x)


def hardsigmoid(x: Any) -> Any:
    """(x + 3) / 6 limited to 0..1, elementwise."""
    return apply(Hardsigmoid(), x)


def hardswish(x: Any) -> Any:
    """x * hardsigmoid(x), elementwise. Howard et al., 2019."""
    return apply(Hardswish(), x)
