"""Optimizers that follow the gradient or its sign: SGD and Lion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.layout import Ref
from fastnn.optim.optimizer import Optimizer, Options
from fastnn.optim.slab import Segment, Slab
from fastnn.plan.builder import Builder

if TYPE_CHECKING:
    from typing_extensions import Unpack


class SGD(Optimizer):
    """Stochastic gradient descent with momentum, Nesterov's too (Sutskever et al., 2013).

    As torch.optim.SGD: g += weight_decay * w; buf = momentum * buf + (1 - dampening) * g, but g in the
    first step; w -= lr * buf, with nesterov w -= lr * (g + momentum * buf).
    Plain gradient descent is SGD without momentum and fit with batch_size=len(x). Of a sparse parameter
    momentum moves all rows that ever had a gradient.
    Raises ValueError for numbers out of range.
    """

    kernel = "sgd"
    sparse = True
    fields = {"buf": "momentum_buffer"}

    def __init__(
        self,
        lr: float = 1e-2,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(lr, weight_decay, **options)
        self.momentum = self._number("momentum", momentum)
        self.dampening = self._number("dampening", dampening)
        self.nesterov = bool(nesterov)
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError("SGD: nesterov: expected a momentum and no dampening")

    def states(self) -> dict[str, str]:
        return super().states() if self.momentum else {}

    def arguments(self, b: Builder, segment: Segment) -> dict[str, Any]:
        numbers = {"momentum": self.momentum, "dampening": self.dampening}
        return {**numbers, "nesterov": int(self.nesterov), "touched": None}

    def sparse_arguments(self, b: Builder, slab: Slab, segment: Segment) -> dict[str, Any]:
        if not self.momentum:
            return {}
        (p,) = segment.parameters
        size = 2 + 2 * (segment.ref(b, slab.values).size // p.shape[1]) + p.shape[1]
        memory = slab.touched(p, size)
        return {"touched": Ref(b.memory(memory, 8 * size), (size,), (1,), np.dtype(np.int64))}


class Lion(Optimizer):
    """Lion (Chen et al., 2023, algorithm 2): steps of one size, in the direction of a sign.

    w -= lr * (sign(b1 m + (1 - b1) g) + weight_decay * w); then m = b2 m + (1 - b2) g. Its rates are a
    third to a tenth of AdamW's, its weight decay 3 to 10 times. Raises ValueError for numbers out of
    range.
    """

    kernel = "lion"
    fields = {"m": "exp_avg"}

    def __init__(
        self,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(lr, weight_decay, **options)
        self.betas = self._betas(betas)

    def arguments(self, b: Builder, segment: Segment) -> dict[str, Any]:
        return {"beta1": self.betas[0], "beta2": self.betas[1]}
