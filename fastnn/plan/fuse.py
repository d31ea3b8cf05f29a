"""Peepholes over the graph, after differentiation: what a gemm or convolution can do in registers.

A rule looks at one node and at what made its inputs; it applies where the intermediate value has this
one consumer. The rules, each of which pays in the benchmarks:

1. activation after matmul, conv2d, batch_norm        -> its epilogue
2. addition to the result of conv2d, batch_norm       -> its residual
3. activation gradient of matmul, conv2d_grad_data    -> its epilogue, from the saved output
4. ReLU gradient of max-pool's or batch norm's output -> a mask inside the backward kernel
5. batch norm with given statistics after conv2d      -> other weights and bias for it
6. gradient of one step of a recurrent layer's output -> no array of zeros for the other steps
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fastnn.graph import Node, Value, topological
from fastnn.ops import elementwise as ew
from fastnn.ops.conv import Conv2d
from fastnn.ops.conv_grad import Conv2dGradData
from fastnn.ops.epilogue import ACTS
from fastnn.ops.index import Assemble, full
from fastnn.ops.matmul import MatMul
from fastnn.ops.norm import BatchNormApply, BatchNormGrad, BatchNormTrain
from fastnn.ops.op import Op, StorageLeaf
from fastnn.ops.pool import Pool, PoolGrad
from fastnn.ops.rnn_grad import RecurrentGrad
from fastnn.ops.shape import reshape

# Producers with an activation epilogue, and the position of their residual input.
RESIDUAL = {MatMul: 3, Conv2d: 3, Conv2dGradData: 2, BatchNormTrain: 3, BatchNormApply: 5}
SAVED = {MatMul: 4, Conv2dGradData: 3}


Uses = dict[Value, int]
Match = tuple[Node, Node]  # the node whose place is taken, and the one that takes it


class Fused:
    """The values of a graph and what they became."""

    def __init__(self) -> None:
        self._now: dict[Value, Value] = {}

    def __getitem__(self, value: Value) -> Value:
        while value in self._now:
            value = self._now[value]
        return value

    def replace(self, old: Sequence[Value], new: Sequence[Value], uses: Uses) -> None:
        """Readers of `old` read `new` from now on."""
        for a, b in zip(old, new, strict=True):
            if a is not b:
                self._now[a] = b
                uses[b] = uses.get(a, 0)


def fuse(outputs: Sequence[Value]) -> Fused:
    """Apply the rules to everything that `outputs` need."""
    order = topological(outputs)
    uses: Uses = {}
    for values in (outputs, *(node.inputs for node in order)):
        for v in values:
            if v is not None:
                uses[v] = uses.get(v, 0) + 1
    now = Fused()
    for old in order:
        node = old
        inputs = tuple(None if v is None else now[v] for v in node.inputs)
        if any(a is not b for a, b in zip(inputs, node.inputs, strict=True)):
            node = Node(node.op, inputs, _specs(node), node.line)
            now.replace(old.outputs, node.outputs, uses)
        for rule in RULES:
            match = rule(node, uses)
            if match is not None:
                replaced, better = match
                if replaced is not node:  # its first output was node's alone, the others were not
                    now.replace(replaced.outputs[1:], better.outputs[1:], uses)
                    now.replace(node.outputs, better.outputs[:1], uses)
                else:
                    now.replace(node.outputs, better.outputs, uses)
                break
    return now


def _specs(node: Node) -> list[tuple[tuple[int, ...], object]]:
    return [(v.shape, v.dtype) for v in node.outputs]


def _extended(producer: Node, op: Op, position: int, value: Value | None) -> Node:
    """The producer with another op and `value` as its input number `position`."""
    inputs = list(producer.inputs)
    if value is not None:
        inputs += [None] * (position + 1 - len(inputs))
        inputs[position] = value
    return Node(op, tuple(inputs), _specs(producer), producer.line)


def _single(value: Value | None, uses: Uses, *ops: type[Op]) -> Node | None:
    """The node that made `value`, if it is one of `ops` and nobody else reads the value."""
    if value is None or uses.get(value, 0) != 1 or not isinstance(value.node.op, ops):
        return None
    return value.node


def _has(node: Node, position: int) -> bool:
    return len(node.inputs) > position and node.inputs[position] is not None


def activation(node: Node, uses: Uses) -> Match | None:
    """Rule 1."""
    if node.op.name not in ACTS:
        return None
    ops = (MatMul, Conv2d, BatchNormTrain, BatchNormApply)
    producer = _single(node.inputs[0], uses, *ops)
    if producer is None or producer.op.act or node.inputs[0] is not producer.outputs[0]:  # type: ignore[attr-defined]
        return None
    if node.op.name != "relu" and isinstance(producer.op, (BatchNormTrain, BatchNormApply)):
        return None
    return producer, _extended(producer, producer.op.replace(act=node.op.name), 0, None)


def residual(node: Node, uses: Uses) -> Match | None:
    """Rule 2: the later of the two summands takes the other in."""
    if not isinstance(node.op, ew.Add):
        return None
    left, right = node.inputs
    assert left is not None and right is not None
    if left.shape != right.shape:
        return None
    for mine, other in ((left, right), (right, left)):
        producer = _single(mine, uses, *RESIDUAL)
        if producer is None or producer.op.act or mine is not producer.outputs[0]:  # type: ignore[attr-defined]
            continue
        position = RESIDUAL[type(producer.op)]
        if not _has(producer, position) and not _depends(other, producer):
            return producer, _extended(producer, producer.op, position, other)
    return None


def activation_grad(node: Node, uses: Uses) -> Match | None:
    """Rule 3."""
    name = node.op.name.removesuffix("_grad")
    if name not in ACTS or not node.op.name.endswith("_grad"):
        return None
    y, dy = node.inputs
    producer = _single(dy, uses, MatMul, Conv2dGradData)
    if producer is None or y is None or dy is None or y.shape != dy.shape:
        return None
    if producer.op.act:  # type: ignore[attr-defined]
        return None
    op = producer.op
    return producer, _extended(producer, op.replace(act=name), SAVED[type(op)], y)


def masked(node: Node, uses: Uses) -> Match | None:
    """Rule 4: relu_grad(relu(x), pool_grad(dy, idx)) reads y = pool(relu(x)) instead of relu(x),
    and batch_norm_grad(x, relu_grad(y, dy)) masks dy itself."""
    if isinstance(node.op, ew.ReluGrad):
        y, dy = node.inputs
        producer = _single(dy, uses, PoolGrad)
        if producer is None or producer.op.mode != "max" or _has(producer, 2):  # type: ignore[attr-defined]
            return None
        pooled = producer.inputs[1].node  # type: ignore[union-attr]
        if not isinstance(pooled.op, Pool) or pooled.inputs[0] is not y:
            return None
        return producer, _extended(producer, producer.op, 2, pooled.outputs[0])
    if isinstance(node.op, BatchNormGrad) and not _has(node, 5):
        producer = _single(node.inputs[1], uses, ew.ReluGrad)
        if producer is None:
            return None
        y, dy = producer.inputs
        assert y is not None and dy is not None
        if not isinstance(y.node.op, (BatchNormTrain, ew.Relu)) or y.shape != dy.shape:
            return None
        inputs = [*node.inputs[:1], dy, *node.inputs[2:], *[None] * (5 - len(node.inputs)), y]
        return node, Node(node.op, tuple(inputs), _specs(node), node.line)
    return None


def folded(node: Node, uses: Uses) -> Match | None:
    """Rule 5, where weights are scaled once, or at each run but are fewer than the activations."""
    if not isinstance(node.op, BatchNormApply) or node.op.act or _has(node, 5):
        return None
    producer = _single(node.inputs[0], uses, Conv2d)
    if producer is None or producer.op.act or _has(producer, 3):  # type: ignore[attr-defined]
        return None
    (x, w, bias), (_, mean, var, gamma, beta) = (
        (*n.inputs, None, None, None)[:count] for n, count in ((producer, 3), (node, 5))
    )
    assert w is not None and mean is not None and var is not None
    if not isinstance(w.node.op, StorageLeaf) and node.outputs[0].size <= w.size:
        return None
    scale: Value = ew.reciprocal(ew.sqrt(ew.add(var, node.op.eps)))
    scale = scale if gamma is None else ew.mul(scale, gamma)
    shift: Value = ew.mul(ew.neg(mean) if bias is None else ew.sub(bias, mean), scale)
    shift = shift if beta is None else ew.add(shift, beta)
    weight: Value = ew.mul(w, reshape(scale, (-1, 1, 1, 1)))
    return node, Node(producer.op, (x, weight, shift), _specs(node), producer.line)


def one_step(node: Node, uses: Uses) -> Match | None:
    """Rule 6."""
    if not isinstance(node.op, RecurrentGrad) or node.op.dy_step >= 0:
        return None
    producer = _single(node.inputs[0], uses, Assemble)
    if producer is None:
        return None
    op, every = producer.op, full(producer.outputs[0].shape)
    assert isinstance(op, Assemble)
    step, stride, _ = op.windows[0][1]
    if stride or len(op.windows) > 1 or op.fill or op.windows[0][::2] != every[::2]:
        return None
    inputs = (producer.inputs[0], *node.inputs[1:])
    return node, Node(node.op.replace(dy_step=step), inputs, _specs(node), node.line)


def _depends(value: Value, node: Node) -> bool:
    """True if `value` is computed from `node`'s outputs."""
    return any(n is node for n in topological([value]))


RULES: list[Callable[[Node, Uses], Match | None]] = [
    activation,
    residual,
    activation_grad,
    masked,
    folded,
    one_step,
]
