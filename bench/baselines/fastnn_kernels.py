"""fastnn: a kernel through fastnn._core.call or ops, images channels-last, outputs and buffers given.

Convolutions pack their weights in every call, as every training step must.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn import _core, ops
from fastnn.ops.conv_algorithm import POINTWISE, WINOGRAD, choose

from . import Arrays, Maker, kept, nchw, nhwc, operands

UNARY = ("exp", "relu", "sigmoid", "tanh")
POOL = {"max": 0, "avg": 2}  # fnn_pool


def _buffer(kernel: str, **sizes: Any) -> np.ndarray:
    return np.zeros(max(1, _core.buffer_bytes(kernel, 32, **sizes)), np.uint8)


def matmul(a: Arrays, spec: dict[str, Any]) -> Any:
    """ops.matmul with out"""
    x, y = operands(a, spec)
    c = np.empty((len(x), y.shape[1]), np.float32)
    return lambda: ops.matmul(x, y, out=c), lambda: {"c": c}


def _conv_sizes(a: Arrays, spec: dict[str, Any]) -> tuple[dict[str, int], dict[str, int]]:
    """Sizes of the convolution, and those of packing its weights."""
    (n, c, h, w), (k, _, kh, kw), (oh, ow) = a["x"].shape, a["w"].shape, a["dy"].shape[2:]
    shared = {"c": c, "k": k, "kh": kh, "kw": kw, "groups": spec["groups"]}
    shared |= {f"{name}_{axis}": spec[name] for name in ("stride", "dilation") for axis in "hw"}
    images = {"n": n, "ih": h, "iw": w, "oh": oh, "ow": ow}
    return shared | images | {"pad_h": spec["padding"], "pad_w": spec["padding"]}, shared


def _packed(direction: int, given: str, made: str) -> Maker:
    def make(a: Arrays, spec: dict[str, Any]) -> Any:
        """_core.call: the packing of the algorithm that fastnn chooses, then the convolution"""
        sizes, shared = _conv_sizes(a, spec)
        w = np.ascontiguousarray(a["w"].transpose(2, 3, 1, 0))
        source = nhwc(a[given])
        target = np.empty_like(nhwc(a["x" if direction else "dy"]))
        if choose(sizes) is POINTWISE:
            weights = w[0, 0].T if direction else w[0, 0]
            rows, out = (v.reshape(-1, v.shape[3]) for v in (source, target))
            return lambda: ops.matmul(rows, weights, out=out), lambda: {made: nchw(target)}
        arrays = {given: source, made: target}
        kernel, packing = ("conv_fwd", "conv_bwd_data")[direction], "conv_pack"
        if choose(sizes) is WINOGRAD:
            kernel, packing, arrays = "winograd_fwd", "winograd_pack", {"x": source, "y": target}
            shared = {"c": shared["c"], "k": shared["k"]}
            sizes = WINOGRAD.own(sizes, direction)
        packed = _buffer(packing, direction=direction, **shared)

        def run() -> None:
            _core.call(packing, 32, w=w, packed=packed, direction=direction, **shared)
            _core.call(kernel, 32, packed=packed, act=0, **arrays, **sizes)

        return run, lambda: {made: nchw(target)}

    return make


def conv_bwd_weight(a: Arrays, spec: dict[str, Any]) -> Any:
    """_core.call: the algorithm that fastnn chooses"""
    sizes, _ = _conv_sizes(a, spec)
    x, dy = nhwc(a["x"]), nhwc(a["dy"])
    dw = np.empty(np.array(a["w"].shape)[[2, 3, 1, 0]], np.float32)
    if choose(sizes) is POINTWISE:
        rows, out = (v.reshape(-1, v.shape[3]) for v in (x, dy))
        product = dw[0, 0]
        return lambda: ops.matmul(rows.T, out, out=product), lambda: {
            "dw": dw.transpose(3, 2, 0, 1)
        }
    kernel = "conv_bwd_weight"
    if choose(sizes) is WINOGRAD:
        kernel, sizes = "winograd_bwd_weight", WINOGRAD.own(sizes, 0)
    work = _buffer(kernel, **sizes)

    def run() -> None:
        _core.call(kernel, 32, x=x, dy=dy, dw=dw, work=work, **sizes)

    return run, lambda: {"dw": dw.transpose(3, 2, 0, 1)}


def _pool_sizes(shape: tuple[int, ...], mode: str) -> dict[str, int]:
    n, h, w, c = shape
    sizes = {"n": n, "c": c, "ih": h, "iw": w, "oh": h // 2, "ow": w // 2, "kh": 2, "kw": 2}
    sizes |= {"stride_h": 2, "stride_w": 2, "pad_h": 0, "pad_w": 0, "dilation_h": 1}
    return sizes | {"dilation_w": 1, "mode": POOL[mode], "adaptive": 0, "count_include_pad": 1}


def _pool_fwd(mode: str) -> Maker:
    def make(a: Arrays, spec: dict[str, Any]) -> Any:
        """_core.call pool_fwd"""
        x = nhwc(a["x"])
        sizes = _pool_sizes(x.shape, mode)
        y = np.empty((len(x), sizes["oh"], sizes["ow"], sizes["c"]), np.float32)
        idx = np.empty(y.shape, np.int32) if mode == "max" else None
        return lambda: _core.call("pool_fwd", 32, x=x, y=y, idx=idx, act=0, **sizes), lambda: {
            "y": nchw(y)
        }

    return make


def _pool_bwd(mode: str) -> Maker:
    def make(a: Arrays, spec: dict[str, Any]) -> Any:
        """_core.call pool_bwd"""
        x, dy = nhwc(a["x"]), nhwc(a["dy"])
        sizes = _pool_sizes(x.shape, mode)
        dx, idx = np.empty_like(x), np.empty(dy.shape, np.int32)
        if mode == "max":
            _core.call("pool_fwd", 32, x=x, y=np.empty_like(dy), idx=idx, act=0, **sizes)
        return lambda: _core.call("pool_bwd", 32, dy=dy, idx=idx, dx=dx, **sizes), lambda: {
            "dx": nchw(dx)
        }

    return make


def im2col(a: Arrays, spec: dict[str, Any]) -> Any:
    """_core.call im2col"""
    n, c, h, w = a["x"].shape
    y = np.empty((n, c * 9, h * w), np.float32)
    sizes = {"planes": n * c, "ih": h, "iw": w, "oh": h, "ow": w}
    sizes |= {f"{k}_{axis}": 1 for k in ("stride", "pad", "dilation") for axis in "hw"}
    return lambda: _core.call("im2col", 32, x=a["x"], y=y, kh=3, kw=3, **sizes), lambda: {"y": y}


def dropout(a: Arrays, spec: dict[str, Any]) -> Any:
    """_core.call dropout"""
    x, y, hyper = a["x"], np.empty_like(a["x"]), np.array([0.0, 1.0])

    def run() -> None:
        hyper[0] += 1
        _core.call("dropout", 32, x=x, hyper=hyper, y=y, n=x.size, key=1, p=0.5)

    return run, lambda: kept(x, y)


def xent(a: Arrays, spec: dict[str, Any]) -> Any:
    """_core.call xent_fwd, which also writes the gradient"""
    x, labels = a["x"], a["labels"]
    n, c = x.shape
    lse, total, dx = np.empty(n, np.float32), np.empty(1, np.float32), np.empty_like(x)
    arrays = {"x": x, "labels": labels, "lse": lse, "total": total, "dx": dx, "weight": None}
    sizes = {"n": n, "c": c, "scale": 1.0, "mean": 1, "ignore": -100}
    return lambda: _core.call("xent_fwd", 32, **arrays, **sizes), lambda: {"loss": total, "dx": dx}


def _unary(op: str) -> Maker:
    def make(a: Arrays, spec: dict[str, Any]) -> Any:
        """_core.call unary"""
        x, y = a["x"], np.empty_like(a["x"])
        fields = {"n": x.size, "op": _core.UNARY[op], "alpha": 0.0, "beta": 0.0}
        return lambda: _core.call("unary", 32, x=x, y=y, **fields), lambda: {"y": y}

    return make


def adam(a: Arrays, spec: dict[str, Any]) -> Any:
    """_core.call adam"""
    arrays = {"g": a["g"], "w": a["w"], "m": np.zeros_like(a["w"]), "v": np.zeros_like(a["w"])}
    hyper = np.array([0.0, 0.0, spec["lr"], 0.0])
    numbers = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0}
    numbers |= {"n": a["w"].size, "start": 0, "lr_at": 2, "decoupled": 0, "maximize": 0, "c": 1}

    def run() -> None:
        hyper[0] += 1
        _core.call("adam", 32, hyper=hyper, **arrays, **numbers)

    return run, lambda: {"w": a["w"]}


OPS: dict[str, Maker] = {
    "matmul": matmul,
    "conv_fwd": _packed(0, "x", "y"),
    "conv_bwd_data": _packed(1, "dy", "dx"),
    "conv_bwd_weight": conv_bwd_weight,
    "max_pool_fwd": _pool_fwd("max"),
    "max_pool_bwd": _pool_bwd("max"),
    "avg_pool_fwd": _pool_fwd("avg"),
    "avg_pool_bwd": _pool_bwd("avg"),
    "im2col": im2col,
    "dropout": dropout,
    "xent": xent,
    **{op: _unary(op) for op in UNARY},
    "adam": adam,
}
