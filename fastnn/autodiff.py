"""Reverse-mode differentiation: a gradient is more nodes.

Nodes are built only along paths that lead from the loss to a wanted value, so a frozen layer costs
neither a backward step nor a saved activation.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastnn.graph import Node, Seed, Value, storage_value, topological
from fastnn.ops.index import accumulate


def gradients(loss: Value, wanted: Sequence[Value]) -> list[Value | None]:
    """The gradient of a scalar `loss` with respect to each wanted value, None where it has none.

    Raises ValueError if the loss is not a float scalar.
    """
    if loss.shape != () or loss.dtype.kind != "f":
        raise ValueError(f"loss: expected one float, got {loss.dtype} of shape {loss.shape}")
    nodes = topological([loss])
    reached = _reached(nodes, wanted)
    seed = storage_value(Seed(loss.dtype))
    sums: dict[Value, Value] = {loss: seed}
    for node in reversed(nodes):
        douts = [sums.get(v) for v in node.outputs]
        if not node.inputs or all(d is None for d in douts):
            continue
        if not any(v in reached for v in node.inputs):
            continue
        dins = node.op.grad(node, *douts)
        for value, din in zip(node.inputs, dins, strict=True):
            if value is not None and din is not None and value in reached:
                sums[value] = accumulate(sums[value], din) if value in sums else din
    return [sums.get(v) for v in wanted]


def _reached(nodes: list[Node], wanted: Sequence[Value]) -> set[Value]:
    """Values that depend on a wanted one, the wanted ones included."""
    reached = set(wanted)
    for node in nodes:
        if any(v in reached for v in node.inputs if v is not None):
            reached.update(node.outputs)
    return reached
