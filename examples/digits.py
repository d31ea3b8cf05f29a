"""Two networks read handwritten digits: an MLP gets 64 numbers, a CNN gets a picture.

The MLP has a weight for every pixel and hidden neuron. The CNN moves small filters over the picture, so
that a stroke is the same stroke wherever it lies: it needs fewer weights and makes fewer mistakes.
"""

from __future__ import annotations

import sys

import numpy as np

import fastnn as fn
from fastnn import data, nn, optim
from fastnn.data import Dataset


def mlp(d: Dataset) -> nn.Sequential:
    """64 pixels, 128 hidden neurons, 10 scores."""
    return nn.Sequential(
        nn.Normalize(d.mean, d.std, d.scale),
        nn.Flatten(),
        nn.Linear(64, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )


def cnn(d: Dataset) -> nn.Sequential:
    """16 filters, pooled to half the size, 32 filters of those, pooled again, 10 scores."""
    return nn.Sequential(
        nn.Normalize(d.mean, d.std, d.scale),
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 2 * 2, 10),
    )


def parameters(model: nn.Module) -> int:
    """How many numbers the model learns."""
    return sum(p.data.size for p in model.parameters())


def main(folder: str | None = None, epochs: int = 40) -> dict[str, float]:
    """Train both and print their test accuracy; draw curves and mistakes if there is a folder."""
    (x, y), (xt, yt) = d = data.digits()
    accuracy = {}
    for make in (mlp, cnn):
        fn.manual_seed(0)
        model, name = make(d), make.__name__
        loss = nn.CrossEntropyLoss()
        trainer = fn.Trainer(model, loss, optim.Adam(lr=5e-3), metrics=("accuracy",))
        history = trainer.fit(
            x,
            y,
            epochs=epochs,
            batch_size=64,
            schedule=optim.CosineAnnealingLR(),
            validation_data=(xt, yt),
            progress=False,
        )
        scores = trainer.predict(xt)
        accuracy[name] = float(np.mean(scores.argmax(1) == yt))
        print(
            f"{name}: {parameters(model):6,} parameters, {sum(history.seconds):.1f} s of training, "
            f"test accuracy {100 * accuracy[name]:.1f} %"
        )
        if folder is not None:
            history.plot(f"{folder}/{name}-curves.png")
            fn.plot.mistakes(xt, yt, scores, path=f"{folder}/{name}-mistakes.png")
    return accuracy


if __name__ == "__main__":
    main(*sys.argv[1:2])
