"""Single kernels, as each library has them or as a good user of it writes them.

A module has OPS, {operation: maker}. maker(arrays, spec) lays the data out as suits its library and
returns (call, result): call() is what is timed, result() gives {name: array} in PyTorch's shapes.
The first line of its docstring says what is called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]
Maker = Callable[[Arrays, dict[str, Any]], tuple[Callable[[], Any], Callable[[], Arrays]]]


class KernelRun:
    """A run, in the adapters' sense, of one kernel."""

    def __init__(self, make: Maker, spec: dict[str, Any], arrays: Arrays) -> None:
        self.via = (make.__doc__ or "").strip().partition("\n")[0]
        self.call, self.result = make(arrays, spec)

    def check(self) -> Arrays:
        """The result of one call."""
        self.call()
        return self.result()

    def run(self, n: int) -> None:
        """n calls."""
        call = self.call
        for _ in range(n):
            call()


def kind(ops: Mapping[str, Maker]) -> Callable[[dict[str, Any], Arrays], KernelRun]:
    """The adapters' entry for kernels, from a module's OPS."""
    return lambda spec, arrays: KernelRun(ops[spec["op"]], spec, arrays)


def operands(a: Arrays, spec: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """A product's, of which some are seen through their transposes."""
    x, y = a["a"], a["b"]
    return (x.T if spec.get("transpose_a") else x), (y.T if spec.get("transpose_b") else y)


def kept(x: np.ndarray, y: np.ndarray) -> Arrays:
    """What must agree of dropouts y of x: the share of what is kept, and its factor."""
    there = y != 0
    return {"share": np.array([there.mean()]), "factor": np.array([np.median((y / x)[there])])}


def nhwc(x: np.ndarray) -> np.ndarray:
    """(N, C, H, W) to dense channels-last (N, H, W, C)."""
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1))


def nchw(x: np.ndarray) -> np.ndarray:
    """Dense channels-last (N, H, W, C) to (N, C, H, W)."""
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2))
