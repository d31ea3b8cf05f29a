"""Writes optim.json beside itself: float64 trajectories of torch.optim.SGD, Adam and AdamW.

Run with PyTorch installed; the file in the repository was made with PyTorch 2.13.
"""

import json
from pathlib import Path

import torch

STEPS, SIZE = 100, 5

SGD = [
    {"lr": 0.1},
    {"lr": 0.1, "weight_decay": 0.01},
    {"lr": 0.05, "momentum": 0.9},
    {"lr": 0.05, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.02},
    {"lr": 0.05, "momentum": 0.8, "nesterov": True, "weight_decay": 0.02},
    {"lr": 0.05, "momentum": 0.8, "maximize": True, "weight_decay": 0.02},
]
ADAM = [
    {"lr": 0.01, "weight_decay": 0.0},
    {"lr": 0.01, "betas": (0.8, 0.99), "eps": 1e-4, "weight_decay": 0.05},
    {"lr": 0.01, "weight_decay": 0.05, "maximize": True},
]


def gradient(step: int) -> list[float]:
    """Exact in binary; the test computes the same."""
    return [((7 * i + 13 * step + 3) % 23 - 11) / 8 for i in range(SIZE)]


def trajectory(optimizer: str, options: dict) -> dict:
    w = torch.nn.Parameter(torch.linspace(-1, 1, SIZE, dtype=torch.float64))
    opt = getattr(torch.optim, optimizer)([w], **options)
    path = []
    for step in range(1, STEPS + 1):
        w.grad = torch.tensor(gradient(step), dtype=torch.float64)
        opt.step()
        if step in (1, 2, 3, 10, STEPS):
            path.append({"step": step, "w": w.tolist()})
    return {"optimizer": optimizer, "options": options, "path": path}


def main() -> None:
    runs = [trajectory("SGD", options) for options in SGD]
    runs += [trajectory(name, options) for name in ("Adam", "AdamW") for options in ADAM]
    lines = ",\n".join(json.dumps(run) for run in runs)
    Path(__file__).with_name("optim.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
