"""The networks, once for all frameworks: tables of layers, and what follows from them.

resolve() completes a table: each layer gets its "name" (PyTorch's state_dict prefix in a
Sequential), its input "shape" and output shape "to", without the batch. A residual layer holds two
such tables, main and shortcut, whose outputs are added.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

Layer = dict[str, Any]
Shape = tuple[int, ...]

RELU, TANH, FLATTEN, BN, POOL = ({"op": o} for o in ("relu", "tanh", "flatten", "bn", "maxpool"))
GLOBAL_MEAN = {"op": "mean"}


def conv(out: int, kernel: int = 3, padding: int = 1, stride: int = 1, bias: bool = True) -> Layer:
    """A square convolution."""
    sizes = {"out": out, "kernel": kernel, "padding": padding, "stride": stride}
    return {"op": "conv", **sizes, "bias": bias}


def linear(out: int) -> Layer:
    """A dense layer with bias."""
    return {"op": "linear", "out": out}


GATES = {"RNN": 1, "LSTM": 4, "GRU": 3}


def rnn(mode: str, hidden: int, layers: int = 1, both: bool = False) -> Layer:
    """Recurrent layers over (T, C), in both directions if asked; gives the last step's output."""
    return {"op": "rnn", "mode": mode, "hidden": hidden, "layers": layers, "both": both}


def conv_bn(out: int, kernel: int = 3, padding: int = 1, stride: int = 1) -> list[Layer]:
    """A convolution without bias and its batch norm."""
    return [conv(out, kernel, padding, stride, bias=False), BN]


def block(out: int, stride: int = 1, project: bool = False) -> list[Layer]:
    """ResNet's basic block (He et al., 2015)."""
    main = [*conv_bn(out, stride=stride), RELU, *conv_bn(out)]
    shortcut = conv_bn(out, 1, 0, stride) if project else []
    return [{"op": "residual", "main": main, "shortcut": shortcut}, RELU]


@dataclass(frozen=True)
class Net:
    """A network: its layers, the shape of one input, the number of classes."""

    table: tuple[Layer, ...]
    input: Shape
    classes: int

    @property
    def layers(self) -> list[Layer]:
        """The completed table."""
        return resolve(self.table, self.input)


def _resnet18() -> list[Layer]:
    layers = [*conv_bn(64), RELU, *block(64), *block(64)]
    for width in (128, 256, 512):
        layers += [*block(width, 2, project=True), *block(width)]
    return [*layers, GLOBAL_MEAN, FLATTEN, linear(10)]


def _vgg() -> list[Layer]:
    layers: list[Layer] = []
    for width in (32, 64):
        layers += [*conv_bn(width), RELU, *conv_bn(width), RELU, POOL]
    return [*layers, FLATTEN, linear(10)]


NETS = {
    "mlp-4-32-3": Net((linear(32), TANH, linear(3)), (4,), 3),
    "mlp-784-128-10": Net((linear(128), RELU, linear(10)), (784,), 10),
    "lenet5": Net(
        (
            *(conv(6, 5, 2), RELU, POOL, conv(16, 5, 0), RELU, POOL, FLATTEN),
            *(linear(120), RELU, linear(84), RELU, linear(10)),
        ),
        (1, 28, 28),
        10,
    ),
    "cnn-32-64": Net(
        (
            *(conv(32), RELU, POOL, conv(64), RELU, POOL, FLATTEN),
            *(linear(128), RELU, linear(10)),
        ),
        (1, 28, 28),
        10,
    ),
    "vgg-32-32-64-64": Net(tuple(_vgg()), (3, 32, 32), 10),
    "resnet18": Net(tuple(_resnet18()), (3, 32, 32), 10),
    **{f"{m.lower()}-128": Net((rnn(m, 128), linear(10)), (28, 28), 10) for m in GATES},
    **{f"{m.lower()}-32": Net((rnn(m, 32), linear(10)), (100, 32), 10) for m in GATES},
    "lstm-256-256-both": Net((rnn("LSTM", 256, 2, both=True), linear(10)), (64, 256), 10),
}


def resolve(table: Any, shape: Shape, prefix: str = "") -> list[Layer]:
    """Layers with names and shapes; a linear after a flatten also has "chw", what was flattened."""
    done: list[Layer] = []
    for i, layer in enumerate(table):
        full = {**layer, "name": f"{prefix}{i}", "shape": shape}
        if layer["op"] == "residual":
            for part in ("main", "shortcut"):
                full[part] = resolve(layer[part], shape, f"{prefix}{i}.{part}.")
        if layer["op"] == "linear" and done and done[-1]["op"] == "flatten":
            full["chw"] = done[-1]["shape"]
        shape = full["to"] = _output(full, shape)
        done.append(full)
    return done


