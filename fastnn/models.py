"""The networks that `fastnn train` offers, made to fit a data set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastnn import nn

if TYPE_CHECKING:
    from fastnn.data import Dataset


def mlp(data: Dataset) -> nn.Sequential:
    """One hidden layer of 128 over samples of any shape."""
    x = data.train[0]
    return nn.Sequential(
        nn.Normalize(data.mean, data.std, data.scale),
        nn.Flatten(),
        nn.Linear(x[0].size, 128),
        nn.ReLU(),
        nn.Linear(128, len(data.classes)),
    )


def lenet(data: Dataset) -> nn.Sequential:
    """LeNet-5 (LeCun et al., 1998) with ReLU and max pooling over images (n, c, h, w), h, w >= 4.

    The first convolution keeps the size, as the 28x28 original does by its 32x32 input; so does the
    second where an image has fewer than 16 pixels a side.
    """
    channels, height, width = _image_shape("lenet", data)
    second = 0 if min(height, width) >= 16 else 2
    lost = 4 - 2 * second
    features = 16 * ((height // 2 - lost) // 2) * ((width // 2 - lost) // 2)
    return nn.Sequential(
        nn.Normalize(data.mean, data.std, data.scale),
        nn.Conv2d(channels, 6, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5, padding=second),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(features, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, len(data.classes)),
    )


def cnn(data: Dataset) -> nn.Sequential:
    """Two 3x3 convolutions of 32 and 64 channels, pooled, over images (n, c, h, w), h, w >= 4."""
    channels, height, width = _image_shape("cnn", data)
    return nn.Sequential(
        nn.Normalize(data.mean, data.std, data.scale),
        nn.Conv2d(channels, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * (height // 4) * (width // 4), 128),
        nn.ReLU(),
        nn.Linear(128, len(data.classes)),
    )


MODELS = {"mlp": mlp, "lenet": lenet, "cnn": cnn}


def _image_shape(model: str, data: Dataset) -> tuple[int, int, int]:
    shape = data.train[0].shape
    if len(shape) != 4 or min(shape[2:]) < 4:
        raise ValueError(f"{model}: expected images (n, c, h, w) of at least 4x4, got {shape}")
    return shape[1], shape[2], shape[3]
