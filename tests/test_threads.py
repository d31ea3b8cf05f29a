"""The thread pool as a user meets it: forks, Python threads, any count, settings."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

import fastnn as fn
from fastnn import nn, ops
from fastnn.graph import Array

RNG = np.random.default_rng(0)
A = RNG.standard_normal((300, 300)).astype(np.float32)
B = RNG.standard_normal((300, 300)).astype(np.float32)


@pytest.fixture(autouse=True)
def threads() -> object:
    """Put the count back."""
    before = fn.get_num_threads()
    yield
    fn.set_num_threads(before)


def test_count_can_change_at_any_time() -> None:
    want = ops.matmul(A, B)
    for n in (1, 4, 2, 7, 1, 3):
        fn.set_num_threads(n)
        assert fn.get_num_threads() == n
        np.testing.assert_array_equal(ops.matmul(A, B), want)


@pytest.mark.parametrize("bad", [0, -1, 1.5, "2", True])
def test_bad_counts(bad: object) -> None:
    with pytest.raises(ValueError, match="n: expected"):
        fn.set_num_threads(bad)  # type: ignore[arg-type]


def test_python_threads_at_once() -> None:
    fn.set_num_threads(2)
    models = [nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Flatten()) for _ in range(2)]
    x = RNG.standard_normal((8, 3, 16, 16)).astype(np.float32)
    want = [m(x) for m in models]
    wrong: list[int] = []

    def work(i: int) -> None:
        for _ in range(30):
            model = i % 2  # two threads share each model
            if not np.array_equal(models[model](x), want[model]):
                wrong.append(i)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert wrong == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_fork_makes_a_pool_of_its_own() -> None:
    fn.set_num_threads(2)
    want = ops.matmul(A, B)
    pid = os.fork()
    if pid == 0:
        same = np.array_equal(ops.matmul(A, B), want)
        os._exit(0 if same else 1)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    np.testing.assert_array_equal(ops.matmul(A, B), want)


def run(code: str, **env: str) -> str:
    out = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, **env},
    )
    return out.stdout.strip() or out.stderr.strip().splitlines()[-1]


def test_environment() -> None:
    show = "import fastnn as fn; print(fn.get_num_threads(), fn.isa())"
    assert run(show, FASTNN_NUM_THREADS="3").startswith("3 ")
    for isa in __import__("fastnn._core")._core.isas():
        assert run(show, FASTNN_ISA=isa).endswith(isa)
    assert "isa: expected one of" in run(show, FASTNN_ISA="mmx")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity here")
def test_affinity_is_honoured() -> None:
    cpu = min(os.sched_getaffinity(0))
    code = f"import os; os.sched_setaffinity(0, {{{cpu}}}); import fastnn as fn; "
    env = {"FASTNN_NUM_THREADS": ""}
    assert run(code + "print(fn.get_num_threads())", **env) == "1"


def denormal() -> Array:
    return np.full(4, 1e-40, np.float32)


def test_denormals_stay() -> None:
    fn.set_num_threads(2)
    ops.matmul(A, B)
    assert np.all(denormal() * np.float32(1) > 0)
    assert np.all(ops.mul(denormal(), 1.0) > 0)
