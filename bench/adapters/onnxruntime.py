"""ONNX Runtime's side: inference of a graph built node by node from the table of layers."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from bench.nets import NETS, Layer

VERSION = onnxruntime.__version__


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
        else:
            kinds = {"relu": "Relu", "tanh": "Tanh", "flatten": "Flatten"}
            kind = kinds.get(op, "GlobalAveragePool")
        inputs = [x, *[f"{name}.{w}" for w in weights]]
        nodes.append(helper.make_node(kind, inputs, [out], **attributes))
        x = out
    return nodes, x


class Infer:
    """session.run on one batch again and again."""

    via = "InferenceSession.run"

    def __init__(self, spec: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        x = arrays["x"]
        nodes, output = _nodes(NETS[spec["net"]].layers, "x")
        state = {k: v for k, v in arrays.items() if k not in ("x", "y") and v.ndim}
        graph = helper.make_graph(
            nodes,
            spec["net"],
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
            [numpy_helper.from_array(v, k) for k, v in state.items()],
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
