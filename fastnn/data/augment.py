"""Augmentation: layers that change images at random in training and let them pass in inference.

They stand in front of a model, before or after nn.Normalize, and are steps of its plan:

    model = nn.Sequential(
        data.augment.RandomCrop(28, padding=2), nn.Normalize(d.mean, d.std, d.scale), ...
    )

Names and defaults are torchvision's. Numbers such as fill and sigma are in the units of what the
layer gets: 0..255 before Normalize over uint8, standard deviations after it. What a sample draws
depends on (seed, step, layer, the sample's place in the batch) alone. Images are (N, C, H, W).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from fastnn.graph import apply, next_key, traced_dtype
from fastnn.nn.module import Module
from fastnn.ops.augment import BORDERS, Erase, Jitter, MixShare, Noise, Warp
from fastnn.ops.load import convert

Pair = tuple[float, float]


class _Augmentation(Module):
    """Base: `change` in training, `pass_on` in inference."""

    def forward(self, x: Any) -> Any:
        return self.change(x) if self.training else self.pass_on(x)

    def change(self, x: Any) -> Any:
        """x changed at random."""
        raise NotImplementedError

    def pass_on(self, x: Any) -> Any:
        """x in inference."""
        return x

    def extra_repr(self) -> str:
        own = {k: v for k, v in vars(self).items() if k != "training" and k[0] != "_"}
        return ", ".join(f"{k}={v!r}" for k, v in own.items())


class RandomHorizontalFlip(_Augmentation):
    """Mirror each image left to right with probability p."""

    def __init__(self, p: float = 0.5) -> None:
        self.p = _probability("RandomHorizontalFlip", p)

    def change(self, x: Any) -> Any:
        return apply(Warp(key_number=next_key(), hflip=self.p), x)


class RandomVerticalFlip(_Augmentation):
    """Mirror each image top to bottom with probability p."""

    def __init__(self, p: float = 0.5) -> None:
        self.p = _probability("RandomVerticalFlip", p)

    def change(self, x: Any) -> Any:
        return apply(Warp(key_number=next_key(), vflip=self.p), x)


class RandomCrop(_Augmentation):
    """A window of `size` (h, w) or (size, size) at a random place of each image, padded before.

    padding: pixels on every side, filled by padding_mode: "constant" (with `fill`), "edge" or
    "reflect". In inference the window in the middle. ValueError for a window that does not fit.
    """

    def __init__(
        self,
        size: int | tuple[int, int],
        padding: int = 0,
        fill: float = 0.0,
        padding_mode: str = "constant",
    ) -> None:
        self.size = (size, size) if isinstance(size, int) else tuple(size)
        if len(self.size) != 2 or min(self.size) < 1:
            raise ValueError(f"RandomCrop: size: expected one or two positive ints, got {size!r}")
        if padding < 0:
            raise ValueError(f"RandomCrop: padding: expected at least 0, got {padding!r}")
        if padding_mode not in BORDERS:
            raise ValueError(
                f"RandomCrop: padding_mode: expected one of {BORDERS}, got {padding_mode!r}"
            )
        self.padding, self.fill, self.padding_mode = padding, float(fill), padding_mode

    def change(self, x: Any) -> Any:
        rows, columns = (
            (-self.padding, n + self.padding - s)
            for n, s in zip(x.shape[2:], self.size, strict=True)
        )
        if rows[0] > rows[1] or columns[0] > columns[1]:
            raise ValueError(
                f"RandomCrop: size: {self.size} does not fit into {x.shape[2:]} "
                f"with padding {self.padding}"
            )
        window = dict(size=self.size, rows=rows, columns=columns)
        border = dict(border=self.padding_mode, fill=self.fill)
        return apply(Warp(key_number=next_key(), **window, **border), x)

    def pass_on(self, x: Any) -> Any:
        (h, w), (height, width) = self.size, x.shape[2:]
        if (h, w) == (height, width):
            return x
        if h > height or w > width:
            raise ValueError(f"RandomCrop: size: {self.size} does not fit into {x.shape[2:]}")
        x = x if x.dtype.kind == "f" else convert(x, traced_dtype())
        top, left = (height - h) // 2, (width - w) // 2
        return x[:, :, top : top + h, left : left + w]


class RandomAffine(_Augmentation):
    """Turn each image around its middle by an angle, and shift it.

    degrees: (lowest, highest), or a number for (-degrees, degrees), counter-clockwise. translate:
    (a, b): shifts of up to a * width and b * height, whole pixels. interpolation: "nearest" or
    "bilinear". fill: of what comes from outside.
    """

    def __init__(
        self,
        degrees: float | Pair,
        translate: Pair | None = None,
        interpolation: str = "nearest",
        fill: float = 0.0,
    ) -> None:
        name = type(self).__name__
        low, high = (-degrees, degrees) if isinstance(degrees, (int, float)) else degrees
        if low > high:
            raise ValueError(f"{name}: degrees: expected lowest <= highest, got {degrees!r}")
        if interpolation not in ("nearest", "bilinear"):
            raise ValueError(
                f"{name}: interpolation: expected 'nearest' or 'bilinear', got {interpolation!r}"
            )
        self.degrees, self.interpolation = (float(low), float(high)), interpolation
        self.translate = tuple(_probability(name, t, "translate") for t in translate or (0, 0))
        self.fill = float(fill)

    def change(self, x: Any) -> Any:
        across, down = (int(t * n) for t, n in zip(self.translate, x.shape[:1:-1], strict=True))
        window = dict(rows=(-down, down), columns=(-across, across))
        low, high = map(math.radians, self.degrees)
        turn = dict(angles=(low, high), bilinear=self.interpolation == "bilinear", fill=self.fill)
        return apply(Warp(key_number=next_key(), **window, **turn), x)


class RandomRotation(RandomAffine):
    """Turn each image around its middle; arguments as RandomAffine's."""

    def __init__(
        self, degrees: float | Pair, interpolation: str = "nearest", fill: float = 0.0
    ) -> None:
        super().__init__(degrees, None, interpolation, fill)


