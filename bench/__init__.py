"""Benchmarks of fastnn against NumPy, Numba and the frameworks: python -m bench --help."""
