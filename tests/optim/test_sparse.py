"""Sparse embeddings: rows touched in the place of the table's gradient, in every optimizer that can."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastnn as fn
from fastnn import nn, ops, optim

GOLDEN = json.loads((Path(__file__).parent / "golden" / "sparse.json").read_text())
FACTORS = [
    np.array([((7 * i + 13 * step + 3) % 23 - 11) / 8 for i in range(9)]).reshape(3, 3)
    for step in range(len(GOLDEN["tokens"]))
]
SOME = [optim.SGD(0.1), optim.SGD(0.1, momentum=0.9), optim.Adam(0.1), optim.Adagrad(0.1)]


def product(output: Any, y: Any) -> Any:
    return ops.sum(output * y)


def name_of(run: Any) -> str:
    return f"{run['optimizer']}-{run['options']}"


@pytest.mark.parametrize("run", GOLDEN["runs"], ids=name_of)
def test_float64_follows_pytorch(run: dict[str, Any]) -> None:
    table = nn.Embedding(7, 3, sparse=True).double()
    table.weight.data = np.linspace(-1, 1, 21).reshape(7, 3)
    trainer = fn.Trainer(table, product, getattr(optim, run["optimizer"])(**run["options"]))
    for tokens, factors, want in zip(GOLDEN["tokens"], FACTORS, run["path"], strict=True):
        trainer.step(np.array(tokens), factors)
        np.testing.assert_allclose(table.weight.data, want, rtol=1e-12, atol=1e-12)


class Words(nn.Module):
    """Looks up in one table twice, and has a dense layer too."""

    def __init__(self, sparse: bool) -> None:
        fn.manual_seed(2)
        self.table = nn.Embedding(50, 8, padding_idx=0, sparse=sparse)
        self.rnn, self.head = nn.GRU(8, 8), nn.Linear(16, 3)

    def forward(self, x: Any) -> Any:
        _, h = self.rnn(self.table(x[:, 1:]))
        return self.head(ops.concat([h[0], self.table(x[:, 0])], 1))


RNG = np.random.default_rng(0)
X, Y = RNG.integers(0, 50, (96, 5)).astype(np.uint8), RNG.integers(0, 3, 96)


def fitted(sparse: bool, optimizer: optim.Optimizer, **arguments: Any) -> fn.Trainer:
    trainer = fn.Trainer(Words(sparse), nn.CrossEntropyLoss(), optimizer, metrics=("accuracy",))
    trainer.fit(X, Y, epochs=2, batch_size=16, progress=False, **arguments)
    return trainer


@pytest.mark.parametrize(
    "options", [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}], ids=str
)
def test_sgd_is_what_it_is_for_a_dense_table(options: dict[str, Any]) -> None:
    schedule = optim.LinearLR(1.0, 0.1, 12)
    states = [
        fitted(sparse, optim.SGD(0.5, **options), schedule=schedule).model.state_dict()
        for sparse in (True, False)
    ]
    for name, want in states[1].items():
        # Two orders of summing: some roundings of numbers of order 1 in 12 steps.
        np.testing.assert_allclose(states[0][name], want, rtol=0, atol=1e-5, err_msg=name)
    assert not states[0]["table.weight"][0].any()  # the padding


@pytest.mark.parametrize("optimizer", SOME, ids=repr)
def test_bits_do_not_depend_on_threads_and_checkpoints(optimizer: Any, tmp_path: Path) -> None:
    before, ends = fn.get_num_threads(), []
    for threads in (1, 2):
        fn.set_num_threads(threads)
        trainer = fitted(True, optimizer)
        ends.append(trainer.model.state_dict()["table.weight"].tobytes())
    fn.set_num_threads(before)
    half = fn.Trainer(Words(True), nn.CrossEntropyLoss(), optimizer, metrics=("accuracy",))
    half.fit(X, Y, epochs=1, batch_size=16, progress=False)
    half.save(tmp_path / "half")
    model = Words(True)
    rest = fn.Trainer.resume(tmp_path / "half", model, nn.CrossEntropyLoss(), optimizer)
    rest.fit(X, Y, epochs=1, batch_size=16, progress=False)
    ends.append(model.state_dict()["table.weight"].tobytes())
    assert ends[0] == ends[1] == ends[2]


def test_rows_without_tokens_are_left_alone() -> None:
    model = Words(True)
    before = model.state_dict()["table.weight"]
    trainer = fn.Trainer(model, nn.CrossEntropyLoss(), optim.Adam(0.1))
    trainer.step(X[:4], Y[:4])
    moved = (model.state_dict()["table.weight"] != before).any(1)
    assert set(np.flatnonzero(moved)) == set(X[:4].ravel()) - {0}
    _, grads = fn.value_and_grad(model, nn.CrossEntropyLoss())(X[:4], Y[:4])
    assert grads["table.weight"].shape == (50, 8)


@pytest.mark.parametrize(
    "optimizer, error, words",
    [
        (optim.AdamW(), TypeError, "table.weight is sparse: expected SGD, Adam or Adagrad"),
        (optim.RMSprop(), TypeError, "got RMSprop"),
        (optim.SGD(weight_decay=0.1), ValueError, "weight_decay: expected none with the sparse"),
        (optim.Adam(clip_norm=1.0), ValueError, "clip_norm"),
        (optim.Adam(ema_decay=0.9), ValueError, "ema_decay"),
        (optim.Adam(amsgrad=True), ValueError, "amsgrad"),
    ],
)
def test_what_cannot_be_is_an_error_at_once(optimizer: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        fn.Trainer(Words(True), nn.CrossEntropyLoss(), optimizer)


def test_other_uses_of_a_sparse_table_are_errors() -> None:
    model = Words(True)
    trainer = fn.Trainer(model, nn.CrossEntropyLoss(), optim.Adam())
    with pytest.raises(ValueError, match="accumulate: expected 1"):
        trainer.fit(X, Y, batch_size=16, accumulate=2, progress=False)
    table = nn.Embedding(5, 3, sparse=True)

    def penalty(output: Any, y: Any) -> Any:
        return ops.sum(output * y) + ops.sum(nn.module.value(table.weight) ** 2)

    with pytest.raises(ValueError, match="weight: a sparse parameter can only be looked up"):
        fn.Trainer(table, penalty, optim.SGD()).step(np.array([1, 2]), np.ones((2, 3)))
