"""Case files: many cases in one file, each a text and what must come of it.

    [case the name of the case]
    input text
    [out]
    expected text

With PENSTOCK_GOLDEN=write in the environment (`make golden`) the expected texts
are replaced by what comes out, and the tests of that run pass.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).parent / "cases"
_CASE = re.compile(
    r"^\[case (?P<name>[^\n]+)\]\n(?P<text>.*?)^\[out\]\n(?P<out>.*?)(?=^\[case |\Z)",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Case:
    """One case; `text` and `out` end with a line end."""

    path: Path
    name: str
    text: str
    out: str

    @property
    def id(self) -> str:
        return f"{self.path.stem}: {self.name}"


def read_cases(folder: str) -> list[Case]:
    """All cases of the case files in `tests/cases/FOLDER`, in the order of files and lines."""
    return [case for path in sorted((ROOT / folder).glob("*.case")) for case in _cases(path)]


def check(case: Case, produce: Callable[[str], str]) -> None:
    """Compare what `produce` makes of the case's text with what must come of it, or write it down."""
    found = produce(case.text).rstrip("\n") + "\n"
    if os.environ.get("PENSTOCK_GOLDEN") == "write":
        _write(replace(case, out=found))
    else:
        assert found == case.out.rstrip("\n") + "\n"


def _cases(path: Path) -> list[Case]:
    return [
        Case(path, found["name"], found["text"], found["out"])
        for found in _CASE.finditer(path.read_text(encoding="utf-8"))
    ]


def _write(case: Case) -> None:
    cases = [case if other.name == case.name else other for other in _cases(case.path)]
    texts = [f"[case {each.name}]\n{each.text.rstrip()}\n[out]\n{each.out.rstrip()}\n" for each in cases]
    case.path.write_text("\n".join(texts), encoding="utf-8")
