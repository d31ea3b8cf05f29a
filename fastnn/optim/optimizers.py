"""Optimizers: each is its numbers, the names of its states and one kernel call over the slab."""

from __future__ import annotations

from typing import Any, ClassVar

from fastnn.optim.slab import Slab
from fastnn.plan.builder import Builder


def _check(optimizer: str, name: str, value: float, least: float, below: float) -> float:
    if not isinstance(value, (int, float)) or not least <= value < below:
        raise ValueError(
            f"{optimizer}: {name}: expected {least} <= {name} < {below}, got {value!r}"
        )
    return float(value)


class Optimizer:
    """Base: `lr` may be changed between steps, the other numbers are fixed when training starts."""

    states: ClassVar[tuple[str, ...]] = ()

    def __init__(self, lr: float, weight_decay: float) -> None:
        self.lr = lr
        self.weight_decay = self._number("weight_decay", weight_decay)

    @property
    def lr(self) -> float:
        """The learning rate of the next step."""
        return self._lr

    @lr.setter
    def lr(self, value: float) -> None:
        self._lr = self._number("lr", value)

    def _number(self, name: str, value: float, below: float = float("inf")) -> float:
        return _check(type(self).__name__, name, value, 0.0, below)

    @property
    def config(self) -> dict[str, Any]:
        """Its numbers by name."""
        return {k.lstrip("_"): v for k, v in vars(self).items()}

    def state_names(self) -> tuple[str, ...]:
        """The states that it keeps for each parameter."""
        return self.states

    def lower(self, b: Builder, slab: Slab) -> None:
        """Emit the kernel call that updates the slab from its gradients."""
        raise NotImplementedError

    def __repr__(self) -> str:
        numbers = ", ".join(f"{k}={v}" for k, v in self.config.items())
        return f"{type(self).__name__}({numbers})"


class SGD(Optimizer):
    """Stochastic gradient descent with momentum, Nesterov's too (Sutskever et al., 2013).

    As torch.optim.SGD: g += weight_decay * w; buf = momentum * buf + (1 - dampening) * g; w -= lr * buf.
    Raises ValueError for numbers out of range.
    """

    states = ("momentum_buffer",)

    def __init__(
        self,
        lr: float = 1e-2,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(lr, weight_decay)
        self.momentum = self._number("momentum", momentum)
        self.dampening = self._number("dampening", dampening)
        self.nesterov = bool(nesterov)
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError("SGD: nesterov: expected a momentum and no dampening")

    def state_names(self) -> tuple[str, ...]:
        return self.states if self.momentum else ()

    def lower(self, b: Builder, slab: Slab) -> None:
        buf = slab.ref(b, slab.states["momentum_buffer"]) if self.momentum else None
        w = slab.ref(b, slab.values)
        b.step(
            "sgd",
            g=slab.ref(b, slab.grads),
            hyper=b.hyper(),
            w=w,
            buf=buf,
            n=w.size,
            nesterov=int(self.nesterov),
            maximize=0,
            momentum=self.momentum,
            dampening=self.dampening,
            weight_decay=self.weight_decay,
        )


class Adam(Optimizer):
    """Adam (Kingma and Ba, 2015), as torch.optim.Adam; weight decay is added to the gradient.

    m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2; with m' = m / (1 - b1^t), v' = v / (1 - b2^t):
    w -= lr * m' / (sqrt(v') + eps).
    Raises ValueError for numbers out of range.
    """

    states = ("exp_avg", "exp_avg_sq")
    decoupled: ClassVar[bool] = False

    def __init__(
        self,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(lr, weight_decay)
        self.betas = (self._number("betas[0]", betas[0], 1), self._number("betas[1]", betas[1], 1))
        self.eps = self._number("eps", eps)

    def lower(self, b: Builder, slab: Slab) -> None:
        w = slab.ref(b, slab.values)
        b.step(
            "adam",
            g=slab.ref(b, slab.grads),
            hyper=b.hyper(),
            w=w,
            m=slab.ref(b, slab.states["exp_avg"]),
            v=slab.ref(b, slab.states["exp_avg_sq"]),
            n=w.size,
            decoupled=int(self.decoupled),
            maximize=0,
            beta1=self.betas[0],
            beta2=self.betas[1],
            eps=self.eps,
            weight_decay=self.weight_decay,
        )


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019), as torch.optim.AdamW."""

    decoupled = True

    def __init__(
        self,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(lr, betas, eps, weight_decay)
