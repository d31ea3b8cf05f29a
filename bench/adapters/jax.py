"""JAX's side: the whole step under jit, buffers donated, images channels-last."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..case import CHECK_STEPS
from ..cell import cell
from ..channels_last import from_native, split, to_native
from ..nets import NETS, Layer, directions

VERSION = jax.__version__
State = dict[str, jax.Array]
LIB = SimpleNamespace(
    sigmoid=jax.nn.sigmoid, tanh=jnp.tanh, split=lambda x, n: jnp.split(x, n, axis=-1)
)


def _conv(v: Layer, p: State, x: jax.Array) -> jax.Array:
    name, pad = v["name"], (v["padding"],) * 2
    y = lax.conv_general_dilated(
        x,
        p[f"{name}.weight"],
        (v["stride"],) * 2,
        (pad, pad),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return y + p[f"{name}.bias"] if v["bias"] else y


def _bn(v: Layer, p: State, x: jax.Array, running: State, training: bool) -> jax.Array:
    name = v["name"]
    if training:
        mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
        count = x.size // x.shape[-1]
        for key, new in (("mean", mean), ("var", var * (count / (count - 1)))):
            key = f"{name}.running_{key}"
            running[key] = 0.9 * running[key] + 0.1 * lax.stop_gradient(new)
    else:
        mean, var = running[f"{name}.running_mean"], running[f"{name}.running_var"]
    scale = p[f"{name}.weight"] * lax.rsqrt(var + 1e-5)
    return (x - mean) * scale + p[f"{name}.bias"]


def _rnn(v: Layer, p: State, x: jax.Array) -> jax.Array:
    """The last step's output of x (N, T, C); the input's products are one for all steps."""
    x = x.transpose(1, 0, 2)
    start = (jnp.zeros((x.shape[1], v["hidden"])),) * 2

    def run(end: str, backwards: bool) -> jax.Array:
        name = v["name"]

        def step(state: Any, given: jax.Array) -> Any:
            h = state[0] @ p[f"{name}.weight_hh{end}"] + p[f"{name}.bias_hh{end}"]
            state = cell(v["mode"], LIB, given, h, state)
            return state, state[0]

        given = x @ p[f"{name}.weight_ih{end}"] + p[f"{name}.bias_ih{end}"]
        return lax.scan(step, start, given, reverse=backwards)[1]

    for i in range(v["layers"]):
        x = jnp.concatenate([run(*d) for d in directions(v, i)], -1)
    return x[-1]


def forward(layers: list[Layer], p: State, running: State, x: jax.Array, training: bool) -> Any:
    """The network's output; in training, `running` is updated in place."""
    for v in layers:
        op, name = v["op"], v["name"]
        if op == "conv":
            x = _conv(v, p, x)
        elif op == "linear":
            x = x @ p[f"{name}.weight"] + p[f"{name}.bias"]
        elif op == "bn":
            x = _bn(v, p, x, running, training)
        elif op == "rnn":
            x = _rnn(v, p, x)
        elif op == "maxpool":
            x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        elif op == "mean":
            x = x.mean((1, 2), keepdims=True)
        elif op == "flatten":
            x = x.reshape(len(x), -1)
        elif op == "residual":
            main, shortcut = (forward(v[k], p, running, x, training) for k in ("main", "shortcut"))
            x = main + shortcut
        else:
            x = jnp.tanh(x) if op == "tanh" else jnp.maximum(x, 0)
    return x


class Train:
    """SGD steps with momentum on one batch."""

    via = "jit, donated"

    def __init__(self, spec: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        self.net = NETS[spec["net"]]
        native = to_native(self.net, arrays)
        self.x, self.y = jnp.asarray(native["x"]), jnp.asarray(arrays["y"])
        p, running = split({k: jnp.asarray(v) for k, v in native.items()})
        self.state = (p, {k: jnp.zeros_like(v) for k, v in p.items()}, running)
        layers, lr = self.net.layers, spec["lr"]

        def loss_of(p: State, running: State, x: jax.Array, y: jax.Array) -> Any:
            running = dict(running)
            logits = jax.nn.log_softmax(forward(layers, p, running, x, True))
            return -jnp.take_along_axis(logits, y[:, None], 1).mean(), running

        @partial(jax.jit, donate_argnums=0)
        def step(state: Any, x: jax.Array, y: jax.Array) -> Any:
            p, momentum, running = state
            (loss, running), g = jax.value_and_grad(loss_of, has_aux=True)(p, running, x, y)
            momentum = {k: 0.9 * momentum[k] + g[k] for k in p}
            return ({k: p[k] - lr * momentum[k] for k in p}, momentum, running), loss

        self.step = step

    def check(self) -> dict[str, np.ndarray]:
        losses = []
        for _ in range(CHECK_STEPS):
            self.state, loss = self.step(self.state, self.x, self.y)
            losses.append(float(loss))
        state = {k: np.asarray(v) for k, v in (self.state[0] | self.state[2]).items()}
        return {"loss": np.array(losses), **from_native(self.net, state)}

    def run(self, n: int) -> None:
        for _ in range(n):
            self.state, _ = self.step(self.state, self.x, self.y)
        jax.block_until_ready(self.state)


class Infer:
    """The forward pass under jit."""

    via = "jit"

    def __init__(self, spec: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        net = NETS[spec["net"]]
        native = to_native(net, arrays)
        self.x = jnp.asarray(native["x"])
        self.p, self.running = split({k: jnp.asarray(v) for k, v in native.items()})
        self.forward = jax.jit(lambda p, running, x: forward(net.layers, p, running, x, False))

    def check(self) -> dict[str, np.ndarray]:
        return {"output": np.asarray(self.forward(self.p, self.running, self.x))}

    def run(self, n: int) -> None:
        for _ in range(n):
            self.forward(self.p, self.running, self.x).block_until_ready()


KINDS = {"train": Train, "infer": Infer}
