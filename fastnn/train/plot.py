"""Curves of a training run, drawn by matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastnn.train.history import is_number

if TYPE_CHECKING:
    from fastnn.train.find_lr import LRCurve
    from fastnn.train.history import History


def plot_history(history: History, path: Any = None) -> Any:
    """One panel for each quantity, training and validation in one; ImportError names the extra."""
    names = [n for n in history if not n.startswith("val_") and is_number(history[n][0])]
    columns = max(1, min(3, len(names)))
    rows = max(1, -(-len(names) // columns))
    figure = new_figure(5 * columns, 3.6 * rows)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes[len(names) :]:
        axis.set_axis_off()
    for axis, name in zip(axes, names, strict=False):
        for key, label in ((name, "training"), (f"val_{name}", "validation")):
            if key in history:
                epochs = range(1, len(history[key]) + 1)
                axis.plot(epochs, history[key], marker="o", markersize=3, label=label)
        axis.set(xlabel="epoch", ylabel=name)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        axis.legend()
    return save(figure, path)


def plot_rates(curve: LRCurve, path: Any = None) -> Any:
    """Loss over learning rate, with the rate that is suggested."""
    figure = new_figure(5, 3.6)
    axis = figure.subplots()
    axis.plot(curve.lr, curve.loss, alpha=0.3, label="loss")
    axis.plot(curve.lr, curve.mean, label="running mean")
    label = f"suggestion {curve.suggestion:.2g}"
    axis.axvline(curve.suggestion, linestyle="--", color="black", label=label)
    lowest, highest = float(curve.mean.min()), float(curve.mean.max())
    room = 0.3 * (highest - lowest) or 1.0  # single losses may lie far above
    axis.set(xscale="log", xlabel="learning rate", ylabel="loss")
    axis.set_ylim(min(lowest, float(curve.loss.min())) - room / 6, highest + room)
    axis.grid(alpha=0.3)
    axis.legend()
    return save(figure, path)


def new_figure(width: float, height: float) -> Any:
    """An empty figure, its size in inches; ImportError names the extra."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'fastnn-cpu[plot]'") from error
    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Any, path: Any) -> Any:
    """Write the figure if there is a path; returns it."""
    if path is not None:
        figure.savefig(path, dpi=120)
    return figure
