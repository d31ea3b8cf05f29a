"""Where a fit's batches come from: arrays in memory, mapped files, or anything that yields batches."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sized
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.data.split import train_test_split
from fastnn.graph import Array
from fastnn.nn.run import model_dtype
from fastnn.train.plans import BatchPlan
from fastnn.train.prefetch import Prefetch
from fastnn.train.rows import Rows, class_weights, is_mapped

if TYPE_CHECKING:
    from fastnn.train.trainer import Trainer

TICK_SECONDS = 0.1  # between two looks at the clock, the bar and Ctrl-C
BLOCK_BYTES = 1 << 22  # of mapped arrays that are read at once


class Chunk:
    """Some batches of one size that one call of the core trains on."""

    def __init__(self, plan: BatchPlan, iterations: int, arrays: Mapping[str, Array]) -> None:
        self.plan, self.iterations, self.arrays = plan, iterations, dict(arrays)
        self.seconds = 0.0  # that it took, once it has run

    def parts(self) -> Iterator[Chunk]:
        """Its batches one by one."""
        for i in range(self.iterations):
            rows = slice(i * self.plan.size, (i + 1) * self.plan.size)
            cut = ["index"] if "index" in self.arrays else list(self.arrays)
            moved = {name: self.arrays[name][rows] for name in cut}
            yield Chunk(self.plan, 1, {**self.arrays, **moved})

    def rows(self, name: str) -> Array:
        """The rows of x, y, ... that it trains on, in order."""
        array = self.arrays[name]
        return array[self.arrays["index"]] if "index" in self.arrays else array

    def batch(self) -> dict[str, Array]:
        """All of them by name."""
        return {name: self.rows(name) for name in self.arrays if name != "index"}


class Source:
    """Base: `samples` and `steps` of an epoch, None where unknown, and its chunks."""

    samples: int | None
    steps: int | None

    def chunks(self) -> Generator[Chunk, None, None]:
        """An epoch's chunks; each has run, and knows its seconds, before the next one is asked for."""
        raise NotImplementedError


