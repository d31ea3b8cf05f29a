"""PyTorch: what eager training calls, images channels-last, outputs given where it takes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from . import Arrays, Maker, kept, operands

aten = torch.ops.aten


def _image(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(x).contiguous(memory_format=torch.channels_last)


def _one(call: Any, key: str) -> Any:
    """A call whose returned tensor is the result."""
    kept: list[torch.Tensor] = []

    def run() -> None:
        kept[:] = [call()]

    return run, lambda: {key: kept[0].contiguous().numpy()}


def matmul(a: Arrays, spec: dict[str, Any]) -> Any:
    """torch.mm with out"""
    x, y = (torch.from_numpy(v) for v in operands(a, spec))
    c = torch.empty(len(x), y.shape[1])
    return lambda: torch.mm(x, y, out=c), lambda: {"c": c.numpy()}


def conv_fwd(a: Arrays, spec: dict[str, Any]) -> Any:
    """torch.conv2d, channels_last"""
    x, w = _image(a["x"]), _image(a["w"])
    given = {k: spec[k] for k in ("stride", "padding", "dilation", "groups")}
    return _one(lambda: torch.conv2d(x, w, **given), "y")


def _backward(a: Arrays, spec: dict[str, Any], mask: list[bool]) -> Any:
    x, w, dy = (_image(a[k]) for k in ("x", "w", "dy"))
    pairs = [[spec[k]] * 2 for k in ("stride", "padding", "dilation")]
    sizes = (*pairs, False, [0, 0], spec["groups"])
    return lambda: aten.convolution_backward(dy, x, w, None, *sizes, mask)


def conv_bwd_data(a: Arrays, spec: dict[str, Any]) -> Any:
    """aten.convolution_backward, channels_last"""
    call = _backward(a, spec, [True, False, False])
    return _one(lambda: call()[0], "dx")


def conv_bwd_weight(a: Arrays, spec: dict[str, Any]) -> Any:
    """aten.convolution_backward, channels_last"""
    call = _backward(a, spec, [False, True, False])
    return _one(lambda: call()[1], "dw")


def max_pool_fwd(a: Arrays, spec: dict[str, Any]) -> Any:
    """aten.max_pool2d_with_indices, channels_last"""
    x = _image(a["x"])
    return _one(lambda: aten.max_pool2d_with_indices(x, [2, 2])[0], "y")


def max_pool_bwd(a: Arrays, spec: dict[str, Any]) -> Any:
    """aten.max_pool2d_with_indices_backward, channels_last"""
    x, dy = _image(a["x"]), _image(a["dy"])
    index = aten.max_pool2d_with_indices(x, [2, 2])[1]
    sizes = ([2, 2], [2, 2], [0, 0], [1, 1], False)
    return _one(lambda: aten.max_pool2d_with_indices_backward(dy, x, *sizes, index), "dx")


def avg_pool_fwd(a: Arrays, spec: dict[str, Any]) -> Any:
    """aten.avg_pool2d, channels_last"""
    x = _image(a["x"])
    return _one(lambda: aten.avg_pool2d(x, [2, 2]), "y")


def avg_pool_bwd(a: Arrays, spec: dict[str, Any]) -> Any:
    """aten.avg_pool2d_backward, channels_last"""
    x, dy = _image(a["x"]), _image(a["dy"])
    sizes = ([2, 2], [2, 2], [0, 0], False, True, None)
    return _one(lambda: aten.avg_pool2d_backward(dy, x, *sizes), "dx")


def im2col(a: Arrays, spec: dict[str, Any]) -> Any:
    """aten.im2col"""
    x = torch.from_numpy(a["x"])
    return _one(lambda: aten.im2col(x, [3, 3], [1, 1], [1, 1], [1, 1]), "y")


def dropout(a: Arrays, spec: dict[str, Any]) -> Any:
    """aten.native_dropout"""
    x = torch.from_numpy(a["x"])
    call, result = _one(lambda: aten.native_dropout(x, 0.5, True)[0], "y")
    return call, lambda: kept(a["x"], result()["y"])


def xent(a: Arrays, spec: dict[str, Any]) -> Any:
    """log_softmax, nll_loss and their backward"""
    x, labels = torch.from_numpy(a["x"]), torch.from_numpy(a["labels"])
    one = torch.tensor(1.0)
    kept: list[torch.Tensor] = []

    def call() -> None:
        log = torch.log_softmax(x, 1)
        loss, weight = aten.nll_loss_forward(log, labels, None, 1, -100)
        dlog = aten.nll_loss_backward(one, log, labels, None, 1, -100, weight)
        kept[:] = loss, aten._log_softmax_backward_data(dlog, log, 1, torch.float32)

    return call, lambda: {"loss": kept[0].reshape(1).numpy(), "dx": kept[1].numpy()}


def _elementwise(function: Any) -> Maker:
    def make(a: Arrays, spec: dict[str, Any]) -> Any:
        """torch function with out"""
        x = torch.from_numpy(a["x"])
        y = torch.empty_like(x)
        return lambda: function(x, out=y), lambda: {"y": y.numpy()}

    return make


def relu(a: Arrays, spec: dict[str, Any]) -> Any:
    """torch.clamp_min with out"""
    x = torch.from_numpy(a["x"])
    y = torch.empty_like(x)
    return lambda: torch.clamp_min(x, 0, out=y), lambda: {"y": y.numpy()}


def adam(a: Arrays, spec: dict[str, Any]) -> Any:
    """torch.optim.Adam(fused=True).step"""
    w = torch.nn.Parameter(torch.from_numpy(a["w"]))
    w.grad = torch.from_numpy(a["g"])
    optimizer = torch.optim.Adam([w], lr=spec["lr"], fused=True)
    return optimizer.step, lambda: {"w": w.detach().numpy()}


def _names(*makers: Maker) -> dict[str, Maker]:
    return {make.__name__: make for make in makers}


OPS: dict[str, Maker] = {
    **_names(matmul, conv_fwd, conv_bwd_data, conv_bwd_weight, xent, relu, adam, im2col, dropout),
    **_names(max_pool_fwd, max_pool_bwd, avg_pool_fwd, avg_pool_bwd),
    "tanh": _elementwise(torch.tanh),
    "sigmoid": _elementwise(torch.sigmoid),
    "exp": _elementwise(torch.exp),
}
