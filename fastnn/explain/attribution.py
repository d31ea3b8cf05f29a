"""Which parts of an input an output depends on: by gradients, and by covering them."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn.explain.trace import chosen, prepared, score_gradient, scores
from fastnn.graph import Array
from fastnn.nn.conv import Conv2d
from fastnn.nn.module import Module


def saliency(model: Module, x: Any, target: Any = None) -> Array:
    """|d score / d x|: how much the score of a class changes with each number of the input.

    x (N, ...), model(x) (N, classes); target: a class, or one for each row, by default those with the
    highest scores. Returns an array like x. The model runs in inference mode and is not changed.
    ValueError for a wrong shape or target. Simonyan et al., arXiv 1312.6034.
    """
    x = prepared(model, x)
    _, _, grad = score_gradient(model, x)(x, chosen(scores(model, x), target))
    return np.abs(grad)


def integrated_gradients(
    model: Module, x: Any, target: Any = None, baseline: Any = 0.0, steps: int = 50
) -> Array:
    """(x - baseline) times the mean gradient on the straight line from the baseline to x.

    Summed over an input it gives score(x) - score(baseline), but for the midpoint rule's error in
    `steps` points. Arguments and result as saliency's; baseline broadcasts to x. ValueError as well
    for steps < 1. Sundararajan et al., arXiv 1703.01365.
    """
    x = prepared(model, x)
    if not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps: expected a positive int, got {steps!r}")
    start = np.broadcast_to(np.asarray(baseline, x.dtype), x.shape)
    weights, gradient = chosen(scores(model, x), target), score_gradient(model, x)
    total = np.zeros(x.shape)
    for k in range(steps):
        point = start + (x - start) * x.dtype.type((k + 0.5) / steps)
        total += gradient(np.ascontiguousarray(point, x.dtype), weights)[2]
    result: Array = ((x - start) * (total / steps)).astype(x.dtype)
    return result


def grad_cam(model: Module, x: Any, target: Any = None, layer: Module | str | None = None) -> Array:
    """Where in an image a convolution's channels speak for a class.

    x (N, C, H, W); layer: a module inside the model or its name, whose output is (N, channels, h, w);
    by default the last Conv2d. Each channel counts by the mean of its gradient; what is negative in
    the sum is cut. Returns (N, H, W), brought to x's size linearly. ValueError for a layer that does not
    fit. Selvaraju et al., arXiv 1610.02391.
    """
    x = prepared(model, x)
    if x.ndim != 4:
        raise ValueError(f"x: expected images (N, C, H, W), got shape {x.shape}")
    gradient = score_gradient(model, x, _layer(model, layer))
    _, inner, grad = gradient(x, chosen(scores(model, x), target))
    if inner.ndim != 4:
        raise ValueError(f"layer: expected an output (N, C, h, w), got shape {inner.shape}")
    weights = grad.mean((2, 3), keepdims=True)
    return _resized(np.maximum((weights * inner).sum(1), 0), x.shape[2], x.shape[3])


def occlusion(
    model: Module,
    x: Any,
    target: Any = None,
    window: int = 3,
    stride: int = 1,
    value: float = 0.0,
) -> Array:
    """How far a class's score falls when a square of the image is covered by `value`.

    x (N, C, H, W). Returns (N, H, W): the mean fall over the windows that cover a pixel, 0 where none
    does. ValueError for a window that does not fit. Zeiler and Fergus, arXiv 1311.2901.
    """
    x = prepared(model, x)
    if x.ndim != 4:
        raise ValueError(f"x: expected images (N, C, H, W), got shape {x.shape}")
    height, width = x.shape[2:]
    if not 1 <= window <= min(height, width) or stride < 1:
        raise ValueError(
            f"window, stride: expected a window of 1 to {min(height, width)} and a positive stride, "
            f"got {window!r} and {stride!r}"
        )
    output = scores(model, x)
    weights = chosen(output, target)
    before = (output * weights).sum(1)
    falls, counts = np.zeros((len(x), height, width)), np.zeros((height, width))
    for top in range(0, height - window + 1, stride):
        for left in range(0, width - window + 1, stride):
            area = (slice(top, top + window), slice(left, left + window))
            covered = x.copy()
            covered[:, :, area[0], area[1]] = value
            fall = before - (scores(model, covered) * weights).sum(1)
            falls[:, area[0], area[1]] += fall[:, None, None]
            counts[area] += 1
    result: Array = (falls / np.maximum(counts, 1)).astype(x.dtype)
    return result


def _layer(model: Module, layer: Module | str | None) -> Module:
    modules = dict(model.named_modules())
    if isinstance(layer, str):
        if layer not in modules:
            raise ValueError(f"layer: expected one of {[n for n in modules if n]}, got {layer!r}")
        return modules[layer]
    if layer is not None:
        return layer
    convolutions = [m for m in modules.values() if isinstance(m, Conv2d)]
    if not convolutions:
        raise ValueError("layer: the model has no Conv2d; name another layer")
    return convolutions[-1]


def _resized(maps: Array, height: int, width: int) -> Array:
    """(N, h, w) -> (N, height, width), linearly between the middles of pixels."""
    for axis, size in ((1, height), (2, width)):
        n = maps.shape[axis]
        place = np.clip((np.arange(size) + 0.5) * n / size - 0.5, 0, n - 1)
        low = np.floor(place).astype(int)
        part = (place - low).reshape((-1, 1) if axis == 1 else (1, -1)).astype(maps.dtype)
        upper = maps.take(np.minimum(low + 1, n - 1), axis)
        maps = maps.take(low, axis) * (1 - part) + upper * part
    return maps
