"""Optimizer: its numbers, the states that it keeps, and one kernel call for each segment of the slab."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict

import numpy as np

from fastnn._core import Memory
from fastnn.layout import Ref
from fastnn.nn.module import Parameter
from fastnn.optim.group import Group, group_numbers
from fastnn.optim.slab import Segment, Slab
from fastnn.plan.builder import Builder
from fastnn.plan.outer import HYPER_SIZE

if TYPE_CHECKING:
    from typing_extensions import Unpack

LR_AT = 2  # where a step's scalars hold the learning rate; those of groups follow HYPER_SIZE


class Options(TypedDict, total=False):
    """What every optimizer takes by name, see Optimizer."""

    maximize: bool
    groups: Iterable[Group]
    clip_value: float | None
    clip_norm: float | None
    ema_decay: float | None


DEFAULTS: dict[str, Any] = {
    "maximize": False,
    "groups": (),
    "clip_value": None,
    "clip_norm": None,
    "ema_decay": None,
}


class Optimizer:
    """Base: `lr` may be changed between steps, the other numbers are fixed when training starts.

    weight_decay: in PyTorch's sense for each class. All take by name:
    maximize: climb instead of descending.
    groups: optim.Group(...) of parameters with numbers of their own; groups[i].lr may be changed.
    clip_value: gradients are limited to -clip_value..clip_value first.
    clip_norm: gradients are then multiplied by min(1, clip_norm / (norm + 1e-6)) with the norm of all
    (Pascanu et al., 2013; as torch.nn.utils.clip_grad_norm_).
    ema_decay: keep averaged weights, a = ema_decay * a + (1 - ema_decay) * w after each step and w after
    the first; evaluate, predict and validation use them, and Trainer.averaged_weights().
    """

    kernel: ClassVar[str]
    fields: ClassVar[Mapping[str, str]] = {}  # a state's name by its argument of the kernel
    sparse: ClassVar[bool] = False  # has a rule for gradients that come as rows

    def __init__(self, lr: float, weight_decay: float, **options: Unpack[Options]) -> None:
        unknown = options.keys() - DEFAULTS.keys()
        if unknown:
            raise TypeError(
                f"{type(self).__name__}: expected arguments of its own and {', '.join(DEFAULTS)}, "
                f"got {', '.join(sorted(unknown))}"
            )
        given = {**DEFAULTS, **options}
        self.lr = lr
        self.weight_decay = self._number("weight_decay", weight_decay)
        self.maximize = bool(given["maximize"])
        self.clip_value = self._option("clip_value", given["clip_value"])
        self.clip_norm = self._option("clip_norm", given["clip_norm"])
        self.ema_decay = self._option("ema_decay", given["ema_decay"], 1)
        self.groups = tuple(Group(*g.parameters, **g.numbers) for g in given["groups"])

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

    def _option(self, name: str, value: float | None, below: float = float("inf")) -> float | None:
        return None if value is None else self._number(name, value, below)

    def _betas(self, betas: Sequence[float]) -> tuple[float, float]:
        first, second = betas
        return self._number("betas[0]", first, 1), self._number("betas[1]", second, 1)

    @property
    def config(self) -> dict[str, Any]:
        """Its numbers by name, and the options that are not left at their defaults."""
        numbers = {k.lstrip("_"): v for k, v in vars(self).items()}
        kept = {k: v for k, v in numbers.items() if k not in DEFAULTS or v != DEFAULTS[k]}
        if self.groups:
            kept["groups"] = [group.config for group in self.groups]
        return kept

    def members(self) -> list[Optimizer]:
        """This optimizer, then one of the same class with the numbers of each group."""
        own = {k: v for k, v in self.config.items() if k not in DEFAULTS}
        made = [type(self)(**group_numbers(own, group)) for group in self.groups]
        return [self, *made]

    def rates(self) -> list[float]:
        """The learning rates of the next step: its own, then each group's."""
        return [self.lr, *(self.lr if g.lr is None else g.lr for g in self.groups)]

    @property
    def hyper_size(self) -> int:
        """The number of a step's scalars."""
        return HYPER_SIZE + len(self.groups)

    # --- states ---

    def states(self) -> dict[str, str]:
        """The states that it keeps for each parameter, by the kernel's arguments."""
        return dict(self.fields)

    def state_names(self) -> tuple[str, ...]:
        """The states that it or a group keeps for each parameter, and "ema"."""
        names = [name for member in self.members() for name in member.states().values()]
        return tuple(dict.fromkeys([*names, *(["ema"] if self.ema_decay is not None else [])]))

    def initial(self, state: str) -> float:
        """What a state is filled with before the first step."""
        return 0.0

    def check_sparse(self, name: str) -> None:
        """Raise unless it can update a sparse parameter of this name."""
        if not self.sparse:
            raise TypeError(
                f"optimizer: {name} is sparse: expected SGD, Adam or Adagrad, "
                f"got {type(self).__name__}"
            )
        for option in ("weight_decay", "clip_value", "clip_norm", "ema_decay", "amsgrad"):
            if getattr(self, option, None):
                raise ValueError(
                    f"optimizer: {option}: expected none with the sparse {name}, "
                    f"got {getattr(self, option)}"
                )

    def attach(
        self,
        named: Iterable[tuple[str, Parameter]],
        old: Slab | None = None,
        start: int | Mapping[str, int] = 0,
    ) -> Slab:
        """Lay out a model's parameters that are trained; what the slab `old` knows of them is kept.

        start: steps done before those that `old` does not have came, for all or by name. Raises
        TypeError and ValueError if a sparse parameter is not for this optimizer.
        """
        named = list(named)
        groups = self._groups_of(named)
        members = self.members()
        for name, p in named:
            if p.sparse and p.requires_grad:
                members[groups[id(p)]].check_sparse(name)
        trained = [(name, p) for name, p in named if p.requires_grad]
        starts = [
            old.start(p) if old and old.has(p) else start if isinstance(start, int) else start[n]
            for n, p in trained
        ]
        states = {name: self.initial(name) for name in self.state_names()}
        slab = Slab([p for _, p in trained], states, starts, [groups[id(p)] for _, p in trained])
        if "ema" in states:
            slab.fill("ema")
        if old is not None:
            slab.take(old)
        return slab

    def _groups_of(self, named: Sequence[tuple[str, Parameter]]) -> dict[int, int]:
        """The group, 0 for none, of each parameter by its id."""
        found = {id(p): 0 for _, p in named}
        for i, group in enumerate(self.groups, 1):
            mine = [(name, p) for name, p in named if group.holds(name, p)]
            if not mine:
                raise ValueError(
                    f"groups[{i - 1}]: expected parameters of the model, {group} is none of "
                    f"{', '.join(name for name, _ in named)}"
                )
            for name, p in mine:
                if found[id(p)]:
                    raise ValueError(
                        f"groups[{i - 1}]: {name} is in groups[{found[id(p)] - 1}] too"
                    )
                found[id(p)] = i
        return found

    # --- plans ---

    def arguments(self, b: Builder, segment: Segment) -> dict[str, Any]:
        """The kernel's own arguments, but for its states."""
        raise NotImplementedError

    def sparse_arguments(self, b: Builder, slab: Slab, segment: Segment) -> dict[str, Any]:
        """Those that are others for a sparse parameter."""
        return {}

    def lower(
        self, b: Builder, slab: Slab, grads: Memory, touched: Mapping[Parameter, tuple[Ref, Ref]]
    ) -> None:
        """Emit the kernel calls that update the slab from a block of gradients.

        touched: rows and their gradients for the sparse parameters that have any.
        """
        clip = self._clip(b, slab.whole_grad(b, grads))
        members = self.members()
        for segment in slab.segments:
            member = members[segment.group]
            if not segment.sparse:
                member._update(b, slab, segment, segment.ref(b, grads), clip)
            elif segment.parameters[0] in touched:
                rows, g = touched[segment.parameters[0]]
                member._update(b, slab, segment, g, None, rows)
            if self.ema_decay is not None:
                w, mean = (segment.ref(b, m) for m in (slab.values, slab.states["ema"]))
                n, start, decay = w.size, segment.start, self.ema_decay
                b.step("ema", w=w, hyper=b.hyper(), mean=mean, n=n, start=start, decay=decay)

    def _clip(self, b: Builder, g: Ref) -> Ref | None:
        """Limit the gradients; returns where the factor is that they are still to be multiplied by."""
        if self.clip_value is not None:
            b.step("clamp", g=g, n=g.size, bound=self.clip_value)
        if self.clip_norm is None:
            return None
        factor = b.temp((1,), np.float64)
        b.step("grad_norm", g=g, factor=factor, n=g.size, max_norm=self.clip_norm)
        return factor

    def _update(
        self,
        b: Builder,
        slab: Slab,
        segment: Segment,
        g: Ref,
        clip: Ref | None,
        rows: Ref | None = None,
    ) -> None:
        w = segment.ref(b, slab.values)
        own = self.arguments(b, segment)
        if rows is not None:
            own |= self.sparse_arguments(b, slab, segment)
        for field, name in self.states().items():
            own[field] = segment.ref(b, slab.states[name])
        b.step(
            self.kernel,
            g=g,
            hyper=b.hyper(),
            clip=clip,
            rows=rows,
            w=w,
            n=w.size,
            start=segment.start,
            lr_at=HYPER_SIZE + segment.group - 1 if segment.group else LR_AT,
            maximize=int(self.maximize),
            c=0 if rows is None else g.shape[1],
            weight_decay=self.weight_decay,
            **own,
        )

    def __repr__(self) -> str:
        numbers = ", ".join(f"{k}={v}" for k, v in self.config.items())
        return f"{type(self).__name__}({numbers})"
