"""Prints the coefficients of v_erfcx in kernels/erf.h. Run with mpmath installed.

They are those of the polynomials through the Chebyshev nodes of the range, lowest power first.
"""

from mpmath import chebyfit, erfc, exp, mp, mpf

mp.dps = 45


def scaled(u):
    """erfcx(a) / q for q = 3 / (a + 3) = u + 2/3."""
    q = u + mpf(2) / 3
    a = 3 / q - 3
    return erfc(a) * exp(a * a) / q


for terms in (10, 20):
    coefficients, error = chebyfit(scaled, [-mpf(1) / 3, mpf(1) / 3], terms, error=True)
    print(f"{terms} terms, largest error {float(error):.1e}")
    for c in reversed(coefficients):
        print(float(c).hex() if terms == 20 else f"{float(c):.10g}")
