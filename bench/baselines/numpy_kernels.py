"""NumPy: images channels-last, outputs given, a convolution as nine products, one a tap."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import Arrays, Maker, kept, nchw, nhwc, operands

TAPS = [(r, s) for r in range(3) for s in range(3)]


def matmul(a: Arrays, spec: dict[str, Any]) -> Any:
    """np.matmul with out"""
    x, y = operands(a, spec)
    c = np.empty((len(x), y.shape[1]), np.float32)
    return lambda: np.matmul(x, y, out=c), lambda: {"c": c}


def _padded(x: np.ndarray) -> np.ndarray:
    return np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))


def conv_fwd(a: Arrays, spec: dict[str, Any]) -> Any:
    """np.matmul for each tap of the kernel"""
    x, w = nhwc(a["x"]), np.ascontiguousarray(a["w"].transpose(2, 3, 1, 0))
    (n, h, wd, c), k = x.shape, w.shape[3]
    y = np.empty((n, h, wd, k), np.float32)

    def call() -> None:
        pad = _padded(x)
        y[...] = 0
        for r, s in TAPS:
            y.reshape(-1, k)[...] += pad[:, r : r + h, s : s + wd].reshape(-1, c) @ w[r, s]

    return call, lambda: {"y": nchw(y)}


def conv_bwd_data(a: Arrays, spec: dict[str, Any]) -> Any:
    """np.matmul for each tap of the kernel"""
    dy, w = nhwc(a["dy"]), np.ascontiguousarray(a["w"].transpose(2, 3, 0, 1))
    (n, h, wd, k), c = dy.shape, w.shape[3]
    dx = np.empty((n, h, wd, c), np.float32)

    def call() -> None:
        pad = _padded(dy)
        dx[...] = 0
        for r, s in TAPS:
            window = pad[:, 2 - r : 2 - r + h, 2 - s : 2 - s + wd]
            dx.reshape(-1, c)[...] += window.reshape(-1, k) @ w[r, s]

    return call, lambda: {"dx": nchw(dx)}


def conv_bwd_weight(a: Arrays, spec: dict[str, Any]) -> Any:
    """np.matmul for each tap of the kernel"""
    x, dy = nhwc(a["x"]), nhwc(a["dy"])
    (_, h, wd, c), k = x.shape, dy.shape[3]
    dw = np.empty((3, 3, c, k), np.float32)

    def call() -> None:
        pad = _padded(x)
        for r, s in TAPS:
            window = pad[:, r : r + h, s : s + wd].reshape(-1, c)
            np.matmul(window.T, dy.reshape(-1, k), out=dw[r, s])

    return call, lambda: {"dw": dw.transpose(3, 2, 0, 1)}


def _windows(x: np.ndarray) -> np.ndarray:
    n, h, w, c = x.shape
    return x.reshape(n, h // 2, 2, w // 2, 2, c)


def max_pool_fwd(a: Arrays, spec: dict[str, Any]) -> Any:
    """np.max over a reshaped view"""
    windows = _windows(nhwc(a["x"]))
    y = np.empty(np.array(windows.shape)[[0, 1, 3, 5]], np.float32)
    return lambda: np.max(windows, axis=(2, 4), out=y), lambda: {"y": nchw(y)}


def max_pool_bwd(a: Arrays, spec: dict[str, Any]) -> Any:
    """np.where(x == y, dy, 0) over a reshaped view"""
    windows, dy = _windows(nhwc(a["x"])), nhwc(a["dy"])[:, :, None, :, None]
    y = windows.max(axis=(2, 4), keepdims=True)
    dx = np.empty_like(windows)

    def call() -> None:
        np.multiply(windows == y, dy, out=dx)

    n, h, _, w, _, c = dx.shape
    return call, lambda: {"dx": nchw(dx.reshape(n, 2 * h, 2 * w, c))}


def avg_pool_fwd(a: Arrays, spec: dict[str, Any]) -> Any:
    """np.mean over a reshaped view"""
    windows = _windows(nhwc(a["x"]))
    y = np.empty(np.array(windows.shape)[[0, 1, 3, 5]], np.float32)
    return lambda: np.mean(windows, axis=(2, 4), out=y), lambda: {"y": nchw(y)}


def avg_pool_bwd(a: Arrays, spec: dict[str, Any]) -> Any:
    """np.multiply into a reshaped view"""
    dy = nhwc(a["dy"])[:, :, None, :, None]
    n, h, _, w, _, c = dy.shape
    dx = np.empty((n, h, 2, w, 2, c), np.float32)

    def call() -> None:
        np.multiply(dy, np.float32(0.25), out=dx)

    return call, lambda: {"dx": nchw(dx.reshape(n, 2 * h, 2 * w, c))}


def im2col(a: Arrays, spec: dict[str, Any]) -> Any:
    """a copy for each tap of the kernel"""
    x = a["x"]
    n, c, h, w = x.shape
    y = np.empty((n, c, 3, 3, h, w), np.float32)

    def call() -> None:
        pad = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
        for r, s in TAPS:
            y[:, :, r, s] = pad[:, :, r : r + h, s : s + w]

    return call, lambda: {"y": y.reshape(n, c * 9, h * w)}


def dropout(a: Arrays, spec: dict[str, Any]) -> Any:
    """Generator.random with out, compare, multiply"""
    x, y, rng = a["x"], np.empty_like(a["x"]), np.random.default_rng(0)

    def call() -> None:
        rng.random(out=y, dtype=np.float32)
        np.multiply(x, np.where(y < np.float32(0.5), np.float32(2), np.float32(0)), out=y)

    return call, lambda: kept(x, y)


def xent(a: Arrays, spec: dict[str, Any]) -> Any:
    """max, exp, sum: mean loss and its gradient"""
    x, labels, rows = a["x"], a["labels"], np.arange(len(a["x"]))
    dx, loss = np.empty_like(x), np.empty(1, np.float32)

    def call() -> None:
        np.subtract(x, x.max(axis=1, keepdims=True), out=dx)
        picked = dx[rows, labels]
        np.exp(dx, out=dx)
        total = dx.sum(axis=1, keepdims=True)
        loss[0] = np.mean(np.log(total[:, 0]) - picked)
        np.multiply(dx, 1 / (total * np.float32(len(x))), out=dx)
        dx[rows, labels] -= np.float32(1 / len(x))

    return call, lambda: {"loss": loss, "dx": dx}


def relu(a: Arrays, spec: dict[str, Any]) -> Any:
    """np.maximum with out"""
    y = np.empty_like(a["x"])
    return lambda: np.maximum(a["x"], np.float32(0), out=y), lambda: {"y": y}


def tanh(a: Arrays, spec: dict[str, Any]) -> Any:
    """np.tanh with out"""
    y = np.empty_like(a["x"])
    return lambda: np.tanh(a["x"], out=y), lambda: {"y": y}


def sigmoid(a: Arrays, spec: dict[str, Any]) -> Any:
    """np.exp, add, reciprocal in place"""
    x, y = a["x"], np.empty_like(a["x"])

    def call() -> None:
        np.negative(x, out=y)
        np.exp(y, out=y)
        np.add(y, np.float32(1), out=y)
        np.reciprocal(y, out=y)

    return call, lambda: {"y": y}


def exp(a: Arrays, spec: dict[str, Any]) -> Any:
    """np.exp with out"""
    y = np.empty_like(a["x"])
    return lambda: np.exp(a["x"], out=y), lambda: {"y": y}


def adam(a: Arrays, spec: dict[str, Any]) -> Any:
    """in-place updates with one scratch array"""
    g, w, m, v = a["g"], a["w"], np.zeros_like(a["w"]), np.zeros_like(a["w"])
    scratch, step = np.empty_like(w), [0]

    def call() -> None:
        step[0] += 1
        m[...] *= np.float32(0.9)
        np.multiply(g, np.float32(0.1), out=scratch)
        m[...] += scratch
        np.square(g, out=scratch)
        scratch[...] *= np.float32(0.001)
        v[...] *= np.float32(0.999)
        v[...] += scratch
        np.multiply(v, np.float32(1 / (1 - 0.999 ** step[0])), out=scratch)
        np.sqrt(scratch, out=scratch)
        scratch[...] += np.float32(1e-8)
        np.divide(m, scratch, out=scratch)
        scratch[...] *= np.float32(spec["lr"] / (1 - 0.9 ** step[0]))
        w[...] -= scratch

    return call, lambda: {"w": w}


OPS: dict[str, Maker] = {
    make.__name__: make
    for make in (
        *(matmul, conv_fwd, conv_bwd_data, conv_bwd_weight, max_pool_fwd, max_pool_bwd),
        *(avg_pool_fwd, avg_pool_bwd, im2col, dropout, xent, relu, tanh, sigmoid, exp, adam),
    )
}
