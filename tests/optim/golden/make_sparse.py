"""Writes sparse.json beside itself: float64 trajectories of PyTorch's optimizers on sparse gradients.

Run with PyTorch installed; the file in the repository was made with PyTorch 2.13. The loss of a step is
sum(table[tokens] * factors), so that a row's gradient is the sum of its factors.
"""

import json
from pathlib import Path

import torch

ROWS, COLUMNS = 7, 3
TOKENS = [[1, 4, 1], [0, 4, 5], [1, 1, 1], [2, 5, 0], [4, 1, 2], [0, 0, 5]]  # rows 3 and 6: never
RUNS = {
    "SGD": [
        {"lr": 0.1},
        {"lr": 0.1, "momentum": 0.9},
        {"lr": 0.1, "momentum": 0.8, "dampening": 0.3, "maximize": True},
        {"lr": 0.1, "momentum": 0.8, "nesterov": True},
    ],
    "Adam": [{"lr": 0.05}, {"lr": 0.05, "betas": (0.8, 0.9), "eps": 1e-2}],
    "Adagrad": [
        {"lr": 0.1},
        {"lr": 0.1, "lr_decay": 0.1, "initial_accumulator_value": 0.5},
    ],
}


def factors(step):
    numbers = [((7 * i + 13 * step + 3) % 23 - 11) / 8 for i in range(3 * COLUMNS)]
    return torch.tensor(numbers, dtype=torch.float64).reshape(3, COLUMNS)


def trajectory(optimizer, options):
    start = torch.linspace(-1, 1, ROWS * COLUMNS, dtype=torch.float64).reshape(ROWS, COLUMNS)
    table = torch.nn.Embedding.from_pretrained(start, freeze=False, sparse=True)
    made = getattr(torch.optim, "SparseAdam" if optimizer == "Adam" else optimizer)
    stepped, path = made(table.parameters(), **options), []
    for step, tokens in enumerate(TOKENS):
        stepped.zero_grad()
        (table(torch.tensor(tokens)) * factors(step)).sum().backward()
        stepped.step()
        path.append(table.weight.detach().tolist())
    return path


runs = [
    {"optimizer": name, "options": options, "path": trajectory(name, options)}
    for name, cases in RUNS.items()
    for options in cases
]
text = json.dumps({"tokens": TOKENS, "runs": runs})
(Path(__file__).parent / "sparse.json").write_text(text + "\n")
