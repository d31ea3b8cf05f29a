"""Single kernels: float32 arrays in memory, against NumPy, Numba and PyTorch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from ..case import Case, Side, output_difference

NUMPY, NUMBA, TORCH = Side("numpy"), Side("numba"), Side("torch")
EPS = float(np.finfo(np.float32).eps)
PRODUCTS = (
    (8, 8, 8),
    (32, 32, 32),
    (64, 64, 64),
    (128, 128, 784),
    (256, 256, 256),
    (1024, 1024, 1024),
)
CONVOLUTIONS = ((128, 1, 28, 32), (128, 32, 14, 64), (128, 32, 32, 32), (128, 64, 16, 64))
POOLED = (128, 32, 28, 28)
LOGITS = ((128, 10), (4096, 1000))
COLUMNS = (32, 32, 28, 28)
ELEMENTS, PARAMETERS = 1 << 20, 421_642


def _case(
    name: str,
    op: str,
    shapes: Mapping[str, tuple[int, ...]],
    terms: int = 1,
    flops: float = 0.0,
    extra: Callable[[np.random.Generator], dict[str, np.ndarray]] | None = None,
    peers: tuple[Side, ...] = (NUMPY, TORCH, NUMBA),
    tolerance: float = 0.0,
) -> Case:
    """Normal arrays of these shapes. terms: of the longest sum, whose rounding walks at random."""

    def arrays() -> dict[str, np.ndarray]:
        rng = np.random.default_rng(0)
        made = {k: rng.standard_normal(s, dtype=np.float32) for k, s in shapes.items()}
        return made | (extra(rng) if extra else {})

    return Case(
        theme="kernels",
        name=name,
        kind="kernel",
        spec={"op": op, "lr": 1e-3},
        arrays=arrays,
        peers=peers,
        difference=output_difference,
        tolerance=tolerance or 8 * EPS * math.sqrt(terms),
        flops=flops,
        unit="call",
    )


def _convolutions() -> Iterator[Case]:
    for n, c, size, k in CONVOLUTIONS:
        shapes = {"x": (n, c, size, size), "w": (k, c, 3, 3), "dy": (n, k, size, size)}
        flops = 2.0 * 9 * n * size * size * c * k
        terms = {"conv_fwd": 9 * c, "conv_bwd_data": 9 * k, "conv_bwd_weight": n * size * size}
        for op, count in terms.items():
            yield _case(f"{op} {n}x{c}x{size}x{size} to {k}", op, shapes, count, flops)


def _distinct(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Images without equal pixels: which of two maxima takes the gradient is a library's choice."""
    x = rng.permutation(math.prod(POOLED)).astype(np.float32)
    return {"x": x.reshape(POOLED) - x.size / 2}


def cases(full: bool) -> Iterator[Case]:
    """All of this theme."""
    for m, n, k in PRODUCTS:
        shapes: dict[str, tuple[int, ...]] = {"a": (m, k), "b": (k, n)}
        name, flops = f"matmul {m}x{k} {k}x{n}", 2.0 * m * n * k
        yield _case(name, "matmul", shapes, k, flops, peers=(NUMPY, TORCH))
    yield from _convolutions()
    n, c, h, w = POOLED
    for op in ("max_pool_fwd", "max_pool_bwd", "avg_pool_fwd", "avg_pool_bwd"):
        shapes = {"x": POOLED, "dy": (n, c, h // 2, w // 2)}
        yield _case(f"{op} {n}x{c}x{h}x{w}", op, shapes, extra=_distinct)
    yield _case("im2col 3x3 {}x{}x{}x{}".format(*COLUMNS), "im2col", {"x": COLUMNS})
    for rows, classes in LOGITS:

        def labels(
            rng: np.random.Generator, n: int = rows, c: int = classes
        ) -> dict[str, np.ndarray]:
            return {"labels": rng.integers(0, c, n)}

        shapes = {"x": (rows, classes)}
        yield _case(f"cross_entropy {rows}x{classes}", "xent", shapes, classes, extra=labels)
    for op in ("relu", "tanh", "sigmoid", "exp"):
        yield _case(f"{op} {ELEMENTS:,}", op, {"x": (ELEMENTS,)})
    # Each library draws in its own way: compared are the factor and the share of what is kept.
    yield _case(f"dropout {ELEMENTS:,}", "dropout", {"x": (ELEMENTS,)}, tolerance=0.01)
    yield _case(f"adam {PARAMETERS:,}", "adam", {"g": (PARAMETERS,), "w": (PARAMETERS,)})
