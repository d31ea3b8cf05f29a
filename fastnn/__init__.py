"""Neural networks on CPUs: compiled kernels under a thin Python layer."""
