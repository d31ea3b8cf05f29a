"""What tests of several folders need."""

import signal
from collections.abc import Iterator

import pytest


@pytest.fixture
def heard_sigint() -> Iterator[None]:
    """Python's own handler of SIGINT, also for processes that the test starts.

    A process that a shell put into the background was started with SIGINT ignored.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
