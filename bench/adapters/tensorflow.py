"""TensorFlow's side: tf.function, as a graph or through XLA (`xla` in the spec), channels-last."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import numpy as np
import tensorflow as tf

from ..case import CHECK_STEPS
from ..cell import cell
from ..channels_last import from_native, split, to_native
from ..nets import NETS, Layer, directions

tf.config.threading.set_intra_op_parallelism_threads(int(os.environ["OMP_NUM_THREADS"]))
VERSION = tf.__version__
State = dict[str, tf.Variable]
LIB = SimpleNamespace(sigmoid=tf.sigmoid, tanh=tf.tanh, split=lambda x, n: tf.split(x, n, axis=-1))


def _conv(v: Layer, p: State, x: tf.Tensor) -> tf.Tensor:
    pad = [v["padding"]] * 2
    y = tf.nn.conv2d(x, p[f"{v['name']}.weight"], v["stride"], [[0, 0], pad, pad, [0, 0]], "NHWC")
    return tf.nn.bias_add(y, p[f"{v['name']}.bias"]) if v["bias"] else y


def _bn(v: Layer, p: State, running: State, x: tf.Tensor, training: bool) -> tf.Tensor:
    name = v["name"]
    scale, offset = p[f"{name}.weight"], p[f"{name}.bias"]
    old = [running[f"{name}.running_{key}"] for key in ("mean", "var")]
    if not training:
        options = {"mean": old[0], "variance": old[1], "is_training": False}
        return tf.compat.v1.nn.fused_batch_norm(x, scale, offset, epsilon=1e-5, **options)[0]
    # Its variance is the unbiased one, as the running statistics want it.
    y, *new = tf.compat.v1.nn.fused_batch_norm(x, scale, offset, epsilon=1e-5)
    for variable, value in zip(old, new, strict=True):
        variable.assign(0.9 * variable + 0.1 * value)
    return y


def _rnn(v: Layer, p: State, x: tf.Tensor) -> tf.Tensor:
    """The last step's output of x (N, T, C); the input's products are one for all steps."""
    x = tf.transpose(x, (1, 0, 2))
    start = (tf.zeros((x.shape[1], v["hidden"])),) * 2

    def run(end: str, backwards: bool) -> tf.Tensor:
        name = v["name"]

        def step(state: Any, given: tf.Tensor) -> Any:
            h = tf.matmul(state[0], p[f"{name}.weight_hh{end}"]) + p[f"{name}.bias_hh{end}"]
            return cell(v["mode"], LIB, given, h, state)

        given = tf.tensordot(x, p[f"{name}.weight_ih{end}"], 1) + p[f"{name}.bias_ih{end}"]
        return tf.scan(step, given, start, reverse=backwards)[0]

    for i in range(v["layers"]):
        x = tf.concat([run(*d) for d in directions(v, i)], -1)
    return x[-1]


def forward(layers: list[Layer], p: State, running: State, x: tf.Tensor, training: bool) -> Any:
    """The network's output."""
    for v in layers:
        op, name = v["op"], v["name"]
        if op == "conv":
            x = _conv(v, p, x)
        elif op == "linear":
            x = tf.matmul(x, p[f"{name}.weight"]) + p[f"{name}.bias"]
        elif op == "bn":
            x = _bn(v, p, running, x, training)
        elif op == "rnn":
            x = _rnn(v, p, x)
        elif op == "maxpool":
            x = tf.nn.max_pool2d(x, 2, 2, "VALID")
        elif op == "mean":
            x = tf.reduce_mean(x, (1, 2), keepdims=True)
        elif op == "flatten":
            x = tf.reshape(x, (x.shape[0], -1))
        elif op == "residual":
            main, shortcut = (forward(v[k], p, running, x, training) for k in ("main", "shortcut"))
            x = main + shortcut
        else:
            x = tf.tanh(x) if op == "tanh" else tf.nn.relu(x)
    return x


class _Model:
    def __init__(self, spec: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        self.net = NETS[spec["net"]]
        native = to_native(self.net, arrays)
        self.x, self.y = tf.constant(native["x"]), tf.constant(arrays["y"])
        self.p, self.running = (
            {k: tf.Variable(v) for k, v in part.items()} for part in split(native)
        )
        self.via = "tf.function" + (", jit_compile" if spec["xla"] else "")


class Train(_Model):
    """SGD steps with momentum on one batch."""

    def __init__(self, spec: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        super().__init__(spec, arrays)
        momentum = {k: tf.Variable(tf.zeros_like(v)) for k, v in self.p.items()}

        @tf.function(jit_compile=spec["xla"])
        def step(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
            with tf.GradientTape() as tape:
                logits = forward(self.net.layers, self.p, self.running, x, True)
                rows = tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)
                loss = tf.reduce_mean(rows)
            gradients = tape.gradient(loss, self.p)
            for k, v in self.p.items():
                momentum[k].assign(0.9 * momentum[k] + gradients[k])
                v.assign_sub(spec["lr"] * momentum[k])
            return loss

        self.step = step

    def check(self) -> dict[str, np.ndarray]:
        losses = [float(self.step(self.x, self.y)) for _ in range(CHECK_STEPS)]
        state = {k: v.numpy() for k, v in (self.p | self.running).items()}
        return {"loss": np.array(losses), **from_native(self.net, state)}

    def run(self, n: int) -> None:
        for _ in range(n):
            loss = self.step(self.x, self.y)
        loss.numpy()


class Infer(_Model):
    """The forward pass."""

    def __init__(self, spec: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        super().__init__(spec, arrays)
        self.forward = tf.function(
            lambda x: forward(self.net.layers, self.p, self.running, x, False),
            jit_compile=spec["xla"],
        )

    def check(self) -> dict[str, np.ndarray]:
        return {"output": self.forward(self.x).numpy()}

    def run(self, n: int) -> None:
        for _ in range(n):
            self.forward(self.x).numpy()


KINDS = {"train": Train, "infer": Infer}
