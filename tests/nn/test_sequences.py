"""Recurrent networks at work: encoder and decoder, many to many, states carried from step to step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastnn as fn
from fastnn import nn, ops, optim

LENGTH, LETTERS, START = 5, 6, 6


class Translator(nn.Module):
    """x: a word's letters, then what the decoder reads, START and the letters written so far."""

    def __init__(self) -> None:
        self.read, self.write = nn.Embedding(LETTERS, 16), nn.Embedding(LETTERS + 1, 16)
        self.encoder, self.decoder = nn.LSTM(16, 64), nn.LSTM(16, 64)
        self.head = nn.Linear(64, LETTERS)

    def forward(self, x: Any) -> Any:
        _, states = self.encoder(self.read(x[:, :LENGTH]))
        written, _ = self.decoder(self.write(x[:, LENGTH:]), states)
        return self.head(written)


def letters_loss(output: Any, y: Any) -> Any:
    return ops.cross_entropy(ops.reshape(output, (-1, LETTERS)), ops.reshape(y, (-1,)))


def test_sequence_to_sequence_writes_words_backwards() -> None:
    """Greedy decoding of words that training has not seen, letter by letter."""
    rng = np.random.default_rng(0)
    words = rng.permutation(LETTERS**LENGTH)[:, None] // LETTERS ** np.arange(LENGTH) % LETTERS
    y = words[:, ::-1].copy()
    begin = np.full((len(y), 1), START)
    x = np.concatenate([words, begin, y[:, :-1]], 1)
    fn.manual_seed(0)
    model, train = Translator(), slice(0, 4096)
    trainer = fn.Trainer(model, letters_loss, optim.Adam(1e-2))
    trainer.fit(x[train], y[train], epochs=8, batch_size=64, progress=False,
                schedule=lambda t: 1 - t)  # fmt: skip
    asked, wanted = words[-500:], y[-500:]
    read = np.full((500, LENGTH), START)
    for t in range(LENGTH):
        said = trainer.predict(np.concatenate([asked, read], 1)).argmax(2)
        if t < LENGTH - 1:
            read[:, t + 1] = said[:, t]
    assert (said == wanted).all(1).mean() > 0.95


class Counter(nn.Module):
    """Many to many, with the state carried from call to call if it is asked to."""

    def __init__(self, mode: str, carried: bool) -> None:
        fn.manual_seed(3)
        self.rnn, self.head = getattr(nn, mode)(2, 5), nn.Linear(5, 1)
        states = 2 if mode == "LSTM" else 1
        self.h = nn.Buffer(np.zeros((1, 4, 5), np.float32))
        self.c = nn.Buffer(np.zeros((1, 4, 5), np.float32)) if states == 2 else None
        self.carried = carried
        self.double()

    def forward(self, x: Any) -> Any:
        y, last = self.rnn(x, self.h if self.c is None else (self.h, self.c))
        if self.carried:
            h, c = last if self.c is not None else (last, None)
            self.h.assign(h)
            if self.c is not None:
                self.c.assign(c)
        return self.head(y)


@pytest.mark.parametrize("mode", ["RNN", "LSTM", "GRU"])
def test_truncated_backpropagation_carries_the_state_and_no_gradient(mode: str) -> None:
    """Two steps are those of a model that is given the last state as a constant."""
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((4, 12, 2)), rng.standard_normal((4, 12, 1))
    carried, told = Counter(mode, True), Counter(mode, False)
    trainer = fn.Trainer(carried, nn.MSELoss(), optim.SGD(0.5))
    gradient = fn.value_and_grad(told, nn.MSELoss())
    for part in (slice(0, 6), slice(6, 12)):
        want, grads = gradient(x[:, part], y[:, part])
        _, last = told.rnn(
            x[:, part], told.h.data if told.c is None else (told.h.data, told.c.data)
        )
        assert trainer.step(x[:, part], y[:, part]) == pytest.approx(want, rel=1e-12)
        for name, p in told.named_parameters():
            p.data -= 0.5 * grads[name]
        if told.c is None:
            told.h.data = last
        else:
            told.h.data, told.c.data = last
        for name, want_state in told.state_dict().items():
            got = carried.state_dict()[name]
            np.testing.assert_allclose(got, want_state, rtol=1e-12, atol=1e-14, err_msg=name)
    before = carried.state_dict()
    trainer.predict(x, batch_size=4)
    np.testing.assert_array_equal(carried.h.data, before["h"])


def test_calls_of_a_carrying_model_go_on_where_the_last_one_ended() -> None:
    rng = np.random.default_rng(2)
    x = rng.standard_normal((4, 12, 2))
    model = Counter("GRU", True)
    whole = model(x)
    model.h.data = 0
    parts = [model(x[:, :7]), model(x[:, 7:])]
    # The same sums in the same order, but for products that may be blocked otherwise.
    np.testing.assert_allclose(np.concatenate(parts, 1), whole, rtol=1e-12)
    with pytest.raises(ValueError, match=r"GRU: h0: expected shape \(1, 2, 5\)"):
        model(x[:2])
