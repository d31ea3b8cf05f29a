"""A network that writes: characters embedded, one LSTM, the next character from each state.

The text is made here: numbers in words, so that what the network writes can be checked word by word.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import fastnn as fn
from fastnn import nn, ops, optim
from fastnn.graph import Array

SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
)
LARGE = "twenty thirty forty fifty sixty seventy eighty ninety"
ONES, TENS = SMALL.split(), LARGE.split()


def words(n: int) -> str:
    """A number below 1000 in English words."""
    if n < 20:
        return ONES[n]
    if n < 100:
        return TENS[n // 10 - 2] + (f"-{ONES[n % 10]}" if n % 10 else "")
    return f"{ONES[n // 100]} hundred" + (f" and {words(n % 100)}" if n % 100 else "")


class Writer(nn.Module):
    """Scores (N, T, characters) for the character after each of x (N, T), and the state to go on."""

    def __init__(self, characters: int, hidden: int) -> None:
        self.embedding = nn.Embedding(characters, 16)
        self.lstm = nn.LSTM(16, hidden)
        self.head = nn.Linear(hidden, characters)

    def forward(self, x: Any, h: Any = None, c: Any = None) -> Any:
        if h is None:
            return self.head(self.lstm(self.embedding(x))[0])
        o, (h, c) = self.lstm(self.embedding(x), (h, c))
        return self.head(o), h, c


def loss(scores: Any, target: Any) -> Any:
    """The cross-entropy of all characters of all rows."""
    return ops.cross_entropy(
        ops.reshape(scores, (-1, scores.shape[-1])), ops.reshape(target, (-1,))
    )


def write(model: Writer, alphabet: str, length: int, temperature: float, seed: int) -> str:
    """Draw character after character, each from the scores after the ones before."""
    rng = np.random.default_rng(seed)
    hidden = model.lstm.hidden_size
    h, c = np.zeros((1, 1, hidden), np.float32), np.zeros((1, 1, hidden), np.float32)
    text = "\n"
    while len(text) <= length:
        x: Array = np.array([[alphabet.index(text[-1])]])
        scores, h, c = model(x, h, c)
        chosen = scores[0, 0] / temperature + rng.gumbel(size=len(alphabet))  # the Gumbel-max trick
        text += alphabet[int(chosen.argmax())]
    return text.strip()


def main(epochs: int = 15) -> float:
    """Train, print what the network writes, and return the share of its lines that are numbers."""
    rng = np.random.default_rng(0)
    text = "\n".join(words(int(n)) for n in rng.integers(0, 1000, 4000)) + "\n"
    alphabet = "".join(sorted(set(text)))
    codes = np.array([alphabet.index(character) for character in text])
    steps = 64
    rows = codes[: len(codes) // steps * steps].reshape(-1, steps)

    fn.manual_seed(0)
    model = Writer(len(alphabet), 128)
    trainer = fn.Trainer(model, loss, optim.Adam(lr=4e-3), seed=0)
    history = trainer.fit(
        rows[:, :-1], rows[:, 1:], epochs, schedule=lambda t: 1 - t, progress=False
    )
    lines = write(model.eval(), alphabet, 2000, temperature=0.7, seed=0).split("\n")[:-1]
    numbers = {words(n) for n in range(1000)}
    right = float(np.mean([line in numbers for line in lines]))
    print(f"{len(text):,} characters, {history['loss'][-1]:.3f} nats a character", end=", ")
    print(f"trained in {sum(history.seconds):.1f} s")
    print("\n".join(lines[:8]))
    print(f"{100 * right:.0f} % of {len(lines)} lines are numbers")
    return right


if __name__ == "__main__":
    main()
