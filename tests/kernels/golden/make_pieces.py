"""Prints the tables of kernels/tanh.h, log.h, erf.h and gelu.h. Run with mpmath and NumPy installed.

Piece i of a function is a polynomial in u = a - i * width, lowest power first, that Lawson's weighted
least squares bring near the one of least error in ULP. Each coefficient is rounded before the next
ones are fitted. `first` are the first piece's leading coefficients. Beyond its pieces a function is
`end`, which the last one reaches where that is not 0, and is where it is.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from mpmath import erf, erfc, exp, log1p, mp, mpf, pi, sqrt, tanh

mp.dps = 30
PIECES = 32


@dataclass
class Function:
    exact: Callable[[mpf], mpf]
    width: float
    terms: int
    first: tuple[float, ...]
    end: int
    least: float = 0.0  # errors are counted in ULP of no less
    beside: float = 0.0  # so many times u is added to the polynomial
    low: int = 0  # the first piece's number, not 0; those below 0 stand 32 later


def tail(a):
    """Of the standard normal distribution."""
    return erfc(a / sqrt(2)) / 2


def density(a):
    return exp(-a * a / 2) / sqrt(2 * pi)


FUNCTIONS = {
    # A width for which tanh at the first few centres is a float or almost: rounding them costs nothing.
    "tanh": Function(tanh, 4538 / 2**14, 6, (0.0, 1.0), 1),
    "log": Function(log1p, 1 / 32, 5, (0.0, 1.0), 0, low=-8),  # of 1 + a
    "erf": Function(erf, 1 / 8, 5, (0.0,), 1, beside=1.0),
    "gelu_bend": Function(lambda a: a * tail(a), 1 / 4, 6, (0.0, 0.5), 0),
    "gelu_slope": Function(lambda a: tail(a) - a * density(a), 1 / 4, 6, (0.5,), 0, 1 / 64),
}


def ulp(y):
    return 2.0 ** (np.floor(np.log2(y)) - 23)


def fit(u, values, weight, powers):
    """The largest error and the coefficients of u^powers, by Lawson's algorithm."""
    size = np.abs(u).max()
    columns = (u[:, None] / size) ** powers
    share, best = np.ones_like(u), None
    for _ in range(300):
        root = np.sqrt(share) * weight
        c = np.linalg.lstsq(columns * root[:, None], values * root, rcond=None)[0]
        error = np.abs(columns @ c - values) * weight
        if best is None or error.max() < best[0]:
            best = error.max(), c / size**powers
        share *= error / error.max()
        share = share / share.max() + 1e-12
    return best


def piece(function, i):
    width, last = function.width, i == PIECES - 1
    if function.low:
        i, last = i - PIECES * (i > PIECES // 2), False
    if (last and function.end == 0) or i < function.low:
        return [np.float32(0)] * function.terms, 0.0
    nodes = np.cos(np.pi * (np.arange(121) + 0.5) / 121)
    u = nodes * width / 2 if i or function.low else (nodes + 1) * width / 4
    tilt = 1 - mpf(2) ** -27 - function.exact(mpf(width) * (PIECES - 0.5)) if last else 0

    def f(a):
        return function.exact(i * mpf(width) + a) + tilt * (a / width + 0.5)

    exact = [f(mpf(float(a))) for a in u]
    least = function.least if i * width < 1.5 else 0  # where there may be a zero
    weight = 1 / ulp(np.maximum(np.abs([float(y) for y in exact]), least))
    row = [np.float32(c) for c in function.first] if i == 0 else [np.float32(float(f(mpf(0))))]
    error = 0.0
    for k in range(len(row), function.terms):
        terms = [mpf(float(c)) + (j == 1) * function.beside for j, c in enumerate([*row, 0.0])]
        done = [sum(c * mpf(float(a)) ** j for j, c in enumerate(terms)) for a in u]
        rest = np.array([float(y - d) for y, d in zip(exact, done, strict=True)])
        error, c = fit(u, rest, weight, np.arange(k, function.terms))
        row.append(np.float32(c[0]))
    return row, error


for name in sys.argv[1:] or FUNCTIONS:
    function = FUNCTIONS[name]
    rows, errors = zip(*(piece(function, i) for i in range(PIECES)), strict=True)
    print(f"{name}: width {function.width}, largest error {max(errors):.2f} ULP before rounding")
    for term in zip(*rows, strict=True):
        print("{" + ", ".join(f"{float(c):.9g}{'' if c % 1 else '.0'}f" for c in term) + "},")
