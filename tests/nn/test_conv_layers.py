"""Convolution layers against loops over kernel positions in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastnn import nn, ops
from fastnn.graph import Array

MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def correlate(x: Array, layer: Any, sides: list[tuple[int, int]]) -> Array:
    """y[n, k, i] = bias[k] + sum over c and taps r of w[k, c, r] x[n, c, i stride + r dilation]."""
    w, b = layer.weight.data, layer.bias.data
    x = np.pad(x, [(0, 0), (0, 0), *sides], MODES[layer.padding_mode])
    spans = [d * (k - 1) for k, d in zip(layer.kernel_size, layer.dilation, strict=True)]
    sizes = [
        (n - span - 1) // s + 1 for n, span, s in zip(x.shape[2:], spans, layer.stride, strict=True)
    ]
    y = np.zeros((x.shape[0], w.shape[0], *sizes))
    outs = w.shape[0] // layer.groups
    for k in range(w.shape[0]):
        channels = slice(k // outs * w.shape[1], (k // outs + 1) * w.shape[1])
        for tap in np.ndindex(*layer.kernel_size):
            at = [
                slice(t * d, t * d + s * (n - 1) + 1, s)
                for t, d, s, n in zip(tap, layer.dilation, layer.stride, sizes, strict=True)
            ]
            part = x[(slice(None), channels, *at)]
            y[:, k] += np.einsum("nc...,c->n...", part, w[(k, slice(None), *tap)])
    return y + b.reshape(-1, *[1] * len(sizes))


FORWARD: list[tuple[nn.Module, tuple[int, ...], list[tuple[int, int]]]] = [
    (nn.Conv1d(3, 4, 3, stride=2, padding=1, dilation=2), (2, 3, 9), [(1, 1)]),
    (nn.Conv1d(4, 6, 4, padding="same", groups=2), (2, 4, 9), [(1, 2)]),
    (nn.Conv1d(2, 3, 3, padding=2, padding_mode="circular"), (2, 2, 5), [(2, 2)]),
    (nn.Conv2d(3, 4, (4, 3), padding="same", dilation=(1, 2)), (2, 3, 6, 7), [(1, 2), (2, 2)]),
    (nn.Conv2d(3, 4, 3, padding="valid"), (2, 3, 6, 7), [(0, 0), (0, 0)]),
    (nn.Conv2d(3, 4, 3, padding=(2, 1), padding_mode="reflect"), (2, 3, 6, 7), [(2, 2), (1, 1)]),
    (
        nn.Conv2d(3, 4, (2, 3), padding="same", padding_mode="replicate"),
        (2, 3, 6, 7),
        [(0, 1), (1, 1)],
    ),
]


@pytest.mark.parametrize("case", FORWARD, ids=[repr(layer) for layer, *_ in FORWARD])
def test_convolutions(case: tuple[Any, tuple[int, ...], list[tuple[int, int]]]) -> None:
    layer, shape, sides = case
    layer.double()
    x = np.random.default_rng(0).standard_normal(shape)
    np.testing.assert_allclose(layer(x), correlate(x, layer, sides), rtol=1e-12, atol=1e-12)


TRANSPOSED: list[tuple[nn.Module, tuple[int, ...]]] = [
    (nn.ConvTranspose2d(3, 4, 3), (2, 3, 4, 5)),
    (nn.ConvTranspose2d(4, 6, (3, 4), (2, 3), (1, 2), (1, 2), groups=2), (2, 4, 4, 5)),
    (nn.ConvTranspose2d(2, 3, 3, 1, 1, 1, dilation=2), (2, 2, 4, 5)),
    (nn.ConvTranspose1d(3, 4, 5, stride=2, padding=1, output_padding=1), (2, 3, 6)),
]


@pytest.mark.parametrize("case", TRANSPOSED, ids=[repr(layer) for layer, _ in TRANSPOSED])
def test_transposed_convolutions(case: tuple[Any, tuple[int, ...]]) -> None:
    """Every input is added, times the kernel, to where a convolution would read it from."""
    layer, shape = case
    layer.double()
    x = np.random.default_rng(0).standard_normal(shape)
    w, outs = layer.weight.data, layer.out_channels // layer.groups
    geometry = list(zip(shape[2:], layer.kernel_size, layer.stride, layer.dilation, strict=True))
    sizes = [(n - 1) * s + d * (k - 1) + 1 for n, k, s, d in geometry]
    y = np.zeros((shape[0], layer.out_channels, *(n + 2 for n in sizes)))
    for c in range(shape[1]):
        group = slice(c // (shape[1] // layer.groups) * outs, None)
        for at in np.ndindex(*shape[2:]):
            for tap in np.ndindex(*layer.kernel_size):
                to = [i * s + t * d for i, t, (_, _, s, d) in zip(at, tap, geometry, strict=True)]
                block = y[(slice(None), group, *to)][:, :outs]
                block += x[(slice(None), c, *at)][:, None] * w[(c, slice(None), *tap)]
    kept = [
        slice(p, n - p + e)
        for n, p, e in zip(sizes, layer.padding, layer.output_padding, strict=True)
    ]
    want = y[(slice(None), slice(None), *kept)] + layer.bias.data.reshape(-1, *[1] * len(sizes))
    np.testing.assert_allclose(layer(x), want, rtol=1e-12, atol=1e-12)


def test_weights_have_pytorchs_shapes() -> None:
    assert nn.Conv1d(4, 6, 3, groups=2).weight.shape == (6, 2, 3)
    assert nn.ConvTranspose1d(4, 6, 3, groups=2).weight.shape == (4, 3, 3)
    assert nn.ConvTranspose2d(4, 6, (3, 2), groups=2).weight.shape == (4, 3, 3, 2)


@pytest.mark.parametrize("mode", [m for m in MODES if m != "zeros"])
def test_pad_is_numpys(mode: str) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 5))
    got = ops.pad(x, (3, 1, 0, 2), mode)
    np.testing.assert_array_equal(got, np.pad(x, [(0, 0), (0, 2), (3, 1)], MODES[mode]))


def test_constant_padding_takes_away_too() -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 5))
    got = ops.pad(x, (-1, 2, 1, -2), value=7.0)
    want = np.pad(x[:, :1, 1:], [(0, 0), (1, 0), (0, 2)], constant_values=7)
    np.testing.assert_array_equal(got, want)


ERRORS: list[tuple[Any, type[Exception], str]] = [
    (lambda: nn.Conv2d(2, 3, 3, padding="full"), ValueError, "padding: expected"),
    (lambda: nn.Conv2d(2, 3, 3, 2, padding="same"), ValueError, "stride 1"),
    (lambda: nn.Conv1d(2, 3, (3, 3)), TypeError, "kernel_size: expected an int"),
    (lambda: nn.Conv1d(2, 3, 3, padding_mode="wrap"), ValueError, "padding_mode"),
    (lambda: nn.Conv1d(2, 3, 3)(np.zeros((1, 2, 4, 4))), ValueError, "3 dimensions"),
    (lambda: nn.ConvTranspose2d(2, 4, 3)(np.zeros((1, 3, 4, 4))), ValueError, "2 channels"),
    (
        lambda: nn.ConvTranspose2d(2, 4, 3, output_padding=1)(np.zeros((1, 2, 4, 4))),
        ValueError,
        "output_padding",
    ),
    (
        lambda: nn.ConvTranspose2d(2, 4, 1, padding=3)(np.zeros((1, 2, 4, 4))),
        ValueError,
        "leaves nothing",
    ),
    (lambda: ops.pad(np.zeros((2, 3)), (3, 0), "reflect"), ValueError, "allows 0 to 2"),
    (lambda: ops.pad(np.zeros((2, 3)), (-2, -2)), ValueError, "takes more away"),
    (lambda: ops.pad(np.zeros((2, 3)), (1, 1, 1)), ValueError, "pairs"),
    (lambda: ops.im2col(np.zeros((1, 1, 2, 2)), 3), ValueError, "kernel_size"),
    (lambda: ops.col2im(np.zeros((1, 5, 4)), 3, 2), ValueError, "a multiple of 4"),
]


@pytest.mark.parametrize("call,error,words", ERRORS)
def test_errors(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()
