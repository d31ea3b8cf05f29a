"""Writes losses.json beside itself: losses and gradients of torch.nn's losses in float64.

Run with PyTorch installed; the file in the repository was made with PyTorch 2.13. tests/nn/test_loss.py
makes the same inputs from the same `inputs` below.
"""

import json
from pathlib import Path

import numpy as np

C = 4
WEIGHT = [0.5, 2.0, 1.0, 0.25]
ROWS, IMAGE = (5, C), (2, C, 3, 2)

CASES = [
    *(("CrossEntropyLoss", {"reduction": r, **more}, shape, "labels")
      for shape in (ROWS, IMAGE) for r in ("mean", "sum", "none")
      for more in ({}, {"weight": WEIGHT, "ignore_index": 1},
                   {"weight": WEIGHT, "ignore_index": 1, "label_smoothing": 0.2})),
    *(("CrossEntropyLoss", {"reduction": r, "weight": WEIGHT, "label_smoothing": s}, shape, "soft")
      for shape in (ROWS, IMAGE) for r, s in (("mean", 0.0), ("sum", 0.2), ("none", 0.1))),
    *(("NLLLoss", {"reduction": r, **more}, shape, "labels")
      for shape in (ROWS, IMAGE) for r in ("mean", "none")
      for more in ({}, {"weight": WEIGHT, "ignore_index": 1})),
    *((name, {"reduction": r}, ROWS, "numbers")
      for name in ("MSELoss", "L1Loss", "HuberLoss", "SmoothL1Loss") for r in ("mean", "sum", "none")),
    ("HuberLoss", {"delta": 0.3}, ROWS, "numbers"),
    ("SmoothL1Loss", {"beta": 0.3}, ROWS, "numbers"),
    ("SmoothL1Loss", {"beta": 0.0}, ROWS, "numbers"),
    *(("BCEWithLogitsLoss", {"reduction": r, **more}, ROWS, "soft")
      for r in ("mean", "none") for more in ({}, {"weight": WEIGHT, "pos_weight": WEIGHT})),
    *(("MultiMarginLoss", {"reduction": "mean", **more}, ROWS, "labels")
      for more in ({}, {"p": 2, "margin": 0.7, "weight": WEIGHT})),
    ("MultiMarginLoss", {"reduction": "none"}, ROWS, "labels"),
    *(("KLDivLoss", {"reduction": r, "log_target": log}, ROWS, "soft")
      for r in ("mean", "batchmean", "sum", "none") for log in (False, True)),
    *(("CosineEmbeddingLoss", {"reduction": r, "margin": 0.1}, ROWS, "signs")
      for r in ("mean", "none")),
]  # fmt: skip


def inputs(shape, kind):
    """Output and target of these shapes: numbers that look random and need no generator."""
    x = np.sin(np.arange(1, np.prod(shape) + 1) * 2.3).reshape(shape) * 3
    rows = (shape[0], *shape[2:])
    if kind == "labels":
        return x, (np.arange(np.prod(rows)).reshape(rows) * 7 // 3) % C
    if kind == "soft":
        t = np.cos(np.arange(np.prod(shape)) * 1.7).reshape(shape) ** 2
        return x, t / t.sum(1, keepdims=True)
    if kind == "signs":
        return x, np.where(np.arange(shape[0]) % 2, 1.0, -1.0)
    return x, np.cos(np.arange(np.prod(shape)) * 1.7).reshape(shape) * 3


def main():
    """Compute and write."""
    import torch

    out = []
    for name, numbers, shape, kind in CASES:
        x, t = inputs(shape, kind)
        vectors = {k: torch.tensor(v, dtype=torch.float64) if isinstance(v, list) else v
                   for k, v in numbers.items()}  # fmt: skip
        output = torch.tensor(x, requires_grad=True)
        module = getattr(torch.nn, name)(**vectors)
        other = () if name != "CosineEmbeddingLoss" else (output.detach().flip(1) + 0.5,)
        loss = module(output, *other, torch.tensor(t))
        # Weighs the losses of reduction="none" differently.
        weights = torch.linspace(0.5, 1.5, loss.numel(), dtype=torch.float64).reshape(loss.shape)
        (loss * weights).sum().backward()
        grad = output.grad.flatten().tolist()
        out.append({"loss": loss.detach().flatten().tolist(), "grad": grad})
    lines = ",\n".join(
        json.dumps({k: [float(f"{v:.13g}") for v in values] for k, values in record.items()})
        for record in out
    )
    Path(__file__).with_name("losses.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
