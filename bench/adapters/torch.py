"""PyTorch's side, eager mode; `layout` in the spec: contiguous or channels_last.

As a careful user writes it: the optimizer's fused form, gradients set to None, the loss left unread
in the timed loop.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ..baselines import kind, torch_kernels
from ..case import CHECK_STEPS
from ..nets import NETS, Layer

VERSION = f"{torch.__version__} ({torch.get_num_threads()} threads)"
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


class Residual(nn.Module):
    """main(x) + shortcut(x)."""

    def __init__(self, main: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.main, self.shortcut = main, shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.main(x) + self.shortcut(x)


def _conv(v: Layer) -> nn.Module:
    sizes = (v["shape"][0], v["out"], v["kernel"])
    return nn.Conv2d(*sizes, stride=v["stride"], padding=v["padding"], bias=v["bias"])


def _rnn(v: Layer) -> nn.Module:
    """Recurrent layers that give the last step's output."""
    base = getattr(nn, v["mode"])

    class Last(base):  # type: ignore[misc, valid-type]
        def forward(self, x: torch.Tensor) -> torch.Tensor:
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


def _tensors(
    spec: dict[str, Any], arrays: dict[str, np.ndarray]
) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    x, y = (torch.from_numpy(arrays[k]) for k in "xy")
    state = {k: torch.from_numpy(v) for k, v in arrays.items() if k not in ("x", "y")}
    model = build(NETS[spec["net"]].layers)
    model.load_state_dict(state)
    if x.ndim == 4:
        layout = LAYOUTS[spec.get("layout", "contiguous")]
        model, x = model.to(memory_format=layout), x.contiguous(memory_format=layout)
    return model, x, y


def _optimizer(spec: dict[str, Any], model: nn.Module) -> torch.optim.Optimizer:
    if spec["optimizer"] == "adam":
        return torch.optim.Adam(model.parameters(), lr=spec["lr"], fused=True)
    return torch.optim.SGD(model.parameters(), lr=spec["lr"], momentum=0.9, fused=True)


class Train:
    """Optimizer steps on one batch."""

    via = "eager, fused optimizer"

    def __init__(self, spec: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        self.model, self.x, self.y = _tensors(spec, arrays)
        self.optimizer = _optimizer(spec, self.model)

    def step(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """One step; the loss before it."""
        self.optimizer.zero_grad()
        loss = functional.cross_entropy(self.model(x), y)
        loss.backward()
        self.optimizer.step()
        return loss

    def state(self) -> dict[str, np.ndarray]:
        """The state_dict as arrays."""
        return {k: v.contiguous().numpy() for k, v in self.model.state_dict().items()}

    def check(self) -> dict[str, np.ndarray]:
        losses = [self.step(self.x, self.y).item() for _ in range(CHECK_STEPS)]
        return {"loss": np.array(losses), **self.state()}

    def run(self, n: int) -> None:
        for _ in range(n):
            self.step(self.x, self.y)


class Fit(Train):
    """Epochs over tensors in memory, shuffled by index_select."""

    def __init__(self, spec: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        super().__init__(spec, arrays)
        self.batch, self.shuffle = spec["batch"], spec["shuffle"]

    def check(self) -> dict[str, np.ndarray]:
        parts = [slice(i * self.batch, (i + 1) * self.batch) for i in range(CHECK_STEPS)]
        losses = [self.step(self.x[p], self.y[p]).item() for p in parts]
        return {"loss": np.array([np.mean(losses)]), **self.state()}

    def run(self, n: int) -> None:
        rows, batch = len(self.x), self.batch
        for _ in range(n):
            order = torch.randperm(rows) if self.shuffle else None
            for i in range(0, rows, batch):
                if order is None:
                    self.step(self.x[i : i + batch], self.y[i : i + batch])
                else:
                    index = order[i : i + batch]
                    self.step(self.x[index], self.y[index])


class Infer:
    """The forward pass under inference_mode."""

    via = "eager, inference_mode"

    def __init__(self, spec: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        self.model, self.x, _ = _tensors(spec, arrays)
        self.model.eval()

    def check(self) -> dict[str, np.ndarray]:
        with torch.inference_mode():
            return {"output": self.model(self.x).numpy()}

    def run(self, n: int) -> None:
        with torch.inference_mode():
            for _ in range(n):
                self.model(self.x)


KINDS = {"train": Train, "fit": Fit, "infer": Infer, "kernel": kind(torch_kernels.OPS)}
