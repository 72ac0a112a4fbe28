"""A place among other programs, as it is written and as it is told."""

from __future__ import annotations

import pytest

from penstock.kernel.order import read_order


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("first", "first"),
        ("last", "last"),
        ("before:42", "before program 42"),
        ("after:42", "after program 42"),
        ("7", "at priority 7"),
    ],
)
def test_a_place_in_words(written: str, told: str) -> None:
    """As in `the filter on eth0 does not stand at priority 7`."""
    assert str(read_order(written)) == told
