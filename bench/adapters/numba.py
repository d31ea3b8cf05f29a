"""Numba's side: single kernels, compiled at the first call."""

from __future__ import annotations

import numba

from ..baselines import kind, numba_kernels

VERSION = f"{numba.__version__} ({numba.get_num_threads()} threads)"
KINDS = {"kernel": kind(numba_kernels.OPS)}
