"""Losses as modules: called with (output, target), they return one number (or one a row)."""

from __future__ import annotations

from typing import Any

from fastnn import ops
from fastnn.nn.module import Module


class _Loss(Module):
    def __init__(self, reduction: str = "mean") -> None:
        if reduction not in ("mean", "sum", "none"):
            raise ValueError(f"reduction: expected 'mean', 'sum' or 'none', got {reduction!r}")
        self.reduction = reduction


class CrossEntropyLoss(_Loss):
    """-log softmax(output)[target] in nats: output (N, C) logits, target (N,) integer labels."""

    def forward(self, output: Any, target: Any) -> Any:
        return ops.cross_entropy(output, target, self.reduction)


class MSELoss(_Loss):
    """(output - target) ** 2, averaged by default; both of one shape."""

    def forward(self, output: Any, target: Any) -> Any:
        return ops.mse_loss(output, target, self.reduction)
