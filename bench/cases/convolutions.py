"""Convolutions of every kind in the three passes, against PyTorch."""

from __future__ import annotations

from collections.abc import Iterator

from ..case import Case
from .kernels import TORCH, conv_cases

# (N, C, size, K), kernel, stride, padding, dilation, groups
KINDS = {
    "first": (
        ((128, 1, 28, 32), 5, 1, 2, 1, 1),
        ((128, 3, 32, 32), 3, 1, 1, 1, 1),
        ((16, 3, 224, 64), 7, 2, 3, 1, 1),
    ),
    "1x1": (((32, 128, 28, 128), 1, 1, 0, 1, 1), ((64, 64, 32, 128), 1, 2, 0, 1, 1)),
    "strided": (((64, 64, 32, 128), 3, 2, 1, 1, 1), ((64, 128, 16, 256), 3, 2, 1, 1, 1)),
    "dilated": (((32, 64, 28, 64), 3, 1, 2, 2, 1),),
    "grouped": (((32, 128, 28, 128), 3, 1, 1, 1, 4),),
    "depthwise": (
        ((16, 32, 112, 32), 3, 1, 1, 1, 32),
        ((32, 256, 28, 256), 3, 1, 1, 1, 256),
        ((16, 128, 56, 128), 3, 2, 1, 1, 128),
    ),
}


def cases(full: bool) -> Iterator[Case]:
    """All of this theme."""
    for kind, geometries in KINDS.items():
        for sizes, kernel, stride, *rest in geometries:
            name = f"{kind} {kernel}x{kernel}/{stride} "
            given = {"kind": name, "peers": (TORCH,), "theme": "convolutions"}
            yield from conv_cases(sizes, kernel, stride, *rest, **given)
