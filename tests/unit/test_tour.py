"""docs/tour.md shows what really happens: every `$ penstock …` of it is run and its output compared.

A line that is only `…` stands for any number of lines.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _commands() -> list[tuple[str, str]]:
    found = []
    for block in _BLOCK.findall((TOP / "docs/tour.md").read_text()):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, shown = part.partition("\n")
            found.append((command, shown))
    return found


def _matches(shown: str, printed: str) -> bool:
    pieces = [re.escape(piece) for piece in re.split(r"^…\n", shown, flags=re.MULTILINE)]
    return re.fullmatch(r"(?:.*\n)*?".join(pieces), printed) is not None


@pytest.mark.parametrize(("command", "shown"), _commands(), ids=[command for command, _ in _commands()])
def test_the_tour_tells_the_truth(command: str, shown: str) -> None:
    program, *arguments = shlex.split(command)
    assert program == "penstock"
    argv = [sys.executable, "-m", "penstock", *arguments]
    done = subprocess.run(argv, cwd=TOP, capture_output=True, text=True)
    assert _matches(shown, done.stdout), f"{done.stdout}\n--- but the tour shows ---\n{shown}\n{done.stderr}"


def test_the_tour_goes_through_all_stages() -> None:
    commands = " ".join(command for command, _ in _commands())
    assert all(f"--emit {stage}" in commands for stage in ("ast", "ir", "diagram", "plan", "c"))
