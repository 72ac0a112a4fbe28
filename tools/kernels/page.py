"""docs/kernels.md: what needs which kernel, what penstock does without it, and what the booted kernels answered.

python -m tools.kernels.page          writes the page from the tables and tools/kernels/results
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from penstock.kernel.probe.behaviours import BEHAVIOURS, WATCHED_HELPERS, Behaviour, Need
from penstock.kernel.probe.tables import ATTACH_TYPES, HELPERS, MAP_TYPES, PROGRAM_TYPES, Known, release

_TOP = Path(__file__).parents[2]
PAGE = _TOP / "docs/kernels.md"
RESULTS = Path(__file__).with_name("results")

_HEAD = """\
# Kernels

What penstock asks of the kernel, the first release that has it, and what penstock does without it. Nothing is
decided by a version: `penstock probe` tries everything on the kernel that runs, `penstock probe --for FILE` says what
one policy needs of it. This page is written by `python -m tools.kernels.page` from the probe's own tables; the columns
of kernels are what `make kernels` saw: Debian's kernels, booted under qemu, where every verdict case was run at XDP,
TC and sockets, every example was loaded, and a policy was put in place at each hook.

"""


def keep(series: str, found: dict[str, Any]) -> None:
    """Keep what a kernel answered."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{series}.json").write_text(json.dumps(found, indent=1) + "\n")


def results() -> dict[str, dict[str, Any]]:
    """What kernels answered, by series, the oldest first."""
    files = sorted(RESULTS.glob("*.json"), key=lambda path: release(f"{path.stem}.0"))
    return {path.stem: json.loads(path.read_text()) for path in files}


def text() -> str:
    """The page."""
    seen = results()
    parts = [_HEAD, *_booted(seen), *_behaviours(seen)]
    for title, section, table in (
        ("Program types", "programs", PROGRAM_TYPES),
        ("Map types", "maps", MAP_TYPES),
        ("Attach types", "attach", ATTACH_TYPES),
    ):
        parts += _types(title, section, table, seen)
    return "".join((*parts, *_helpers())).rstrip("\n") + "\n"


def _booted(seen: dict[str, dict[str, Any]]) -> Iterator[str]:
    yield "| kernel | XDP | TC | socket |\n|---|---|---|---|\n"
    for found in seen.values():
        ways = found["attached"]
        yield _row(
            (found["release"], *(ways[f"at {hook}"] or "refused" for hook in ("xdp", "tc ingress", "socket")))
        )
    yield "\n"


def _behaviours(seen: dict[str, dict[str, Any]]) -> Iterator[str]:
    needs = {Need.ALWAYS: "**needed**: ", Need.SOMETIMES: "", Need.NEVER: ""}
    for group, members in _groups().items():
        yield f"## {group[0].upper()}{group[1:]}\n\n"
        yield from _header(("feature", "name", "least kernel", *seen, "without it"))
        for one in members:
            marks = [_mark(one.name in found["behaviours"]) for found in seen.values()]
            yield _row((one.title, f"`{one.name}`", one.since, *marks, needs[one.need] + one.without))
        yield "\n"


def _groups() -> dict[str, list[Behaviour]]:
    groups: dict[str, list[Behaviour]] = {}
    for one in (*BEHAVIOURS, *WATCHED_HELPERS):
        groups.setdefault(one.group, []).append(one)
    return groups


def _types(
    title: str, section: str, table: dict[str, Known], seen: dict[str, dict[str, Any]]
) -> Iterator[str]:
    yield f"## {title}\n\n"
    yield from _header(("name", "least kernel", *seen))
    for name, known in table.items():
        yield _row((f"`{name}`", known.since, *(_mark(name in found[section]) for found in seen.values())))
    yield "\n"


def _helpers() -> Iterator[str]:
    yield "## Helpers\n\nThe first release that had each, for some program type; "
    yield "`penstock probe helpers` has them by type.\n\n"
    yield from _header(("least kernel", "helpers"))
    by_release: dict[str, list[str]] = {}
    for name, known in HELPERS.items():
        by_release.setdefault(known.since, []).append(f"`{name}`")
    for since, names in by_release.items():
        yield _row((since, ", ".join(names)))


def _header(titles: Sequence[str]) -> Iterator[str]:
    yield _row(titles)
    yield "|" + "---|" * len(titles) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


def _mark(there: bool) -> str:
    return "yes" if there else "no"


if __name__ == "__main__":
    PAGE.write_text(text())
