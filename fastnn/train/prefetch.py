"""A thread that is a few items ahead: it reads while the core, which needs no GIL, computes."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Prefetch(Generic[T]):
    """Iterates over `items` in a thread, `ahead` of whoever iterates over this; errors come through.

    close() ends the thread, at the latest with the item that it is at.
    """

    def __init__(self, items: Iterable[T], ahead: int = 2) -> None:
        self._queue: queue.Queue[tuple[str, T | BaseException | None]] = queue.Queue(ahead)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(items,), daemon=True)
        self._thread.start()

    def _work(self, items: Iterable[T]) -> None:
        try:
            for item in items:
                if not self._put("item", item):
                    return
            self._put("end", None)
        except BaseException as error:
            self._put("error", error)

    def _put(self, kind: str, value: T | BaseException | None) -> bool:
        while not self._closed.is_set():
            try:
                self._queue.put((kind, value), timeout=0.1)
                return True
            except queue.Full:
                pass
        return False

    def __iter__(self) -> Iterator[T]:
        while True:
            kind, value = self._queue.get()
            if kind == "end":
                return
            if isinstance(value, BaseException) and kind == "error":
                raise value
            yield value  # type: ignore[misc]

    def close(self) -> None:
        """End the thread; it is not waited for if what it reads from keeps it."""
        self._closed.set()
        self._thread.join(timeout=1.0)
