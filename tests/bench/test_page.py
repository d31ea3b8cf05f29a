"""The page of results, from the JSON that a run writes."""

import json

import pytest

from bench import page

MACHINE = {
    "cpu": "a CPU",
    "cores": 2,
    "isa": "avx2",
    "threads": 2,
    "limits": {"2": {"gflops": 100.0, "cache_gbs": 50.0, "memory_gbs": 10.0}},
    "lost": 0.0,
}
SIDES = [
    {"side": "fastnn", "ran": True, "median": 0.002, "best": 0.001, "share": 0.5},
    {"side": "torch", "ran": True, "median": 0.004, "ratio": {"median": 2.0, "best": 3.0}},
    {"side": "jax jit", "ran": False, "reason": "not run: jax is not installed"},
]
SLOWER = [SIDES[0], {**SIDES[1], "ratio": {"median": 8.0, "best": 12.0}}, SIDES[2]]
SHARES = [
    {"name": "relu", "where": "cache", "threads": n, "gbs": 90.0, "copy": 100.0, "share": 0.9}
    for n in (1, 2)
]


@pytest.fixture
def folder(tmp_path):
    for theme, rows in (
        (
            "train",
            [{"name": f"net b{n}", "sides": sides} for n, sides in ((1, SIDES), (8, SLOWER))],
        ),
        ("bandwidth", SHARES),
    ):
        content = {
            "date": "2026-01-01",
            "machine": MACHINE,
            "versions": {"numpy": "2.0"},
            "lost": 0.4,
        }
        (tmp_path / f"{theme}.json").write_text(json.dumps({**content, "rows": rows}))
    return tmp_path


def test_page(folder):
    lines = page.page(folder).splitlines()
    assert "| net b1 | 1 ms | 50% | 3.00x | not run |" in lines
    assert "| geometric mean |  |  | 6.00x |  |" in lines
    assert "| relu | 0.90 | 0.90 |" in lines
    assert any("2026-01-01: a CPU, 2 cores, avx2, 2 threads" in line for line in lines)
    assert any("40% of the time was lost" in line for line in lines)
    assert not any("## Kernels" in line for line in lines)


def test_medians_stand_beside_the_best_of_a_calm_run(folder):
    path = folder / "train.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "lost": 0.01}))
    assert (
        "| net b1 | 2 ms, 1 ms | 50% | 2.00x, 3.00x | not run |" in page.page(folder).splitlines()
    )


def test_no_results(tmp_path):
    with pytest.raises(SystemExit, match="no results"):
        page.page(tmp_path)
