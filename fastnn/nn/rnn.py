"""Recurrent layers and their cells, with PyTorch's names, shapes, gate order and return values.

One thing differs: batch_first=True is the default.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from fastnn import ops
from fastnn.graph import Storage, storage_value
from fastnn.nn.init import uniform
from fastnn.nn.layers import positive
from fastnn.nn.module import Module, Parameter, value
from fastnn.ops.rnn_cell import GATES

NONLINEARITIES = ("tanh", "relu")


def _rnn_mode(layer: str, nonlinearity: str) -> str:
    if nonlinearity not in NONLINEARITIES:
        raise ValueError(
            f"{layer}: nonlinearity: expected one of {NONLINEARITIES}, got {nonlinearity!r}"
        )
    return f"RNN_{nonlinearity.upper()}"


class _Weights(Module):
    """What layers and cells share: a mode, sizes, and weights that lie transposed, as kernels read."""

    mode: str

    def _sizes(self, mode: str, input_size: int, hidden_size: int, bias: bool) -> None:
        positive(type(self).__name__, input_size=input_size, hidden_size=hidden_size)
        self.mode, self.bias = mode, bool(bias)
        self.input_size, self.hidden_size = input_size, hidden_size

    def _add(self, suffix: str, input_size: int) -> None:
        h = self.hidden_size
        rows, bound = GATES[self.mode] * h, 1 / math.sqrt(h)
        for name, columns in (("weight_ih", input_size), ("weight_hh", h)):
            setattr(self, name + suffix, Parameter(uniform((rows, columns), bound), order=(1, 0)))
        for name in ("bias_ih", "bias_hh"):
            start = Parameter(uniform((rows,), bound)) if self.bias else None
            setattr(self, name + suffix, start)

    def _weights(self, suffix: str) -> list[Any]:
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        return [value(getattr(self, name + suffix)) for name in names]

    def _states(self, hx: Any, shape: tuple[int, ...]) -> tuple[Any, Any]:
        """(h0, c0) of what the user gave; either may be None."""
        layer = type(self).__name__
        if self.mode == "LSTM":
            if hx is not None and (not isinstance(hx, tuple) or len(hx) != 2):
                raise TypeError(f"{layer}: hx: expected a tuple (h0, c0), got {type(hx).__name__}")
            h0, c0 = hx if hx is not None else (None, None)
        else:
            h0, c0 = hx, None
            if isinstance(hx, tuple):
                raise TypeError(f"{layer}: hx: expected one array, got a tuple")
        h0, c0 = (storage_value(s) if isinstance(s, Storage) else s for s in (h0, c0))
        for name, state in (("h0", h0), ("c0", c0)):
            if state is not None and tuple(state.shape) != shape:
                raise ValueError(f"{layer}: {name}: expected shape {shape}, got {state.shape}")
        return h0, c0


class _Layers(_Weights):
    """Several layers, in one direction or both."""

    def __init__(
        self,
        mode: str,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bias: bool,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
    ) -> None:
        layer = type(self).__name__
        self._sizes(mode, input_size, hidden_size, bias)
        positive(layer, num_layers=num_layers)
        if not 0 <= dropout <= 1:
            raise ValueError(f"{layer}: dropout: expected a probability, got {dropout!r}")
        self.num_layers, self.dropout = num_layers, float(dropout)
        self.batch_first, self.bidirectional = bool(batch_first), bool(bidirectional)
        for i in range(num_layers):
            columns = hidden_size * len(self._directions) if i else input_size
            for suffix in self._directions:
                self._add(f"_l{i}{suffix}", columns)

    @property
    def _directions(self) -> tuple[str, ...]:
        return ("", "_reverse") if self.bidirectional else ("",)

    def forward(self, x: Any, hx: Any = None, lengths: Any = None) -> Any:
        layer, d = type(self).__name__, len(self._directions)
        if x.ndim not in (2, 3) or x.shape[-1] != self.input_size:
            raise ValueError(
                f"{layer}: x: expected (N, T, C) or (T, C) with C = {self.input_size}, "
                f"got {x.shape}"
            )
        single = x.ndim == 2
        if single and lengths is not None:
            raise ValueError(f"{layer}: lengths: expected none for one sequence (T, C)")
        batch = () if single else (x.shape[0 if self.batch_first else 1],)
        h0, c0 = self._states(hx, (self.num_layers * d, *batch, self.hidden_size))
        if single:
            x = ops.reshape(x, (1, *x.shape))
            h0, c0 = (None if s is None else _batched(s) for s in (h0, c0))
        elif not self.batch_first:
            x = ops.permute(x, (1, 0, 2))
        y, *states = self._run(x, h0, c0, lengths)
        if single:
            y = ops.reshape(y, y.shape[1:])
            states = [ops.reshape(s, (s.shape[0], s.shape[2])) for s in states]
        elif not self.batch_first:
            y = ops.permute(y, (1, 0, 2))
        return y, (tuple(states) if self.mode == "LSTM" else states[0])

    def _run(self, x: Any, h0: Any, c0: Any, lengths: Any) -> Iterator[Any]:
        """y and the last states of all layers, (num_layers * D, N, H) each."""
        d, lasts = len(self._directions), []
        for i in range(self.num_layers):
            weights = [w for s in self._directions for w in self._weights(f"_l{i}{s}")]
            own = [None if s is None else s[i * d : i * d + d] for s in (h0, c0)]
            x, *last = ops.recurrent(self.mode, x, weights, own[0], own[1], lengths, padded=i > 0)
            lasts.append(last)
            if i < self.num_layers - 1:
                x = ops.dropout(x, self.dropout, self.training)
        yield x
        for parts in zip(*lasts, strict=True):
            yield parts[0] if len(parts) == 1 else ops.concat(parts)

    def extra_repr(self) -> str:
        parts = [f"{self.input_size}, {self.hidden_size}"]
        defaults = {"num_layers": 1, "bias": True, "batch_first": True, "dropout": 0.0}
        for name, default in {**defaults, "bidirectional": False}.items():
            if getattr(self, name) != default:
                parts.append(f"{name}={getattr(self, name)}")
        return ", ".join(parts)


def _batched(state: Any) -> Any:
    return ops.reshape(state, (state.shape[0], 1, state.shape[1]))


class RNN(_Layers):
    """Elman's network: h = tanh(W_ih x + b_ih + W_hh h + b_hh), or with relu.

    As torch.nn.RNN, but batch_first=True by default: x (N, T, C), o (N, T, D * H) and h
    (num_layers * D, N, H) from `o, h = rnn(x, hx, lengths=lengths)`, D = 2 if bidirectional, else 1;
    one sequence (T, C) has no N anywhere. hx: the first states, like h (a Buffer too, whose assign(h)
    carries them from one run to the next); zeros by default. lengths (N,): integers from 1 to T.
    Beyond a sequence's length o is zero, h is the state after its last step, where the direction from
    the end begins; what x holds there matters to nothing.
    dropout: between layers, in training. Weights start uniform in +-1/sqrt(H). Raises ValueError for
    sizes, shapes and lengths that do not fit.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = True,
        dropout: float = 0.0,
        bidirectional: bool = False,
    ) -> None:
        mode = _rnn_mode("RNN", nonlinearity)
        super().__init__(
            mode, input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional
        )
        self.nonlinearity = nonlinearity