def _output(layer: Layer, shape: Shape) -> Shape:
    op = layer["op"]
    if op == "conv":
        pad, kernel, stride = layer["padding"], layer["kernel"], layer["stride"]
        return (layer["out"], *((n + 2 * pad - kernel) // stride + 1 for n in shape[1:]))
    if op == "linear":
        return (layer["out"],)
    if op == "maxpool":
        return (shape[0], shape[1] // 2, shape[2] // 2)
    if op == "mean":
        return (shape[0], 1, 1)
    if op == "flatten":
        return (math.prod(shape),)
    if op == "rnn":
        return (layer["hidden"] * (1 + layer["both"]),)
    if op == "residual":
        return tuple(layer["main"][-1]["to"])
    return shape


def walk(layers: list[Layer]) -> Iterator[Layer]:
    """All layers, those inside residual ones included."""
    for layer in layers:
        yield layer
        if layer["op"] == "residual":
            yield from walk(layer["main"])
            yield from walk(layer["shortcut"])


def weights(net: Net, seed: int = 0) -> dict[str, np.ndarray]:
    """A state_dict with PyTorch's keys and initial distributions, the same for every framework."""
    rng = np.random.default_rng(seed)
    state: dict[str, np.ndarray] = {}
    for layer in walk(net.layers):
        name, channels = layer["name"], layer["shape"][0]
        if layer["op"] in ("conv", "linear"):
            kernel = (layer["kernel"],) * 2 if layer["op"] == "conv" else ()
            shape = (layer["out"], channels, *kernel)
            bound = 1 / math.sqrt(math.prod(shape[1:]))
            state[f"{name}.weight"] = rng.uniform(-bound, bound, shape).astype(np.float32)
            if layer.get("bias", True):
                state[f"{name}.bias"] = rng.uniform(-bound, bound, shape[0]).astype(np.float32)
        if layer["op"] == "rnn":
            for key, shape in rnn_shapes(layer).items():
                bound = 1 / math.sqrt(layer["hidden"])
                state[f"{name}.{key}"] = rng.uniform(-bound, bound, shape).astype(np.float32)
        if layer["op"] == "bn":
            for key, value in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
                state[f"{name}.{key}"] = np.full(channels, value, np.float32)
            state[f"{name}.num_batches_tracked"] = np.zeros((), np.int64)
    return state


def rnn_shapes(layer: Layer) -> dict[str, Shape]:
    """PyTorch's parameters of recurrent layers."""
    h, columns, shapes = layer["hidden"], layer["shape"][1], {}
    rows = GATES[layer["mode"]] * h
    for i in range(layer["layers"]):
        for end, _ in directions(layer, i):
            shapes |= {f"weight_ih{end}": (rows, columns), f"weight_hh{end}": (rows, h)}
            shapes |= {f"bias_ih{end}": (rows,), f"bias_hh{end}": (rows,)}
        columns = h * (1 + layer["both"])
    return shapes


def directions(layer: Layer, i: int) -> list[tuple[str, bool]]:
    """Of recurrent layer i: the ends of its parameters' keys, and whether time runs backwards."""
    return [(f"_l{i}{s}", bool(s)) for s in ("", "_reverse")[: 1 + layer["both"]]]


def batch(net: Net, size: int, seed: int = 1) -> dict[str, np.ndarray]:
    """{"x", "y"}: normal inputs, uniform labels."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((size, *net.input), dtype=np.float32)
    return {"x": x, "y": rng.integers(0, net.classes, size)}


def _multiplications(layer: Layer) -> int:
    if layer["op"] == "conv":
        return math.prod(layer["to"]) * layer["shape"][0] * layer["kernel"] ** 2
    if layer["op"] == "rnn":
        weights = (v for k, v in rnn_shapes(layer).items() if k.startswith("weight"))
        return int(layer["shape"][0] * sum(map(math.prod, weights)))
    return layer["shape"][0] * layer["out"] if layer["op"] == "linear" else 0


def _input_multiplications(layer: Layer) -> int:
    """Those whose gradient towards the first layer's input is not needed."""
    if layer["op"] != "rnn":
        return _multiplications(layer)
    rows = GATES[layer["mode"]] * layer["hidden"] * (1 + layer["both"])
    return int(math.prod(layer["shape"]) * rows)


def flops(net: Net, size: int, training: bool) -> int:
    """Of convolutions and products; in training thrice the forward's, less the input's gradient."""
    layers = [layer for layer in walk(net.layers) if _multiplications(layer)]
    macs = sum(map(_multiplications, layers))
    return 2 * size * (3 * macs - _input_multiplications(layers[0]) if training else macs)


def rounding(net: Net, size: int, training: bool = True) -> float:
    """A bound on the relative L2 difference of two float32 implementations' outputs or gradients.

    Each layer with a sum in it, batch norm too, adds the random walk of the longest one, eps *
    sqrt(terms), on either side; the factor 8 covers constants and the rare ReLU or maximum that
    rounding decides the other way.
    """
    terms, depth = 1, 0
    for layer in walk(net.layers):
        depth += training and layer["op"] == "bn"
        if layer["op"] == "rnn":  # a step's sums pass through all steps after it
            steps, columns = layer["shape"]
            depth += layer["layers"] * steps
            terms = max(terms, columns + layer["hidden"], size * steps if training else 1)
        if layer["op"] in ("conv", "linear"):
            depth += 1
            terms = max(terms, layer["shape"][0] * layer.get("kernel", 1) ** 2)
            if training:
                terms = max(terms, size * math.prod(layer["to"][1:]))
    return 2 * 8 * depth * math.sqrt(terms) * float(np.finfo(np.float32).eps)
