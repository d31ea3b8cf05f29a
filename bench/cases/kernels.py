"""Single kernels: float32 arrays in memory, against NumPy, Numba and PyTorch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

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


def kernel_case(
    name: str,
    op: str,
    shapes: Mapping[str, tuple[int, ...]],
    terms: int = 1,
    flops: float = 0.0,
    extra: Callable[[np.random.Generator], dict[str, np.ndarray]] | None = None,
    peers: tuple[Side, ...] = (NUMPY, TORCH, NUMBA),
    tolerance: float = 0.0,
    theme: str = "kernels",
    options: Mapping[str, Any] | None = None,
) -> Case:
    """Normal arrays of these shapes. terms: of the longest sum, whose rounding walks at random;
    options: what the operation takes beside its arrays."""

    def arrays() -> dict[str, np.ndarray]:
        rng = np.random.default_rng(0)
        made = {k: rng.standard_normal(s, dtype=np.float32) for k, s in shapes.items()}
        return made | (extra(rng) if extra else {})

    return Case(
        theme=theme,
        name=name,
        kind="kernel",
        spec={"op": op, "lr": 1e-3, **(options or {})},
        arrays=arrays,
        peers=peers,
        difference=output_difference,
        tolerance=tolerance or 8 * EPS * math.sqrt(terms),
        flops=flops,
        unit="call",
    )


def conv_cases(
    sizes: tuple[int, int, int, int],
    kernel: int = 3,
    stride: int = 1,
    padding: int = 1,
    dilation: int = 1,
    groups: int = 1,
    kind: str = "",
    **given: Any,
) -> Iterator[Case]:
    """The three passes of a convolution of (N, C, size, size) to K channels, named after its kind."""
    n, c, size, k = sizes
    out = (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    taps = kernel * kernel
    shapes = {
        "x": (n, c, size, size),
        "w": (k, c // groups, kernel, kernel),
        "dy": (n, k, out, out),
    }
    terms = {
        "conv_fwd": taps * c // groups,
        "conv_bwd_data": taps * k // groups,
        "conv_bwd_weight": n * out * out,
    }
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    for op, count in terms.items():
        name = f"{op} {kind}{n}x{c}x{size}x{size} to {k}"
        flops = 2.0 * taps * n * out * out * c * k / groups
        yield kernel_case(name, op, shapes, count, flops, options=options, **given)


def _distinct(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Images without equal pixels: which of two maxima takes the gradient is a library's choice."""
    x = rng.permutation(math.prod(POOLED)).astype(np.float32)
    return {"x": x.reshape(POOLED) - x.size / 2}


def cases(full: bool) -> Iterator[Case]:
    """All of this theme."""
    for m, n, k in PRODUCTS:
        shapes: dict[str, tuple[int, ...]] = {"a": (m, k), "b": (k, n)}
        name, flops = f"matmul {m}x{k} {k}x{n}", 2.0 * m * n * k
        yield kernel_case(name, "matmul", shapes, k, flops, peers=(NUMPY, TORCH))
    for sizes in CONVOLUTIONS:
        yield from conv_cases(sizes)
    n, c, h, w = POOLED
    for op in ("max_pool_fwd", "max_pool_bwd", "avg_pool_fwd", "avg_pool_bwd"):
        shapes = {"x": POOLED, "dy": (n, c, h // 2, w // 2)}
        yield kernel_case(f"{op} {n}x{c}x{h}x{w}", op, shapes, extra=_distinct)
    yield kernel_case("im2col 3x3 {}x{}x{}x{}".format(*COLUMNS), "im2col", {"x": COLUMNS})
    for rows, classes in LOGITS:

        def labels(
            rng: np.random.Generator, n: int = rows, c: int = classes
        ) -> dict[str, np.ndarray]:
            return {"labels": rng.integers(0, c, n)}

        shapes = {"x": (rows, classes)}
        yield kernel_case(f"cross_entropy {rows}x{classes}", "xent", shapes, classes, extra=labels)
    for op in ("relu", "tanh", "sigmoid", "exp"):
        yield kernel_case(f"{op} {ELEMENTS:,}", op, {"x": (ELEMENTS,)})
    # Each library draws in its own way: compared are the factor and the share of what is kept.
    yield kernel_case(f"dropout {ELEMENTS:,}", "dropout", {"x": (ELEMENTS,)}, tolerance=0.01)
    yield kernel_case(f"adam {PARAMETERS:,}", "adam", {"g": (PARAMETERS,), "w": (PARAMETERS,)})
