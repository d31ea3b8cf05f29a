"""Prints the table of kernels/tanh.h. Run with mpmath and NumPy installed.

Piece i of tanh is a polynomial in u = a - i * WIDTH, lowest power first, that Lawson's weighted least
squares bring near the one of least error in ULP. Each coefficient is rounded before the next
ones are fitted. The last piece is tilted so that it ends at 1.
"""

import numpy as np
from mpmath import mp, mpf, tanh

mp.dps = 30
PIECES, TERMS = 32, 6
# Where tanh at the first few centres is a float or almost, so that rounding them costs nothing.
WIDTH = 4538 / 2**14


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


def piece(i):
    nodes = np.cos(np.pi * (np.arange(121) + 0.5) / 121)
    u = nodes * WIDTH / 2 if i else (nodes + 1) * WIDTH / 4
    tilt = 1 - mpf(2) ** -27 - tanh(mpf(WIDTH) * (PIECES - 0.5)) if i == PIECES - 1 else 0

    def f(a):
        return tanh(i * mpf(WIDTH) + a) + tilt * (a / WIDTH + 0.5)

    exact = [f(mpf(float(a))) for a in u]
    weight = 1 / ulp(np.array([float(y) for y in exact]))
    row = [np.float32(float(f(mpf(0))))] + ([np.float32(1)] if i == 0 else [])
    error = 0.0
    for k in range(len(row), TERMS):
        done = [sum(mpf(float(c)) * mpf(float(a)) ** j for j, c in enumerate(row)) for a in u]
        rest = np.array([float(y - d) for y, d in zip(exact, done, strict=True)])
        error, c = fit(u, rest, weight, np.arange(k, TERMS))
        row.append(np.float32(c[0]))
    return row, error


rows, errors = zip(*(piece(i) for i in range(PIECES)), strict=True)
print(f"width {WIDTH}, largest error {max(errors):.2f} ULP before rounding")
for term in zip(*rows, strict=True):
    print("{" + ", ".join(f"{float(c):.9g}{'' if c % 1 else '.0'}f" for c in term) + "},")
