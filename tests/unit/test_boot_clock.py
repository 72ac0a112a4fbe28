"""The boot clock of programs, from within a time namespace."""

from __future__ import annotations

import pytest

from penstock.model.boot_clock import boot_clock_ns, offset_ns


@pytest.mark.parametrize(
    ("text", "offset"),
    [
        ("monotonic           5         6\nboottime        86400         7\n", 86_400_000_000_007),
        ("monotonic           0         0\nboottime           -1 999999999\n", -1),
        ("1 5 6\n7 86400 0\n", 86_400_000_000_000),
        ("", 0),
    ],
)
def test_what_a_namespace_adds(text: str, offset: int) -> None:
    assert offset_ns(text) == offset


def test_it_goes_on() -> None:
    before = boot_clock_ns()
    assert before <= boot_clock_ns() < before + 3600 * 10**9
