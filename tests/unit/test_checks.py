"""Each numbered check of the reliability list that issue 5 names is carried by a test: `@pytest.mark.check(17)`."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
CHECKS = {7, *range(11, 37), 39, *range(41, 45)}
_NUMBER = re.compile(r"pytest\.mark\.check\((\d+)\)|def test_check_0*(\d+)_")


def carried() -> dict[int, set[str]]:
    """Check -> the files whose tests answer for it."""
    found: dict[int, set[str]] = {}
    for file in TESTS.rglob("test_*.py"):
        for match in _NUMBER.finditer(file.read_text()):
            found.setdefault(int(match[1] or match[2]), set()).add(str(file.relative_to(TESTS)))
    return found


def test_every_check_has_a_test() -> None:
    assert sorted(CHECKS - carried().keys()) == []


def test_only_checks_of_the_list_are_named() -> None:
    assert sorted(number for number in carried() if not 1 <= number <= 44) == []
