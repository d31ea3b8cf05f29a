"""What a training run looked like: one value an epoch for the loss and each metric."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np


class History(Mapping[str, "list[Any]"]):
    """history["loss"], ["accuracy"], ["val_loss"], ["val_accuracy"]: lists with one value an epoch.

    seconds: wall-clock time of each epoch's training, validation left out. interrupted: True after
    Ctrl-C. stopped: why a callback ended it, "" if none did.
    """

    def __init__(self) -> None:
        self._values: dict[str, list[Any]] = {}
        self.seconds: list[float] = []
        self.interrupted = False
        self.stopped = ""

    def append(self, values: Mapping[str, Any], seconds: float) -> None:
        """Add one epoch."""
        for name, value in values.items():
            self._values.setdefault(name, []).append(value)
        self.seconds.append(seconds)

    def __getitem__(self, name: str) -> list[Any]:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        last = ", ".join(f"{k}={v[-1]:.4g}" for k, v in self._values.items() if is_number(v[-1]))
        return f"History({len(self.seconds)} epochs{': ' + last if last else ''})"

    def plot(self, path: Any = None) -> Any:
        """Draw loss and metrics, training and validation, over epochs; returns matplotlib's figure.

        path: also write it there, as PNG, PDF or SVG by its ending. Needs the `plot` extra.
        """
        from fastnn.train.plot import plot_history

        return plot_history(self, path)


def is_number(value: Any) -> bool:
    """True for what a curve can show: confusion matrices are arrays."""
    return np.ndim(value) == 0
