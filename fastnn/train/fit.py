"""One call of Trainer.fit: epochs over a source of batches, a few of them in each call of the core."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.train.callbacks import Callback
from fastnn.train.history import History
from fastnn.train.interrupt import Interrupt
from fastnn.train.progress import Progress
from fastnn.train.rates import MicroBatches, Rates
from fastnn.train.source import TICK_SECONDS, Chunk, Source
from fastnn.train.tally import Pass

if TYPE_CHECKING:
    from fastnn.train.trainer import Trainer


class Fit:
    """Trains `trainer` for some epochs; run() returns the history."""

    def __init__(
        self,
        trainer: Trainer,
        source: Source,
        epochs: int,
        rates: Rates,
        micro: MicroBatches,
        progress: bool,
        validate: Callable[[], dict[str, Any]] | None,
        callbacks: Sequence[Callback],
    ) -> None:
        self.trainer, self.source, self.epochs, self.rates = trainer, source, epochs, rates
        self.micro, self.validate, self.callbacks = micro, validate, callbacks
        self.shown = Progress(trainer.epochs + epochs, source.samples, progress)
        self.interrupt = Interrupt()
        self.history = History()
        self.stopping = False
        self.chunk: Chunk | None = None  # the one that runs or ran last
        self._repeated: Chunk | None = None  # the one that `repeat` went back to
        self.loss = 0.0  # the epoch's mean so far

    def run(self) -> History:
        """Train; Ctrl-C and stop() end it between two calls of the core."""
        with self.interrupt:
            try:
                self._tell("on_fit_begin")
                while len(self.history.seconds) < self.epochs and not self.ending:
                    self._epoch()
                self.history.interrupted = self.interrupt.raised
                self._tell("on_fit_end", self.history)
            finally:
                self.shown.close()
        return self.history

    @property
    def ending(self) -> bool:
        """True once Ctrl-C or stop() has come."""
        return self.interrupt.raised or self.stopping

    def _tell(self, event: str, *values: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, event)(self.trainer, *values)

    def _epoch(self) -> None:
        self._tell("on_epoch_begin")
        self.shown.start(self.trainer.epochs)
        start = time.perf_counter()
        values, samples = self._train()
        seconds = time.perf_counter() - start
        if self.ending:
            return
        if self.validate is not None:
            values.update({f"val_{k}": v for k, v in self.validate().items()})
        self.rates.finish(values)
        self.history.append(values, seconds)
        self.shown.finish(self.trainer.epochs, samples, values, seconds)
        self.trainer.epochs += 1
        self._tell("on_epoch_end", values)

    def _train(self) -> tuple[dict[str, Any], int]:
        done = Pass(self.trainer._tally)
        self.micro.begin()
        shown, tick = 0, float("-inf")
        with closing(self.source.chunks()) as chunks:
            for self.chunk in chunks:
                self._tell("on_tick_begin")
                self.micro.mark()
                start = time.perf_counter()
                self._run(self.chunk, done)
                now = time.perf_counter()
                self.chunk.seconds, self.loss = now - start, done.loss
                if now - tick > TICK_SECONDS / 2:
                    self.shown.advance(done.rows - shown, self.loss)
                    shown, tick = done.rows, now
                self._tell("on_tick", {"loss": self.loss})
                if self.ending:
                    break
        return done.result(), done.rows

    def _run(self, chunk: Chunk, done: Pass) -> None:
        trainer, iterations = self.trainer, chunk.iterations
        hyper = np.tile(trainer._hyper, (iterations, 1))
        steps = self.micro.fill(hyper, chunk.plan.size, trainer.steps)
        self.rates.fill(hyper, steps, trainer.epochs)
        arrays = {**chunk.arrays, "hyper": hyper}
        done.run(chunk.plan, iterations, arrays, lambda: chunk.rows("y"))
        goes_on = hyper[-1, 0] != steps[-1]
        trainer.steps = int(steps[-1]) - int(goes_on)
        chunk.plan.traced.count(iterations)

    def repeat(self, chunk: Chunk) -> None:
        """Run a part of the last chunk again, outside of the epoch's sums; `loss` is then its own."""
        if self._repeated is not self.chunk:
            self.micro.rewind()
            self._repeated = self.chunk
        done = Pass(self.trainer._tally)
        self._run(chunk, done)
        self.loss = done.loss
