"""Convolutions agree however they are computed, and the setting reaches plans made before."""

from __future__ import annotations

import numpy as np
import pytest

import fastnn as fn
from fastnn import nn, ops
from fastnn.graph import apply
from fastnn.ops.conv import Conv2d
from fastnn.ops.conv_algorithm import DIRECT, WINOGRAD, choose
from fastnn.ops.conv_grad import Conv2dGradData, Conv2dGradWeight

PROMISED = {"f4": 1e-4, "f8": 1e-4 * 2.0**-29}  # of the output's RMS


@pytest.fixture(autouse=True)
def setting():
    """The setting, put back to "auto" after the test."""
    yield fn.set_conv_algorithm
    fn.set_conv_algorithm("auto")


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("c, k, size", [(3, 5, 9), (32, 64, 14), (48, 33, 17)])
def test_all_passes_agree(setting, dtype, padding, c, k, size):
    rng = np.random.default_rng(0)
    out = size + 2 * padding - 2
    shapes = [(4, c, size, size), (k, c, 3, 3), (4, k, out, out), (k,)]
    x, w, dy, bias = (rng.standard_normal(shape).astype(dtype) for shape in shapes)
    pads = (padding, padding)
    passes = [
        (Conv2d(padding=pads, act="relu"), x, w, bias, dy),
        (Conv2dGradData(padding=pads, size=(size, size), act="relu"), dy, w, x, x),
        (Conv2dGradWeight(padding=pads, kernel=(3, 3)), x, dy),
    ]
    for op, *inputs in passes:
        expected = op.reference(*[a.astype("f8") for a in inputs])
        for name in ("direct", "auto", "winograd"):
            setting(name)
            got = apply(op, *inputs)
            for a, b in zip(_several(got), _several(expected), strict=True):
                rms = np.sqrt(np.mean(b**2))
                np.testing.assert_allclose(a, b, rtol=0, atol=PROMISED[dtype] * rms)


def _several(arrays):
    return arrays if isinstance(arrays, (list, tuple)) else [arrays]


def test_a_model_follows_the_setting(setting):
    model = nn.Sequential(nn.Conv2d(32, 64, 3, padding=1))
    x = np.random.default_rng(0).standard_normal((8, 32, 16, 16)).astype("f4")
    results = []
    for name in ("direct", "winograd", "direct", "winograd"):
        setting(name)
        results.append(model(x))
    np.testing.assert_array_equal(results[0], results[2])
    np.testing.assert_array_equal(results[1], results[3])
    assert (results[0] != results[1]).any()
    np.testing.assert_allclose(results[0], results[1], rtol=0, atol=2e-4 * results[0].std())


def _sizes(n, c, k, size, **changes):
    op = Conv2d(padding=(1, 1), **changes)
    x, w = (n, c, size, size), (k, c // op.groups, 3, 3)
    return op.fields(x, w, (n, k, *op.output_size(x, w)))


def test_auto_takes_winograd_where_it_pays(setting):
    assert choose(_sizes(128, 32, 64, 14)) is WINOGRAD
    assert choose(_sizes(8, 128, 128, 28)) is WINOGRAD
    assert choose(_sizes(128, 3, 64, 32)) is DIRECT
    assert choose(_sizes(1, 512, 512, 7)) is DIRECT
    assert choose(_sizes(1, 64, 64, 8)) is DIRECT
    assert choose(_sizes(1, 64, 64, 8), kept=True) is WINOGRAD  # its weights stay packed
    for changes in ({"stride": (2, 2)}, {"dilation": (2, 2)}, {"groups": 2}):
        for name in ("auto", "winograd"):
            setting(name)
            assert choose(_sizes(128, 32, 64, 14, **changes)) is DIRECT


def test_packing_counts_where_weights_change(setting):
    """In training and for weights that are given; not where a model's are packed once."""
    conv = nn.Conv2d(64, 64, 3, padding=1)
    x = np.random.default_rng(0).standard_normal((1, 64, 8, 8)).astype("f4")

    def same_as(name, run):
        setting("auto")
        chosen = run()
        setting(name)
        return np.array_equal(chosen, run())

    assert same_as("winograd", lambda: conv(x))
    w, b = np.array(conv.weight.data), np.array(conv.bias.data)
    assert same_as("direct", lambda: ops.conv2d(x, w, b, padding=1))
    loss = fn.value_and_grad(nn.Sequential(conv, nn.Flatten()), nn.CrossEntropyLoss())
    assert same_as("direct", lambda: loss(x, np.array([3]))[0])


def test_names_are_checked(setting):
    with pytest.raises(ValueError, match=r"name: expected one of .*got 'fft'"):
        setting("fft")
