"""StopOnNaN: ends a fit at the first number that is not finite, and says where it came from.

Training is the same bits every time, so nothing has to be watched step by step: where the loss of a tick
is not finite, its steps are run again from a copy of what was before them.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.graph import Array, Value, input_value
from fastnn.nn.module import Module
from fastnn.nn.run import Traced, model_dtype, plans_of
from fastnn.plan.plan import Plan
from fastnn.train.callbacks import Callback
from fastnn.train.grad import call_model
from fastnn.train.plans import Mode
from fastnn.train.snapshot import Snapshot

if TYPE_CHECKING:
    from fastnn.train.source import Chunk
    from fastnn.train.trainer import Trainer


class StopOnNaN(Callback):
    """Ends the fit when the loss or a parameter becomes NaN or infinite, naming the first bad layer.

    The model stays, or goes back to, as it was before that step. history.stopped, and a
    RuntimeWarning, name the step and what was not finite first: the input, a parameter, a layer's
    output in forward order, the loss, a gradient, or the update. The epoch's remains are not in the
    history. Costs a copy of the weights at each tick.
    """

    def on_tick_begin(self, trainer: Trainer) -> None:
        self._before = Snapshot(trainer)

    def on_tick(self, trainer: Trainer, values: Mapping[str, Any]) -> None:
        if np.isfinite(values["loss"]) and _bad_state(trainer.model) is None:
            return
        self._before.restore(trainer)
        fit = trainer.running
        assert fit is not None and fit.chunk is not None
        for part in fit.chunk.parts():
            self._before = Snapshot(trainer)
            fit.repeat(part)
            cause = self._cause(trainer, part)
            if cause:
                reason = f"step {trainer.steps + 1}: {cause}"
                warnings.warn(f"training stopped at {reason}", RuntimeWarning, stacklevel=2)
                trainer.stop(reason)
                return

    def _cause(self, trainer: Trainer, part: Chunk) -> str:
        """What a step that has just run made bad, the trainer being set back before it; or ""."""
        assert trainer.running is not None
        slab = trainer._make_slab()
        named = list(trainer.model.named_parameters())
        grads = [
            name
            for name, p in reversed(named)
            if p.requires_grad and not p.sparse and not np.all(np.isfinite(slab.grad(p).array))
        ]
        after = _bad_state(trainer.model)
        if after is None and np.isfinite(trainer.running.loss):
            return ""
        self._before.restore(trainer)
        batch = part.batch()
        before = _bad_state(trainer.model)
        if not all(np.all(np.isfinite(a)) for a in batch.values()):
            bad = next(name for name, a in batch.items() if not np.all(np.isfinite(a)))
            return f"{bad}: the batch is not finite"
        if before is not None:
            return f"{before} was not finite before the step"
        layer = first_bad_layer(trainer, batch)
        if layer:
            return f"layer {layer}: its output is not finite"
        if not np.isfinite(trainer.running.loss):
            return "the loss is not finite, while the model's output is"
        if grads:
            return f"the gradient of {grads[0]!r} is not finite"
        return f"the update of {after} is not finite"


def _bad_state(model: Module) -> str | None:
    """The first parameter or buffer that holds NaN or an infinity."""
    for name, storage in (*model.named_parameters(), *model.named_buffers()):
        if not np.all(np.isfinite(storage.array)):
            return repr(name)
    return None


def first_bad_layer(trainer: Trainer, batch: Mapping[str, Array]) -> str:
    """'name' (Class) of the first layer whose output for the next step's batch is not finite, or ""."""
    model = trainer.model
    seen: list[tuple[str, Value]] = []
    leaves = {name: input_value(name, a.shape, a.dtype) for name, a in batch.items()}
    with Mode(model, True), _Recording(model, seen):
        dtype = model_dtype(model)
        traced = Traced(
            lambda *given: call_model(model, dict(zip(leaves, given, strict=True))),
            list(leaves.values()),
            dtype,
        )
    plan = Plan(dtype.itemsize * 8, plans_of(model).arena)
    for leaf in leaves.values():
        plan.input(leaf)
    for value in dict.fromkeys(v for _, v in seen):
        plan.output(value)
    plan.compute()
    plan.build()
    hyper = trainer._hyper.copy()
    hyper[0] = trainer.steps + 1
    outputs = dict(zip(plan.outputs, plan(*batch.values(), hyper=hyper), strict=True))
    del traced
    return next((name for name, v in seen if not np.all(np.isfinite(outputs[v]))), "")


class _Recording:
    """While inside, what each module's forward returns is appended to `seen`, inner ones first."""

    def __init__(self, model: Module, seen: list[tuple[str, Value]]) -> None:
        self.model, self.seen = model, seen

    def __enter__(self) -> None:
        self.before = [(m, vars(m).get("forward")) for m in self.model.modules()]
        for name, module in self.model.named_modules():
            label = f"{name!r} ({type(module).__name__})" if name else type(module).__name__
            object.__setattr__(module, "forward", self._recorded(label, module.forward))

    def _recorded(self, label: str, forward: Any) -> Any:
        def recorded(*args: Any, **kwargs: Any) -> Any:
            result = forward(*args, **kwargs)
            self.seen.extend((label, v) for v in _values(result))
            return result

        recorded.__signature__ = inspect.signature(forward)  # type: ignore[attr-defined]
        return recorded

    def __exit__(self, *error: object) -> None:
        for module, forward in self.before:
            if forward is None:
                object.__delattr__(module, "forward")
            else:
                object.__setattr__(module, "forward", forward)


def _values(result: Any) -> Iterable[Value]:
    if isinstance(result, Value):
        yield result
    elif isinstance(result, (tuple, list)):
        for item in result:
            yield from _values(item)
