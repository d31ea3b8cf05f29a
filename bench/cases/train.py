"""Training: one step on a batch in memory, steps inside fit, and a whole epoch."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from .. import nets
from ..case import CHECK_STEPS, Case, Side, update_difference

TORCH = tuple(
    Side("torch", layout, {"layout": layout}) for layout in ("contiguous", "channels_last")
)
COMPILED = (
    Side("jax", "jit"),
    Side("tensorflow", "graph", {"xla": False}),
    Side("tensorflow", "xla", {"xla": True}),
)
STEPS = (
    ("mlp-4-32-3", 32),
    ("mlp-784-128-10", 64),
    ("lenet5", 1),
    ("lenet5", 128),
    ("cnn-32-64", 128),
    ("vgg-32-32-64-64", 128),
    ("resnet18", 64),
    *((f"{mode}-128", 128) for mode in ("lstm", "gru", "rnn")),
    *((f"{mode}-32", 1) for mode in ("lstm", "gru", "rnn")),
    ("lstm-256-256-both", 32),
)
SGD = {"optimizer": "sgd", "lr": 0.01}


def torch_sides(net: nets.Net) -> tuple[Side, ...]:
    """PyTorch in both layouts where there are images."""
    return TORCH if len(net.input) == 3 else (Side("torch"),)


def step_case(name: str, size: int) -> Case:
    """SGD with momentum 0.9 on one batch."""
    net = nets.NETS[name]
    return Case(
        theme="train",
        name=f"{name} b{size}",
        kind="train",
        spec={"net": name, **SGD},
        arrays=lambda: nets.weights(net) | nets.batch(net, size),
        peers=(*torch_sides(net), *COMPILED),
        difference=update_difference,
        tolerance=CHECK_STEPS * nets.rounding(net, size),
        flops=nets.flops(net, size, training=True),
        weight=3.0,
    )


def fit_case(name: str, size: int, steps: int) -> Case:
    """Steps inside fit, over consecutive batches: what the loop around a step costs."""
    net = nets.NETS[name]
    return Case(
        theme="train",
        name=f"{name} b{size} in fit",
        kind="fit",
        spec={"net": name, "batch": size, "shuffle": False, **SGD},
        arrays=lambda: nets.weights(net) | nets.batch(net, size * steps),
        peers=torch_sides(net),
        difference=update_difference,
        tolerance=CHECK_STEPS * nets.rounding(net, size),
        flops=nets.flops(net, size * steps, training=True),
        steps=steps,
        weight=3.0,
    )


def epoch_case(rows: int, size: int = 128) -> Case:
    """An epoch of the CNN over the first rows of Fashion-MNIST with Adam, shuffled.

    Adam divides each gradient by its own size: where it is below its rounding error, for a share of
    about that relative error of the elements, the update may go the other way. Hence 2 sqrt(error).
    """
    net = nets.NETS["cnn-32-64"]

    def arrays() -> dict[str, np.ndarray]:
        from fastnn import data

        images = data.fashion_mnist()
        x, y = (part[:rows] for part in images.train)
        return {**nets.weights(net), "x": x * np.float32(images.scale), "y": y}

    return Case(
        theme="train",
        name=f"cnn-32-64 b{size} epoch of {rows:,}",
        kind="fit",
        spec={"net": "cnn-32-64", "batch": size, "shuffle": True, "optimizer": "adam", "lr": 1e-3},
        arrays=arrays,
        peers=TORCH,
        difference=update_difference,
        tolerance=2 * math.sqrt(CHECK_STEPS * nets.rounding(net, size)),
        flops=nets.flops(net, rows, training=True),
        unit="epoch",
        weight=3.0,
    )


def cases(full: bool) -> Iterator[Case]:
    """All of this theme."""
    for name, size in STEPS:
        yield step_case(name, size)
    yield fit_case("mlp-4-32-3", 32, steps=1000)
    yield epoch_case(60_000 if full else 1_280)
