"""NumPy's side: single kernels."""

from __future__ import annotations

import numpy as np

from ..baselines import kind, numpy_kernels

VERSION = np.__version__
KINDS = {"kernel": kind(numpy_kernels.OPS)}
