"""How fit tells where it is: a bar on a terminal, one plain line an epoch elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from fastnn.train.history import is_number


class Progress:
    """Shows one fit. samples: of an epoch, if known. enabled=False: says nothing."""

    def __init__(self, epochs: int, samples: int | None, enabled: bool) -> None:
        self.epochs, self.samples, self.enabled = epochs, samples, enabled
        self._bar: Any = None

    def start(self, epoch: int) -> None:
        """A new epoch, counted from 0."""
        if self.enabled and sys.stderr.isatty():
            try:
                from tqdm import tqdm
            except ImportError:
                return
            label = f"epoch {epoch + 1}/{self.epochs}"
            self._bar = tqdm(total=self.samples, desc=label, unit="", unit_scale=True, leave=False)

    def advance(self, samples: int, loss: float) -> None:
        """Some more samples are done; `loss` is the epoch's mean so far."""
        if self._bar is not None:
            self._bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
            self._bar.update(samples)

    def finish(self, epoch: int, samples: int, values: Mapping[str, Any], seconds: float) -> None:
        """The epoch of so many samples is over: its line stays."""
        self.close()
        if self.enabled:
            shown = {k: v for k, v in values.items() if is_number(v)}
            numbers = "  ".join(f"{k} {v:.4f}" for k, v in shown.items())
            rate = samples / seconds if seconds > 0 else float("inf")
            width = len(str(self.epochs))
            line = f"epoch {epoch + 1:>{width}}/{self.epochs}  {numbers}  {seconds:.2f} s"
            print(f"{line}  {rate:,.0f}/s", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Take the bar away, also after an error."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
