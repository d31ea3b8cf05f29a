"""The kernels that memory bounds, each with the bytes that it has to move."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastnn import _core

Arrays = Mapping[str, np.ndarray]
F32 = np.dtype(np.float32)


@dataclass(frozen=True)
class Pass:
    """One kernel's call. moved: bytes read and written; what is read twice, as it must, counts twice."""

    kernel: str
    fields: dict[str, Any]
    moved: int


@dataclass(frozen=True)
class Kernel:
    """make(n): its call over n elements, rows of logits or images."""

    name: str
    make: Callable[[int], Pass]

    def of_bytes(self, nbytes: int) -> Pass:
        """The call that moves about so many bytes."""
        return self.make(max(1, round(nbytes / (self.make(64).moved / 64))))


SOME = np.random.default_rng(0).standard_normal(1 << 16, dtype=np.float32)


def normal(*shape: int) -> np.ndarray:
    """Normal float32 (the same ones again and again), aligned as a plan's arrays are."""
    whole, rest = divmod(math.prod(shape), SOME.size)
    array = _core.Memory(F32.itemsize * math.prod(shape)).view(0, shape, F32)
    flat = array.reshape(-1)
    flat[: whole * SOME.size].reshape(whole, SOME.size)[:] = SOME
    flat[whole * SOME.size :] = SOME[:rest]
    return array


def _pass(
    kernel: str,
    read: Arrays,
    written: Arrays,
    updated: Arrays | None = None,
    small: Arrays | None = None,
    passes: int = 1,
    **numbers: float,
) -> Pass:
    """passes: over all that is read."""
    updated, small = updated or {}, small or {}
    moved = sum(v.nbytes for v in written.values()) + 2 * sum(v.nbytes for v in updated.values())
    moved += passes * sum(v.nbytes for v in read.values())
    fields = {**read, **written, **updated, **small, **numbers}
    if size := _core.buffer_bytes(kernel, 32, **numbers):
        fields["work"] = np.zeros(size, np.uint8)
    return Pass(kernel, fields, moved)


# --- elementwise ---


def _unary(op: str, alpha: float = 1.0, beta: float = 1.0) -> Kernel:
    numbers = {"op": _core.UNARY[op], "alpha": alpha, "beta": beta}
    return Kernel(op, lambda n: _pass("unary", {"x": normal(n)}, {"y": normal(n)}, n=n, **numbers))


def _slope(op: str) -> Kernel:
    def make(n: int) -> Pass:
        read = {"x": normal(n), "dy": normal(n)}
        numbers = {"op": _core.UNARY[op], "alpha": 0.1, "beta": 1.0}
        return _pass("unary_grad", read, {"dx": normal(n)}, n=n, **numbers)

    return Kernel(f"{op} backward", make)


def _binary(name: str, op: str, channels: int = 0) -> Kernel:
    """Of equal shapes, or with one row of channels under every row of a."""

    def make(n: int) -> Pass:
        c = channels or n
        rows = 1 if not channels else n
        strides = {"as4": c, "as5": 1, "bs4": 0, "bs5": 1}
        numbers = {f"{k}{i}": 0 for k in ("as", "bs") for i in range(6)} | strides
        numbers |= {f"d{i}": 1 for i in range(4)} | {"d4": rows, "d5": c, "op": _core.BINARY[op]}
        b = {"b": normal(c)}
        read = {"a": normal(rows, c)} | ({} if channels else b)
        return _pass("binary", read, {"y": normal(rows, c)}, small=b if channels else {}, **numbers)

    return Kernel(name, make)


def _dropout(n: int) -> Pass:
    hyper = np.array([1.0, 7.0])
    return _pass(
        "dropout", {"x": normal(n)}, {"y": normal(n)}, small={"hyper": hyper}, n=n, key=1, p=0.5
    )


# --- pooling, normalization, softmax ---


