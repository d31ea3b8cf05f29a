"""The networks' tables: shapes, counts of parameters and FLOPs, conversions of layout."""

import math

import numpy as np
import pytest

from bench import nets
from bench.channels_last import from_native, to_native

PARAMETERS = {  # by hand, from the papers' and the cases' descriptions
    "mlp-4-32-3": 4 * 32 + 32 + 32 * 3 + 3,
    "mlp-784-128-10": 784 * 128 + 128 + 128 * 10 + 10,
    "lenet5": 61_706,
    "cnn-32-64": 421_642,
    "resnet18": 11_173_962,
    "lstm-128": 4 * 128 * (28 + 128 + 2) + 1290,
    "gru-32": 3 * 32 * (32 + 32 + 2) + 330,
    "lstm-256-256-both": 2 * 1024 * (256 + 256 + 2 + 512 + 256 + 2) + 5130,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters(name):
    state = nets.weights(nets.NETS[name])
    trained = [v.size for k, v in state.items() if "running" not in k and v.ndim]
    assert sum(trained) == PARAMETERS[name]


@pytest.mark.parametrize("name", nets.NETS)
def test_output_shape(name):
    net = nets.NETS[name]
    assert net.layers[-1]["to"] == (net.classes,)


def test_flops():
    net = nets.NETS["mlp-4-32-3"]
    forward, first = 2 * 32 * (4 * 32 + 32 * 3), 2 * 32 * 4 * 32
    assert nets.flops(net, 32, training=False) == forward
    assert nets.flops(net, 32, training=True) == 3 * forward - first


def test_recurrent_flops():
    net, steps = nets.NETS["gru-32"], 100
    macs = steps * 3 * 32 * (32 + 32) + 320
    assert nets.flops(net, 2, training=False) == 4 * macs
    assert nets.flops(net, 2, training=True) == 4 * (3 * macs - steps * 3 * 32 * 32)


def test_resnet18_multiplications():
    macs = nets.flops(nets.NETS["resnet18"], 1, training=False) / 2
    assert math.isclose(macs, 0.556e9, rel_tol=0.01)  # the CIFAR-style network's usual 0.56 G


@pytest.mark.parametrize("name", nets.NETS)
def test_native_layout_and_back(name):
    net = nets.NETS[name]
    state = nets.weights(net)
    back = from_native(net, to_native(net, state))
    for key, value in back.items():
        np.testing.assert_array_equal(value, state[key])
