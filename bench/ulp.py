"""The largest error of exp, log, tanh, sigmoid and erf over all float32: python -m bench.ulp

Prints, for each function, the largest distance from the exact value in units of the last place (ULP)
and where it lies. The reference is NumPy in float64 (erf: a table of Taylor polynomials around its
nodes, good to 1e-15). Takes some minutes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from math import erf, sqrt
from typing import Any

import numpy as np

from fastnn import _core

CHUNK = 1 << 22
STEP = 2.0**-8  # between the nodes of erf's table


def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)), relative accuracy kept below 0."""
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


NODES = np.arange(0, 7, STEP)
SLOPES = 2 / sqrt(np.pi) * np.exp(-NODES * NODES)
VALUES = np.array([erf(a) for a in NODES])


def exact_erf(x: Any) -> Any:
    """Taylor's polynomial of degree 5 around the nearest node below 6; 2 x / sqrt(pi) near 0."""
    size = np.minimum(np.abs(x), 6)  # NaN stays NaN
    i = np.rint(np.fmin(size, 6) / STEP).astype(np.int64)
    a, h = NODES[i], size - NODES[i]
    # The derivatives of exp(-a^2): times -2a, 4a^2 - 2, -8a^3 + 12a, 16a^4 - 48a^2 + 12.
    terms = (1.0, -a, (4 * a * a - 2) / 6, (12 - 8 * a * a) * a / 24,
             (16 * a**4 - 48 * a * a + 12) / 120)  # fmt: skip
    total = np.zeros_like(h)
    for term in reversed(terms):
        total = (total + term) * h
    return np.copysign(VALUES[i] + SLOPES[i] * total, x)


EXACT: dict[str, Callable[[Any], Any]] = {
    "exp": np.exp,
    "log": np.log,
    "tanh": np.tanh,
    "sigmoid": sigmoid,
    "erf": exact_erf,
}


def ulps(got: Any, want: Any) -> Any:
    """|got - want| in float32's units at want; 0 where both are NaN or the same infinity."""
    exponent = np.maximum(np.frexp(want)[1] - 1, -126)
    error = np.abs(got - want) / np.ldexp(1.0, exponent - 23)
    over = np.abs(want) > float(
        np.finfo(np.float32).max
    )  # rounds to the largest number or infinity
    same = (np.isnan(got) & np.isnan(want)) | (got == want.astype(np.float32)) & over
    return np.where(same | (over & np.isinf(got)), 0, np.where(np.isnan(error), np.inf, error))


def floats() -> Iterator[Any]:
    """All of them, in chunks."""
    for start in range(0, 1 << 32, CHUNK):
        yield np.arange(start, start + CHUNK, dtype=np.uint32).view(np.float32)


def main(names: list[str]) -> None:
    """Measure the named functions, all by default."""
    for name in names or EXACT:
        worst, where = 0.0, 0.0
        y = np.empty(CHUNK, np.float32)
        for x in floats():
            fields = {"n": x.size, "op": _core.UNARY[name], "alpha": 0.0, "beta": 0.0}
            _core.call("unary", 32, x=x, y=y, **fields)
            with np.errstate(all="ignore"):
                error = ulps(y, EXACT[name](x.astype(np.float64)))
            i = int(error.argmax())
            if error[i] > worst:
                worst, where = float(error[i]), float(x[i])
        print(f"{_core.isa()} {name}: {worst:.3f} ULP at {where!r}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
