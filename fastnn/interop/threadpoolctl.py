"""fastnn's threads under threadpoolctl's control, once this module is imported.

import fastnn.interop.threadpoolctl
with threadpoolctl.threadpool_limits(1): ...  # fastnn keeps to one thread too
"""

from __future__ import annotations

from threadpoolctl import LibController, register

import fastnn


class FastnnController(LibController):  # type: ignore[misc]
    """How threadpoolctl finds fastnn's compiled core and reads and sets its number of threads."""

    user_api = "fastnn"
    internal_api = "fastnn"
    filename_prefixes = ("_core",)
    check_symbols = ("fnn_get_threads", "fnn_set_threads")

    def get_num_threads(self) -> int:
        """The number of threads that kernels use."""
        return fastnn.get_num_threads()

    def set_num_threads(self, num_threads: int) -> None:
        """Use so many threads from now on."""
        fastnn.set_num_threads(num_threads)

    def get_version(self) -> str:
        """fastnn's version."""
        return fastnn.__version__


register(FastnnController)
