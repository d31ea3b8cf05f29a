"""Pictures of what a model does: confusion, filters, feature maps, mistakes. Drawn by matplotlib.

Every function returns matplotlib's figure and, given a path, writes it there as PNG, PDF or SVG by
its ending; ImportError names the `plot` extra. Curves are drawn by History.plot and LRCurve.plot.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastnn.explain.trace import outputs_of, prepared
from fastnn.graph import Array, Value, input_value
from fastnn.nn.module import Module
from fastnn.nn.run import Traced, as_array, model_dtype, plans_of
from fastnn.plan.plan import Plan
from fastnn.train.plans import Mode
from fastnn.train.plot import new_figure, save


def confusion_matrix(matrix: Any, classes: Sequence[str] | None = None, path: Any = None) -> Any:
    """Counts (true class, predicted class) as a table, coloured by the part of the true class.

    matrix: (C, C) counts, as the metric of that name gives them; classes: their names.
    ValueError for another shape.
    """
    counts = as_array("matrix", matrix)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise ValueError(f"matrix: expected shape (C, C), got {counts.shape}")
    n = len(counts)
    names = [str(c) for c in (range(n) if classes is None else classes)]
    if len(names) != n:
        raise ValueError(f"classes: expected {n} names, got {len(names)}")
    side = max(3.2, 0.45 * n + 1.4)
    figure = new_figure(side + 0.6, side)
    axis = figure.subplots()
    part = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    image = axis.imshow(part, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, label="part of the true class", shrink=0.8)
    for row, column in zip(*np.nonzero(counts), strict=True):
        colour = "white" if part[row, column] > 0.5 else "black"
        text = f"{counts[row, column]:g}"
        axis.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    turn = 45 if max(map(len, names)) > 3 else 0
    axis.set_xticks(range(n), names, rotation=turn, ha="right" if turn else "center")
    axis.set_yticks(range(n), names)
    axis.set(xlabel="predicted", ylabel="true")
    return save(figure, path)


def filters(layer: Any, path: Any = None) -> Any:
    """The filters of a convolution, each the mean over its input channels; blue is negative.

    layer: a module with a weight (O, I, kH, kW). ValueError for another.
    """
    weight = getattr(getattr(layer, "weight", None), "data", None)
    if weight is None or weight.ndim != 4:
        raise ValueError(f"layer: expected a module with a weight (O, I, kH, kW), got {layer!r}")
    tiles = weight.mean(1)
    largest = max(float(np.abs(tiles).max()), 1e-12)
    return save(_grid(tiles, bar="weight", cmap="RdBu_r", vmin=-largest, vmax=largest), path)


def feature_maps(model: Module, x: Any, layer: Module | str, path: Any = None) -> Any:
    """What each channel of a layer shows for one image, in inference mode, on one scale.

    x (C, H, W); layer: a module inside the model or its name, whose output is (1, channels, h, w).
    ValueError for another.
    """
    image = prepared(model, as_array("x", x)[None])
    module = dict(model.named_modules()).get(layer) if isinstance(layer, str) else layer
    if module is None:
        raise ValueError(f"layer: the model has none called {layer!r}")
    maps = _output_of(model, module, image)
    if maps.ndim != 4:
        raise ValueError(f"layer: expected an output (1, C, h, w), got {maps.shape}")
    low, high = float(maps.min()), float(maps.max())
    return save(_grid(maps[0], bar="activation", cmap="viridis", vmin=low, vmax=high), path)


def mistakes(
    x: Any,
    y: Any,
    scores: Any,
    classes: Sequence[str] | None = None,
    count: int = 12,
    path: Any = None,
) -> Any:
    """The images that were most confidently taken for another class, the worst first.

    x (N, C, H, W) with 1 or 3 channels; y (N,) labels; scores (N, classes), logits or probabilities;
    confidence is the softmax of the scores. Above each: the class that it was taken for and the
    confidence, then its own. ValueError for shapes that do not fit.
    """
    x, y, scores = as_array("x", x), as_array("y", y), as_array("scores", scores)
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        raise ValueError(f"x: expected images (N, 1 or 3, H, W), got shape {x.shape}")
    if y.shape != x.shape[:1] or scores.shape[:1] != x.shape[:1] or scores.ndim != 2:
        raise ValueError(f"y, scores: expected {len(x)} rows, got {y.shape} and {scores.shape}")
    power = np.exp(scores - scores.max(1, keepdims=True))
    sure = (power / power.sum(1, keepdims=True)).max(1)
    guess = scores.argmax(1)
    wrong = np.flatnonzero(guess != y)
    worst = wrong[np.argsort(-sure[wrong], kind="stable")][:count]
    names = [str(c) for c in (range(scores.shape[1]) if classes is None else classes)]
    titles = [f"{names[guess[i]]} ({sure[i]:.0%})\nis {names[int(y[i])]}" for i in worst]
    span = float(x.max() - x.min()) or 1.0
    tiles = [((x[i] - x.min()) / span).transpose(1, 2, 0).squeeze() for i in worst]
    return save(_grid(tiles, titles, cmap="gray", vmin=0, vmax=1), path)


def _grid(tiles: Sequence[Array], titles: Sequence[str] = (), bar: str = "", **colours: Any) -> Any:
    """Images side by side, in a grid about twice as wide as high.

    bar: what the colours mean; the tiles are numbered then, and share one scale.
    """
    titles = titles or [str(i) for i in range(len(tiles))]
    columns = max(1, min(len(tiles), int(np.ceil(np.sqrt(2 * len(tiles))))))
    rows = max(1, -(-len(tiles) // columns))
    lines = max((title.count("\n") + 1 for title in titles), default=0)
    figure = new_figure(1.1 * columns + (0.9 if bar else 0), (1.1 + 0.2 * lines) * rows)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    image = None
    for axis, tile, title in zip(axes.flat, tiles, titles, strict=False):
        image = axis.imshow(tile, **colours)
        axis.set_title(title, fontsize=8)
    if bar and image is not None:
        figure.colorbar(image, ax=axes, label=bar, shrink=0.8)
    return figure


def _output_of(model: Module, layer: Module, x: Array) -> Array:
    """What a layer inside a model gives for x in inference mode."""
    dtype = model_dtype(model)
    leaf = input_value("x", x.shape, dtype)
    with Mode(model, False), outputs_of([layer]) as found:
        Traced(lambda a: model(a), [leaf], dtype)
        value: Value | None = found.get(id(layer))
    if value is None:
        raise ValueError("layer: the model's forward does not call it")
    plan = Plan(8 * dtype.itemsize, plans_of(model).arena)
    plan.input(leaf)
    plan.output(value)
    plan.compute()
    return plan.build()(x)[0]
