"""Who is speaking? A GRU on utterances of different lengths, read from .ts files.

JapaneseVowels: nine speakers, 12 channels, 7 to 29 steps (Kudo, Toyama and Shimbo, 1999). The files
come with the package aeon: pip install --no-deps aeon
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

import fastnn as fn
from fastnn import data, nn, optim


class Speaker(nn.Module):
    """Both directions' last states, each after its sequence's own end, and a linear layer."""

    def __init__(self, channels: int, hidden: int, speakers: int) -> None:
        self.gru = nn.GRU(channels, hidden, bidirectional=True)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(2 * hidden, speakers)

    def forward(self, x: Any, lengths: Any = None) -> Any:
        _, h = self.gru(x, lengths=lengths)
        return self.head(self.dropout(fn.ops.concat([h[0], h[1]], 1)))


def load(part: str) -> data.Sequences:
    """The part "TRAIN" or "TEST"; aeon is not imported, only its files are read."""
    spec = find_spec("aeon")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the data comes with aeon: pip install --no-deps aeon")
    folder = Path(spec.submodule_search_locations[0], "datasets", "data", "JapaneseVowels")
    return data.read_ts(folder / f"JapaneseVowels_{part}.ts")


def main(epochs: int = 40) -> float:
    """Train, and return the accuracy on the test utterances."""
    train, test = load("TRAIN"), load("TEST")
    real = np.arange(train.x.shape[1]) < train.lengths[:, None]
    mean, std = train.x[real].mean(0), train.x[real].std(0)
    batches = data.bucket_by_length((train.x - mean) / std, train.lengths, train.y, 16, seed=0)

    fn.manual_seed(0)
    model = Speaker(train.x.shape[2], 64, len(train.classes))
    adam = optim.AdamW(lr=4e-3, weight_decay=0.01)
    trainer = fn.Trainer(model, nn.CrossEntropyLoss(), adam, metrics=("accuracy",), seed=0)
    history = trainer.fit(batches, epochs=epochs, schedule=lambda t: 1 - t, progress=False)
    result = trainer.evaluate((test.x - mean) / std, test.y, lengths=test.lengths)
    print(f"{train}, trained in {sum(history.seconds):.1f} s")
    print(f"test accuracy {100 * result['accuracy']:.2f} %")
    return float(result["accuracy"])


if __name__ == "__main__":
    main()
