"""Who reads which value of a plan, and which nodes are computed along with others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from fastnn.graph import Node, Value

if TYPE_CHECKING:
    from fastnn.ops.op import Op


class Readers:
    """The nodes of a plan by what they read."""

    def __init__(self, fused: bool) -> None:
        self.fused = fused  # whether steps may take over a part of others'
        self._consumers: dict[Value, list[Node]] = {}
        self._wanted: set[Value] = set()
        self._done: set[Node] = set()
        self._postponed: set[Node] = set()

    def find_readers(self, nodes: Iterable[Node], outputs: Iterable[Value]) -> None:
        """Look through the plan's nodes; outputs: the values that are wanted themselves."""
        self._wanted = set(outputs)
        for node in nodes:
            for value in node.inputs:
                if value is not None:
                    self._consumers.setdefault(value, []).append(node)

    def readers(self, value: Value) -> Sequence[Node]:
        """The nodes of this plan that read `value`."""
        return self._consumers.get(value, ())

    def is_used(self, value: Value) -> bool:
        """True if a node of this plan reads `value`, or it is wanted itself."""
        return value in self._consumers or value in self._wanted

    def is_read_by(self, value: Value, op: type[Op]) -> bool:
        """True if a node of this plan with such an op reads `value`."""
        return any(isinstance(node.op, op) for node in self.readers(value))

    def only_reader(self, value: Value) -> Node | None:
        """The node that alone reads `value`, which nobody else wants."""
        readers = self.readers(value)
        alone = len(readers) == 1 and value not in self._wanted
        return readers[0] if alone else None

    def image_consumer(self, value: Value) -> bool:
        """True if an op that wants channels-last images reads `value`."""
        return any(node.op.images for node in self.readers(value))

    def are_scaling(self, value: Value) -> bool:
        """True if all who read `value` can compute it from what a batch norm with ReLU leaves."""
        readers = self.readers(value) if value not in self._wanted else ()
        once = len(set(readers)) == len(readers)
        return bool(readers) and once and all(n.op.scales(n, value, self) for n in readers)

    def lowered(self, node: Node) -> None:
        """Tell that `node`, which comes later, is part of the step that is being emitted."""
        self._done.add(node)

    def postpone(self, node: Node) -> None:
        """Leave it to the one reader of `node` to compute it as well."""
        self._postponed.add(node)

    def postponed(self, value: Value) -> Node | None:
        """The node that should have made `value`, and was left to its reader."""
        return value.node if value.node in self._postponed else None

    def is_lowered(self, node: Node) -> bool:
        """Whether `node` is part of a step that was emitted already."""
        return node in self._done