class RandomErasing(_Augmentation):
    """With probability p, a rectangle of each image becomes `value` (Zhong et al., 2017).

    scale: its part of the area; ratio: height / width, drawn evenly in its logarithm. A rectangle that
    is too long for the image is cut to it.
    """

    def __init__(
        self,
        p: float = 0.5,
        scale: Pair = (0.02, 0.33),
        ratio: Pair = (0.3, 3.3),
        value: float = 0.0,
    ) -> None:
        self.p = _probability("RandomErasing", p)
        if not 0 <= scale[0] <= scale[1] <= 1:
            raise ValueError(f"RandomErasing: scale: expected parts of the area, got {scale!r}")
        if not 0 < ratio[0] <= ratio[1]:
            raise ValueError(f"RandomErasing: ratio: expected positive ratios, got {ratio!r}")
        self.scale, self.ratio, self.value = tuple(scale), tuple(ratio), float(value)

    def change(self, x: Any) -> Any:
        shape = dict(area=self.scale, ratio=self.ratio)
        return apply(Erase(key_number=next_key(), p=self.p, value=self.value, **shape), x)


class Cutout(_Augmentation):
    """A square of `size` pixels around any pixel of each image becomes `value` (DeVries and Taylor,
    2017); it may stick out. p: the probability that it does."""

    def __init__(self, size: int, p: float = 1.0, value: float = 0.0) -> None:
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"Cutout: size: expected a positive int, got {size!r}")
        self.size, self.p, self.value = size, _probability("Cutout", p), float(value)

    def change(self, x: Any) -> Any:
        return apply(Erase(key_number=next_key(), p=self.p, side=self.size, value=self.value), x)


class GaussianNoise(_Augmentation):
    """Add normal numbers of a mean and standard deviation `sigma` to every element of any x."""

    def __init__(self, mean: float = 0.0, sigma: float = 0.1) -> None:
        if sigma < 0:
            raise ValueError(f"GaussianNoise: sigma: expected at least 0, got {sigma!r}")
        self.mean, self.sigma = float(mean), float(sigma)

    def change(self, x: Any) -> Any:
        return apply(Noise(key_number=next_key(), mean=self.mean, sigma=self.sigma), x)


class ColorJitter(_Augmentation):
    """Multiply each image by a factor, then its distance from its own mean by another.

    brightness, contrast: (lowest, highest) factor, or b for (max(0, 1 - b), 1 + b). Nothing is clipped.
    """

    def __init__(self, brightness: float | Pair = 0.0, contrast: float | Pair = 0.0) -> None:
        self.brightness = _factors("brightness", brightness)
        self.contrast = _factors("contrast", contrast)

    def change(self, x: Any) -> Any:
        factors = dict(brightness=self.brightness, contrast=self.contrast)
        return apply(Jitter(key_number=next_key(), **factors), x)


class Mixup(_Augmentation):
    """Mix each batch with itself backwards: t x + (1 - t) x[::-1], t from beta(alpha, alpha).

    Its `loss` mixes the losses of both targets likewise (Zhang et al., 2018):

        mixup = data.augment.Mixup(0.2)
        trainer = fn.Trainer(nn.Sequential(mixup, ...), mixup.loss(nn.CrossEntropyLoss()), ...)
    """

    def __init__(self, alpha: float = 0.2) -> None:
        if not alpha > 0:
            raise ValueError(f"Mixup: alpha: expected a positive number, got {alpha!r}")
        self.alpha = float(alpha)

    def share(self, x: Any) -> Any:
        """t, the same wherever it is asked for within a step; x gives the dtype."""
        return apply(MixShare(key_number=_MIXUP_KEY, alpha=self.alpha), x)

    def change(self, x: Any) -> Any:
        x = x if x.dtype.kind == "f" else convert(x, traced_dtype())
        other = x[::-1]
        return other + (x - other) * self.share(x)

    def loss(self, loss: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        """The loss of (output, target) mixed as the inputs were, in training."""

        def mixed(output: Any, target: Any) -> Any:
            straight = loss(output, target)
            if not self.training:
                return straight
            backwards = loss(output, target[::-1])
            return backwards + (straight - backwards) * self.share(output)

        return mixed


_MIXUP_KEY = 1 << 31  # beyond every next_key()


def _probability(layer: str, p: float, name: str = "p") -> float:
    if not 0 <= p <= 1:
        raise ValueError(f"{layer}: {name}: expected a number from 0 to 1, got {p!r}")
    return float(p)


def _factors(name: str, given: float | Sequence[float]) -> Pair:
    if isinstance(given, (int, float)):
        given = (max(0.0, 1.0 - given), 1.0 + given) if given >= 0 else (-1.0, 0.0)
    low, high = map(float, given)
    if not 0 <= low <= high:
        raise ValueError(f"ColorJitter: {name}: expected factors of at least 0, got {given!r}")
    return low, high
