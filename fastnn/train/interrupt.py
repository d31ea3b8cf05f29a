"""Ctrl-C that waits for a step boundary."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class Interrupt:
    """While inside, SIGINT only sets `.raised`; a second one interrupts at once, as usual.

    Does nothing outside the main thread, where somebody else's handler is not Python's, or where
    SIGINT is ignored, as under nohup and in a shell's background.
    """

    def __init__(self) -> None:
        self.raised = False
        self._before: Any = None

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            before = signal.getsignal(signal.SIGINT)
            if before not in (None, signal.SIG_IGN):
                self._before = before
                signal.signal(signal.SIGINT, self._handle)
        return self

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.raised:
            raise KeyboardInterrupt
        self.raised = True

    def __exit__(self, *error: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
