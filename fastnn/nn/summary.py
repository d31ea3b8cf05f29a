"""model.summary: what each layer gives, holds and costs, from a trace of one sample."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn.graph import Value, input_value, topological
from fastnn.nn.module import Module, Parameter
from fastnn.nn.run import Traced, model_dtype, spread


def summary(model: Module, input_shape: tuple[int, ...]) -> str:
    """A table of leaf layers: name, output shape for a batch of one, parameters, FLOPs."""
    names = {id(m): name for name, m in model.named_modules()}
    rows: list[tuple[str, str, int, int]] = []
    counted: set[int] = set()
    depth: list[int] = []

    def watched(module: Module, forward: Any) -> Any:
        def call(*inputs: Any, **named: Any) -> Any:
            depth.append(0)
            output = forward(*inputs, **named)
            inner = depth.pop()
            if depth:
                depth[-1] += 1
            if not inner:
                label = f"{type(module).__name__} ({names[id(module)] or 'model'})"
                rows.append(
                    (
                        label,
                        _shape(output),
                        *_costs(module, (inputs, *named.values()), output, counted),
                    )
                )
            return output

        return call

    leaf = input_value("input", (1, *input_shape), model_dtype(model))
    modules = list(model.modules())
    try:
        for module in modules:
            object.__setattr__(module, "forward", watched(module, module.forward))
        Traced(model.forward, [leaf], model_dtype(model))
    finally:
        for module in modules:
            vars(module).pop("forward", None)
    return _table(rows, model)


def _shape(output: Any) -> str:
    return ", ".join(str(v.shape) for v in _values(output))


def _values(x: Any) -> list[Value]:
    """The symbolic values in nested tuples."""
    leaves: list[Any] = []
    spread(x, "output", leaves)
    return [v for v in leaves if isinstance(v, Value)]


def _costs(module: Module, inputs: Any, output: Any, counted: set[int]) -> tuple[int, int]:
    """Parameters not counted before, and FLOPs of the nodes between inputs and output."""
    parameters = 0
    for p in module.parameters():
        if id(p) not in counted:
            counted.add(id(p))
            parameters += int(np.prod(p.shape, dtype=np.int64))
    before = {id(n) for n in topological(_values(inputs))}
    flops = sum(n.op.flops(n) for n in topological(_values(output)) if id(n) not in before)
    return parameters, flops


def _table(rows: list[tuple[str, str, int, int]], model: Module) -> str:
    head = ("layer", "output shape", "parameters", "FLOPs")
    cells = [head, *[(a, b, f"{p:,}", f"{f:,}") for a, b, p, f in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(4)]
    lines = [
        f"{a:<{widths[0]}}  {b:<{widths[1]}}  {p:>{widths[2]}}  {f:>{widths[3]}}"
        for a, b, p, f in cells
    ]
    sizes: dict[bool, int] = {True: 0, False: 0}
    for p in model.parameters():
        assert isinstance(p, Parameter)
        sizes[p.requires_grad] += int(np.prod(p.shape, dtype=np.int64))
    total = sum(f for *_, f in rows)
    lines.insert(1, "-" * len(lines[0]))
    lines.append(
        f"{sizes[True]:,} trainable and {sizes[False]:,} frozen parameters, {total:,} FLOPs a sample"
    )
    return "\n".join(lines)