class ArraySource(Source):
    """Batches of arrays in memory, gathered by index in the plan. picked: the rows to train on."""

    def __init__(
        self,
        trainer: Trainer,
        rows: Rows,
        batch_size: int,
        shuffle: bool,
        picked: Array | None = None,
    ) -> None:
        self.trainer, self.rows, self.shuffle = trainer, rows, shuffle
        self.picked = np.arange(len(rows)) if picked is None else picked
        self.samples = len(self.picked)
        self.batch = min(batch_size, self.samples)
        self.steps = -(-self.samples // self.batch)

    def order(self) -> Array:
        """The rows of this epoch, in order: it depends on the seed and the epochs done."""
        order: Array = self.picked.copy()
        if self.shuffle:
            key = np.array([self.trainer.seed, self.trainer.epochs], np.uint64)
            np.random.Generator(np.random.Philox(key=key)).shuffle(order)
        return order

    def chunks(self) -> Generator[Chunk, None, None]:
        order, done, ticks = self.order(), 0, 1
        while done < len(order):
            left = (len(order) - done) // self.batch
            size = self.batch if left else len(order) - done
            iterations = max(1, min(left, ticks))
            plan = self.trainer._plan("fit", size, self.rows.specs, True, len(self.rows))
            index = order[done : done + iterations * size]
            chunk = Chunk(plan, iterations, {**self.rows.arrays, "index": index})
            yield chunk
            seconds = max(chunk.seconds / iterations, 1e-9)
            ticks = max(1, min(int(TICK_SECONDS / seconds), 16 * iterations))
            done += iterations * size


class StreamSource(Source):
    """Blocks of rows that a thread reads ahead; each is one batch, or several of `batch` rows."""

    def __init__(self, trainer: Trainer, steps: int | None = None) -> None:
        self.trainer, self.samples, self.steps = trainer, None, steps

    def blocks(self) -> Iterator[tuple[Rows, int]]:
        """An epoch's rows and the size of their batches; runs in the thread."""
        raise NotImplementedError

    def chunks(self) -> Generator[Chunk, None, None]:
        with closing(Prefetch(self.blocks())) as blocks:
            for rows, size in blocks:
                plan = self.trainer._plan("stream", size, rows.specs, True, size)
                yield Chunk(plan, len(rows) // size, rows.arrays)


class MappedSource(ArraySource, StreamSource):
    """Arrays larger than memory: the same batches as ArraySource, gathered by a thread."""

    chunks = StreamSource.chunks

    def blocks(self) -> Iterator[tuple[Rows, int]]:
        order, batch = self.order(), self.batch
        row_bytes = sum(a[:1].nbytes for a in self.rows.arrays.values())
        block = batch * max(1, BLOCK_BYTES // max(1, row_bytes * batch))
        full = len(order) // batch * batch
        for start in range(0, full, block):
            yield self._read(order[start : min(start + block, full)]), batch
        if full < len(order):
            yield self._read(order[full:]), len(order) - full

    def _read(self, index: Array) -> Rows:
        return self.rows[index].checked(model_dtype(self.trainer.model))


class BatchSource(StreamSource):
    """Whatever yields batches: (x, y), or mappings with x, y, lengths, sample_weight."""

    def __init__(self, trainer: Trainer, batches: Iterable[Any], class_weight: Any = None) -> None:
        if not isinstance(batches, Iterable) or isinstance(batches, np.ndarray):
            shown = type(batches).__name__
            raise TypeError(f"x: without y, expected something that yields batches, got {shown}")
        steps = len(batches) if isinstance(batches, Sized) else None
        super().__init__(trainer, steps)
        self.batches, self.class_weight = batches, class_weight
        self.dtype = model_dtype(trainer.model)

    def blocks(self) -> Iterator[tuple[Rows, int]]:
        set_epoch: Callable[[int], None] | None = getattr(self.batches, "set_epoch", None)
        if set_epoch is not None:
            set_epoch(self.trainer.epochs)
        empty = True
        for i, batch in enumerate(self.batches):
            rows = batch_rows(batch, self.dtype, f"batch {i}", f"batch {i}: ")
            if self.class_weight is not None:
                weights = class_weights(self.class_weight, rows.arrays["y"])
                rows = rows.weighted(weights, self.dtype)
            empty = False
            yield rows, len(rows)
        if empty:
            raise ValueError(
                "x: expected batches in every epoch, got none: an iterator can be used only once, "
                "give something that can be iterated over again"
            )


def batch_rows(given: Any, dtype: Any, name: str, prefix: str) -> Rows:
    """Rows from (x, y) or a mapping with x, y and, where there are any, lengths and sample_weight.

    Errors call it `name`, and its parts by their names after `prefix`.
    """
    if isinstance(given, (tuple, list)) and len(given) == 2:
        given = {"x": given[0], "y": given[1]}
    known = {"x", "y", "lengths", "sample_weight"}
    if not isinstance(given, Mapping) or not {"x", "y"} <= given.keys() <= known:
        shown = list(given) if isinstance(given, Mapping) else type(given).__name__
        raise ValueError(
            f"{name}: expected (x, y), or a mapping with x, y and, where there are any, lengths "
            f"and sample_weight, got {shown}"
        )
    return Rows.check(**given, dtype=dtype, prefix=prefix)


def make_source(
    trainer: Trainer,
    x: Any,
    y: Any,
    batch_size: int,
    shuffle: bool,
    class_weight: Any,
    validation_split: float,
    **extra: Any,
) -> tuple[Source, Rows | None]:
    """What fit trains on, and the rows that are kept for validation; extra: lengths, sample_weight."""
    dtype = model_dtype(trainer.model)
    if y is None:
        none_beside_batches(**extra, validation_split=validation_split or None)
        return BatchSource(trainer, x, class_weight), None
    rows = Rows.check(x, y, **extra, dtype=dtype, whole=False)
    train = held = None
    if validation_split:
        train, held = _split(trainer.seed, rows.arrays["y"], validation_split)
    validation = None if held is None else rows[held].checked(dtype)
    if class_weight is not None:
        rows = rows.weighted(class_weights(class_weight, rows.arrays["y"]), dtype)
    kind = MappedSource if any(is_mapped(a) for a in rows) else ArraySource
    return kind(trainer, rows, batch_size, shuffle, train), validation


def none_beside_batches(**given: Any) -> None:
    """ValueError for what only comes with x and y."""
    for name, value in given.items():
        if value is not None:
            raise ValueError(f"{name}: expected none without y: batches bring their own")


def _split(seed: int, y: Array, share: float) -> tuple[Array, Array]:
    """The rows to train on and to validate with, each in order, stratified by integer labels."""
    if isinstance(share, bool) or not isinstance(share, (float, np.floating)) or not 0 < share < 1:
        raise ValueError(f"validation_split: expected a share in (0, 1), got {share!r}")
    if len(y) < 2:
        raise ValueError(f"validation_split: expected at least 2 rows, got {len(y)}")
    labels = y.ndim == 1 and y.dtype.kind in "iu"
    rows = np.arange(len(y))
    try:
        (train, _), (held, _) = train_test_split(rows, y, float(share), seed, stratify=labels)
    except ValueError:  # too few rows of some label
        (train, _), (held, _) = train_test_split(rows, y, float(share), seed, stratify=False)
    return np.sort(train), np.sort(held)
