"""Training curves with and without Winograd's convolutions: python -m bench.curves [IMAGES EPOCHS]

Trains the CNN of 32 and 64 channels on the first IMAGES (6,400) of Fashion-MNIST for EPOCHS (4), from
three seeds, directly and with Winograd's algorithm, which changes rounding alone. Prints the loss of
each epoch and the test accuracy: means over the seeds, and how far apart the two algorithms are beside
how far apart the seeds are.
"""

from __future__ import annotations

import sys

import numpy as np

import fastnn as fn
from fastnn import data, nn, optim

from .adapters.fastnn import build
from .nets import NETS

ALGORITHMS, SEEDS = ("direct", "winograd"), (0, 1, 2)


def curve(d: data.Dataset, algorithm: str, seed: int, images: int, epochs: int) -> list[float]:
    """The training loss of every epoch, and the test accuracy after the last."""
    fn.set_conv_algorithm(algorithm)
    fn.manual_seed(seed)
    (x, y), (xt, yt) = d
    model = nn.Sequential(nn.Normalize(d.mean, d.std, d.scale), build(NETS["cnn-32-64"].layers))
    adam = optim.Adam(lr=1e-3)
    trainer = fn.Trainer(model, nn.CrossEntropyLoss(), adam, metrics=("accuracy",), seed=seed)
    history = trainer.fit(x[:images], y[:images], epochs=epochs, batch_size=128, progress=False)
    return [*history["loss"], trainer.evaluate(xt, yt)["accuracy"]]


def main(images: int = 6_400, epochs: int = 4) -> None:
    """Train and print."""
    d = data.fashion_mnist()
    # [algorithm, seed, epochs' losses and accuracy]
    found = np.array([[curve(d, a, s, images, epochs) for s in SEEDS] for a in ALGORITHMS])
    fn.set_conv_algorithm("auto")
    apart = np.abs(found[0] - found[1]).mean(0)
    print(f"{'':14}{'direct':>9}{'winograd':>10}{'apart':>10}{'seeds':>10}  (standard deviation)")
    for i in range(epochs + 1):
        name = f"loss, epoch {i + 1}" if i < epochs else "accuracy"
        means, spread = found[:, :, i].mean(1), found[0, :, i].std(ddof=1)
        print(f"{name:14}{means[0]:9.4f}{means[1]:10.4f}{apart[i]:10.5f}{spread:10.5f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
