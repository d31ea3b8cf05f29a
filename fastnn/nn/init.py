"""Where parameters start: PyTorch's default distributions from one seeded generator.

The generator starts from seed 0 in every process, so a script gives the same model at every run;
manual_seed starts it anew.
"""

from __future__ import annotations

import math

import numpy as np

from fastnn.graph import Array
from fastnn.plan import eager

_generator: np.random.Generator | None = None


def manual_seed(seed: int) -> None:
    """Seed the generator of initial parameters and of ops.dropout on arrays; 0 <= seed < 2**53."""
    global _generator
    if not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**53:
        raise ValueError(f"seed: expected an integer from 0 to 2**53 - 1, got {seed!r}")
    _generator = np.random.Generator(np.random.Philox(int(seed)))
    eager.seed(int(seed))


def uniform(shape: tuple[int, ...], bound: float) -> Array:
    """float32 numbers uniform in [-bound, bound)."""
    return _seeded().uniform(-bound, bound, shape).astype(np.float32)


def normal(shape: tuple[int, ...]) -> Array:
    """float32 numbers of the standard normal distribution."""
    return _seeded().standard_normal(shape).astype(np.float32)


def _seeded() -> np.random.Generator:
    if _generator is None:
        manual_seed(0)
    assert _generator is not None
    return _generator


def fan_in_uniform(shape: tuple[int, ...], fan_in: int) -> Array:
    """U(-1/sqrt(fan_in), 1/sqrt(fan_in)): what Linear and Conv2d start from.

    It is Kaiming's uniform initialisation with a = sqrt(5) (He et al., 2015).
    """
    return uniform(shape, 1 / math.sqrt(fan_in) if fan_in else 0.0)
