"""One step of recurrent layers, for frameworks that are given it to loop over: JAX and TensorFlow."""

from __future__ import annotations

from typing import Any


def cell(mode: str, lib: Any, x: Any, h: Any, state: tuple[Any, Any]) -> tuple[Any, Any]:
    """PyTorch's formulas. x, h: the input's and the state's products, biases added; (h, c) -> (h, c).

    lib has sigmoid, tanh and split(array, parts) over the last axis.
    """
    before, c = state
    if mode == "RNN":
        return lib.tanh(x + h), c
    if mode == "LSTM":
        i, f, g, o = lib.split(x + h, 4)
        c = lib.sigmoid(f) * c + lib.sigmoid(i) * lib.tanh(g)
        return lib.sigmoid(o) * lib.tanh(c), c
    (xr, xz, xn), (hr, hz, hn) = lib.split(x, 3), lib.split(h, 3)
    z = lib.sigmoid(xz + hz)
    n = lib.tanh(xn + lib.sigmoid(xr + hr) * hn)
    return n + z * (before - n), c
