"""Modules: PyTorch's names and shapes, state, modes, gradients of every layer in a network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastnn as fn
from fastnn import nn, ops
from fastnn.graph import Array

STEP = 1e-5

LAYERS: list[tuple[nn.Module, tuple[int, ...]]] = [
    (nn.Linear(5, 3), (4, 5)),
    (nn.Linear(5, 3, bias=False), (2, 4, 5)),
    (nn.Conv2d(3, 4, 3, padding=1), (2, 3, 5, 6)),
    (nn.Conv2d(4, 6, (3, 2), stride=2, padding=(1, 0), groups=2, bias=False), (2, 4, 7, 6)),
    (nn.Conv1d(4, 6, 3, groups=2, padding="same"), (2, 4, 5)),
    (nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), (2, 2, 4, 5)),
    (nn.Conv1d(2, 3, 4, padding="same", padding_mode="replicate"), (2, 2, 4)),
    (nn.Conv1d(2, 3, 3, padding=2, padding_mode="circular"), (2, 2, 4)),
    (nn.ConvTranspose1d(4, 6, 3, stride=2, groups=2), (2, 4, 5)),
    (nn.ConvTranspose2d(3, 4, 3, 1, 1, 1, dilation=2), (2, 3, 4, 5)),
    (nn.MaxPool2d(2), (2, 3, 4, 6)),
    (nn.MinPool2d(3, 2, 1), (2, 3, 5, 6)),
    (nn.AvgPool2d(2, ceil_mode=True), (2, 3, 5, 5)),
    (nn.AdaptiveAvgPool2d((2, 3)), (2, 3, 5, 7)),
    (nn.BatchNorm2d(3), (4, 3, 2, 3)),
    (nn.BatchNorm2d(3).eval(), (4, 3, 2, 3)),
    (nn.BatchNorm1d(5), (6, 5)),
    (nn.Flatten(), (2, 3, 4, 2)),
    (nn.Dropout(0.5).eval(), (3, 4)),
    (nn.ReLU(), (3, 7)),
    (nn.Sigmoid(), (3, 7)),
    (nn.Tanh(), (3, 7)),
    (nn.PReLU(3), (2, 3, 2, 2)),
    (nn.Sequential(nn.Conv2d(2, 3, 3), nn.GELU(), nn.Flatten(), nn.LogSoftmax()), (2, 2, 4, 4)),
    (nn.Normalize([0.1, 0.2], [0.5, 2.0]), (2, 2, 3, 3)),
    (nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.MaxPool2d(2)), (2, 2, 6, 6)),
    (nn.Sequential(nn.Conv2d(2, 3, 3, bias=False), nn.BatchNorm2d(3), nn.ReLU()), (3, 2, 4, 4)),
]


class Shifted(nn.Module):
    """A layer with a trainable shift of its input, so that input gradients are checked as well."""

    def __init__(self, layer: nn.Module, shape: tuple[int, ...]) -> None:
        self.shift = nn.Parameter(np.random.default_rng(7).standard_normal(shape))
        self.layer = layer

    def forward(self, x: Any) -> Any:
        from fastnn.nn.module import value

        return self.layer(x + value(self.shift))


@pytest.mark.parametrize("layer,shape", LAYERS, ids=[repr(m).split("\n")[0] for m, _ in LAYERS])
def test_gradients_of_every_module(layer: nn.Module, shape: tuple[int, ...]) -> None:
    model = Shifted(layer.to("float64"), shape).to("float64")
    x = np.random.default_rng(8).standard_normal(shape)
    t = np.random.default_rng(9).standard_normal(model(x).shape)
    run = fn.value_and_grad(model, lambda o, t: (o * t).sum())
    _, grads = run(x, t)
    rng = np.random.default_rng(10)
    assert set(grads) == {name for name, _ in model.named_parameters()}
    for name, p in model.named_parameters():
        direction = rng.choice([-1.0, 1.0], p.shape)
        original = p.data.copy()
        p.data = original + STEP * direction
        up, _ = run(x, t)
        p.data = original - STEP * direction
        down, _ = run(x, t)
        p.data = original
        numeric = (up - down) / (2 * STEP)
        scale = np.abs(grads[name]).sum() + 1
        assert abs(numeric - (grads[name] * direction).sum()) < 1e-6 * scale, name


def conv_by_hand(x: Array, w: Array, b: Array, pad: int) -> Array:
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], axis=(2, 3))
    result: Array = np.einsum("nchwrs,kcrs->nkhw", windows, w) + b[:, None, None]
    return result


def test_a_small_network_by_hand() -> None:
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(12, 4)
    )
    x = np.random.default_rng(0).standard_normal((5, 2, 4, 4)).astype(np.float32)
    s = {k: v.astype(float) for k, v in model.state_dict().items()}
    h = np.maximum(conv_by_hand(x, s["0.weight"], s["0.bias"], 1), 0)
    h = h.reshape(5, 3, 2, 2, 2, 2).mean((3, 5)).reshape(5, 12)
    want = h @ s["4.weight"].T + s["4.bias"]
    np.testing.assert_allclose(model(x), want, rtol=1e-5, atol=1e-5)


def test_state_dict_has_pytorchs_keys_and_shapes() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, (3, 5)), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 2))
    assert {k: v.shape for k, v in model.state_dict().items()} == {
        "0.weight": (8, 3, 3, 5),
        "0.bias": (8,),
        "1.weight": (8,),
        "1.bias": (8,),
        "1.running_mean": (8,),
        "1.running_var": (8,),
        "1.num_batches_tracked": (),
        "3.weight": (2, 8),
        "3.bias": (2,),
    }


def test_load_state_dict_checks_everything_before_it_changes_anything() -> None:
    model, other = nn.Linear(3, 2), nn.Linear(3, 2)
    state = other.state_dict()
    with pytest.raises(ValueError, match=r"'bias'.*expected shape \(2,\)"):
        model.load_state_dict({**state, "bias": np.zeros(5)})
    with pytest.raises(KeyError, match=r"missing.*bias"):
        model.load_state_dict({"weight": state["weight"]})
    with pytest.raises(KeyError, match=r"unexpected.*extra"):
        model.load_state_dict({**state, "extra": np.zeros(1)})
    assert np.any(model.state_dict()["weight"] != state["weight"])
    model.load_state_dict(state)
    np.testing.assert_array_equal(model.state_dict()["weight"], state["weight"])


def test_initialisation_is_seeded_and_in_pytorchs_range() -> None:
    fn.manual_seed(3)
    a = nn.Conv2d(4, 64, 3).state_dict()
    fn.manual_seed(3)
    b = nn.Conv2d(4, 64, 3).state_dict()
    np.testing.assert_array_equal(a["weight"], b["weight"])
    bound = 1 / np.sqrt(4 * 9)
    assert bound * 0.98 < np.abs(a["weight"]).max() <= bound
    assert abs(a["weight"].mean()) < 4 * bound / np.sqrt(3 * a["weight"].size)


class Residual(nn.Module):
    def __init__(self) -> None:
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.relu = nn.ReLU()

    def forward(self, x: Any) -> Any:
        return self.relu(self.norm(self.conv(x)) + x)


def test_own_forward_with_a_residual() -> None:
    model = Residual().eval()
    x = np.random.default_rng(0).standard_normal((2, 3, 5, 5)).astype(np.float32)
    s = model.state_dict()
    y = conv_by_hand(x, s["conv.weight"], s["conv.bias"], 1) / np.sqrt(1 + 1e-5)
    np.testing.assert_allclose(model(x), np.maximum(y + x, 0), rtol=1e-5, atol=1e-5)


def test_dropout_by_mode() -> None:
    layer = nn.Dropout(0.25)
    x = np.ones((100, 100), np.float32)
    first, second = layer(x), layer(x)
    assert set(np.unique(first)) == {np.float32(0), np.float32(1 / 0.75)}
    assert abs((first == 0).mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / x.size)
    assert np.any(first != second)
    np.testing.assert_array_equal(layer.eval()(x), x)


def test_dropout2d_takes_whole_channels() -> None:
    layer = nn.Dropout2d(0.25)
    y = layer(np.ones((60, 70, 2, 3), np.float32))
    np.testing.assert_array_equal(y, np.broadcast_to(y[:, :, :1, :1], y.shape))
    zeros = (y[:, :, 0, 0] == 0).mean()
    assert abs(zeros - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 4200)
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.75)}
    x = np.ones((2, 3, 4), np.float32)
    np.testing.assert_array_equal(layer.eval()(x), x)


def test_batch_norm_matches_its_formula_and_tracks() -> None:
    layer = nn.BatchNorm2d(3, momentum=0.5)
    x = np.random.default_rng(0).standard_normal((4, 3, 5, 6)).astype(np.float32) * 3 + 1
    y = layer(x)
    np.testing.assert_allclose(y.mean((0, 2, 3)), 0, atol=1e-6)
    np.testing.assert_allclose(y.var((0, 2, 3)), 1, rtol=1e-4)
    state = layer.state_dict()
    np.testing.assert_allclose(state["running_mean"], 0.5 * x.mean((0, 2, 3)), rtol=1e-5)
    unbiased = x.astype(float).var((0, 2, 3), ddof=1)
    np.testing.assert_allclose(state["running_var"], 0.5 + 0.5 * unbiased, rtol=1e-5)
    assert state["num_batches_tracked"] == 1


def test_summary(capsys: pytest.CaptureFixture[str]) -> None:
    nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 5)).summary((1, 4, 4))
    out = capsys.readouterr().out
    assert "(1, 2, 2, 2)" in out and "65 trainable" in out
    assert f"{2 * 2 * 2 * 2 * 9 + 2 * 8 * 5:,} FLOPs" in out


ERRORS: list[tuple[Any, type[Exception], str]] = [
    (lambda: nn.Linear(0, 3), ValueError, "in_features"),
    (lambda: nn.Conv2d(3, 4, 3, groups=2), ValueError, "groups"),
    (lambda: nn.Conv2d(3, 4, -1), ValueError, "kernel_size"),
    (lambda: nn.Conv2d(3, 4, "3"), TypeError, "kernel_size"),
    (lambda: nn.Dropout(1.5), ValueError, "p: expected"),
    (lambda: nn.CrossEntropyLoss(reduction="average"), ValueError, "reduction"),
    (lambda: nn.Sequential(nn.ReLU(), 3), TypeError, "layer 1"),  # type: ignore[arg-type]
    (lambda: nn.Conv2d(3, 4, 3)(np.zeros((1, 2, 8, 8))), ValueError, "3 channels"),
    (lambda: nn.Conv2d(3, 4, 9)(np.zeros((1, 3, 8, 8))), ValueError, "smaller than the kernel"),
    (lambda: nn.Linear(3, 4)(np.zeros((1, 2))), ValueError, "3 features"),
    (lambda: nn.MaxPool2d(2)(np.zeros((3, 4))), ValueError, "4 dimensions"),
    (lambda: nn.MaxPool2d(2, padding=2)(np.zeros((1, 1, 4, 4))), ValueError, "padding"),
    (lambda: nn.BatchNorm2d(3)(np.zeros((1, 3, 1, 1))), ValueError, "one value per channel"),
    (lambda: nn.LayerNorm((3, 0)), ValueError, "normalized_shape"),
    (lambda: nn.LayerNorm((3, 4))(np.zeros((2, 4))), ValueError, r"last sizes \(3, 4\)"),
    (lambda: nn.GroupNorm(2, 3), ValueError, "num_groups"),
    (lambda: nn.GroupNorm(2, 4)(np.zeros((2, 3, 4))), ValueError, "4 channels"),
    (lambda: nn.LPPool2d(0, 2), ValueError, "norm_type"),
    (lambda: nn.Upsample(), ValueError, "one of the two"),
    (lambda: nn.Upsample(2, mode="cubic")(np.zeros((1, 1, 2))), ValueError, "mode"),
    (lambda: nn.Upsample(2, mode="linear")(np.zeros((1, 1, 2, 2))), ValueError, "3 dimensions"),
    (lambda: nn.Unflatten(1, (2, 4))(np.zeros((1, 6))), ValueError, "unflattened_size"),
    (lambda: nn.ZeroPad2d(1)(np.zeros((1, 1, 2))), ValueError, "4 dimensions"),
    (lambda: nn.Linear(3, 4).to("int32"), TypeError, "dtype"),
    (lambda: nn.Module()(np.zeros(3)), NotImplementedError, "forward"),
]


@pytest.mark.parametrize("call,error,words", ERRORS)
def test_errors_name_the_argument(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()


def test_ops_compute_on_arrays() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((3, 4)), rng.standard_normal((4, 5))
    out = np.empty((3, 5))
    assert ops.matmul(a, b, out=out) is out
    np.testing.assert_allclose(out, a @ b, rtol=1e-13)
    np.testing.assert_allclose(ops.softmax(a, dim=0), np.exp(a) / np.exp(a).sum(0), rtol=1e-12)
    np.testing.assert_allclose(ops.mean(a, axis=1), a.mean(1), rtol=1e-13)
    labels = np.array([0, 3, 1])
    want = -np.log((np.exp(a) / np.exp(a).sum(1, keepdims=True))[range(3), labels])
    np.testing.assert_allclose(ops.cross_entropy(a, labels, "none"), want, rtol=1e-12)
    with pytest.raises(ValueError, match="label"):
        ops.cross_entropy(a, labels + 1)
    with pytest.raises(ValueError, match="matmul: b"):
        ops.matmul(a, a)
    with pytest.raises(TypeError, match="float64 like the others"):
        ops.matmul(a, b.astype(np.float32))


@pytest.mark.parametrize(
    "dims, shape", [((), (2, 60)), ((1, 2), (2, 12, 5)), ((-2,), (2, 3, 20)), ((0, 1), (6, 4, 5))]
)
def test_flatten_merges_the_dimensions_from_start_to_end(dims, shape):
    x = np.arange(120, dtype=np.float32).reshape(2, 3, 4, 5)
    np.testing.assert_array_equal(nn.Flatten(*dims)(x), x.reshape(shape))


@pytest.mark.parametrize(
    "dims, words",
    [((4,), "start_dim: 4 lies outside"), ((2, 1), "end_dim: 1 comes before start_dim 2")],
)
def test_flatten_names_wrong_dimensions(dims, words):
    with pytest.raises(ValueError, match=words):
        nn.Flatten(*dims)(np.zeros((2, 3, 4), np.float32))


class Gate(nn.Module):
    """x * exp(-2 scale) + scale @ scale: parameters among themselves, then with values."""

    def __init__(self) -> None:
        self.scale = nn.Parameter(np.array([0.5, -1.0, 2.0]))

    def forward(self, x: Any) -> Any:
        return x * (-self.scale * 2).exp() + ops.sum(self.scale * self.scale)


def test_parameters_take_part_in_arithmetic() -> None:
    model, x = Gate(), np.arange(6.0).reshape(2, 3)
    s = np.array([0.5, -1.0, 2.0])
    want = x * np.exp(-2 * s) + s @ s
    np.testing.assert_allclose(model(x), want, rtol=1e-14)
    np.testing.assert_allclose(2.0 * model.scale - s, s)
    np.testing.assert_allclose(ops.exp(model.scale), np.exp(s), rtol=1e-14)
    model.scale.data = s = s / 2
    np.testing.assert_allclose(model(x), x * np.exp(-2 * s) + s @ s, rtol=1e-14)
    with pytest.raises(AttributeError, match="Parameter has no attribute 'grad'"):
        _ = model.scale.grad
