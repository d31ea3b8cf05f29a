"""Losses as modules, called with (output, target).

reduction: "mean" (the default) or "sum" over everything, or "none": the losses themselves, rows first;
other words, and shapes that do not fit, raise ValueError.
Weighted samples are reduced by whoever has the weights, from the losses of "none": sum(w * l) / sum(w).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn import ops
from fastnn.graph import Array
from fastnn.nn.module import Module


class Loss(Module):
    """Base of the losses: takes one of `reductions`."""

    reductions: tuple[str, ...] = ("mean", "sum", "none")

    def __init__(self, reduction: str = "mean") -> None:
        if reduction not in self.reductions:
            expected = ", ".join(map(repr, self.reductions))
            raise ValueError(f"reduction: expected one of {expected}, got {reduction!r}")
        self.reduction = reduction

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}"


def _weights(name: str, weight: Any) -> Array | None:
    """Weights, which are no part of the trained state; ValueError unless they are numbers."""
    if weight is None:
        return None
    array = np.array(weight)
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{name}: expected numbers, got {array.dtype}")
    return array


class CrossEntropyLoss(Loss):
    """-log softmax(output)[target] in nats: output (N, C, ...) logits, target (N, ...) integer labels.

    Or target of output's shape: probabilities. weight (C,): of the classes. Rows with the label
    ignore_index do not count. label_smoothing: the part of the target that is spread over all classes.
    """

    def __init__(
        self,
        weight: Any = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(reduction)
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"label_smoothing: expected 0 to 1, got {label_smoothing!r}")
        self.weight, self.ignore_index = _weights("weight", weight), int(ignore_index)
        self.label_smoothing = float(label_smoothing)

    def forward(self, output: Any, target: Any) -> Any:
        return ops.cross_entropy(
            output,
            target,
            self.reduction,
            weight=self.weight,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
        )


class NLLLoss(Loss):
    """-output[target]: output (N, C, ...) log-probabilities, target (N, ...) integer labels.

    weight (C,): of the classes. Rows with the label ignore_index do not count.
    """

    def __init__(
        self, weight: Any = None, ignore_index: int = -100, reduction: str = "mean"
    ) -> None:
        super().__init__(reduction)
        self.weight, self.ignore_index = _weights("weight", weight), int(ignore_index)

    def forward(self, output: Any, target: Any) -> Any:
        return ops.nll_loss(output, target, self.reduction, self.weight, self.ignore_index)


class MSELoss(Loss):
    """(output - target) ** 2; both of one shape. reduction="sum": the sum of squared errors."""

    def forward(self, output: Any, target: Any) -> Any:
        return ops.mse_loss(output, target, self.reduction)


class L1Loss(Loss):
    """|output - target|; both of one shape."""

    def forward(self, output: Any, target: Any) -> Any:
        return ops.l1_loss(output, target, self.reduction)


class HuberLoss(Loss):
    """d^2 / 2 of d = output - target, and delta (|d| - delta / 2) where |d| > delta. Huber, 1964.

    Both of one shape; reduction and delta as torch.nn.HuberLoss's.
    """

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        super().__init__(reduction)
        if not delta > 0:
            raise ValueError(f"delta: expected a positive number, got {delta!r}")
        self.delta = float(delta)

    def forward(self, output: Any, target: Any) -> Any:
        return ops.huber_loss(output, target, self.reduction, self.delta)


class SmoothL1Loss(Loss):
    """d^2 / (2 beta) of d = output - target, and |d| - beta / 2 where |d| > beta.

    Both of one shape; as torch.nn.SmoothL1Loss (Girshick, 2015). beta=0 is L1Loss.
    """

    def __init__(self, reduction: str = "mean", beta: float = 1.0) -> None:
        super().__init__(reduction)
        if not beta >= 0:
            raise ValueError(f"beta: expected at least 0, got {beta!r}")
        self.beta = float(beta)

    def forward(self, output: Any, target: Any) -> Any:
        return ops.smooth_l1_loss(output, target, self.reduction, self.beta)


class BCEWithLogitsLoss(Loss):
    """Binary cross entropy of logits: output and target (0 to 1) of one shape, in nats.

    weight, pos_weight (of the positive targets): they broadcast to output's shape.
    """

    def __init__(self, weight: Any = None, reduction: str = "mean", pos_weight: Any = None) -> None:
        super().__init__(reduction)
        self.weight = _weights("weight", weight)
        self.pos_weight = _weights("pos_weight", pos_weight)

    def forward(self, output: Any, target: Any) -> Any:
        return ops.binary_cross_entropy_with_logits(
            output, target, self.reduction, self.weight, self.pos_weight
        )


class HingeLoss(Loss):
    """max(0, margin - target * output) of scores and labels -1 or 1, both of one shape.

    The loss of support vector machines (Cortes and Vapnik, 1995).
    """

    def __init__(self, margin: float = 1.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.margin = float(margin)

    def forward(self, output: Any, target: Any) -> Any:
        return ops.hinge_loss(output, target, self.reduction, self.margin)


class MultiMarginLoss(Loss):
    """The sum over the other classes c of max(0, margin - output[target] + output[c])^p, over C.

    output (N, C) scores, target (N,) integer labels; p: 1 or 2; weight (C,): of the labels' classes.
    """

    def __init__(
        self, p: int = 1, margin: float = 1.0, weight: Any = None, reduction: str = "mean"
    ) -> None:
        super().__init__(reduction)
        if p not in (1, 2):
            raise ValueError(f"p: expected 1 or 2, got {p!r}")
        self.p, self.margin, self.weight = p, float(margin), _weights("weight", weight)

    def forward(self, output: Any, target: Any) -> Any:
        return ops.multi_margin_loss(
            output, target, self.reduction, self.p, self.margin, self.weight
        )


class KLDivLoss(Loss):
    """target * (log(target) - output) of log-probabilities; log_target: target is a logarithm too.

    Both of one shape. Kullback and Leibler, 1951.
    reduction="batchmean" is the divergence itself; "mean" averages over all elements, as in PyTorch.
    """

    reductions = (*Loss.reductions, "batchmean")

    def __init__(self, reduction: str = "mean", log_target: bool = False) -> None:
        super().__init__(reduction)
        self.log_target = bool(log_target)

    def forward(self, output: Any, target: Any) -> Any:
        return ops.kl_div(output, target, self.reduction, self.log_target)


class CosineEmbeddingLoss(Loss):
    """Of (x1, x2, target): 1 - cos where target (N,) is 1, max(0, cos - margin) where it is -1.

    x1, x2 (N, D); cos: of the angle between their rows. As torch.nn.CosineEmbeddingLoss.
    """

    def __init__(self, margin: float = 0.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.margin = float(margin)

    def forward(self, x1: Any, x2: Any, target: Any) -> Any:
        return ops.cosine_embedding_loss(x1, x2, target, self.reduction, self.margin)
