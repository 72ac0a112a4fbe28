"""docs/performance.md and its plots are what the stored results make of them, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest
from bench.goals import goals
from bench.page import page
from bench.results import PAGE, PLOTS, RESULTS, Table, above, load_results, spread, store
from bench.suite import TABLES

ROW = {
    "set": "acl",
    "family": "ipv4",
    "rules": 100,
    "seed": 1,
    "traffic": {
        "uniform": {
            "empty": [20.0, 30.0, 25.0],
            "penstock": [60.0, 71.0, 64.0],
            "linear": [220.0, 229.0, 226.0],
        },
        "zipf": {"empty": [20.0, 30.0, 25.0], "penstock": [50.0, 61.0, 54.0]},
    },
    "build_ms": {"front": 20.0, "decide": 10.0, "clang": 200.0},
    "build_cpu_ms": 225.0,
    "build_peak_mib": 70.0,
    "load_ms": [5.0, 4.0, 6.0],
    "attach_ms": [1.0],
    "table_bytes": 300_000,
    "map_bytes": 320_000,
    "instructions": 500,
    "verified": 900,
}
MACHINE = {
    "cpu": "a processor",
    "cpus": "2",
    "load": "0.1",
    "kernel": "6.18",
    "clang": "clang 19",
    "python": "3.11",
}


def _results(row: dict[str, object]) -> dict[str, Table]:
    return {"scale": Table(MACHINE, [row], 60.0)}


def test_the_page_is_made_from_the_stored_results() -> None:
    assert PAGE.read_text() == page(load_results(RESULTS)), "python -m bench --redraw"


def test_what_is_stored_are_the_suite_s_tables() -> None:
    assert {file.stem for file in RESULTS.glob("*.json")} <= set(TABLES)


def test_the_plots_are_made_from_the_stored_results() -> None:
    pytest.importorskip("matplotlib", reason="the plots need the dependency group bench")
    from bench.plots import files

    made = files(load_results(RESULTS))
    assert made == files(load_results(RESULTS))
    assert {file.stem for file in PLOTS.glob("*.svg")} == set(made)
    assert all(f"images/performance/{name}.svg" in PAGE.read_text() for name in made)
    assert all("<dc:date>" not in text for text in made.values())


def test_a_figure_is_the_median_of_the_differences_within_rounds() -> None:
    assert above(ROW, "uniform") == 40.0
    assert above(ROW, "uniform", "linear") == 200.0
    assert above(ROW, "uniform", "chain") is None
    assert above(ROW, "none matches") is None
    assert spread(ROW, "uniform") == 2.0


def test_goals_are_met_or_missed_by_what_was_found() -> None:
    found = {goal.what: goal.met for goal in goals(_results(ROW))}
    assert found["100 rules, uniform traffic, the whole program"] is True
    assert found["Zipf traffic, 100 rules and more"] is True
    assert found["10,000 rules, tables"] is None
    assert found["instructions the verifier walks, any policy with tables, the whole program"] is True
    slower = {"empty": [20.0] * 3, "penstock": [61.0] * 3}
    worse = {
        **ROW,
        "verified": 2_001,
        "traffic": {"uniform": slower, "zipf": {**slower, "penstock": [62.0] * 3}},
    }
    found = {goal.what: goal.met for goal in goals(_results(worse))}
    assert found["100 rules, uniform traffic, the whole program"] is False
    assert found["Zipf traffic, 100 rules and more"] is False
    assert found["instructions the verifier walks, any policy with tables, the whole program"] is False


def test_a_page_says_what_is_missed_and_what_failed() -> None:
    failed = {"set": "fw", "family": "ipv4", "rules": 9, "seed": 1, "failed": "it is too large"}
    text = page(
        {
            "scale": replace(
                _results({**ROW, "verified": 3_000})["scale"], rows=[{**ROW, "verified": 3_000}, failed]
            )
        }
    )
    assert (
        "| instructions the verifier walks, any policy with tables, the whole program | ≤ 2000 "
        "| most of all sets 3000 | **missed** |" in text
    )
    assert "* fw ipv4, 9 rules: it is too large" in text
    assert "| 100 | acl | 1 | 40 | 30 | – | 200 | 5.0 | – |" in text


def test_results_come_back_as_they_were_stored(tmp_path: object) -> None:
    from pathlib import Path

    assert isinstance(tmp_path, Path)
    store(tmp_path, "scale", _results(ROW)["scale"])
    assert load_results(tmp_path) == _results(ROW)
