"""bench/results: a JSON file a table, with the raw samples, and what is computed from them.

results = load_results(RESULTS)
above(results["scale"].rows[0], "uniform", "penstock")      ->  5.4
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results"
QUICK_RESULTS = RESULTS / "quick"
PAGE = ROOT / "docs" / "performance.md"
PLOTS = ROOT / "docs" / "images" / "performance"

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Table:
    """One table's rows, the machine, and how long measuring took."""

    machine: dict[str, str]
    rows: list[Row]
    seconds: float = 0.0


def store(folder: Path, name: str, table: Table) -> None:
    """Write a table, one row a line."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = ",\n".join(json.dumps(row) for row in table.rows)
    head = json.dumps({"machine": table.machine, "seconds": table.seconds})[1:-1]
    (folder / f"{name}.json").write_text(f'{{{head}, "rows": [\n{rows}\n]}}\n')


def load_results(folder: Path) -> dict[str, Table]:
    """Every table that the folder has, by its name; `large` is the end of `scale`."""
    found = {}
    for file in sorted(folder.glob("*.json")):
        data = json.loads(file.read_text())
        found[file.stem] = Table(data["machine"], data["rows"], data["seconds"])
    if {"scale", "large"} <= set(found):
        large, scale = found.pop("large"), found["scale"]
        found["scale"] = Table(scale.machine, [*scale.rows, *large.rows], scale.seconds + large.seconds)
    return found


def above(row: Row, traffic: str, program: str = "penstock") -> float | None:
    """ns a packet above empty: the median over the rounds of the difference within a round."""
    samples = row.get("traffic", {}).get(traffic, {})
    if program not in samples:
        return None
    return median(_differences(samples, program))


def spread(row: Row, traffic: str, program: str = "penstock") -> float:
    """How far apart the middle half of the rounds lies, in ns."""
    found = sorted(_differences(row["traffic"][traffic], program))
    return found[len(found) * 3 // 4] - found[len(found) // 4]


def _differences(samples: Mapping[str, list[float]], program: str) -> list[float]:
    return [full - empty for full, empty in zip(samples[program], samples["empty"], strict=True)]


def over_seeds(rows: Iterable[Row], traffic: str, program: str = "penstock") -> list[float]:
    """The figure of each seed, least first; none where the program has none."""
    found = (above(row, traffic, program) for row in rows)
    return sorted(value for value in found if value is not None)


def select(table: Table | None, **wanted: object) -> list[Row]:
    """The rows with these values, those left out that could not be measured."""
    if table is None:
        return []
    return [row for row in table.rows if "failed" not in row and _fits(row, wanted)]


def _fits(row: Row, wanted: Mapping[str, object]) -> bool:
    return all(row.get(key) == value for key, value in wanted.items())


def sizes_of(table: Table | None) -> list[int]:
    """The numbers of rules that a table has, least first."""
    return sorted({row["rules"] for row in table.rows}) if table else []


def failures(results: Mapping[str, Table]) -> Iterator[Row]:
    """The rule sets that could not be compiled or loaded."""
    for table in results.values():
        yield from (row for row in table.rows if "failed" in row)
