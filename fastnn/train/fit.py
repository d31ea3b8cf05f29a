"""One call of Trainer.fit: epochs over a source of batches, a few of them in each call of the core."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.graph import Array
from fastnn.plan.builder import HYPER_SIZE
from fastnn.train.history import History
from fastnn.train.interrupt import Interrupt
from fastnn.train.plans import BatchPlan
from fastnn.train.progress import Progress
from fastnn.train.rates import Rates
from fastnn.train.rows import Rows
from fastnn.train.tally import Pass

if TYPE_CHECKING:
    from fastnn.train.trainer import Trainer

TICK_SECONDS = 0.1  # between two looks at the clock, the bar and Ctrl-C


class Chunk:
    """Some batches of one size that one call of the core trains on."""

    def __init__(
        self,
        plan: BatchPlan,
        iterations: int,
        arrays: dict[str, Array],
        targets: Callable[[], Array],
    ) -> None:
        self.plan, self.iterations, self.arrays, self.targets = plan, iterations, arrays, targets
        self.seconds = 0.0  # that it took, once it has run


class ArraySource:
    """Batches of arrays in memory, gathered by index in the plan."""

    def __init__(self, trainer: Trainer, rows: Rows, batch_size: int, shuffle: bool) -> None:
        self.trainer, self.rows, self.shuffle = trainer, rows, shuffle
        self.order = np.arange(len(rows))
        self.batch = min(batch_size, len(rows))
        self.samples = len(rows)
        self.steps = -(-self.samples // self.batch)

    def chunks(self) -> Generator[Chunk, None, None]:
        """An epoch's chunks: as many batches at once as run within a tick."""
        order = self.order.copy()
        if self.shuffle:
            key = np.array([self.trainer.seed, self.trainer.epochs], np.uint64)
            np.random.Generator(np.random.Philox(key=key)).shuffle(order)
        done, ticks = 0, 1
        while done < len(order):
            left = (len(order) - done) // self.batch
            size = self.batch if left else len(order) - done
            chunk = self._chunk(order[done:], size, max(1, min(left, ticks)))
            yield chunk
            seconds = max(chunk.seconds / chunk.iterations, 1e-9)
            ticks = max(1, min(int(TICK_SECONDS / seconds), 16 * chunk.iterations))
            done += chunk.iterations * size

    def _chunk(self, order: Array, size: int, iterations: int) -> Chunk:
        plan = self.trainer._plan("fit", size, self.rows.specs, True, len(self.rows))
        index = order[: iterations * size]
        arrays = {**self.rows.arrays, "index": index}
        return Chunk(plan, iterations, arrays, lambda: self.rows.arrays["y"][index])


class Fit:
    """Trains `trainer` for some epochs; run() returns the history."""

    def __init__(
        self,
        trainer: Trainer,
        source: ArraySource,
        epochs: int,
        rates: Rates,
        progress: bool,
        validate: Callable[[], dict[str, Any]] | None,
    ) -> None:
        self.trainer, self.source, self.epochs, self.rates = trainer, source, epochs, rates
        self.validate = validate
        self.shown = Progress(trainer.epochs + epochs, source.samples, progress)
        self.interrupt = Interrupt()

    def run(self) -> History:
        """Train; Ctrl-C ends it between two chunks."""
        history = History()
        with self.interrupt:
            try:
                while len(history.seconds) < self.epochs and not self.interrupt.raised:
                    self._epoch(history)
            finally:
                self.shown.close()
        history.interrupted = self.interrupt.raised
        return history

    def _epoch(self, history: History) -> None:
        self.shown.start(self.trainer.epochs)
        start = time.perf_counter()
        values = self._train()
        seconds = time.perf_counter() - start
        if self.interrupt.raised:
            return
        if self.validate is not None:
            values.update({f"val_{k}": v for k, v in self.validate().items()})
        history.append(values, seconds)
        self.shown.finish(self.trainer.epochs, values, seconds)
        self.trainer.epochs += 1

    def _train(self) -> dict[str, Any]:
        done = Pass(self.trainer._tally)
        with closing(self.source.chunks()) as chunks:
            for chunk in chunks:
                before, start = done.rows, time.perf_counter()
                self._run(chunk, done)
                chunk.seconds = time.perf_counter() - start
                self.shown.advance(done.rows - before, done.loss)
                if self.interrupt.raised:
                    break
        return done.result()

    def _run(self, chunk: Chunk, done: Pass) -> None:
        trainer, iterations = self.trainer, chunk.iterations
        hyper = np.empty((iterations, HYPER_SIZE))
        hyper[:] = trainer._hyper
        hyper[:, 0] = np.arange(trainer.steps + 1, trainer.steps + 1 + iterations)
        hyper[:, 2] = self.rates(hyper[:, 0])
        done.run(chunk.plan, iterations, {**chunk.arrays, "hyper": hyper}, chunk.targets)
        trainer.steps += iterations
        chunk.plan.traced.count(iterations)