class LSTM(_Layers):
    """Long short-term memory (Hochreiter and Schmidhuber, 1997), gates in the order i, f, g, o.

    c = f * c + i * g, h = o * tanh(c). As torch.nn.LSTM, but batch_first=True by default:
    `o, (h, c) = lstm(x, (h0, c0), lengths=lengths)`; the rest is as for RNN.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = True,
        dropout: float = 0.0,
        bidirectional: bool = False,
    ) -> None:
        super().__init__(
            "LSTM", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional
        )


class GRU(_Layers):
    """Gated recurrent units (Cho et al., 2014), gates in the order r, z, n.

    n = tanh(W_in x + b_in + r * (W_hn h + b_hn)), h = (1 - z) * n + z * h. As torch.nn.GRU, but
    batch_first=True by default: `o, h = gru(x, h0, lengths=lengths)`; the rest is as for RNN.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = True,
        dropout: float = 0.0,
        bidirectional: bool = False,
    ) -> None:
        super().__init__(
            "GRU", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional
        )


class _Cell(_Weights):
    """One step of a layer."""

    def __init__(self, mode: str, input_size: int, hidden_size: int, bias: bool) -> None:
        self._sizes(mode, input_size, hidden_size, bias)
        self._add("", input_size)

    def forward(self, x: Any, hx: Any = None) -> Any:
        layer, h = type(self).__name__, self.hidden_size
        if x.ndim not in (1, 2) or x.shape[-1] != self.input_size:
            raise ValueError(
                f"{layer}: x: expected (N, C) or (C,) with C = {self.input_size}, got {x.shape}"
            )
        batch = x.shape[:-1]
        states = self._states(hx, (*batch, h))
        n = batch[0] if batch else 1
        first = [None if s is None else ops.reshape(s, (1, n, h)) for s in states]
        steps = ops.reshape(x, (n, 1, self.input_size))
        _, *last = ops.recurrent(self.mode, steps, self._weights(""), first[0], first[1])
        out = tuple(ops.reshape(s, (*batch, h)) for s in last)
        return out if self.mode == "LSTM" else out[0]

    def extra_repr(self) -> str:
        bias = "" if self.bias else ", bias=False"
        return f"{self.input_size}, {self.hidden_size}{bias}"


class RNNCell(_Cell):
    """One step of an RNN: `h = cell(x, h)`, x (N, C), h (N, H), both without N for one sample.

    As torch.nn.RNNCell. h starts at zeros if it is left out.
    """

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, nonlinearity: str = "tanh"
    ) -> None:
        super().__init__(_rnn_mode("RNNCell", nonlinearity), input_size, hidden_size, bias)
        self.nonlinearity = nonlinearity


class LSTMCell(_Cell):
    """One step of an LSTM: `h, c = cell(x, (h, c))`. As torch.nn.LSTMCell."""

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True) -> None:
        super().__init__("LSTM", input_size, hidden_size, bias)


class GRUCell(_Cell):
    """One step of a GRU: `h = cell(x, h)`. As torch.nn.GRUCell."""

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True) -> None:
        super().__init__("GRU", input_size, hidden_size, bias)
