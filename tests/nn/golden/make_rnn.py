"""Writes rnn.json beside itself: outputs and gradients of torch.nn.RNN, LSTM and GRU in float64.

Two layers, both directions, ragged lengths, states given. Run with PyTorch installed; the file in the
repository was made with PyTorch 2.13.
"""

import json
from pathlib import Path

import numpy as np
import torch

LENGTHS, STEPS, SIZE, HIDDEN, LAYERS = (4, 1, 3), 4, 3, 2, 2
MODES = {
    "RNN_TANH": (torch.nn.RNN, {}),
    "RNN_RELU": (torch.nn.RNN, {"nonlinearity": "relu"}),
    "LSTM": (torch.nn.LSTM, {}),
    "GRU": (torch.nn.GRU, {}),
}


def numbers(shape: tuple[int, ...], key: int) -> np.ndarray:
    """Exact in binary, between -1 and 1; the test computes the same."""
    i = np.arange(int(np.prod(shape)))
    return (((7 * i * i + 5 * i + 13 * key + 3) % 31 - 15) / 16).reshape(shape)


def run(mode: str) -> dict[str, list]:
    cls, options = MODES[mode]
    rnn = cls(SIZE, HIDDEN, LAYERS, batch_first=True, bidirectional=True, **options).double()
    for key, p in enumerate(rnn.parameters()):
        p.data = torch.from_numpy(numbers(tuple(p.shape), key))
    n, states = len(LENGTHS), (2 * LAYERS, len(LENGTHS), HIDDEN)
    x = torch.from_numpy(numbers((n, STEPS, SIZE), 100)).requires_grad_()
    hx = [torch.from_numpy(numbers(states, k)).requires_grad_() for k in (101, 102)]
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        x, torch.tensor(LENGTHS), batch_first=True, enforce_sorted=False
    )
    o, last = rnn(packed, tuple(hx) if mode == "LSTM" else hx[0])
    o, _ = torch.nn.utils.rnn.pad_packed_sequence(o, batch_first=True, total_length=STEPS)
    outputs = {"o": o, **dict(zip("hc", last if mode == "LSTM" else (last,), strict=False))}
    loss = sum(
        (v * torch.from_numpy(numbers(tuple(v.shape), 103 + i))).sum()
        for i, v in enumerate(outputs.values())
    )
    loss.backward()
    grads = {"x": x.grad, "h0": hx[0].grad, "c0": hx[1].grad}
    grads |= {name: p.grad for name, p in rnn.named_parameters()}
    flat = {"outputs": outputs, "grads": {k: g for k, g in grads.items() if g is not None}}
    return {
        part: {k: [round(v, 14) for v in a.flatten().tolist()] for k, a in arrays.items()}
        for part, arrays in flat.items()
    }


def main() -> None:
    lines = ",\n".join(f"{json.dumps(mode)}: {json.dumps(run(mode))}" for mode in MODES)
    Path(__file__).with_name("rnn.json").write_text(f"{{\n{lines}\n}}\n")


if __name__ == "__main__":
    main()
