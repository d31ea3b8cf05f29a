"""Adam and its kin: AdamW, AMSGrad (an option of both), NAdam and LAMB."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fastnn.optim.optimizer import Optimizer, Options
from fastnn.optim.slab import Segment
from fastnn.plan.builder import Builder

if TYPE_CHECKING:
    from typing_extensions import Unpack

Betas = tuple[float, float]


class _Moments(Optimizer):
    """Keeps running means of the gradient and of its square."""

    fields = {"m": "exp_avg", "v": "exp_avg_sq"}

    def __init__(
        self, lr: float, betas: Betas, eps: float, weight_decay: float, **options: Unpack[Options]
    ) -> None:
        super().__init__(lr, weight_decay, **options)
        self.betas = self._betas(betas)
        self.eps = self._number("eps", eps)

    def arguments(self, b: Builder, segment: Segment) -> dict[str, Any]:
        return {"beta1": self.betas[0], "beta2": self.betas[1], "eps": self.eps}


class Adam(_Moments):
    """Adam (Kingma and Ba, 2015), as torch.optim.Adam; weight decay is added to the gradient.

    m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2; with m' = m / (1 - b1^t), v' = v / (1 - b2^t):
    w -= lr * m' / (sqrt(v') + eps). amsgrad: the largest v so far in the place of v (Reddi et al.,
    2018). Sparse parameters as torch.optim.SparseAdam: rows without a gradient keep m, v and w, and eps
    is added to sqrt(v), not to sqrt(v').
    Raises ValueError for numbers out of range.
    """

    kernel = "adam"
    sparse = True
    fields = {**_Moments.fields, "vmax": "max_exp_avg_sq"}
    decoupled: ClassVar[bool] = False

    def __init__(
        self,
        lr: float = 1e-3,
        betas: Betas = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(lr, betas, eps, weight_decay, **options)
        self.amsgrad = bool(amsgrad)

    def states(self) -> dict[str, str]:
        return super().states() if self.amsgrad else dict(_Moments.fields)

    def arguments(self, b: Builder, segment: Segment) -> dict[str, Any]:
        return {**super().arguments(b, segment), "decoupled": int(self.decoupled)}


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019), as torch.optim.AdamW.

    w -= lr * weight_decay * w before Adam's step, whose gradient is left alone.
    """

    decoupled = True
    sparse = False

    def __init__(
        self,
        lr: float = 1e-3,
        betas: Betas = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(lr, betas, eps, weight_decay, amsgrad, **options)


class NAdam(_Moments):
    """Adam with Nesterov momentum (Dozat, 2016), as torch.optim.NAdam.

    The momentum of step t is u_t = b1 * (1 - 0.96^(t * momentum_decay) / 2), U_t the product of all so
    far; m and v as in Adam; w -= lr * ((1 - u_t) / (1 - U_t) * g + u_t+1 / (1 - U_t+1) * m) /
    (sqrt(v') + eps). decoupled_weight_decay: AdamW's. Raises ValueError for numbers out of range.
    """

    kernel = "nadam"

    def __init__(
        self,
        lr: float = 2e-3,
        betas: Betas = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(lr, betas, eps, weight_decay, **options)
        self.momentum_decay = self._number("momentum_decay", momentum_decay)
        self.decoupled_weight_decay = bool(decoupled_weight_decay)

    def arguments(self, b: Builder, segment: Segment) -> dict[str, Any]:
        return {
            **super().arguments(b, segment),
            "cache": b.constant(np.zeros(2)),
            "momentum_decay": self.momentum_decay,
            "decoupled": int(self.decoupled_weight_decay),
        }


class LAMB(_Moments):
    """LAMB (You et al., 2020, algorithm 2): Adam with a trust ratio for each parameter.

    r = m' / (sqrt(v') + eps) + weight_decay * w, with m' and v' as in Adam; w -= lr * |w| / |r| * r,
    where a ratio with a norm of 0 is 1. Raises ValueError for numbers out of range.
    """

    kernel = "lamb"

    def __init__(
        self,
        lr: float = 1e-3,
        betas: Betas = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 1e-2,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(lr, betas, eps, weight_decay, **options)

    def arguments(self, b: Builder, segment: Segment) -> dict[str, Any]:
        pieces = segment.pieces()
        return {
            **super().arguments(b, segment),
            "pieces": b.constant(pieces),
            "count": len(pieces),
            "parameters": len(segment.parameters),
        }
