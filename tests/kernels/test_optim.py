"""Optimizer kernels against PyTorch's own trajectories and the formulas of its documentation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fastnn import _core

GOLDEN = json.loads((Path(__file__).parent / "golden" / "optim.json").read_text())


class Slab:
    """Parameters and state of one kernel, stepped by `call`."""

    def __init__(self, guarded, w, optimizer, lr, momentum=0.0, dampening=0.0, weight_decay=0.0,
                 nesterov=False, maximize=False, betas=(0.9, 0.999), eps=1e-8):  # fmt: skip
        self.w, self.step_number, self.lr = guarded(w.shape, w.dtype), 0, lr
        self.w[:] = w
        self.bits, self.adam = w.itemsize * 8, optimizer != "SGD"
        self.fields = {"n": w.size, "maximize": int(maximize), "weight_decay": weight_decay}
        if self.adam:
            decoupled = int(optimizer == "AdamW")
            self.fields |= {
                "beta1": betas[0],
                "beta2": betas[1],
                "eps": eps,
                "decoupled": decoupled,
            }
            names = ["m", "v"]
        else:
            self.fields |= {"momentum": momentum, "dampening": dampening, "nesterov": int(nesterov)}
            names = ["buf"] if momentum else []
        self.state = {name: guarded(w.shape, w.dtype) for name in names}
        for array in self.state.values():
            array[:] = 0

    def step(self, g):
        self.step_number += 1
        hyper = np.array([self.step_number, 0, self.lr], np.float64)
        _core.call("adam" if self.adam else "sgd", self.bits, g=g.astype(self.w.dtype), w=self.w,
                   hyper=hyper, **self.state, **self.fields)  # fmt: skip


def formula(w, optimizer, gradients, lr, momentum=0.0, dampening=0.0, weight_decay=0.0,
            nesterov=False, maximize=False, betas=(0.9, 0.999), eps=1e-8):  # fmt: skip
    """The algorithms as torch.optim documents them, in float64."""
    w, m, v, buf = w.astype(np.float64), 0.0, 0.0, None
    for t, g in enumerate(gradients, 1):
        g = -g if maximize else g
        if optimizer == "AdamW":
            w = w - lr * weight_decay * w
        else:
            g = g + weight_decay * w
        if optimizer == "SGD":
            if momentum:
                buf = g if buf is None else momentum * buf + (1 - dampening) * g
                g = g + momentum * buf if nesterov else buf
            w = w - lr * g
            continue
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g * g
        m_hat, v_hat = m / (1 - betas[0] ** t), v / (1 - betas[1] ** t)
        w = w - lr * m_hat / (np.sqrt(v_hat) + eps)
    return w


@pytest.mark.parametrize("run", GOLDEN, ids=lambda run: f"{run['optimizer']}-{run['options']}")
def test_float64_follows_pytorch(isa, guarded, run):
    size = len(run["path"][0]["w"])
    slab = Slab(guarded, np.linspace(-1, 1, size), run["optimizer"], **run["options"])
    wanted = {point["step"]: point["w"] for point in run["path"]}
    for step in range(1, max(wanted) + 1):
        slab.step(np.array([((7 * i + 13 * step + 3) % 23 - 11) / 8 for i in range(size)]))
        if step in wanted:
            np.testing.assert_allclose(slab.w, wanted[step], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("run", GOLDEN, ids=lambda run: f"{run['optimizer']}-{run['options']}")
@pytest.mark.parametrize("n", [1, 7, 15, 16, 17, 31, 33, 200])
def test_steps_follow_the_formula(isa, dtype, guarded, rng, n, run):
    w = rng.standard_normal(n).astype(dtype)
    gradients = rng.standard_normal((5, n)).astype(dtype)
    slab = Slab(guarded, w, run["optimizer"], **run["options"])
    for g in gradients:
        slab.step(g)
    expected = formula(w, run["optimizer"], gradients.astype(np.float64), **run["options"])
    # Five steps of some ten roundings each, of values below 8 in size.
    np.testing.assert_allclose(slab.w, expected, rtol=0, atol=400 * np.finfo(dtype).eps)


def test_first_step_ignores_what_the_buffer_held(isa, dtype, guarded):
    slab = Slab(guarded, np.ones(40, dtype), "SGD", lr=0.5, momentum=0.9)
    slab.state["buf"][:] = np.nan
    slab.step(np.ones(40))
    np.testing.assert_array_equal(slab.w, dtype(0.5))
    np.testing.assert_array_equal(slab.state["buf"], dtype(1))


@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "AdamW"])
def test_nan_reaches_its_own_parameter_only(isa, dtype, guarded, optimizer):
    slab = Slab(guarded, np.ones(50, dtype), optimizer, lr=0.1)
    g = np.ones(50)
    g[17] = np.nan
    slab.step(g)
    assert np.isnan(slab.w[17]) and np.isnan(slab.w).sum() == 1


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_without_decay_an_infinite_weight_stays(isa, dtype, guarded, optimizer):
    slab = Slab(guarded, np.full(20, np.inf, dtype), optimizer, lr=0.1)
    slab.step(np.ones(20))
    assert np.all(slab.w == np.inf)


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_bits_do_not_depend_on_threads(isa, dtype, threads, guarded, rng, optimizer):
    w, g = rng.standard_normal((2, 100_003)).astype(dtype)
    results = []
    for count in (1, 2):
        threads(count)
        options = {"momentum": 0.9} if optimizer == "SGD" else {}
        slab = Slab(guarded, w, optimizer, lr=0.1, weight_decay=0.1, **options)
        slab.step(g)
        slab.step(g)
        results.append(slab.w.tobytes())
    assert results[0] == results[1]
