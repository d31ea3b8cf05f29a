"""The kernel cases as pytest-benchmark tests: fastnn's side alone, to compare one commit with another.

pytest bench --benchmark-autosave, and after a change pytest bench --benchmark-compare
"""

from __future__ import annotations

import pytest

from .adapters.fastnn import KINDS
from .case import Case
from .cases.kernels import cases

pytest.importorskip("pytest_benchmark")


@pytest.mark.parametrize("case", list(cases(full=False)), ids=lambda case: case.name)
def test_kernel(benchmark, case: Case) -> None:
    benchmark.group = str(case.spec["op"])
    benchmark.extra_info["flops"] = case.flops
    side = KINDS[case.kind](case.spec, case.arrays())
    benchmark(side.run, 1)
