"""Writes optim.json beside itself: float64 trajectories of PyTorch's optimizers, 100 steps each.

Run with PyTorch installed; the file in the repository was made with PyTorch 2.13.
"""

import json
from pathlib import Path

import torch

STEPS, SIZE = 100, 5

ADAM = [
    {"lr": 0.01, "weight_decay": 0.0},
    {"lr": 0.01, "betas": (0.8, 0.99), "eps": 1e-4, "weight_decay": 0.05},
    {"lr": 0.01, "weight_decay": 0.05, "maximize": True},
    {"lr": 0.01, "betas": (0.9, 0.8), "weight_decay": 0.05, "amsgrad": True},
]
RUNS = {
    "SGD": [
        {"lr": 0.1},
        {"lr": 0.1, "weight_decay": 0.01},
        {"lr": 0.05, "momentum": 0.9},
        {"lr": 0.05, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.02},
        {"lr": 0.05, "momentum": 0.8, "nesterov": True, "weight_decay": 0.02},
        {"lr": 0.05, "momentum": 0.8, "maximize": True, "weight_decay": 0.02},
    ],
    "Adagrad": [
        {"lr": 0.1},
        {"lr": 0.1, "lr_decay": 0.1, "weight_decay": 0.02, "initial_accumulator_value": 0.5},
    ],
    "Adadelta": [{}, {"lr": 0.5, "rho": 0.7, "eps": 1e-3, "weight_decay": 0.02}],
    "RMSprop": [
        {"lr": 0.01},
        {"lr": 0.01, "alpha": 0.8, "eps": 1e-3, "momentum": 0.9, "weight_decay": 0.02},
        {"lr": 0.01, "centered": True},
        {"lr": 0.01, "centered": True, "momentum": 0.5, "weight_decay": 0.02},
    ],
    "Adam": ADAM,
    "AdamW": ADAM,
    "NAdam": [
        {"lr": 0.01},
        {"lr": 0.01, "betas": (0.8, 0.99), "momentum_decay": 0.01, "weight_decay": 0.05},
        {"lr": 0.01, "weight_decay": 0.05, "decoupled_weight_decay": True},
    ],
}


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
    torch.set_default_dtype(torch.float64)  # NAdam keeps a product in it
    runs = [trajectory(name, options) for name, some in RUNS.items() for options in some]
    lines = ",\n".join(json.dumps(run) for run in runs)
    Path(__file__).with_name("optim.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