def _pool(mode: str, kernel: int, backward: bool) -> Kernel:
    c, size, pad = 32, 16, kernel // 3

    def make(n: int) -> Pass:
        numbers = {"n": n, "c": c, "ih": size, "iw": size, "oh": size // 2, "ow": size // 2}
        for axis in "hw":
            numbers |= {f"k{axis}": kernel, f"stride_{axis}": 2, f"pad_{axis}": pad}
            numbers[f"dilation_{axis}"] = 1
        numbers |= {"mode": {"max": 0, "avg": 2}[mode], "adaptive": 0, "count_include_pad": 1}
        large, small = normal(n, size, size, c), normal(n, size // 2, size // 2, c)
        chosen = {"idx": np.zeros(small.shape, np.int32)} if mode == "max" else {}
        if not backward:
            return _pass("pool_fwd", {"x": large}, {"y": small, **chosen}, act=0, **numbers)
        if chosen:
            forward = {"x": large, "y": small.copy(), **chosen, "act": 0}
            _core.call("pool_fwd", 32, **forward, **numbers)
        return _pass("pool_bwd", {"dy": small, **chosen}, {"dx": large}, **numbers)

    way = "backward" if backward else "forward"
    return Kernel(f"{mode} pool {kernel}x{kernel} stride 2 {way}", make)


def _batch_norm(backward: bool) -> Kernel:
    def make(n: int) -> Pass:
        c = 64
        small = {k: normal(c) for k in ("gamma", "mean")} | {"rstd": np.ones(c, F32)}
        x, y = normal(n, c), normal(n, c)
        if backward:
            small |= {"dgamma": normal(c), "dbeta": normal(c)}
            numbers = {"rows": n, "c": c, "parts": 0}
            return _pass("bn_bwd", {"x": x, "dy": y}, {"dx": normal(n, c)}, {}, small, 2, **numbers)
        small |= {"beta": normal(c), "var": normal(c)}
        numbers = {"rows": n, "c": c, "act": 0, "eps": 1e-5, "parts": 0}
        return _pass("bn_fwd", {"x": x}, {"y": y}, {}, small, 2, **numbers)

    return Kernel(f"batch norm {'backward' if backward else 'forward'}", make)


def _layer_norm(backward: bool) -> Kernel:
    def make(n: int) -> Pass:
        c = 256
        small = {"gamma": normal(c), "mean": normal(n), "rstd": np.ones(n, F32)}
        numbers = {"n": n, "c": c, "rms": 0}
        x, y = normal(n, c), normal(n, c)
        if backward:
            small |= {"dgamma": normal(c), "dbeta": normal(c)}
            return _pass(
                "layer_norm_bwd", {"x": x, "dy": y}, {"dx": normal(n, c)}, {}, small, **numbers
            )
        small["beta"] = normal(c)
        return _pass("layer_norm_fwd", {"x": x}, {"y": y}, {}, small, eps=1e-5, **numbers)

    return Kernel(f"layer norm {'backward' if backward else 'forward'}", make)


def _softmax(c: int, backward: bool) -> Kernel:
    def make(n: int) -> Pass:
        x, y, numbers = normal(n, c), normal(n, c), {"n": n, "c": c, "log": 0}
        if backward:
            return _pass("softmax_bwd", {"y": x, "dy": y}, {"dx": normal(n, c)}, **numbers)
        return _pass("softmax_fwd", {"x": x}, {"y": y}, **numbers)

    return Kernel(f"softmax of {c} {'backward' if backward else 'forward'}", make)


def _cross_entropy(c: int) -> Kernel:
    def make(n: int) -> Pass:
        labels = np.random.default_rng(0).integers(0, c, n)
        small = {"lse": normal(n), "total": normal(1), "labels": labels}
        numbers = {"n": n, "c": c, "ignore": -100, "mean": 1, "scale": 1.0}
        return _pass("xent_fwd", {"x": normal(n, c)}, {"dx": normal(n, c)}, {}, small, **numbers)

    return Kernel(f"cross entropy of {c} with gradient", make)


def _column_sums(n: int) -> Pass:
    numbers = {"outer": 1, "len": n, "inner": 64, "op": 0, "scale": 1.0}
    return _pass("reduce", {"x": normal(n, 64)}, {}, small={"y": normal(64)}, **numbers)


# --- optimizers ---

BETAS = {"beta1": 0.9, "beta2": 0.999}
OPTIMIZERS: dict[str, tuple[str, tuple[str, ...], dict[str, float]]] = {
    "SGD": ("sgd", (), {"momentum": 0.0, "dampening": 0.0, "nesterov": 0}),
    "SGD, momentum": ("sgd", ("buf",), {"momentum": 0.9, "dampening": 0.0, "nesterov": 0}),
    "Adagrad": ("adagrad", ("sum",), {"lr_decay": 0.0, "eps": 1e-10}),
    "Adadelta": ("adadelta", ("square", "delta"), {"rho": 0.9, "eps": 1e-6}),
    "RMSprop": ("rmsprop", ("square",), {"alpha": 0.99, "momentum": 0.0, "eps": 1e-8}),
    "Lion": ("lion", ("m",), BETAS),
    "Adam": ("adam", ("m", "v"), {**BETAS, "eps": 1e-8, "decoupled": 0}),
    "AMSGrad": ("adam", ("m", "v", "vmax"), {**BETAS, "eps": 1e-8, "decoupled": 0}),
    "NAdam": ("nadam", ("m", "v"), {**BETAS, "eps": 1e-8, "decoupled": 0, "momentum_decay": 4e-3}),
}


def _optimizer(name: str) -> Kernel:
    kernel, states, more = OPTIMIZERS[name]

    def make(n: int) -> Pass:
        updated = {"w": normal(n), **{k: np.ones(n, F32) for k in states}}
        small = {"hyper": np.array([1.0, 0.0, 1e-3, 0.0])}
        if kernel == "nadam":
            small["cache"] = np.zeros(2)
        numbers = {"n": n, "start": 0, "lr_at": 2, "maximize": 0, "c": 1}
        numbers |= {"weight_decay": 0.0, **more}
        return _pass(kernel, {"g": normal(n)}, {}, updated, small, **numbers)

    return Kernel(name, make)


def _grad_norm(n: int) -> Pass:
    return _pass("grad_norm", {"g": normal(n)}, {}, small={"factor": np.ones(1)}, n=n, max_norm=1.0)


def _average(n: int) -> Pass:
    small = {"hyper": np.array([2.0, 0.0, 1e-3, 0.0])}
    return _pass("ema", {"w": normal(n)}, {}, {"mean": normal(n)}, small, n=n, start=0, decay=0.99)


def kernels() -> Iterator[Kernel]:
    """All of them."""
    for op in ("relu", "sigmoid", "tanh", "exp", "log", "gelu", "silu"):
        yield _unary(op)
    for op in ("leaky_relu", "gelu", "silu"):
        yield _slope(op)
    for op in ("relu", "sigmoid", "tanh"):
        yield _binary(f"{op} backward", f"{op}_grad")
    yield _binary("sum of two", "add")
    yield _binary("bias", "add", channels=64)
    yield Kernel("bias gradient", _column_sums)
    yield Kernel("dropout", _dropout)
    for mode, kernel in (("max", 2), ("avg", 2), ("max", 3)):
        yield from (_pool(mode, kernel, backward) for backward in (False, True))
    for backward in (False, True):
        yield _batch_norm(backward)
        yield _layer_norm(backward)
        yield from (_softmax(c, backward) for c in (10, 1000))
    yield from (_cross_entropy(c) for c in (10, 1000))
    yield from map(_optimizer, OPTIMIZERS)
    yield Kernel("gradient norm", _grad_norm)
    yield Kernel("average of weights", _average)
