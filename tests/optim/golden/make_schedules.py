"""Writes schedules.json beside itself: learning rates of torch.optim.lr_scheduler from lr = 0.1.

Run with PyTorch installed; the file in the repository was made with PyTorch 2.13.
"""

import json
import warnings
from pathlib import Path

import torch
from torch.optim import lr_scheduler

LR, STEPS = 0.1, 24
RUNS = [
    ("ConstantLR", {}),
    ("ConstantLR", {"factor": 0.25, "total_iters": 3}),
    ("LinearLR", {}),
    ("LinearLR", {"start_factor": 0.9, "end_factor": 0.1, "total_iters": 20}),
    ("PolynomialLR", {}),
    ("PolynomialLR", {"total_iters": 15, "power": 2.0}),
    ("StepLR", {"step_size": 5}),
    ("StepLR", {"step_size": 4, "gamma": 0.7}),
    ("MultiStepLR", {"milestones": [3, 10, 11], "gamma": 0.5}),
    ("ExponentialLR", {"gamma": 0.9}),
    ("CosineAnnealingLR", {"T_max": 24}),
    ("CosineAnnealingLR", {"T_max": 10, "eta_min": 0.01}),
    ("CosineAnnealingWarmRestarts", {"T_0": 7, "eta_min": 0.001}),
    ("CosineAnnealingWarmRestarts", {"T_0": 3, "T_mult": 2}),
    ("OneCycleLR", {"max_lr": 0.5, "total_steps": 24}),
    ("OneCycleLR", {"max_lr": 0.5, "total_steps": 24, "anneal_strategy": "linear"}),
    ("OneCycleLR", {"max_lr": 1.0, "total_steps": 24, "three_phase": True, "div_factor": 5.0}),
]
PLATEAU = [
    {"patience": 2},
    {"patience": 1, "factor": 0.5, "cooldown": 2, "min_lr": 0.02},
    {"patience": 1, "factor": 0.5, "threshold": 0.05, "threshold_mode": "abs"},
    {"patience": 0, "mode": "max", "factor": 0.3, "threshold": 0.1},
]


def value(epoch: int) -> float:
    """A curve that falls, stays and wobbles; the test computes the same."""
    return round(1 / (1 + min(epoch, 6)) + 0.02 * ((7 * epoch) % 5), 6)


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=LR)


def rates(scheduler: lr_scheduler.LRScheduler, sgd: torch.optim.Optimizer, plateau: bool) -> list:
    found = []
    for epoch in range(STEPS):
        found.append(sgd.param_groups[0]["lr"])
        sgd.step()
        if plateau:
            scheduler.step(value(epoch))
        elif epoch + 1 < STEPS:
            scheduler.step()
    return found


def main() -> None:
    warnings.simplefilter("ignore")
    runs = []
    for name, options in RUNS:
        sgd = optimizer()
        extra = {"cycle_momentum": False} if name == "OneCycleLR" else {}
        scheduler = getattr(lr_scheduler, name)(sgd, **options, **extra)
        runs.append({"schedule": name, "options": options, "lr": rates(scheduler, sgd, False)})
    for options in PLATEAU:
        sgd = optimizer()
        scheduler = lr_scheduler.ReduceLROnPlateau(sgd, **options)
        found = rates(scheduler, sgd, True)
        runs.append({"schedule": "ReduceLROnPlateau", "options": options, "lr": found})
    sgd = optimizer()
    parts = [
        lr_scheduler.LinearLR(sgd, start_factor=0.1, total_iters=4),
        lr_scheduler.CosineAnnealingLR(sgd, T_max=20),
    ]
    scheduler = lr_scheduler.SequentialLR(sgd, parts, milestones=[4])
    runs.append({"schedule": "Warmup", "options": {}, "lr": rates(scheduler, sgd, False)})
    lines = ",\n".join(json.dumps(run) for run in runs)
    Path(__file__).with_name("schedules.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
