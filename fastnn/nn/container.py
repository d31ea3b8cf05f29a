"""Modules made of modules in a row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastnn.nn.module import Module


class Sequential(Module):
    """Layers applied one after the other; state_dict keys start with their number: "0.weight"."""

    def __init__(self, *layers: Module) -> None:
        for i, layer in enumerate(layers):
            self._add(i, layer)

    def _add(self, i: int, layer: Module) -> None:
        if not isinstance(layer, Module):
            raise TypeError(f"Sequential: layer {i}: expected a Module, got {layer!r}")
        setattr(self, str(i), layer)

    def append(self, layer: Module) -> Sequential:
        """Add a layer at the end."""
        self._add(len(self), layer)
        return self

    def forward(self, x: Any) -> Any:
        for layer in self:
            x = layer(x)
        return x

    def __iter__(self) -> Iterator[Module]:
        return (m for _, m in self.named_children())

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __getitem__(self, i: int) -> Module:
        return list(self)[i]
