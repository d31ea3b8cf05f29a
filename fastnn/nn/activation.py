"""Activation functions as modules, with PyTorch's names, arguments and defaults.

All but PReLU, Softmax and LogSoftmax take x of any shape and work elementwise. Numbers that do not fit
raise ValueError when the module is made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from fastnn import ops
from fastnn.nn.module import Module, Parameter, value


class Elementwise(Module):
    """Base of the activations: `_function` of x and of the module's numbers, which it checks."""

    _function: ClassVar[Callable[..., Any]]

    def __init__(self, **numbers: Any) -> None:
        type(self)._function(np.zeros(1, np.float32), **numbers)
        self._names = tuple(numbers)
        vars(self).update(numbers)

    def forward(self, x: Any) -> Any:
        return type(self)._function(x, **{name: getattr(self, name) for name in self._names})

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={getattr(self, name)}" for name in self._names)


class Threshold(Elementwise):
    """x where it is larger than `threshold`, else `value`."""

    _function = staticmethod(ops.threshold)

    def __init__(self, threshold: float, value: float) -> None:
        super().__init__(threshold=threshold, value=value)


class Heaviside(Elementwise):
    """The threshold unit: 0 below 0, `values` at 0, 1 above; no gradient flows through it."""

    _function = staticmethod(ops.heaviside)

    def __init__(self, values: float = 1.0) -> None:
        super().__init__(values=values)


class Sigmoid(Elementwise):
    """1 / (1 + exp(-x))."""

    _function = staticmethod(ops.sigmoid)


class Tanh(Elementwise):
    """The hyperbolic tangent."""

    _function = staticmethod(ops.tanh)


class ReLU(Elementwise):
    """max(x, 0). Nair and Hinton, 2010."""

    _function = staticmethod(ops.relu)


class ReLU6(Elementwise):
    """x limited to 0..6."""

    _function = staticmethod(ops.relu6)


class Hardtanh(Elementwise):
    """x limited to min_val..max_val."""

    _function = staticmethod(ops.hardtanh)

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0) -> None:
        super().__init__(min_val=min_val, max_val=max_val)


class LeakyReLU(Elementwise):
    """x above 0, negative_slope * x below. Maas et al., 2013."""

    _function = staticmethod(ops.leaky_relu)

    def __init__(self, negative_slope: float = 0.01) -> None:
        super().__init__(negative_slope=negative_slope)


class PReLU(Module):
    """x above 0, weight * x below, with a trained weight: one for all, or one for each channel.

    num_parameters: 1, or C for x (N, C, ...). weight (num_parameters,) starts at `init`. Raises
    ValueError where they do not fit. He et al., 2015.
    """

    def __init__(self, num_parameters: int = 1, init: float = 0.25) -> None:
        if not isinstance(num_parameters, int) or num_parameters < 1:
            raise ValueError(
                f"PReLU: num_parameters: expected a positive int, got {num_parameters!r}"
            )
        self.weight = Parameter(np.full(num_parameters, init, np.float32))

    def forward(self, x: Any) -> Any:
        return ops.prelu(x, value(self.weight))

    def extra_repr(self) -> str:
        return f"num_parameters={self.weight.shape[0]}"


class ELU(Elementwise):
    """x above 0, alpha * (exp(x) - 1) below. Clevert et al., 2015."""

    _function = staticmethod(ops.elu)

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__(alpha=alpha)


class SELU(Elementwise):
    """ELU scaled to keep mean 0 and variance 1. Klambauer et al., 2017."""

    _function = staticmethod(ops.selu)


class GELU(Elementwise):
    """x * Phi(x) with the normal distribution's Phi; approximate="tanh": by tanh.

    Hendrycks and Gimpel, 2016.
    """

    _function = staticmethod(ops.gelu)

    def __init__(self, approximate: str = "none") -> None:
        super().__init__(approximate=approximate)


class SiLU(Elementwise):
    """x * sigmoid(x), also called swish. Elfwing et al., 2018."""

    _function = staticmethod(ops.silu)


class Mish(Elementwise):
    """x * tanh(softplus(x)). Misra, 2019."""

    _function = staticmethod(ops.mish)


class Softplus(Elementwise):
    """log(1 + exp(beta x)) / beta, and x itself where beta x > threshold. Dugas et al., 2001."""

    _function = staticmethod(ops.softplus)

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__(beta=beta, threshold=threshold)


class Softsign(Elementwise):
    """x / (1 + |x|)."""

    _function = staticmethod(ops.softsign)


class Hardsigmoid(Elementwise):
    """(x + 3) / 6 limited to 0..1."""

    _function = staticmethod(ops.hardsigmoid)


class Hardswish(Elementwise):
    """x * hardsigmoid(x). Howard et al., 2019."""

    _function = staticmethod(ops.hardswish)


class Softmax(Elementwise):
    """exp(x) / sum(exp(x)) over `dim`, the last by default."""

    _function = staticmethod(ops.softmax)

    def __init__(self, dim: int = -1) -> None:
        Module.__init__(self)
        self._names, self.dim = ("dim",), dim


class LogSoftmax(Softmax):
    """x - log(sum(exp(x))) over `dim`, the last by default."""

    _function = staticmethod(ops.log_softmax)
