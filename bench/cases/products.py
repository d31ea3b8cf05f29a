"""Products of few rows or columns, short sums and transposed operands, against NumPy."""

from __future__ import annotations

from collections.abc import Iterator

from ..case import Case
from .kernels import NUMPY, kernel_case

SHAPES = (  # m, n, k: the layers of small networks, single samples, unrolled first convolutions
    *((1, 128, 784), (1, 512, 512), (2, 512, 512), (4, 512, 512), (4, 256, 1024), (8, 128, 784)),
    *((16, 512, 512), (32, 128, 784), (32, 512, 512), (512, 1, 512), (784, 2, 512), (512, 10, 128)),
    *((784, 32, 9), (784, 16, 27), (3136, 32, 27), (32, 27, 3136)),
)
TRANSPOSED = {"": (False, False), " a.T": (True, False), " b.T": (False, True)}


def cases(full: bool) -> Iterator[Case]:
    """All of this theme."""
    for m, n, k in SHAPES:
        for mark, (a, b) in TRANSPOSED.items():
            shapes: dict[str, tuple[int, ...]] = {
                "a": (k, m) if a else (m, k),
                "b": (n, k) if b else (k, n),
            }
            yield kernel_case(
                f"matmul {m}x{k} {k}x{n}{mark}",
                "matmul",
                shapes,
                k,
                2.0 * m * n * k,
                peers=(NUMPY,),
                theme="products",
                options={"transpose_a": a, "transpose_b": b},
            )
