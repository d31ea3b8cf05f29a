"""Inference: the training cases' networks, on one sample and on a batch."""

from __future__ import annotations

from collections.abc import Iterator

from .. import nets
from ..case import Case, Side, output_difference
from ..cases.train import torch_sides

COMPILED = (
    Side("onnxruntime"),
    Side("jax", "jit"),
    Side("tensorflow", "graph", {"xla": False}),
    Side("tensorflow", "xla", {"xla": True}),
)


def cases(full: bool) -> Iterator[Case]:
    """All of this theme."""
    for name in nets.NETS:
        for size in (1, 128):
            yield _case(name, size)


def _case(name: str, size: int) -> Case:
    net = nets.NETS[name]
    return Case(
        theme="infer",
        name=f"{name} b{size}",
        kind="infer",
        spec={"net": name},
        arrays=lambda: nets.weights(net) | nets.batch(net, size),
        peers=(*torch_sides(net), *COMPILED),
        difference=output_difference,
        tolerance=nets.rounding(net, size, training=False),
        flops=nets.flops(net, size, training=False),
        unit="batch",
        weight=2.0,
    )
