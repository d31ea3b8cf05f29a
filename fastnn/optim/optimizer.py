"""Optimizer: its numbers, the states that it keeps, and one kernel call for each segment of the slab."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from fastnn.nn.module import Parameter
from fastnn.optim.slab import Segment, Slab
from fastnn.plan.builder import Builder

LR_AT = 2  # where a step's scalars hold the learning rate


class Optimizer:
    """Base: `lr` may be changed between steps, the other numbers are fixed when training starts.

    weight_decay: in PyTorch's sense for each class. maximize=True climbs instead of descending.
    """

    kernel: ClassVar[str]
    fields: ClassVar[Mapping[str, str]] = {}  # a state's name by its argument of the kernel

    def __init__(self, lr: float, weight_decay: float, maximize: bool) -> None:
        self.lr = lr
        self.weight_decay = self._number("weight_decay", weight_decay)
        self.maximize = bool(maximize)

    @property
    def lr(self) -> float:
        """The learning rate of the next step."""
        return self._lr

    @lr.setter
    def lr(self, value: float) -> None:
        self._lr = self._number("lr", value)

    def _number(self, name: str, value: float, below: float = float("inf")) -> float:
        if not isinstance(value, (int, float)) or not 0 <= value < below:
            raise ValueError(
                f"{type(self).__name__}: {name}: expected 0 <= {name} < {below}, got {value!r}"
            )
        return float(value)

    def _betas(self, betas: Sequence[float]) -> tuple[float, float]:
        first, second = betas
        return self._number("betas[0]", first, 1), self._number("betas[1]", second, 1)

    @property
    def config(self) -> dict[str, Any]:
        """Its numbers by name."""
        return {k.lstrip("_"): v for k, v in vars(self).items()}

    def states(self) -> dict[str, str]:
        """The states that it keeps for each parameter, by the kernel's arguments."""
        return dict(self.fields)

    def state_names(self) -> tuple[str, ...]:
        """The states that it keeps for each parameter."""
        return tuple(self.states().values())

    def initial(self, state: str) -> float:
        """What a state is filled with before the first step."""
        return 0.0

    def arguments(self, b: Builder, segment: Segment) -> dict[str, Any]:
        """The kernel's own arguments, but for its states."""
        raise NotImplementedError

    def attach(
        self, parameters: Sequence[Parameter], old: Slab | None = None, start: int = 0
    ) -> Slab:
        """Lay parameters out for this optimizer; what the slab `old` knows of them is kept.

        start: steps done before those that `old` does not have came.
        """
        states = {name: self.initial(name) for name in self.state_names()}
        starts = [old.start(p) if old and old.has(p) else start for p in parameters]
        slab = Slab(parameters, states, starts)
        if old is not None:
            slab.take(old)
        return slab

    def lower(self, b: Builder, slab: Slab) -> None:
        """Emit the kernel calls that update the slab from its gradients."""
        for segment in slab.segments:
            w = segment.ref(b, slab.values)
            own = self.arguments(b, segment)
            for field, name in self.states().items():
                own[field] = segment.ref(b, slab.states[name])
            b.step(
                self.kernel,
                g=segment.ref(b, slab.grads),
                hyper=b.hyper(),
                w=w,
                n=w.size,
                start=segment.start,
                lr_at=LR_AT,
                maximize=int(self.maximize),
                weight_decay=self.weight_decay,
                **own,
            )

    def __repr__(self) -> str:
        numbers = ", ".join(f"{k}={v}" for k, v in self.config.items())
        return f"{type(self).__name__}({numbers})"
