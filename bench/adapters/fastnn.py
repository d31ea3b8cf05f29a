"""fastnn's side: its public interface; single kernels through fastnn._core.call."""

from __future__ import annotations

from typing import Any

import numpy as np

import fastnn as fn
from fastnn import nn, optim

from ..baselines import fastnn_kernels, kind
from ..case import CHECK_STEPS
from ..nets import NETS, Layer

VERSION = f"{fn.__version__} ({fn.isa()}, {fn.get_num_threads()} threads)"


class Residual(nn.Module):
    """main(x) + shortcut(x)."""

    def __init__(self, main: nn.Module, shortcut: nn.Module) -> None:
        self.main, self.shortcut = main, shortcut

    def forward(self, x: Any) -> Any:
        return self.main(x) + self.shortcut(x)


def _conv(v: Layer) -> nn.Module:
    sizes = (v["shape"][0], v["out"], v["kernel"])
    return nn.Conv2d(*sizes, stride=v["stride"], padding=v["padding"], bias=v["bias"])


def _rnn(v: Layer) -> nn.Module:
    """Recurrent layers that give the last step's output."""
    base = getattr(nn, v["mode"])

    class Last(base):  # type: ignore[misc, valid-type]
        def forward(self, x: Any) -> Any:
            return super().forward(x)[0][:, -1]

    options = {"num_layers": v["layers"], "bidirectional": v["both"]}
    return Last(v["shape"][1], v["hidden"], batch_first=True, **options)


LAYERS = {
    "conv": _conv,
    "linear": lambda v: nn.Linear(v["shape"][0], v["out"]),
    "rnn": _rnn,
    "relu": lambda v: nn.ReLU(),
    "tanh": lambda v: nn.Tanh(),
    "flatten": lambda v: nn.Flatten(),
    "bn": lambda v: nn.BatchNorm2d(v["shape"][0]),
    "maxpool": lambda v: nn.MaxPool2d(2),
    "mean": lambda v: nn.AdaptiveAvgPool2d(1),
    "residual": lambda v: Residual(build(v["main"]), build(v["shortcut"])),
}


def build(layers: list[Layer]) -> nn.Sequential:
    """The network of a completed table."""
    return nn.Sequential(*[LAYERS[v["op"]](v) for v in layers])


def _model(spec: dict[str, Any], arrays: dict[str, np.ndarray]) -> nn.Module:
    model = build(NETS[spec["net"]].layers)
    model.load_state_dict({k: v for k, v in arrays.items() if k not in ("x", "y")})
    return model


def _trainer(spec: dict[str, Any], model: nn.Module) -> fn.Trainer:
    lr = spec["lr"]
    optimizer = optim.Adam(lr) if spec["optimizer"] == "adam" else optim.SGD(lr, momentum=0.9)
    return fn.Trainer(model, nn.CrossEntropyLoss(), optimizer)


class Train:
    """trainer.step on one batch again and again."""

    via = "Trainer.step"

    def __init__(self, spec: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        self.model = _model(spec, arrays)
        self.trainer = _trainer(spec, self.model)
        self.x, self.y = arrays["x"], arrays["y"]

    def check(self) -> dict[str, np.ndarray]:
        losses = [self.trainer.step(self.x, self.y) for _ in range(CHECK_STEPS)]
        return {"loss": np.array(losses), **self.model.state_dict()}

    def run(self, n: int) -> None:
        for _ in range(n):
            self.trainer.step(self.x, self.y)


class Fit:
    """trainer.fit: n epochs; the first rows, in order, for the check."""

    via = "Trainer.fit"

    def __init__(self, spec: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        self.model = _model(spec, arrays)
        self.trainer = _trainer(spec, self.model)
        self.x, self.y = arrays["x"], arrays["y"]
        self.batch, self.shuffle = spec["batch"], spec["shuffle"]

    def check(self) -> dict[str, np.ndarray]:
        rows = CHECK_STEPS * self.batch
        history = self.trainer.fit(
            self.x[:rows], self.y[:rows], batch_size=self.batch, shuffle=False, progress=False
        )
        return {"loss": np.array(history["loss"]), **self.model.state_dict()}

    def run(self, n: int) -> None:
        self.trainer.fit(
            self.x, self.y, n, batch_size=self.batch, shuffle=self.shuffle, progress=False
        )


class Infer:
    """model(x) on one batch again and again."""

    via = "model(x)"

    def __init__(self, spec: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        self.model = _model(spec, arrays).eval()
        self.x = arrays["x"]

    def check(self) -> dict[str, np.ndarray]:
        return {"output": self.model(self.x)}

    def run(self, n: int) -> None:
        for _ in range(n):
            self.model(self.x)


KINDS = {"train": Train, "fit": Fit, "infer": Infer, "kernel": kind(fastnn_kernels.OPS)}
