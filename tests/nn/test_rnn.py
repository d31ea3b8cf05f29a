"""Recurrent modules: PyTorch's numbers, central differences, ragged lengths, states, errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastnn as fn
from fastnn import nn, ops
from fastnn.nn.module import value

GOLDEN = Path(__file__).with_name("golden") / "rnn.json"
MODES = ("RNN_TANH", "RNN_RELU", "LSTM", "GRU")
KINDS = pytest.mark.parametrize("mode", MODES)


def numbers(shape: tuple[int, ...], key: int) -> np.ndarray:
    """The same as in golden/make_rnn.py."""
    i = np.arange(int(np.prod(shape)))
    return (((7 * i * i + 5 * i + 13 * key + 3) % 31 - 15) / 16).reshape(shape)


def make(mode: str, *sizes: int, **options: Any) -> Any:
    if mode.startswith("RNN"):
        return nn.RNN(*sizes, nonlinearity=mode[4:].lower(), **options)
    return getattr(nn, mode)(*sizes, **options)


def flat(states: Any) -> tuple[Any, ...]:
    return states if isinstance(states, tuple) else (states,)


class Sums(nn.Module):
    """A weighted sum of all outputs; x and the states are parameters, so that they have gradients."""

    def __init__(self, rnn: Any, x: np.ndarray, states: tuple[np.ndarray, ...], lengths: Any):
        self.rnn, self.lengths = rnn, lengths
        self.x = nn.Parameter(x)
        self.h0, self.c0 = (*map(nn.Parameter, states), None, None)[:2]

    def outputs(self) -> tuple[Any, ...]:
        h0, c0 = value(self.h0), value(self.c0)
        hx = (h0, c0) if self.rnn.mode == "LSTM" and h0 is not None else h0
        o, states = self.rnn(value(self.x), hx, lengths=self.lengths)
        return (o, *flat(states))

    def forward(self, _: Any) -> Any:
        total = 0.0
        for i, v in enumerate(self.outputs()):
            total = ops.sum(v * numbers(v.shape, 103 + i)) + total
        return total


class Outputs(Sums):
    def forward(self, _: Any) -> Any:
        return self.outputs()


def the_output(output: Any, _: Any) -> Any:
    return output


def value_and_grads(net: Sums) -> tuple[float, dict[str, np.ndarray]]:
    dummy = np.zeros((1, 1))
    return fn.value_and_grad(net, the_output)(dummy, dummy)


@KINDS
def test_pytorch_s_numbers(mode: str) -> None:
    want = json.loads(GOLDEN.read_text())[mode]
    rnn = make(mode, 3, 2, 2, bidirectional=True).double()
    for key, p in enumerate(rnn.parameters()):
        p.data = numbers(p.shape, key)
    states = tuple(numbers((4, 3, 2), k) for k in (101, 102)[: 2 if mode == "LSTM" else 1])
    args = (rnn, numbers((3, 4, 3), 100), states, np.array([4, 1, 3]))
    outputs = Outputs(*args)(np.zeros(1))
    for got, expected in zip(outputs, want["outputs"].values(), strict=True):
        np.testing.assert_allclose(got.ravel(), expected, rtol=1e-12, atol=1e-13)
    _, grads = value_and_grads(Sums(*args))
    for name, expected in want["grads"].items():
        got = grads.get(name, grads.get(f"rnn.{name}"))
        np.testing.assert_allclose(got.ravel(), expected, rtol=1e-11, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("lengths", [None, (2, 4, 1)])
@pytest.mark.parametrize("layers, bidirectional", [(1, False), (1, True), (3, False), (2, True)])
@KINDS
def test_central_differences(mode: str, layers: int, bidirectional: bool, lengths: Any) -> None:
    rnn = make(mode, 3, 4, layers, bidirectional=bidirectional).double()
    rng = np.random.default_rng(layers)
    shape = (layers * (1 + bidirectional), 3, 4)
    states = tuple(rng.standard_normal(shape) for _ in range(2 if mode == "LSTM" else 1))
    net = Sums(rnn, rng.standard_normal((3, 4, 3)), states, lengths and np.array(lengths))
    _, grads = value_and_grads(net)
    step = 1e-6
    for name, p in net.named_parameters():
        direction = rng.choice([-1.0, 1.0], p.shape)
        start = np.array(p.data)
        ends = []
        for sign in (1, -1):
            p.data = start + sign * step * direction
            ends.append(value_and_grads(net)[0])
        p.data = start
        numeric, exact = (ends[0] - ends[1]) / (2 * step), (grads[name] * direction).sum()
        # Rounding: eps * |loss| / step; curvature: step**2.
        assert abs(numeric - exact) <= 1e-7 * (1 + np.abs(grads[name]).sum()), name


class OneStep(Sums):
    """The outputs of one step, alone or as those of all with weights that are zero elsewhere."""

    step, alone = 0, True

    def forward(self, _: Any) -> Any:
        o, *_ = self.outputs()
        weights = numbers(o.shape, 103)
        if self.alone:
            return ops.sum(o[:, self.step] * weights[:, self.step])
        mask = np.arange(o.shape[1]) == self.step % o.shape[1]
        return ops.sum(o * (weights * mask[:, None]))


@pytest.mark.parametrize("lengths", [None, (2, 4, 1)])
@pytest.mark.parametrize("step", [0, 2, -1])
@KINDS
def test_gradient_of_one_step(mode: str, step: int, lengths: Any) -> None:
    rnn = make(mode, 3, 17, 2, bidirectional=True).double()
    x = np.random.default_rng(0).standard_normal((3, 4, 3))
    grads = []
    for alone in (True, False):
        net = OneStep(rnn, x, (), lengths and np.array(lengths))
        net.step, net.alone = step, alone
        grads.append(value_and_grads(net)[1])
    for name, grad in grads[0].items():
        np.testing.assert_allclose(grad, grads[1][name], rtol=1e-12, atol=1e-14, err_msg=name)


@pytest.mark.parametrize("bidirectional", [False, True])
@KINDS
def test_padding_does_not_matter(mode: str, bidirectional: bool) -> None:
    lengths = np.array([3, 5, 1, 4])
    rnn = make(mode, 3, 17, 2, bidirectional=bidirectional)
    x = np.random.default_rng(0).standard_normal((4, 5, 3)).astype(np.float32)
    padding = np.arange(5) >= lengths[:, None]
    runs = []
    for filler in (0.0, np.nan):
        x[padding] = filler
        net = Sums(rnn, x, (), lengths)
        runs.append([*Outputs(rnn, x, (), lengths)(x), *value_and_grads(net)[1].values()])
    for zero, nan in zip(*runs, strict=True):
        np.testing.assert_array_equal(zero, nan)
    o, *states = runs[0][: 3 if mode == "LSTM" else 2]
    assert not o[padding].any()
    for i, n in enumerate(lengths):  # each sequence alone
        alone, last = rnn(x[i : i + 1, :n])
        np.testing.assert_allclose(o[i, :n], alone[0], rtol=2e-6, atol=1e-6)
        np.testing.assert_allclose(states[0][:, i], flat(last)[0][:, 0], rtol=2e-6, atol=1e-6)


@KINDS
def test_states_carry_over_calls(mode: str) -> None:
    rnn = make(mode, 3, 5, 2)
    x = np.random.default_rng(0).standard_normal((2, 7, 3)).astype(np.float32)
    whole, last = rnn(x)
    first, states = rnn(x[:, :4])
    second, end = rnn(x[:, 4:], states)
    np.testing.assert_allclose(np.concatenate([first, second], 1), whole, rtol=1e-6, atol=1e-7)
    for a, b in zip(flat(last), flat(end), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


@KINDS
def test_cell_is_one_step_of_the_layer(mode: str) -> None:
    rnn = make(mode, 3, 5)
    options = {"nonlinearity": mode[4:].lower()} if mode.startswith("RNN") else {}
    cell = getattr(nn, f"{mode.split('_')[0]}Cell")(3, 5, **options)
    cell.load_state_dict({k.removesuffix("_l0"): v for k, v in rnn.state_dict().items()})
    x = np.random.default_rng(0).standard_normal((2, 4, 3)).astype(np.float32)
    o, last = rnn(x)
    state: Any = None
    for t in range(4):
        state = cell(x[:, t], state)
        np.testing.assert_array_equal(flat(state)[0], o[:, t])
    for a, b in zip(flat(state), flat(last), strict=True):
        np.testing.assert_array_equal(a, b[0])
    single = cell(x[0, 0])
    np.testing.assert_array_equal(flat(single)[0], o[0, 0])


@KINDS
def test_layouts_of_the_input(mode: str) -> None:
    rnn = make(mode, 3, 5, 2, bidirectional=True)
    other = make(mode, 3, 5, 2, bidirectional=True, batch_first=False)
    other.load_state_dict(rnn.state_dict())
    x = np.random.default_rng(0).standard_normal((2, 4, 3)).astype(np.float32)
    o, last = rnn(x)
    o_t, last_t = other(x.swapaxes(0, 1))
    np.testing.assert_array_equal(o_t.swapaxes(0, 1), o)
    o_1, last_1 = rnn(x[0])
    np.testing.assert_array_equal(o_1, o[0])
    for a, b, c in zip(flat(last), flat(last_t), flat(last_1), strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a[:, 0], c)


@KINDS
def test_a_sample_gets_the_same_bits_in_any_batch(mode: str) -> None:
    rnn = make(mode, 150, 40)
    x = np.random.default_rng(0).standard_normal((5, 3, 150)).astype(np.float32)
    np.testing.assert_array_equal(rnn(x[:1])[0], rnn(x)[0][:1])


def test_weights_are_packed_again_only_after_they_were_written() -> None:
    lstm, other = nn.LSTM(3, 20).eval(), nn.LSTM(3, 20).eval()
    x = np.random.default_rng(0).standard_normal((2, 4, 3)).astype(np.float32)
    lstm(x)
    builder = list(vars(lstm)["_plans"]._plans.values())[-1].plan.builder
    assert [s.kernel for s in builder.steps[: builder.prologue]] == ["rnn_pack"]
    lstm.load_state_dict(other.state_dict())
    np.testing.assert_array_equal(lstm(x)[0], other(x)[0])


@KINDS
def test_bits_do_not_depend_on_threads(mode: str) -> None:
    rnn = make(mode, 9, 40, bidirectional=True)
    x = np.random.default_rng(0).standard_normal((37, 6, 9)).astype(np.float32)
    before, runs = fn.get_num_threads(), []
    for threads in (1, 2):
        fn.set_num_threads(threads)
        runs.append(value_and_grads(Sums(rnn, x, (), None)))
    fn.set_num_threads(before)
    assert runs[0][0] == runs[1][0]
    for a, b in zip(runs[0][1].values(), runs[1][1].values(), strict=True):
        assert a.tobytes() == b.tobytes()


def test_dropout_stands_between_layers_in_training() -> None:
    x = np.random.default_rng(0).standard_normal((2, 4, 3)).astype(np.float32)
    one, two = nn.LSTM(3, 5, dropout=0.5), nn.LSTM(3, 5, 2, dropout=0.5)
    np.testing.assert_array_equal(one(x)[0], one.eval()(x)[0])
    assert np.any(two(x)[0] != two.eval()(x)[0])
    all_dropped = nn.GRU(3, 5, 2, dropout=1.0)
    np.testing.assert_array_equal(all_dropped(x)[0], all_dropped(0 * x + 7)[0])


def test_names_and_start_are_pytorch_s() -> None:
    state = nn.GRU(3, 4, 2, bidirectional=True).state_dict()
    assert list(state)[:5] == [
        "weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0", "weight_ih_l0_reverse",
    ]  # fmt: skip
    assert state["weight_ih_l1_reverse"].shape == (12, 8)
    assert all(0.25 < np.abs(v).max() <= 0.5 for v in state.values())  # 1 / sqrt(4)
    assert list(nn.LSTM(3, 4, bias=False).state_dict()) == ["weight_ih_l0", "weight_hh_l0"]
    assert list(nn.LSTMCell(3, 4).state_dict()) == ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: nn.LSTM(0, 4), ValueError, "LSTM: input_size"),
        (lambda: nn.GRU(3, 4, 0), ValueError, "GRU: num_layers"),
        (lambda: nn.GRU(3, 4, dropout=2), ValueError, "GRU: dropout"),
        (lambda: nn.RNN(3, 4, nonlinearity="gelu"), ValueError, "RNN: nonlinearity"),
        (lambda: nn.LSTM(3, 4)(np.zeros((2, 5, 4))), ValueError, "LSTM: x: expected"),
        (lambda: nn.LSTM(3, 4)(np.zeros((2, 0, 3))), ValueError, "at least one step"),
        (lambda: nn.LSTM(3, 4)(np.zeros((2, 5, 3)), np.zeros((1, 2, 4))), TypeError, "hx"),
        (lambda: nn.GRU(3, 4)(np.zeros((2, 5, 3)), np.zeros((1, 1, 4))), ValueError, "h0"),
        (lambda: nn.GRUCell(3, 4)(np.zeros((2, 4))), ValueError, "GRUCell: x"),
    ],
)
def test_errors_name_what_is_wrong(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    "lengths, error",
    [([2, 0], ValueError), ([2, 6], ValueError), ([2, -1], ValueError), ([2], ValueError),
     ([[2, 1]], ValueError), ([2.0, 1.0], TypeError)],
)  # fmt: skip
def test_lengths_are_checked(lengths: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="lengths"):
        nn.LSTM(3, 4)(np.zeros((2, 5, 3)), lengths=np.array(lengths))
    with pytest.raises(ValueError, match="lengths"):
        nn.LSTM(3, 4)(np.zeros((5, 3)), lengths=np.array([5]))


def test_an_empty_batch_has_an_empty_result() -> None:
    o, (h, c) = nn.LSTM(3, 4, 2)(np.zeros((0, 5, 3)))
    assert o.shape == (0, 5, 4) and h.shape == c.shape == (2, 0, 4)


class LastStep(nn.Module):
    def __init__(self, rnn: Any) -> None:
        self.rnn, self.head = rnn, nn.Linear(rnn.hidden_size, 2)

    def forward(self, x: Any) -> Any:
        o, _ = self.rnn(x)
        return self.head(o[:, -1])


@pytest.mark.parametrize("mode", ["LSTM", "GRU"])
def test_training_reaches_back_to_the_first_step(mode: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((256, 6, 3)).astype(np.float32)
    y = (x[:, 0, 0] > 0).astype(np.int64)  # told at the first step, asked at the last
    fn.manual_seed(0)
    trainer = fn.Trainer(LastStep(make(mode, 3, 16)), nn.CrossEntropyLoss(), fn.optim.Adam(2e-2))
    history = trainer.fit(x, y, epochs=30, batch_size=32, progress=False)
    assert history["loss"][0] > 0.6 and history["loss"][-1] < 0.1
