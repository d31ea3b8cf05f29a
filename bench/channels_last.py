"""State dicts for frameworks whose native image layout is N, H, W, C: JAX and TensorFlow."""

from __future__ import annotations

import numpy as np

from .nets import Layer, Net, rnn_shapes, walk

Arrays = dict[str, np.ndarray]


def to_native(net: Net, arrays: Arrays) -> Arrays:
    """Kernels as (H, W, in, out), matrices (in, out), images and what they flatten to H, W, C."""
    native = {k: v for k, v in arrays.items() if k != "y" and v.ndim}
    for layer in walk(net.layers):
        key = f"{layer['name']}.weight"
        if layer["op"] == "conv":
            native[key] = np.ascontiguousarray(arrays[key].transpose(2, 3, 1, 0))
        for key in _recurrent(layer):
            native[key] = np.ascontiguousarray(arrays[key].T)
        if layer["op"] == "linear":
            w = arrays[key]
            if "chw" in layer:
                w = w.reshape(len(w), *layer["chw"]).transpose(0, 2, 3, 1).reshape(len(w), -1)
            native[key] = np.ascontiguousarray(w.T)
    if "x" in arrays and arrays["x"].ndim == 4:
        native["x"] = np.ascontiguousarray(arrays["x"].transpose(0, 2, 3, 1))
    return native


def from_native(net: Net, arrays: Arrays) -> Arrays:
    """Back to PyTorch's shapes."""
    state = dict(arrays)
    for layer in walk(net.layers):
        key = f"{layer['name']}.weight"
        if layer["op"] == "conv":
            state[key] = arrays[key].transpose(3, 2, 0, 1)
        for key in _recurrent(layer):
            state[key] = arrays[key].T
        if layer["op"] == "linear":
            w = arrays[key].T
            if "chw" in layer:
                c, h, wd = layer["chw"]
                w = w.reshape(len(w), h, wd, c).transpose(0, 3, 1, 2).reshape(len(w), -1)
            state[key] = w
    return state


def _recurrent(layer: Layer) -> list[str]:
    """Keys of a recurrent layer's matrices."""
    keys = rnn_shapes(layer) if layer["op"] == "rnn" else ()
    return [f"{layer['name']}.{key}" for key in keys if key.startswith("weight")]


def split(state: Arrays) -> tuple[Arrays, Arrays]:
    """(trained parameters, running statistics)."""
    running = {k: v for k, v in state.items() if ".running_" in k}
    return {k: v for k, v in state.items() if k not in running and k != "x"}, running
