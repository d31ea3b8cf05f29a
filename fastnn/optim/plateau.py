"""ReduceLROnPlateau: the schedule that looks at the results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fastnn.graph import Array
from fastnn.optim.schedule import Schedule

if TYPE_CHECKING:
    from fastnn.optim.group import Group
    from fastnn.optim.optimizer import Optimizer


class ReduceLROnPlateau(Schedule):
    """Multiplies the learning rates by `factor` when a value has not improved for `patience` epochs.

    As torch.optim.lr_scheduler.ReduceLROnPlateau. monitor: a name in the history, None for "val_loss"
    where there is validation data and "loss" elsewhere; mode: "min" or "max", what is better.
    threshold: how much better counts, a part of the best value (threshold_mode "rel") or a difference
    ("abs"). cooldown: epochs after a reduction in which nothing is counted. min_lr: no rate goes below
    it; eps: a smaller change is left out. It changes the optimizer's rates, and checkpoints keep what
    it remembers.
    """

    def __init__(
        self,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float = 0.0,
        eps: float = 1e-8,
        monitor: str | None = None,
    ) -> None:
        super().__init__()
        if mode not in ("min", "max"):
            raise ValueError(f"mode: expected 'min' or 'max', got {mode!r}")
        if threshold_mode not in ("rel", "abs"):
            raise ValueError(f"threshold_mode: expected 'rel' or 'abs', got {threshold_mode!r}")
        if not 0 < factor < 1:
            raise ValueError(f"factor: expected a number between 0 and 1, got {factor!r}")
        self.mode, self.factor, self.patience = mode, factor, patience
        self.threshold, self.threshold_mode = threshold, threshold_mode
        self.cooldown, self.min_lr, self.eps, self.monitor = cooldown, min_lr, eps, monitor
        self.best = float("inf") if mode == "min" else -float("inf")
        self.num_bad_epochs = self.cooldown_counter = 0

    def at(self, t: Array, lr: float, total: int) -> Any:
        return lr

    def finish(self, values: Mapping[str, Any], optimizer: Optimizer) -> None:
        monitor = self.monitor or ("val_loss" if "val_loss" in values else "loss")
        if monitor not in values:
            raise ValueError(f"monitor: expected one of {', '.join(values)}, got {monitor!r}")
        self.step(float(values[monitor]), optimizer)

    def step(self, value: float, optimizer: Optimizer) -> None:
        """Count one epoch with this value."""
        if self._is_better(value):
            self.best, self.num_bad_epochs = value, 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            rated: list[Optimizer | Group] = [optimizer, *optimizer.groups]
            for group in rated:
                if group.lr is None:  # it follows the optimizer's
                    continue
                lower = max(group.lr * self.factor, self.min_lr)
                if group.lr - lower > self.eps:
                    group.lr = lower
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0

    def _is_better(self, value: float) -> bool:
        sign = 1 if self.mode == "max" else -1
        if self.threshold_mode == "rel":
            return sign * value > sign * self.best * (1 + sign * self.threshold)
        return sign * value > sign * self.best + self.threshold

    def state_dict(self) -> dict[str, Any]:
        names = ("best", "num_bad_epochs", "cooldown_counter")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.best = float(state["best"])
        self.num_bad_epochs = int(state["num_bad_epochs"])
        self.cooldown_counter = int(state["cooldown_counter"])
