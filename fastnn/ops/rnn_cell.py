"""What the forward and backward ops of recurrent layers share: sizes, places, and NumPy's version."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from fastnn.graph import Array, Value
from fastnn.layout import Ref

MODES = ("RNN_TANH", "RNN_RELU", "LSTM", "GRU")  # as in enum fnn_rnn
GATES = {"RNN_TANH": 1, "RNN_RELU": 1, "LSTM": 4, "GRU": 3}
# What a cell adds up separately: a GRU's new gate has two halves, one of them behind the reset gate.
SLOTS = {"RNN_TANH": 1, "RNN_RELU": 1, "LSTM": 4, "GRU": 4}

# What a time loop works on beside its samples stays in a core's L2 cache up to this size: the weights
# forward, half of that for the sums of their gradients, beside the weights, backward.
PACKED_BYTES = 1 << 20

W = TypeVar("W")


def pairs(weights: Sequence[W | None]) -> dict[str, W | None]:
    """Weights under the names that kernels and messages use, for one or two directions."""
    names = ("w_ih", "w_hh", "b_ih", "b_hh")
    full = (*weights, *[None] * 4)[:8]
    return dict(zip((*names, *(f"{n}_reverse" for n in names)), full, strict=True))


def packed_bytes(w_ih: Value, w_hh: Value) -> int:
    """The bytes of both weights of a direction."""
    return (w_ih.size + w_hh.size) * w_ih.dtype.itemsize


def window(ref: Ref, start: int) -> Ref:
    """What lies at `ref` from element `start` on."""
    return Ref(
        ref.buffer, ref.shape, ref.strides, ref.dtype, ref.offset + start * ref.dtype.itemsize
    )


# --- NumPy ------------------------------------------------------------------------------------------


def sigmoid(x: Array) -> Any:
    """1 / (1 + exp(-x)) for moderate x."""
    return 1 / (1 + np.exp(-x))


def schedule(n: int, steps: int, lengths: Array | None, reverse: bool) -> list[tuple[int, Array]]:
    """(t, which samples take step t) in the direction's order."""
    ends = np.full(n, steps) if lengths is None else lengths
    order = range(steps)[::-1] if reverse else range(steps)
    return [(t, t < ends) for t in order]


def forward(
    mode: str,
    x: Array,
    lengths: Array | None,
    h: Array | None,
    c: Array | None,
    weights: Sequence[Any],
    reverse: bool,
) -> tuple[Array, ...]:
    """One direction with NumPy, step by step: y, h_n and, where the mode has them, c_n, gates, cells."""
    w_ih, w_hh, b_ih, b_hh = weights
    (n, steps, _), size = x.shape, w_hh.shape[1]
    h = np.zeros((n, size), x.dtype) if h is None else h
    c = np.zeros((n, size), x.dtype) if c is None else c
    y = np.zeros((n, steps, size), x.dtype)
    gates = np.zeros((steps, n, SLOTS[mode] * size), x.dtype)
    cells = np.zeros((steps, n, size), x.dtype)
    slots: tuple[Array, ...]
    for t, active in schedule(n, steps, lengths, reverse):
        kept = active[:, None]
        inputs = np.where(kept, x[:, t], 0) @ w_ih.T + (0 if b_ih is None else b_ih)
        state = h @ w_hh.T + (0 if b_hh is None else b_hh)
        if mode == "LSTM":
            i, f, g, o = np.split(inputs + state, 4, 1)
            i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
            cell = f * c + i * g
            out, slots = o * np.tanh(cell), (i, f, g, o)
            c, cells[t] = np.where(kept, cell, c), np.where(kept, cell, 0)
        elif mode == "GRU":
            (xr, xz, xn), (hr, hz, hn) = np.split(inputs, 3, 1), np.split(state, 3, 1)
            r, z = sigmoid(xr + hr), sigmoid(xz + hz)
            new = np.tanh(xn + r * hn)
            out, slots = (1 - z) * new + z * h, (r, z, new, hn)
        else:
            total = inputs + state
            out, slots = np.tanh(total) if mode == "RNN_TANH" else np.maximum(total, 0), (total,)
        gates[t] = np.where(kept, np.concatenate(slots, 1), 0)
        h, y[:, t] = np.where(kept, out, h), np.where(kept, out, 0)
    if mode == "LSTM":
        return y, h, c, gates, cells
    return (y, h, gates) if mode == "GRU" else (y, h)
