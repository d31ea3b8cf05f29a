"""Optimizers that divide by the size of past gradients: Adagrad, Adadelta and RMSprop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastnn.optim.optimizer import Optimizer, Options
from fastnn.optim.slab import Segment
from fastnn.plan.builder import Builder

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Adagrad(Optimizer):
    """Adagrad (Duchi et al., 2011), as torch.optim.Adagrad.

    g += weight_decay * w; sum += g^2; w -= lr / (1 + (t - 1) lr_decay) * g / (sqrt(sum) + eps), where
    sum begins with initial_accumulator_value. Raises ValueError for numbers out of range.
    """

    kernel = "adagrad"
    sparse = True
    fields = {"sum": "sum"}

    def __init__(
        self,
        lr: float = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(lr, weight_decay, **options)
        self.lr_decay = self._number("lr_decay", lr_decay)
        self.initial_accumulator_value = self._number(
            "initial_accumulator_value", initial_accumulator_value
        )
        self.eps = self._number("eps", eps)

    def initial(self, state: str) -> float:
        return self.initial_accumulator_value

    def arguments(self, b: Builder, segment: Segment) -> dict[str, Any]:
        return {"lr_decay": self.lr_decay, "eps": self.eps}


class Adadelta(Optimizer):
    """Adadelta (Zeiler, 2012), as torch.optim.Adadelta; its steps have the size of past steps.

    g += weight_decay * w; s = rho s + (1 - rho) g^2; d = sqrt(u + eps) / sqrt(s + eps) * g;
    u = rho u + (1 - rho) d^2; w -= lr * d. Raises ValueError for numbers out of range.
    """

    kernel = "adadelta"
    fields = {"square": "square_avg", "delta": "acc_delta"}

    def __init__(
        self,
        lr: float = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(lr, weight_decay, **options)
        self.rho = self._number("rho", rho, 1)
        self.eps = self._number("eps", eps)

    def arguments(self, b: Builder, segment: Segment) -> dict[str, Any]:
        return {"rho": self.rho, "eps": self.eps}


class RMSprop(Optimizer):
    """RMSprop (Hinton's lecture, 2012; centered: Graves, 2013), as torch.optim.RMSprop.

    g += weight_decay * w; s = alpha s + (1 - alpha) g^2; centered: m = alpha m + (1 - alpha) g, and
    s - m^2 in the place of s; d = g / (sqrt(s) + eps); buf = momentum * buf + d; w -= lr * buf.
    Raises ValueError for numbers out of range.
    """

    kernel = "rmsprop"
    fields = {"square": "square_avg", "mean": "grad_avg", "buf": "momentum_buffer"}

    def __init__(
        self,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(lr, weight_decay, **options)
        self.alpha = self._number("alpha", alpha, 1)
        self.eps = self._number("eps", eps)
        self.momentum = self._number("momentum", momentum)
        self.centered = bool(centered)

    def states(self) -> dict[str, str]:
        wanted = {"square": True, "mean": self.centered, "buf": self.momentum > 0}
        return {field: name for field, name in self.fields.items() if wanted[field]}

    def arguments(self, b: Builder, segment: Segment) -> dict[str, Any]:
        return {"alpha": self.alpha, "eps": self.eps, "momentum": self.momentum}
