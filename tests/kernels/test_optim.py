"""Optimizer kernels against PyTorch's own trajectories and the formulas of papers and documentation."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fastnn import _core, optim
from fastnn.optim.slab import PIECE

GOLDEN = json.loads((Path(__file__).parent / "golden" / "optim.json").read_text())
PAPERS = [  # what PyTorch has no trajectory of
    {"optimizer": "Lion", "options": {"lr": 0.01}},
    {"optimizer": "Lion", "options": {"lr": 0.01, "betas": [0.8, 0.95], "weight_decay": 0.1}},
    {"optimizer": "LAMB", "options": {"lr": 0.01}},
    {"optimizer": "LAMB", "options": {"lr": 0.01, "weight_decay": 0.0, "maximize": True}},
]
SOME = {  # one of each optimizer
    "SGD": {"momentum": 0.9},
    "Adagrad": {},
    "Adadelta": {},
    "RMSprop": {"centered": True, "momentum": 0.5},
    "Adam": {"amsgrad": True},
    "AdamW": {},
    "NAdam": {},
    "Lion": {},
    "LAMB": {},
}


def name_of(run):
    options = ",".join(f"{k}={v}" for k, v in run["options"].items())
    return f"{run['optimizer']}-{options}"


class Stepped:
    """Parameters and states of one optimizer, stepped by its kernel called directly."""

    def __init__(self, guarded, w, optimizer, **options):
        self.w, self.steps = guarded(w.shape, w.dtype, w), 0
        self.optimizer = made = getattr(optim, optimizer)(**options)
        self.states = {
            field: guarded(w.shape, w.dtype, made.initial(name))
            for field, name in made.states().items()
        }
        cut = [(at, min(PIECE, w.size - at), 0) for at in range(0, w.size, PIECE)]
        segment = SimpleNamespace(parameters=[None], pieces=lambda: np.array(cut, np.int64))
        self.fields = made.arguments(SimpleNamespace(constant=lambda array: array), segment)
        self.fields |= {"n": w.size, "c": 0, "start": 0, "lr_at": 2, "maximize": int(made.maximize)}
        self.fields["weight_decay"] = made.weight_decay
        bits = 8 * w.itemsize
        if "work" in _core.kernels()[made.kernel]:
            numbers = {k: v for k, v in self.fields.items() if not isinstance(v, np.ndarray)}
            size = _core.buffer_bytes(made.kernel, bits, **numbers)
            self.fields["work"] = guarded(size, np.uint8)

    def step(self, g, **fields):
        self.steps += 1
        hyper = np.array([self.steps, 0, self.optimizer.lr], np.float64)
        _core.call(self.optimizer.kernel, 8 * self.w.itemsize, g=g.astype(self.w.dtype), w=self.w,
                   hyper=hyper, **self.states, **{**self.fields, **fields})  # fmt: skip


def formula(optimizer, w, gradients, options):
    """The algorithms in float64, as torch.optim documents them; Lion's and LAMB's from the papers."""
    made = getattr(optim, optimizer)(**options)
    k = SimpleNamespace(**made.config)
    w, lr, decay = w.astype(np.float64), made.lr, made.weight_decay
    s = u = m = v = vmax = buf = 0.0
    if optimizer == "Adagrad":
        s = k.initial_accumulator_value
    momenta = 1.0
    for t, g in enumerate(gradients, 1):
        g = -g if made.maximize else g
        if optimizer in ("AdamW", "Lion") or getattr(k, "decoupled_weight_decay", False):
            w = w * (1 - lr * decay)
        elif optimizer != "LAMB":
            g = g + decay * w
        if hasattr(k, "eps") and hasattr(k, "betas"):
            m = k.betas[0] * m + (1 - k.betas[0]) * g
            v = k.betas[1] * v + (1 - k.betas[1]) * g * g
            m_hat, v_hat = m / (1 - k.betas[0] ** t), v / (1 - k.betas[1] ** t)
        if optimizer == "SGD":
            if k.momentum:
                buf = g if t == 1 else k.momentum * buf + (1 - k.dampening) * g
                g = g + k.momentum * buf if k.nesterov else buf
            w = w - lr * g
        elif optimizer == "Adagrad":
            s = s + g * g
            w = w - lr / (1 + (t - 1) * k.lr_decay) * g / (np.sqrt(s) + k.eps)
        elif optimizer == "Adadelta":
            s = k.rho * s + (1 - k.rho) * g * g
            step = np.sqrt(u + k.eps) / np.sqrt(s + k.eps) * g
            u = k.rho * u + (1 - k.rho) * step * step
            w = w - lr * step
        elif optimizer == "RMSprop":
            s = k.alpha * s + (1 - k.alpha) * g * g
            m = k.alpha * m + (1 - k.alpha) * g
            step = g / (np.sqrt(s - m * m if k.centered else s) + k.eps)
            buf = k.momentum * buf + step
            w = w - lr * buf
        elif optimizer in ("Adam", "AdamW"):
            vmax = np.maximum(vmax, v)
            below = vmax / (1 - k.betas[1] ** t) if k.amsgrad else v_hat
            w = w - lr * m_hat / (np.sqrt(below) + k.eps)
        elif optimizer == "NAdam":
            now, after = (
                k.betas[0] * (1 - 0.5 * 0.96 ** (i * k.momentum_decay)) for i in (t, t + 1)
            )
            momenta *= now
            mean = (1 - now) / (1 - momenta) * g + after / (1 - momenta * after) * m
            w = w - lr * mean / (np.sqrt(v_hat) + k.eps)
        elif optimizer == "Lion":
            w = w - lr * np.sign(k.betas[0] * m + (1 - k.betas[0]) * g)
            m = k.betas[1] * m + (1 - k.betas[1]) * g
        else:
            r = m_hat / (np.sqrt(v_hat) + k.eps) + decay * w
            w = w - lr * np.linalg.norm(w) / np.linalg.norm(r) * r
    return w


def gradient(step, size):
    return np.array([((7 * i + 13 * step + 3) % 23 - 11) / 8 for i in range(size)])


@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "Lion", "LAMB"])
def test_what_fades_becomes_zero(isa, guarded, optimizer):
    options = {} if optimizer == "Adam" else SOME[optimizer]
    stepped = Stepped(guarded, np.ones(100, np.float32), optimizer, **options)
    for state in stepped.states.values():
        state[...] = 1e-40
    stepped.step(np.zeros(100))
    assert all((state == 0).all() for state in stepped.states.values())
    assert np.isfinite(stepped.w).all()
    assert np.float32(1e-40) * np.float32(0.5) != 0, "the caller's floating point mode has changed"


@pytest.mark.parametrize("run", GOLDEN, ids=name_of)
def test_float64_follows_pytorch(isa, guarded, run):
    size = len(run["path"][0]["w"])
    stepped = Stepped(guarded, np.linspace(-1, 1, size), run["optimizer"], **run["options"])
    wanted = {point["step"]: point["w"] for point in run["path"]}
    for step in range(1, max(wanted) + 1):
        stepped.step(gradient(step, size))
        if step in wanted:
            np.testing.assert_allclose(stepped.w, wanted[step], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("run", PAPERS, ids=name_of)
def test_float64_follows_the_paper(isa, guarded, run):
    w = np.linspace(-1, 1, 5)
    stepped = Stepped(guarded, w, run["optimizer"], **run["options"])
    gradients = [gradient(step, 5) for step in range(1, 101)]
    for g in gradients:
        stepped.step(g)
    wanted = formula(run["optimizer"], w, gradients, run["options"])
    np.testing.assert_allclose(stepped.w, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("run", GOLDEN + PAPERS, ids=name_of)
def test_steps_follow_the_formula(isa, dtype, guarded, rng, run):
    for n in (1, 7, 16, 33, 200):
        w = rng.standard_normal(n).astype(dtype)
        gradients = rng.standard_normal((5, n)).astype(dtype)
        stepped = Stepped(guarded, w, run["optimizer"], **run["options"])
        for g in gradients:
            stepped.step(g)
        expected = formula(run["optimizer"], w, gradients.astype(np.float64), run["options"])
        # Five steps of some ten roundings each, of values below 8 in size.
        np.testing.assert_allclose(stepped.w, expected, rtol=0, atol=400 * np.finfo(dtype).eps)


def test_trust_ratios_are_of_each_parameter(isa, dtype, guarded, rng):
    """Three parameters, with a gap, one of several pieces and one that is all zeros."""
    sizes, firsts = (2 * PIECE + 5, 3, 40), (0, 2 * PIECE + 16, 2 * PIECE + 32)
    w, g = np.zeros((2, 2 * PIECE + 80), dtype)
    parts = [slice(first, first + size) for first, size in zip(firsts, sizes, strict=True)]
    for part in parts[:2]:
        w[part] = rng.standard_normal(w[part].shape)
    for part in parts:
        g[part] = rng.standard_normal(w[part].shape)
    stepped = Stepped(guarded, w, "LAMB", lr=0.1)
    pieces = [
        (first + at, min(PIECE, size - at), number)
        for number, (first, size) in enumerate(zip(firsts, sizes, strict=True))
        for at in range(0, size, PIECE)
    ]
    numbers = {"count": len(pieces), "parameters": 3}
    work = guarded(_core.buffer_bytes("lamb", 8 * w.itemsize, **stepped.fields | numbers
                                      | {"pieces": 0, "work": 0}), np.uint8)  # fmt: skip
    stepped.step(g, pieces=np.array(pieces, np.int64), work=work, **numbers)
    for part in parts[:2]:
        wanted = formula("LAMB", w[part], [g[part].astype(np.float64)], {"lr": 0.1})
        # The step and its norm carry some 10 roundings, steps are below 0.5 in size.
        np.testing.assert_allclose(stepped.w[part], wanted, rtol=0, atol=10 * np.finfo(dtype).eps)
    step = np.abs(stepped.w[parts[2]])  # Adam's first one: lr in size where the ratio is 1
    np.testing.assert_allclose(step, 0.1, rtol=1e-4)
    gap = np.ones(w.size, bool)
    for part in parts:
        gap[part] = False
    assert not stepped.w[gap].any()


def test_steps_are_counted_from_the_start(isa, dtype, guarded, rng):
    """What comes after 40 steps moves as if it had come at the first one."""
    w, g = rng.standard_normal((2, 30)).astype(dtype)
    for optimizer, options in SOME.items():
        late, early = (Stepped(guarded, w, optimizer, **options) for _ in range(2))
        late.steps = 40
        for _ in range(3):
            late.step(g, start=40)
            early.step(g)
        np.testing.assert_array_equal(late.w, early.w)


def test_nadam_finds_its_product_again(isa, guarded, rng):
    """Skipping and going back in steps gives the same bits as counting through."""
    w, g = rng.standard_normal((2, 3))
    ends = []
    for first in (0, 7, 3000):
        stepped = Stepped(guarded, w, "NAdam")
        for steps in (first, 20):
            stepped.steps = steps
            stepped.w[:] = w
            for state in stepped.states.values():
                state[:] = 0
            stepped.step(g)
        ends.append(stepped.w.tobytes())
    assert ends[0] == ends[1] == ends[2]


def test_clip_multiplies_the_gradient(isa, dtype, guarded, rng):
    w, g = rng.standard_normal((2, 50)).astype(dtype)
    for optimizer, options in SOME.items():
        one, two = (Stepped(guarded, w, optimizer, **options) for _ in range(2))
        one.step(g, clip=np.array(0.25))
        two.step(g * dtype(0.25))
        np.testing.assert_array_equal(one.w, two.w)


def test_first_step_ignores_what_the_buffer_held(isa, dtype, guarded):
    stepped = Stepped(guarded, np.ones(40, dtype), "SGD", lr=0.5, momentum=0.9)
    stepped.states["buf"][:] = np.nan
    stepped.step(np.ones(40))
    np.testing.assert_array_equal(stepped.w, dtype(0.5))
    np.testing.assert_array_equal(stepped.states["buf"], dtype(1))


@pytest.mark.parametrize("optimizer", sorted(SOME.keys() - {"LAMB"}))
def test_nan_reaches_its_own_parameter_only(isa, dtype, guarded, optimizer):
    stepped = Stepped(guarded, np.ones(50, dtype), optimizer, lr=0.1, **SOME[optimizer])
    g = np.ones(50)
    g[17] = np.nan
    stepped.step(g)
    stepped.step(np.ones(50))
    assert np.isnan(stepped.w[17]) and np.isnan(stepped.w).sum() == 1


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_without_decay_an_infinite_weight_stays(isa, dtype, guarded, optimizer):
    stepped = Stepped(guarded, np.full(20, np.inf, dtype), optimizer, lr=0.1)
    stepped.step(np.ones(20))
    assert np.all(stepped.w == np.inf)


@pytest.mark.parametrize("optimizer", SOME)
def test_bits_do_not_depend_on_threads(isa, dtype, threads, guarded, rng, optimizer):
    w, g = rng.standard_normal((2, 100_003)).astype(dtype)
    results = []
    for count in (1, 2):
        threads(count)
        stepped = Stepped(guarded, w, optimizer, lr=0.1, weight_decay=0.1, **SOME[optimizer])
        stepped.step(g)
        stepped.step(g)
        results.append(stepped.w.tobytes())
    assert results[0] == results[1]
