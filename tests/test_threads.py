"""The thread pool as a user meets it: forks, Python threads, any count, settings."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import fastnn as fn
from fastnn import _core, nn, ops
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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_fork_while_another_thread_runs_the_model() -> None:
    model = nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 8))
    x = RNG.standard_normal((512, 256)).astype(np.float32)
    want = model(x)
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            model(x)

    worker = threading.Thread(target=work)
    worker.start()
    codes = []
    for _ in range(5):
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)  # a lock that nobody holds any more would wait for ever
            os._exit(0 if np.array_equal(model(x), want) else 1)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    stop.set()
    worker.join()
    assert codes == [0] * 5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_fork_frees_the_lock_that_another_thread_holds() -> None:
    memory = _core.Memory(64)
    program = _core.Program(32, memory)
    memory.lock.acquire()  # as a thread does while it runs a program
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        program.run(())
        os._exit(0)
    memory.lock.release()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


GROUPS = {
    "v2": ("0::/a/b\n", {"a/cpu.max": "150000 100000", "a/b/cpu.max": "max 100000"}, 2),
    "v2, above": ("0::/a/b\n", {"cpu.max": "100000 100000", "a/b/cpu.max": "400000 100000"}, 1),
    "v2, no limit": ("0::/\n", {"cpu.max": "max 100000"}, None),
    "v2, seen from within a container": ("0::/host/x\n", {"cpu.max": "300000 100000"}, 3),
    "v1": (
        "3:cpuset:/\n2:cpu,cpuacct:/a\n0::/\n",
        {"cpu/a/cpu.cfs_quota_us": "50000", "cpu/a/cpu.cfs_period_us": "100000"},
        1,
    ),
    "v1, no limit": (
        "1:cpu:/\n",
        {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"},
        None,
    ),
    "nonsense": ("what\n::\n0::/" + 5000 * "x" + "\n", {"cpu.max": "many"}, None),
}


@pytest.mark.parametrize("name", GROUPS)
def test_cgroup_quota(name: str, tmp_path: Path) -> None:
    membership, files, cores = GROUPS[name]
    (tmp_path / "membership").write_text(membership)
    for file, content in files.items():
        (tmp_path / "root" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / file).write_text(content + "\n")
    got = _core.quota_threads(str(tmp_path / "membership"), str(tmp_path / "root"))
    assert got == cores


def test_no_cgroups(tmp_path: Path) -> None:
    assert _core.quota_threads(str(tmp_path / "none"), str(tmp_path)) is None


def test_threadpoolctl_sets_the_count() -> None:
    threadpoolctl = pytest.importorskip("threadpoolctl")
    import_module("fastnn.interop.threadpoolctl")  # registers
    fn.set_num_threads(2)
    with threadpoolctl.threadpool_limits(1, user_api="fastnn"):
        assert fn.get_num_threads() == 1
    assert fn.get_num_threads() == 2
    (found,) = [i for i in threadpoolctl.threadpool_info() if i["user_api"] == "fastnn"]
    assert found["num_threads"] == 2 and found["version"] == fn.__version__


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
