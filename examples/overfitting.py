"""Overfitting and its cures, side by side.

A network with 85,000 weights gets 200 digits, a fifth of them with wrong labels. It learns all of that
by heart: the training loss falls to nothing, while the loss on other digits soon rises. Four cures,
each alone: weight decay keeps the weights small, dropout lets no neuron rely on another, early stopping
goes back to the best epoch, augmentation never shows the same picture twice.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import fastnn as fn
from fastnn import data, nn, optim
from fastnn.graph import Array
from fastnn.train import EarlyStopping

FEW = 200  # samples to train on; those left over are for validation
WRONG = 40  # of them with a wrong label


@dataclass
class Cure:
    """What is different from the plain training."""

    optimizer: optim.Optimizer = field(default_factory=lambda: optim.AdamW(2e-3, weight_decay=0.0))
    dropout: float = 0.0
    augmentation: list[nn.Module] = field(default_factory=list)
    callbacks: list[Any] = field(default_factory=list)


def cures() -> dict[str, Cure]:
    """By name; made anew, since optimizers and callbacks belong to one training."""
    turn = data.augment.RandomRotation(5, interpolation="bilinear")
    noise = data.augment.GaussianNoise(sigma=6.0)  # of pixels from 0 to 16
    return {
        "none": Cure(),
        "weight decay": Cure(optimizer=optim.AdamW(2e-3, weight_decay=3.0)),
        "dropout": Cure(dropout=0.5),
        "early stopping": Cure(callbacks=[EarlyStopping(patience=5)]),
        "augmentation": Cure(augmentation=[turn, noise]),
    }


def network(d: data.Dataset, cure: Cure) -> nn.Sequential:
    """64 pixels, twice 256 hidden neurons, 10 scores."""
    return nn.Sequential(
        *cure.augmentation,
        nn.Normalize(d.mean, d.std, d.scale),
        nn.Flatten(),
        nn.Linear(64, 256),
        nn.ReLU(),
        nn.Dropout(cure.dropout),
        nn.Linear(256, 256),
        nn.ReLU(),
        nn.Dropout(cure.dropout),
        nn.Linear(256, 10),
    )


def draw(histories: dict[str, fn.History], path: str) -> None:
    """A panel for each cure (needs the `plot` extra)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3 * len(histories), 3.2), layout="constrained")
    axes = figure.subplots(1, len(histories), sharex=True, sharey=True)
    for axis, (name, history) in zip(axes, histories.items(), strict=True):
        for key, label in (("loss", "training"), ("val_loss", "validation")):
            axis.plot(range(1, len(history[key]) + 1), history[key], label=label)
        axis.set(title=name, xlabel="epoch", ylim=(0, 2.5))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("loss")
    axes[0].legend()
    figure.savefig(path, dpi=120)


def mislabelled(y: Array) -> Array:
    """The labels, with the first WRONG of them each made another class."""
    y = y.copy()
    y[:WRONG] = (y[:WRONG] + np.random.default_rng(0).integers(1, 10, WRONG)) % 10
    return y


def main(path: str | None = None, epochs: int = 80) -> dict[str, dict[str, float]]:
    """Train with each cure, print a table of what came of it; draw the losses if there is a path."""
    (x, y), test = d = data.digits()
    few, labels = x[:FEW], mislabelled(y[:FEW])
    histories, results = {}, {}
    print(f"{'cure':16}{'epochs':>7}{'training loss':>15}{'test loss':>11}{'test accuracy':>15}")
    for name, cure in cures().items():
        fn.manual_seed(0)
        model = network(d, cure)
        trainer = fn.Trainer(model, nn.CrossEntropyLoss(), cure.optimizer, metrics=("accuracy",))
        histories[name] = trainer.fit(
            few,
            labels,
            epochs=epochs,
            batch_size=50,
            validation_data=(x[FEW:], y[FEW:]),
            callbacks=cure.callbacks,
            progress=False,
        )
        learned = trainer.evaluate(few, labels)["loss"]
        result = trainer.evaluate(*test)
        results[name] = {"training loss": learned, **result}
        print(
            f"{name:16}{len(histories[name].seconds):7}{learned:15.4f}{result['loss']:11.3f}"
            f"{100 * result['accuracy']:13.1f} %"
        )
    if path is not None:
        draw(histories, path)
    return results


if __name__ == "__main__":
    main(*sys.argv[1:2])
