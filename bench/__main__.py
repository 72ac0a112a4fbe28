"""Measure penstock and write docs/performance.md: `make bench`, or `python -m bench` as root.

python -m bench                     all of it, some twenty minutes
python -m bench --quick             fewer sizes and rounds, two minutes; docs/performance.md stays as it is
python -m bench --only scale wire   these tables alone; the page has the others from bench/results
python -m bench --redraw            the page and its plots from bench/results, measuring nothing

Set PENSTOCK_BENCH_LOCK to the path of a file where several measure on one machine: they take turns.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from time import monotonic

from bench.page import page
from bench.results import PAGE, PLOTS, QUICK_RESULTS, RESULTS, Table, load_results, store
from bench.suite import QUICK, SPREAD, TABLES, Plan
from bench.turns import alone
from penstock.compiler.clang import find_clang
from penstock.errors import PenstockError


def main() -> int:
    """Run what is asked for, one table after the other; exit code 1 if an answer was wrong."""
    options = _options()
    plan = QUICK if options.quick else Plan()
    if options.rounds:
        plan = replace(plan, rounds=options.rounds)
    folder = options.results or (QUICK_RESULTS if options.quick else RESULTS)
    if not options.redraw:
        try:
            _measure(plan, options.only or list(TABLES), folder)
        except PenstockError as error:
            sys.stderr.write(f"bench: {error.message}\n")
            return error.exit_code
    results = load_results(folder)
    text = page(results)
    if options.quick:
        sys.stdout.write(text)
        return 0
    if not options.no_page:
        PAGE.write_text(text)
        _draw(results)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="two minutes; prints the page")
    parser.add_argument("--only", nargs="+", choices=list(TABLES), metavar="TABLE", help=", ".join(TABLES))
    parser.add_argument("--rounds", type=int, default=0, help="interleaved rounds for ns per packet")
    parser.add_argument("--results", type=Path, metavar="FOLDER", help="where the samples go, and come from")
    parser.add_argument("--redraw", action="store_true", help="measure nothing")
    parser.add_argument("--no-page", action="store_true", help="leave docs/performance.md alone")
    return parser.parse_args()


def _measure(plan: Plan, names: list[str], folder: Path) -> None:
    for name in names:
        begun = monotonic()
        _tell(f"── {name}")
        with nullcontext() if name in SPREAD else alone():
            rows = TABLES[name](plan, _tell)
        table = Table(_machine(), rows, round(monotonic() - begun, 1))
        store(folder, name, table)
        _tell(f"   {table.seconds} s")


def _tell(sentence: str) -> None:
    sys.stderr.write(sentence + "\n")
    sys.stderr.flush()


def _draw(results: dict[str, Table]) -> None:
    try:
        from bench.plots import draw
    except ModuleNotFoundError as error:
        _tell(f"no plots: {error}; pip install -e '.[bench]'")
        return
    draw(results, PLOTS)


def _machine() -> dict[str, str]:
    return {
        "cpu": _processor(),
        "cpus": str(os.cpu_count()),
        "load": f"{os.getloadavg()[0]:.1f}",
        "kernel": platform.release(),
        "clang": f"clang {find_clang().version}",
        "python": platform.python_version(),
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


if __name__ == "__main__":
    raise SystemExit(main())
