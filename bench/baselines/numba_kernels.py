"""Numba: loops over channels-last images, prange outside, channels innermost, no fast-math."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit, prange

from . import Arrays, Maker, kept, nchw, nhwc

parallel = njit(parallel=True, fastmath=False, cache=True)


@parallel
def _conv(pad: np.ndarray, w: np.ndarray, y: np.ndarray) -> None:
    for i in prange(y.shape[0] * y.shape[1]):
        n, h = i // y.shape[1], i % y.shape[1]
        for v in range(y.shape[2]):
            row = y[n, h, v]
            row[:] = 0
            for r in range(3):
                for s in range(3):
                    for c in range(w.shape[2]):
                        factor = pad[n, h + r, v + s, c]
                        for k in range(w.shape[3]):
                            row[k] += factor * w[r, s, c, k]


@parallel
def _conv_weight(pad: np.ndarray, dy: np.ndarray, dw: np.ndarray) -> None:
    for i in prange(9 * pad.shape[3]):
        r, s, c = i // (3 * pad.shape[3]), i // pad.shape[3] % 3, i % pad.shape[3]
        row = dw[r, s, c]
        row[:] = 0
        for n in range(dy.shape[0]):
            for h in range(dy.shape[1]):
                for v in range(dy.shape[2]):
                    factor = pad[n, h + r, v + s, c]
                    for k in range(row.shape[0]):
                        row[k] += factor * dy[n, h, v, k]


@parallel
def _max_pool(x: np.ndarray, y: np.ndarray) -> None:
    for n in prange(y.shape[0]):
        for h in range(y.shape[1]):
            for v in range(y.shape[2]):
                for c in range(y.shape[3]):
                    top = max(x[n, 2 * h, 2 * v, c], x[n, 2 * h, 2 * v + 1, c])
                    low = max(x[n, 2 * h + 1, 2 * v, c], x[n, 2 * h + 1, 2 * v + 1, c])
                    y[n, h, v, c] = max(top, low)


@parallel
def _max_pool_back(x: np.ndarray, y: np.ndarray, dy: np.ndarray, dx: np.ndarray) -> None:
    zero = np.float32(0)
    for n in prange(dx.shape[0]):
        for h in range(dx.shape[1]):
            for v in range(dx.shape[2]):
                for c in range(dx.shape[3]):
                    best = y[n, h // 2, v // 2, c]
                    dx[n, h, v, c] = dy[n, h // 2, v // 2, c] if x[n, h, v, c] == best else zero


@parallel
def _avg_pool(x: np.ndarray, y: np.ndarray) -> None:
    for n in prange(y.shape[0]):
        for h in range(y.shape[1]):
            for v in range(y.shape[2]):
                for c in range(y.shape[3]):
                    top = x[n, 2 * h, 2 * v, c] + x[n, 2 * h, 2 * v + 1, c]
                    low = x[n, 2 * h + 1, 2 * v, c] + x[n, 2 * h + 1, 2 * v + 1, c]
                    y[n, h, v, c] = np.float32(0.25) * (top + low)


@parallel
def _avg_pool_back(dy: np.ndarray, dx: np.ndarray) -> None:
    for n in prange(dx.shape[0]):
        for h in range(dx.shape[1]):
            for v in range(dx.shape[2]):
                for c in range(dx.shape[3]):
                    dx[n, h, v, c] = np.float32(0.25) * dy[n, h // 2, v // 2, c]


@parallel
def _im2col(x: np.ndarray, y: np.ndarray) -> None:
    channels, height, width = x.shape[1:]
    for i in prange(x.shape[0] * channels):
        n, c = i // channels, i % channels
        for r in range(3):
            for s in range(3):
                for h in range(height):
                    for v in range(width):
                        u, t = h + r - 1, v + s - 1
                        inside = 0 <= u < height and 0 <= t < width
                        y[n, c, r, s, h, v] = x[n, c, u, t] if inside else np.float32(0)


@parallel
def _dropout(x: np.ndarray, y: np.ndarray) -> None:
    for i in prange(x.size):
        y[i] = np.float32(2) * x[i] if np.random.random() < 0.5 else np.float32(0)


@parallel
def _xent(x: np.ndarray, labels: np.ndarray, losses: np.ndarray, dx: np.ndarray) -> None:
    scale = np.float32(1) / np.float32(x.shape[0])
    for i in prange(x.shape[0]):
        top = x[i, 0]
        for c in range(x.shape[1]):
            top = max(top, x[i, c])
        total = np.float32(0)
        for c in range(x.shape[1]):
            dx[i, c] = math.exp(x[i, c] - top)
            total += dx[i, c]
        losses[i] = math.log(total) + top - x[i, labels[i]]
        for c in range(x.shape[1]):
            dx[i, c] *= scale / total
        dx[i, labels[i]] -= scale


@parallel
def _relu(x: np.ndarray, y: np.ndarray) -> None:
    for i in prange(x.size):
        y[i] = max(x[i], np.float32(0))


@parallel
def _tanh(x: np.ndarray, y: np.ndarray) -> None:
    for i in prange(x.size):
        y[i] = math.tanh(x[i])


@parallel
def _sigmoid(x: np.ndarray, y: np.ndarray) -> None:
    for i in prange(x.size):
        y[i] = np.float32(1) / (np.float32(1) + math.exp(-x[i]))


@parallel
def _exp(x: np.ndarray, y: np.ndarray) -> None:
    for i in prange(x.size):
        y[i] = math.exp(x[i])


@parallel
def _adam(
    g: np.ndarray, w: np.ndarray, m: np.ndarray, v: np.ndarray, lr: np.float32, c2: np.float32
) -> None:
    for i in prange(w.size):
        m[i] = np.float32(0.9) * m[i] + np.float32(0.1) * g[i]
        v[i] = np.float32(0.999) * v[i] + np.float32(0.001) * g[i] * g[i]
        w[i] -= lr * m[i] / (math.sqrt(v[i] * c2) + np.float32(1e-8))


def conv_fwd(a: Arrays, spec: dict[str, Any]) -> Any:
    """njit(parallel=True) loops"""
    x, w = nhwc(a["x"]), np.ascontiguousarray(a["w"].transpose(2, 3, 1, 0))
    pad = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    y = np.empty((*x.shape[:3], w.shape[3]), np.float32)
    return lambda: _conv(pad, w, y), lambda: {"y": nchw(y)}


def conv_bwd_data(a: Arrays, spec: dict[str, Any]) -> Any:
    """njit(parallel=True) loops"""
    dy, w = nhwc(a["dy"]), np.ascontiguousarray(a["w"].transpose(2, 3, 0, 1)[::-1, ::-1])
    pad = np.pad(dy, ((0, 0), (1, 1), (1, 1), (0, 0)))
    dx = np.empty((*dy.shape[:3], w.shape[3]), np.float32)
    return lambda: _conv(pad, w, dx), lambda: {"dx": nchw(dx)}


def conv_bwd_weight(a: Arrays, spec: dict[str, Any]) -> Any:
    """njit(parallel=True) loops"""
    x, dy = nhwc(a["x"]), nhwc(a["dy"])
    pad = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    dw = np.empty((3, 3, x.shape[3], dy.shape[3]), np.float32)
    return lambda: _conv_weight(pad, dy, dw), lambda: {"dw": dw.transpose(3, 2, 0, 1)}


def _pool(compiled: Callable[..., None]) -> Maker:
    def make(a: Arrays, spec: dict[str, Any]) -> Any:
        """njit(parallel=True) loops"""
        x = nhwc(a["x"])
        n, h, w, c = x.shape
        y = np.empty((n, h // 2, w // 2, c), np.float32)
        return lambda: compiled(x, y), lambda: {"y": nchw(y)}

    return make


def max_pool_bwd(a: Arrays, spec: dict[str, Any]) -> Any:
    """njit(parallel=True) loops"""
    x, dy = nhwc(a["x"]), nhwc(a["dy"])
    y, dx = np.empty_like(dy), np.empty_like(x)
    _max_pool(x, y)
    return lambda: _max_pool_back(x, y, dy, dx), lambda: {"dx": nchw(dx)}


def avg_pool_bwd(a: Arrays, spec: dict[str, Any]) -> Any:
    """njit(parallel=True) loops"""
    dy = nhwc(a["dy"])
    n, h, w, c = dy.shape
    dx = np.empty((n, 2 * h, 2 * w, c), np.float32)
    return lambda: _avg_pool_back(dy, dx), lambda: {"dx": nchw(dx)}


def im2col(a: Arrays, spec: dict[str, Any]) -> Any:
    """njit(parallel=True) loops"""
    n, c, h, w = a["x"].shape
    y = np.empty((n, c, 3, 3, h, w), np.float32)
    return lambda: _im2col(a["x"], y), lambda: {"y": y.reshape(n, c * 9, h * w)}


def dropout(a: Arrays, spec: dict[str, Any]) -> Any:
    """njit(parallel=True) loop"""
    x, y = a["x"], np.empty_like(a["x"])
    return lambda: _dropout(x, y), lambda: kept(x, y)


def xent(a: Arrays, spec: dict[str, Any]) -> Any:
    """njit(parallel=True) loops"""
    x, labels = a["x"], a["labels"]
    losses, dx = np.empty(len(x), np.float32), np.empty_like(x)

    def result() -> Arrays:
        return {"loss": np.array([losses.mean()]), "dx": dx}

    return lambda: _xent(x, labels, losses, dx), result


def _elementwise(compiled: Callable[..., None]) -> Maker:
    def make(a: Arrays, spec: dict[str, Any]) -> Any:
        """njit(parallel=True) loop"""
        x, y = a["x"], np.empty_like(a["x"])
        return lambda: compiled(x, y), lambda: {"y": y}

    return make


def adam(a: Arrays, spec: dict[str, Any]) -> Any:
    """njit(parallel=True) loop"""
    g, w, m, v = a["g"], a["w"], np.zeros_like(a["w"]), np.zeros_like(a["w"])
    step = [0]

    def call() -> None:
        step[0] += 1
        lr = np.float32(spec["lr"] / (1 - 0.9 ** step[0]))
        _adam(g, w, m, v, lr, np.float32(1 / (1 - 0.999 ** step[0])))

    return call, lambda: {"w": w}


OPS: dict[str, Maker] = {
    "conv_fwd": conv_fwd,
    "conv_bwd_data": conv_bwd_data,
    "conv_bwd_weight": conv_bwd_weight,
    "max_pool_fwd": _pool(_max_pool),
    "max_pool_bwd": max_pool_bwd,
    "avg_pool_fwd": _pool(_avg_pool),
    "avg_pool_bwd": avg_pool_bwd,
    "im2col": im2col,
    "dropout": dropout,
    "xent": xent,
    "relu": _elementwise(_relu),
    "tanh": _elementwise(_tanh),
    "sigmoid": _elementwise(_sigmoid),
    "exp": _elementwise(_exp),
    "adam": adam,
}
