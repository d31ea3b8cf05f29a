"""Time fastnn beside NumPy, Numba and the frameworks that are installed, and by itself.

kernels, convolutions, products, train, infer: side by side, in turns, after the results were found
equal. bandwidth: what memory-bound kernels move, as a share of what a copy moves. scaling: one thread
against several. report: docs/performance.md, on standard output, of the results in --out.
"""

from __future__ import annotations

import argparse
import fnmatch
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import fastnn as fn

from . import page, report
from .budget import EFFORTS, SECONDS, SIDE_BY_SIDE, Budget
from .case import FASTNN, Case
from .machine import Lost, Machine, measure
from .measure import Result, run_case
from .workers import Workers

THEMES = tuple(SECONDS)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="bench", description=__doc__, formatter_class=raw)
    parser.add_argument("theme", nargs="*", metavar="THEME", default=THEMES, help="; ".join(THEMES))
    parser.add_argument("--only", metavar="PATTERN", default="", help="cases of this name: '*cnn*'")
    parser.add_argument(
        "--effort", choices=EFFORTS, default="normal", help="some 4, 18, 65, 160 minutes for all"
    )
    parser.add_argument("--threads", type=int, default=fn.get_num_threads(), metavar="N")
    parser.add_argument("--list", action="store_true", help="name the cases and stop")
    parser.add_argument(
        "--out", type=Path, default=Path("bench-results"), help="folder of results and plots"
    )
    options = parser.parse_args(argv)
    most = len(os.sched_getaffinity(0))
    if not 1 <= options.threads <= most:
        parser.error(f"--threads: expected 1 to {most}, got {options.threads}")
    if wrong := set(options.theme) - {*THEMES, "report"}:
        parser.error(f"THEME: expected {', '.join(THEMES)} or report, got {wrong.pop()!r}")
    return options


def cases(theme: str, options: argparse.Namespace) -> list[Case]:
    """The cases of a theme, or for scaling of all, whose names match --only."""
    themes = tuple(SIDE_BY_SIDE) if theme == "scaling" else (theme,)
    found: list[Case] = []
    for name in themes:
        module = importlib.import_module(f"{__package__}.cases.{name}")
        found += module.cases(full=options.effort == "full")
    return [c for c in found if _wanted(c.name, options.only)]


def _wanted(name: str, pattern: str) -> bool:
    if not any(c in pattern for c in "*?["):
        pattern = f"*{pattern}*"
    return fnmatch.fnmatch(name, pattern)


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{text:<79}\r", end="", file=sys.stderr, flush=True)


def _seconds(theme: str, options: argparse.Namespace) -> float:
    return SECONDS[theme] * EFFORTS[options.effort].factor


def side_by_side(
    theme: str, options: argparse.Namespace, machine: Machine, workers: Workers
) -> list[Result]:
    """Run and print the cases of a theme, then write its JSON and plots."""
    wanted, timed, results = cases(theme, options), EFFORTS[options.effort].timed, []
    print(report.HEADER)
    try:
        workers.start(dict.fromkeys(s.library for c in wanted for s in (FASTNN, *c.peers)))
        budget = Budget(_seconds(theme, options), [case.part for case in wanted])
        for case in wanted:
            share = budget.next(case.part)
            results.append(run_case(case, workers, share, timed * case.part, _progress))
            print(report.table(results[-1], machine), flush=True)
        print(report.means(results))
    finally:
        parts = [report.case_dict(r, machine) for r in results]
        path = options.out / f"{theme}.json"
        if any(r.ran for r in results):
            lost = sum(r.lost.share for r in results if r.ran) / sum(r.ran for r in results)
            report.write_json(path, theme, parts, machine, lost, workers.versions)
            _draw(results, machine, options.out)
    return results


def _draw(results: list[Result], machine: Machine, folder: Path) -> None:
    try:
        from .plots import draw
    except ModuleNotFoundError:
        print("no plots: matplotlib is not installed")
    else:
        print(*draw(results, machine, folder), sep="\n")


def alone(theme: str, options: argparse.Namespace, machine: Machine) -> int:
    """Run, print and write the themes that fastnn runs by itself; how many rows there are."""
    from .alone import scaling, shares

    rows, lost = [], Lost()
    given = (options.threads, EFFORTS[options.effort], lost)
    found = (
        scaling(_seconds(theme, options), cases(theme, options), *given)
        if theme == "scaling"
        else shares(_seconds(theme, options), lambda name: _wanted(name, options.only), *given)
    )
    for row in found:
        rows.append(row.as_dict())
        print(row, flush=True)
    if rows:
        report.write_json(options.out / f"{theme}.json", theme, rows, machine, lost.share, {})
    return len(rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Run what was asked for; 1 if nothing ran or some result was wrong."""
    options = _parse(argv)
    if "report" in options.theme:
        print(page.page(options.out), end="")
        return 0
    if options.list:
        listed = [c for t in options.theme if t in SIDE_BY_SIDE for c in cases(t, options)]
        print(*[f"{c.theme}: {c.name}" for c in listed], sep="\n")
        return 0
    ran, wrong, workers = 0, False, Workers(options.threads)
    try:
        machine = measure(fn.isa(), options.threads)
        print(machine, flush=True)
        for theme in options.theme:
            print(f"\n--- {theme} ---", flush=True)
            if theme in SIDE_BY_SIDE:
                results = side_by_side(theme, options, machine, workers)
                ran += sum(r.ran for r in results)
                wrong |= any(r.wrong for r in results)
            else:
                workers.stop()  # fastnn is alone then
                ran += alone(theme, options, machine)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    finally:
        workers.stop()
    if not ran:
        print("no benchmark ran", file=sys.stderr)
    return 0 if ran and not wrong else 1


if __name__ == "__main__":
    sys.exit(main())
