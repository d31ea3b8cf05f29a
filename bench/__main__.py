"""python -m bench [kernels|train|infer|all] [--only PATTERN] [--quick] [--threads N]"""

from __future__ import annotations

import argparse
import fnmatch
import importlib
import os
import sys
from pathlib import Path

import fastnn as fn
from bench.case import Case
from bench.machine import measure
from bench.measure import FULL, QUICK, Result, run_case
from bench.report import HEADER, table, write_json
from bench.workers import Workers

THEMES = ("kernels", "train", "infer")
FOLDER = Path("build") / "bench"


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("theme", nargs="?", choices=(*THEMES, "all"), default="all")
    parser.add_argument("--only", metavar="PATTERN", help="cases whose name matches: '*cnn*'")
    parser.add_argument("--quick", action="store_true", help="short slices: rough figures")
    parser.add_argument("--threads", type=int, default=fn.get_num_threads(), metavar="N")
    parser.add_argument("--list", action="store_true", help="name the cases and stop")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of results and plots")
    options = parser.parse_args()
    if not 1 <= options.threads <= len(os.sched_getaffinity(0)):
        parser.error(f"--threads: expected 1 to {len(os.sched_getaffinity(0))}")
    return options


def _cases(options: argparse.Namespace) -> list[Case]:
    themes = THEMES if options.theme == "all" else (options.theme,)
    found: list[Case] = []
    for theme in themes:
        found += importlib.import_module(f"bench.cases.{theme}").cases(options.quick)
    pattern = options.only
    if pattern and not any(c in pattern for c in "*?["):
        pattern = f"*{pattern}*"
    return [c for c in found if not pattern or fnmatch.fnmatch(c.name, pattern)]


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{text:<79}\r", end="", file=sys.stderr, flush=True)


def main() -> int:
    """Run what was asked for; 1 if nothing ran or some result was wrong."""
    options = _parse()
    cases = _cases(options)
    if options.list:
        print(*[f"{c.theme}: {c.name}" for c in cases], sep="\n")
        return 0
    machine = measure(fn.isa(), options.threads, options.out)
    print(machine, HEADER, sep="\n\n")
    workers = Workers(options.threads)
    results: list[Result] = []
    try:
        for case in cases:
            results.append(run_case(case, workers, QUICK if options.quick else FULL, _progress))
            print(table(results[-1], machine), flush=True)
    except KeyboardInterrupt:
        print("interrupted: what follows is what there is", file=sys.stderr)
    finally:
        workers.stop()
    print("\n" + "\n".join(f"{k} {v}" for k, v in workers.versions.items()))
    write_json(options.out / "results.json", results, machine, workers.versions)
    ran = [r for r in results if r.ran]
    if ran:
        from bench.plots import draw

        print(options.out / "results.json", *draw(results, machine, options.out), sep="\n")
    else:
        print("no benchmark ran", file=sys.stderr)
    return 0 if ran and not any(r.wrong for r in results) else 1


if __name__ == "__main__":
    sys.exit(main())
