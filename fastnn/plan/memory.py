"""Placing buffers in one arena by lifetime."""

from __future__ import annotations

import numpy as np

from fastnn.layout import Buffer


def place(buffers: list[Buffer], reuse: bool = True, alignment: int = 64) -> int:
    """Give every buffer an offset so that no two alive at once overlap; returns the bytes needed.

    Largest first, each at the lowest free offset among those whose lifetimes meet its own.
    """
    total = 0
    placed = np.zeros((len(buffers), 4), np.int64)  # first, last, offset, end
    for count, buffer in enumerate(sorted(buffers, key=lambda b: -b.nbytes)):
        size = -(-buffer.nbytes // alignment) * alignment
        rows = placed[:count]
        if reuse:
            rows = rows[(rows[:, 0] <= buffer.last) & (rows[:, 1] >= buffer.first)]
        offset = 0
        for start, end in rows[np.argsort(rows[:, 2]), 2:].tolist():
            if start - offset >= size:
                break
            offset = max(offset, end)
        buffer.offset = offset
        placed[count] = buffer.first, buffer.last, offset, offset + size
        total = max(total, offset + size)
    return total
