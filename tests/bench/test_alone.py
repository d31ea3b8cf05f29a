"""What fastnn is timed at by itself: the kernels run, and the bytes counted are those they move."""

import time
from dataclasses import replace
from functools import partial
from itertools import groupby

import numpy as np
import pytest

from bench import alone
from bench.__main__ import main
from bench.budget import EFFORTS
from bench.cases import bandwidth, train
from bench.machine import Lost
from fastnn import _core
from fastnn.data.download import DownloadError

KERNELS = {k.name: k for k in bandwidth.kernels()}


@pytest.mark.parametrize("name", KERNELS)
def test_kernel_runs(name):
    made = KERNELS[name].of_bytes(1 << 14)
    assert 0.5 < made.moved / (1 << 14) < 4  # images come whole
    alone._program(made)(1)


def test_turns_are_interleaved():
    order = []

    def run(i, n):
        order.append(i)
        time.sleep(1e-3 * n)

    seconds = alone.interleaved([partial(run, 0), partial(run, 1)], 0.05, Lost())
    assert seconds.shape[1] == 2 and (seconds >= 1e-3).all()
    turns = [i for i, _ in groupby(order)]  # a turn has a warm-up or none
    assert turns == [0, 1] * (len(turns) // 2) and len(turns) >= 4


def test_moved_bytes():
    n = 100
    assert KERNELS["relu"].make(n).moved == 4 * 2 * n
    assert KERNELS["Adam"].make(n).moved == 4 * (1 + 2 * 3) * n  # g; w, m and v both ways
    assert KERNELS["batch norm forward"].make(n).moved == 4 * 3 * 64 * n


def test_peak_copy_copies_every_part():
    x, y = np.arange(1000, dtype=np.uint8), np.zeros(1000, np.uint8)
    _core.call("peak_copy", 32, x=x, y=y, bytes=999, part=100, rounds=2)
    np.testing.assert_array_equal(y[:999], x[:999])
    assert y[999] == 0


def test_peak_fma_counts():
    one, two = np.zeros(1), np.zeros(1)
    _core.call("peak_fma", 32, y=one, rounds=1)
    _core.call("peak_fma", 64, y=two, rounds=4)
    assert one[0] > 0 and two[0] == 2 * one[0]  # half the lanes, four times the rounds


def test_a_case_without_its_data_is_left_out(capsys):
    def missing():
        raise DownloadError("no such host")

    tiny = next(c for c in train.cases(full=False) if c.name == "mlp-4-32-3 b32")
    cases = [replace(tiny, name="far", arrays=missing), tiny]
    rows = list(alone.scaling(2.0, cases, 2, EFFORTS["quick"], Lost()))
    assert [row.name for row in rows] == ["mlp-4-32-3 b32"]
    assert "far: not run: no such host" in capsys.readouterr().err


def test_a_run_without_a_benchmark_fails(tmp_path, monkeypatch):
    monkeypatch.setattr("bench.__main__.measure", lambda isa, threads: "machine")
    assert main(["bandwidth", "--only", "no such", "--out", str(tmp_path)]) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [["kernel"], ["--threads", "0"], ["--effort", "some"]])
def test_wrong_arguments(wrong, capsys):
    with pytest.raises(SystemExit):
        main(wrong)
    assert "expected" in (said := capsys.readouterr().err) or "invalid choice" in said
