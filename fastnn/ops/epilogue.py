"""What gemm and convolution do to a result while it is in registers: activations and their gradients."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn.graph import Array

ACTS = ("relu", "sigmoid", "tanh")


def act_code(act: str, saved: bool) -> int:
    """enum fnn_act: 0 for none, 1.. for an activation, 4.. for its gradient from a saved output."""
    if not act:
        return 0
    return 1 + ACTS.index(act) + (len(ACTS) if saved else 0)


def finish(y: Array, act: str, saved: Array | None) -> Any:
    """The epilogue in NumPy."""
    if not act:
        return y
    if saved is not None:
        return y * {"relu": saved > 0, "sigmoid": saved * (1 - saved), "tanh": 1 - saved**2}[act]
    return {"relu": np.maximum(y, 0), "sigmoid": 1 / (1 + np.exp(-y)), "tanh": np.tanh(y)}[act]
