"""The harness on fake workers: what is compared, timed, left out and reported."""

import numpy as np
import pytest

from bench.case import Case, Side, output_difference, update_difference
from bench.machine import Limits, Machine
from bench.measure import EFFORTS, run_case
from bench.report import table
from bench.workers import NotRun


class FakeWorker:
    """Answers as a worker whose iteration takes `seconds` and whose result is `value`."""

    alive = True

    def __init__(self, seconds: float, value: float) -> None:
        self.seconds, self.value = seconds, value

    def ask(self, do, **fields):
        if do == "check":
            np.savez(fields["out"], output=np.array([self.value]))
        return {"via": "fake", "seconds": self.seconds * fields.get("n", 0)}


class FakeWorkers:
    """fastnn twice as fast as one peer; another peer wrong, a third missing."""

    made = {
        "fastnn": FakeWorker(0.001, 1.0),
        "peer": FakeWorker(0.002, 1.0),
        "wrong": FakeWorker(0.001, 1.1),
        "broken": FakeWorker(0.001, float("nan")),
    }

    def get(self, library):
        if library not in self.made:
            raise NotRun("not installed")
        return self.made[library]

    def settle(self):
        pass

    def cpu_seconds(self):
        return 0.0


@pytest.fixture
def result():
    case = Case(
        theme="train",
        name="fake",
        kind="train",
        spec={},
        arrays=lambda: {"x": np.zeros(1)},
        peers=tuple(Side(name) for name in ("peer", "wrong", "broken", "missing")),
        difference=output_difference,
        tolerance=1e-3,
    )
    return run_case(case, FakeWorkers(), EFFORTS["quick"], lambda text: None)


def test_ratio_is_peer_over_fastnn(result):
    assert result.ran
    np.testing.assert_allclose(result.rows[1].ratios, 2.0)


@pytest.mark.parametrize("i", [2, 3])
def test_wrong_result_has_no_figures(result, i):
    assert result.wrong and not result.rows[i].ran and result.rows[i].reason.startswith("WRONG")


def test_missing_peer_is_not_run(result):
    assert not result.rows[4].ran and result.rows[4].reason == "not run: not installed"
    machine = Machine("cpu", 2, "avx2", 2, {2: Limits(100.0, 10.0, 10.0)}, 0.0)
    line = table(result, machine).splitlines()[5]
    assert line.split() == ["missing", "not", "run:", "not", "installed"]


def test_without_fastnn_nothing_ran(result, monkeypatch):
    monkeypatch.delitem(FakeWorkers.made, "fastnn")
    again = run_case(result.case, FakeWorkers(), EFFORTS["quick"], lambda text: None)
    assert not again.ran and not any(row.ran for row in again.rows)


def test_update_difference_sees_one_wrong_tensor():
    before = {"a": np.ones(1000, np.float32), "b": np.ones(10, np.float32)}
    theirs = {"loss": np.ones(2), "a": before["a"] - 0.1, "b": before["b"] - 0.01}
    assert update_difference(before, theirs, theirs) == 0
    assert update_difference(before, {**theirs, "b": before["b"]}, theirs) > 0.9
