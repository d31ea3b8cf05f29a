"""ONNX Runtime's side: inference of a graph built node by node from the table of layers."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from ..nets import NETS, Layer, directions, walk

VERSION = onnxruntime.__version__
Arrays = dict[str, np.ndarray]


def _nodes(layers: list[Layer], x: str) -> tuple[list[Any], str]:
    """The nodes of a completed table, and the name of its output."""
    nodes: list[Any] = []
    for v in layers:
        name, op = v["name"], v["op"]
        out, weights, attributes = f"{name}.out", [], {}
        if op == "conv":
            kind, weights = "Conv", ["weight", "bias"][: 1 + v["bias"]]
            attributes = {"pads": [v["padding"]] * 4, "strides": [v["stride"]] * 2}
        elif op == "linear":
            kind, weights, attributes = "Gemm", ["weight", "bias"], {"transB": 1}
        elif op == "bn":
            kind, weights = "BatchNormalization", ["weight", "bias", "running_mean", "running_var"]
        elif op == "maxpool":
            kind, attributes = "MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2]}
        elif op == "residual":
            main, y = _nodes(v["main"], x)
            shortcut, z = _nodes(v["shortcut"], x)
            nodes += [*main, *shortcut, helper.make_node("Add", [y, z], [out])]
            x = out
            continue
        elif op == "rnn":
            more, x = _recurrent_nodes(v, x)
            nodes += more
            continue
        else:
            kinds = {"relu": "Relu", "tanh": "Tanh", "flatten": "Flatten"}
            kind = kinds.get(op, "GlobalAveragePool")
        inputs = [x, *[f"{name}.{w}" for w in weights]]
        nodes.append(helper.make_node(kind, inputs, [out], **attributes))
        x = out
    return nodes, x


GATES = {"RNN": [0], "LSTM": [0, 3, 1, 2], "GRU": [1, 0, 2]}  # ONNX's order, in PyTorch's


def _recurrent_nodes(v: Layer, x: str) -> tuple[list[Any], str]:
    """Time first, the layers one by one, their directions side by side, and the last step."""
    node, name = helper.make_node, v["name"]
    options = {"direction": "bidirectional" if v["both"] else "forward"}
    if v["mode"] == "GRU":
        options["linear_before_reset"] = 1
    nodes = [node("Transpose", [x], [f"{name}.in0"], perm=[1, 0, 2])]
    for i in range(v["layers"]):
        weights = [f"{name}.{key}{i}" for key in "WRB"]
        inputs, out = [f"{name}.in{i}", *weights], f"{name}.y{i}"  # T, directions, N, hidden
        nodes.append(node(v["mode"], inputs, [out], hidden_size=v["hidden"], **options))
        nodes.append(node("Transpose", [out], [f"{out}.t"], perm=[0, 2, 1, 3]))
        nodes.append(node("Reshape", [f"{out}.t", f"{name}.shape"], [f"{name}.in{i + 1}"]))
    nodes.append(node("Gather", [f"{name}.in{v['layers']}", f"{name}.last"], [f"{name}.out"]))
    return nodes, f"{name}.out"


def _recurrent_weights(v: Layer, state: Arrays) -> Arrays:
    """W, R and B of each layer, made of PyTorch's parameters."""
    name, order = v["name"], GATES[v["mode"]]
    made = {f"{name}.last": np.array(-1), f"{name}.shape": np.array([0, 0, -1])}

    def stacked(key: str, i: int) -> np.ndarray:
        found = [state[f"{name}.{key}{end}"] for end, _ in directions(v, i)]
        parts = [np.split(w, len(order)) for w in found]
        return np.stack([np.concatenate([gates[k] for k in order]) for gates in parts])

    for i in range(v["layers"]):
        made |= {f"{name}.W{i}": stacked("weight_ih", i), f"{name}.R{i}": stacked("weight_hh", i)}
        biases = [stacked(key, i) for key in ("bias_ih", "bias_hh")]
        made[f"{name}.B{i}"] = np.concatenate(biases, 1)
    return made


class Infer:
    """session.run on one batch again and again."""

    via = "InferenceSession.run"

    def __init__(self, spec: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        x = arrays["x"]
        layers = NETS[spec["net"]].layers
        nodes, output = _nodes(layers, "x")
        state = {k: v for k, v in arrays.items() if k not in ("x", "y") and v.ndim}
        for v in walk(layers):
            if v["op"] == "rnn":
                state |= _recurrent_weights(v, state)
        used = {name for node in nodes for name in node.input}
        graph = helper.make_graph(
            nodes,
            spec["net"],
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
            [numpy_helper.from_array(v, k) for k, v in state.items() if k in used],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ["OMP_NUM_THREADS"])
        providers = ["CPUExecutionProvider"]
        content = model.SerializeToString()
        self.session = onnxruntime.InferenceSession(content, options, providers=providers)
        self.feed = {"x": x}

    def check(self) -> dict[str, np.ndarray]:
        return {"output": self.session.run(None, self.feed)[0]}

    def run(self, n: int) -> None:
        for _ in range(n):
            self.session.run(None, self.feed)


KINDS = {"infer": Infer}
