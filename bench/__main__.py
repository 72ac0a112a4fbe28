"""Measure penstock and write docs/performance.md: `make bench`, or `python -m bench` as root.

python -m bench                 all of it, a few minutes
python -m bench --rounds 5      quicker and noisier
python -m bench --no-page       bench/results/*.json alone
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from pathlib import Path

from bench.linear import linear_rows, loading_rows
from bench.page import page
from bench.usual import ROOT, usual_rows
from penstock.compiler.clang import find_clang

RESULTS = ROOT / "bench" / "results"
PAGE = ROOT / "docs" / "performance.md"


def main() -> None:
    """Run everything, one table after the other."""
    options = _options()
    machine = _machine()
    results = {
        "usual": usual_rows(options.rounds),
        "linear": linear_rows(options.rounds),
        "loading": loading_rows(options.runs),
    }
    RESULTS.mkdir(exist_ok=True)
    for name, rows in results.items():
        text = json.dumps({"machine": machine, "rows": rows}, indent=1)
        (RESULTS / f"{name}.json").write_text(text + "\n")
    text = page(machine, results)
    if not options.no_page:
        PAGE.write_text(text)
    print(text)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure penstock.")
    parser.add_argument("--rounds", type=int, default=15, help="interleaved rounds for ns per packet, a load")
    parser.add_argument("--runs", type=int, default=11, help="times that each policy is compiled and loaded")
    parser.add_argument("--no-page", action="store_true", help="leave docs/performance.md alone")
    return parser.parse_args()


def _machine() -> dict[str, str]:
    return {
        "cpu": _processor(),
        "cpus": str(os.cpu_count()),
        "load": f"{os.getloadavg()[0]:.1f}",
        "kernel": platform.release(),
        "clang": f"clang {find_clang().version}",
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


if __name__ == "__main__":
    main()
