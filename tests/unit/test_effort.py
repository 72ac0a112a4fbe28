"""The bound on the fuzzers' examples: of the processor's time, not of the clock's."""

from __future__ import annotations

from threading import Event
from time import thread_time

import pytest
from tests.fuzz.effort import within


@within(0.05)
def busy(seconds: float) -> None:
    until = thread_time() + seconds
    while thread_time() < until:
        pass


def test_who_takes_too_long_fails() -> None:
    busy(0)
    with pytest.raises(AssertionError, match=r"0\.1 s of the processor"):
        busy(0.1)


def test_waiting_is_no_effort() -> None:
    within(0.05)(Event().wait)(0.1)
