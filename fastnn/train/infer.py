"""What a trainer does with a model in inference mode: evaluate, predict, validate between epochs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.graph import Array
from fastnn.nn.run import model_dtype, plans_of
from fastnn.train.plans import PredictPlan
from fastnn.train.rows import Rows
from fastnn.train.source import batch_rows
from fastnn.train.tally import Pass

if TYPE_CHECKING:
    from fastnn.train.trainer import Trainer

VALIDATION_BATCH = 256


def evaluate(trainer: Trainer, blocks: Iterable[Rows], batch_size: int) -> dict[str, Any]:
    """{"loss": mean loss, each metric} over all rows of the blocks."""
    done = Pass(trainer._tally)
    with trainer.averaged_weights():
        for rows in blocks:
            for start, size, iterations in _batches(len(rows), batch_size):
                plan = trainer._plan("evaluate", size, rows.specs, False, size)
                part = rows[start : start + size * iterations].arrays
                done.run(plan, iterations, part, lambda part=part: part["y"])  # type: ignore[misc]
    return done.result()


def predict(trainer: Trainer, rows: Rows, batch_size: int) -> Array:
    """The output for each row."""
    out: Array | None = None
    plans = plans_of(trainer.model)
    with trainer.averaged_weights():
        for start, size, iterations in _batches(len(rows), batch_size):
            make = partial(PredictPlan, trainer.model, rows.specs, size)
            plan: PredictPlan = plans.get(("predict", size, rows.specs), make)
            if out is None:
                out = np.empty((len(rows), *plan.shape), plan.dtype)
            part = slice(start, start + size * iterations)
            plan.plan.execute((*rows[part], out[part]), iterations, plan.strides)
    assert out is not None
    return out


def validation(trainer: Trainer, held: Rows | None, given: Any) -> Callable[[], dict[str, Any]]:
    """What evaluates the rows held back, or the validation_data given, after an epoch."""
    if held is not None and given is not None:
        raise ValueError("validation_split: expected none beside validation_data")
    if held is None and not isinstance(given, (tuple, Mapping)):
        if not isinstance(given, Iterable):
            raise ValueError(f"validation_data: expected (x, y), got {type(given).__name__}")
        return partial(trainer.evaluate, given)
    dtype = model_dtype(trainer.model)
    rows = held or batch_rows(given, dtype, "validation_data", "validation ")
    return partial(evaluate, trainer, [rows], VALIDATION_BATCH)


def _batches(rows: int, batch: int) -> Iterator[tuple[int, int, int]]:
    """(first row, batch size, number of batches): the full ones, then the rest."""
    full = rows // batch
    if full:
        yield 0, batch, full
    if rows % batch:
        yield full * batch, rows % batch, 1
