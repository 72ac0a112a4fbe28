"""Cells and tables of docs/performance.md."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bench.goals import LEAST_NS


def ns_text(value: float | None) -> str:
    """Nanoseconds."""
    return "–" if value is None else f"{value:,.0f}" if abs(value) >= 20 else f"{value:.1f}"


def ratio_text(ours: float | None, theirs: float | None) -> str:
    """How many times the other one; nothing where that is too little to say."""
    if ours is None or theirs is None or theirs < LEAST_NS:
        return "–"
    return f"{ours / theirs:.2f}"


def table_of(titles: Sequence[str], rows: Iterable[Sequence[object]], left: int = 1) -> str:
    """A table of Markdown; the first `left` columns are words."""
    rule = ["---"] * left + ["---:"] * (len(titles) - left)
    lines = [titles, rule, *rows]
    return "".join("| " + " | ".join(str(cell) for cell in line) + " |\n" for line in lines)
