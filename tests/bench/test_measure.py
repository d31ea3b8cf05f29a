"""The harness on fake workers: what is compared, timed, left out and reported."""

import time

import numpy as np
import pytest

from bench import budget, machine
from bench.case import Case, Side, output_difference, update_difference
from bench.machine import Limits, Machine
from bench.measure import run_case
from bench.report import table
from bench.worker import Worker
from bench.workers import NotRun


class FakeWorker:
    """Answers as a worker whose iteration takes `seconds` and whose result is `value`."""

    alive = True

    def __init__(self, seconds: float, value: float) -> None:
        self.seconds, self.value = seconds, value

    def ask(self, do, patience=1.0, **fields):
        if do == "check":
            np.savez(fields["out"], output=np.array([self.value]))
        if do == "time" and not self.seconds:
            raise NotRun("the worker ended with status -9")
        whole = self.seconds * fields.get("n", 0)
        return {"via": "fake", "seconds": [2 * whole, whole, 3 * whole]}


class FakeWorkers:
    """fastnn twice as fast as one peer; another peer wrong, a third missing."""

    made = {
        "fastnn": FakeWorker(0.001, 1.0),
        "peer": FakeWorker(0.002, 1.0),
        "wrong": FakeWorker(0.001, 1.1),
        "broken": FakeWorker(0.001, float("nan")),
        "dies": FakeWorker(0.0, 1.0),
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
    return run_case(CASE, FakeWorkers(), 1.0, 0.1, lambda text: None)


CASE = Case(
    theme="train",
    name="fake",
    kind="train",
    spec={},
    arrays=lambda: {"x": np.zeros(1)},
    peers=tuple(Side(name) for name in ("peer", "wrong", "broken", "missing", "dies")),
    difference=output_difference,
    tolerance=1e-3,
)


def test_ratio_is_peer_over_fastnn(result):
    assert result.ran
    np.testing.assert_allclose(result.rows[1].ratios, 2.0)
    np.testing.assert_allclose(result.rows[1].seconds, 0.004)  # the slices' median
    np.testing.assert_allclose(result.rows[1].best, 0.002)
    assert result.best_ratio(result.rows[1]) == pytest.approx(2.0)


@pytest.mark.parametrize("i", [2, 3])
def test_wrong_result_has_no_figures(result, i):
    assert result.wrong and not result.rows[i].ran and result.rows[i].reason.startswith("WRONG")


def test_missing_peer_is_not_run(result):
    assert not result.rows[4].ran and result.rows[4].reason == "not run: not installed"
    two = Machine("cpu", 2, "avx2", 2, {2: Limits(100.0, 10.0, 10.0)}, 0.0)
    line = table(result, two).splitlines()[5]
    assert line.split() == ["missing", "not", "run:", "not", "installed"]


def test_peer_that_dies_while_timed_is_not_run(result):
    assert result.rows[1].ran
    assert not result.rows[5].ran and "ended with status -9" in result.rows[5].reason


def test_what_comes_after_the_time_is_not_run():
    over = run_case(CASE, FakeWorkers(), -1.0, 0.1, lambda text: None)
    assert not over.ran and "time was over" in over.rows[0].reason
    late = run_case(CASE, FakeWorkers(), 1e-9, 0.1, lambda text: None)
    assert late.ran and all("time was over" in row.reason for row in late.rows[1:])


def test_time_that_a_case_leaves_goes_to_those_after_it(monkeypatch):
    clock = iter([0.0, 0.0, 10.0, 100.0, 130.0])
    monkeypatch.setattr(budget.time, "perf_counter", lambda: next(clock))
    shares = budget.Budget(120.0, [1, 2, 1, 2])
    assert [shares.next(w) for w in (1, 2, 1, 2)] == pytest.approx([20, 44, 20 / 3, -10])


def test_lost_counts_gaps_between_readings_of_the_clock(monkeypatch):
    readings = iter([0.0, 1e-4, 0.5, 0.5 + 1e-4, 1.0, *np.arange(1, 2, 1e-4)])
    monkeypatch.setattr(machine.time, "perf_counter", lambda: float(next(readings)))
    lost = machine.Lost()
    lost.look(0.01)
    assert lost.lost == pytest.approx(0.9998) and lost.ran == pytest.approx(0.01, abs=1e-4)
    assert "DISTURBED" in machine.trust(lost.share) and "undisturbed" in machine.trust(0.01)


def test_without_fastnn_nothing_ran(result, monkeypatch):
    monkeypatch.delitem(FakeWorkers.made, "fastnn")
    again = run_case(result.case, FakeWorkers(), 1.0, 0.1, lambda text: None)
    assert not again.ran and not any(row.ran for row in again.rows)


def test_update_difference_sees_one_wrong_tensor():
    before = {"a": np.ones(1000, np.float32), "b": np.ones(10, np.float32)}
    theirs = {"loss": np.ones(2), "a": before["a"] - 0.1, "b": before["b"] - 0.01}
    assert update_difference(before, theirs, theirs) == 0
    assert update_difference(before, {**theirs, "b": before["b"]}, theirs) > 0.9


def test_the_first_slice_of_a_turn_warms_up():
    """Also where it takes longer than the turn."""
    calls = []

    class Slow:
        def run(self, n):
            calls.append(n)
            time.sleep(0.05 if len(calls) == 1 else 0.002)

    worker = Worker("numpy")
    worker.runs["x"] = Slow()
    seconds = worker.time("x", 3, 0.001)["seconds"]
    assert calls == [3, 3] and len(seconds) == 1 and seconds[0] < 0.05
