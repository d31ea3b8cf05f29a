"""nn.Embedding: lookup, gradient, padding, bad indices; a model of tokens learns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastnn as fn
from fastnn import nn, ops


def test_rows_and_their_gradient() -> None:
    table = nn.Embedding(5, 3, padding_idx=-1)
    assert not table.weight.data[4].any() and table.weight.data[:4].all()
    tokens = np.array([[0, 4, 2], [2, 2, 1]], np.uint8)
    np.testing.assert_array_equal(table(tokens), table.weight.data[tokens])
    dy = np.arange(18.0).reshape(2, 3, 3)
    _, grads = fn.value_and_grad(table, lambda y, t: ops.sum(y * t))(tokens, dy)
    want = np.zeros((5, 3))
    np.add.at(want, tokens, dy)
    want[4] = 0  # the padding
    np.testing.assert_array_equal(grads["weight"], want)


@pytest.mark.parametrize("token", [-1, 5])
def test_an_index_outside_is_an_error(token: int) -> None:
    with pytest.raises(IndexError):
        nn.Embedding(5, 3)(np.array([0, token]))


def test_errors_name_the_argument() -> None:
    with pytest.raises(ValueError, match="padding_idx"):
        nn.Embedding(5, 3, padding_idx=5)
    with pytest.raises(ValueError, match="num_embeddings"):
        nn.Embedding(0, 3)
    with pytest.raises(TypeError, match="indices"):
        nn.Embedding(5, 3)(np.array([0.5]))


class Tagger(nn.Module):
    def __init__(self) -> None:
        self.table, self.rnn = nn.Embedding(6, 8), nn.GRU(8, 16, bidirectional=True)
        self.head = nn.Linear(32, 6)

    def forward(self, x: Any) -> Any:
        return ops.reshape(self.head(self.rnn(self.table(x))[0]), (-1, 6))


def test_a_model_of_tokens_learns_every_step() -> None:
    """Each output is the sum of the token's neighbours, modulo 6: both directions are needed."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 6, (128, 8))
    y = np.zeros_like(x)
    y[:, 1:] += x[:, :-1] % 3
    y[:, :-1] += x[:, 1:] % 3
    fn.manual_seed(0)
    trainer = fn.Trainer(Tagger(), lambda o, t: ops.cross_entropy(o, ops.reshape(t, (-1,))),
                         fn.optim.Adam(1e-2))  # fmt: skip
    first = trainer.step(x, y)
    for _ in range(80):
        last = trainer.step(x, y)
    assert first > 1.4 and last < 0.3
