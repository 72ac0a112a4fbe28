"""What an apply would change: rules that come, go, move and read otherwise."""

from __future__ import annotations

from penstock.pipeline.identity import CounterKey
from penstock.pipeline.preview import rule_changes


def keys(*texts: str) -> list[CounterKey]:
    found = []
    for line, text in enumerate(texts, 2):
        label = text.partition(": ")[0] if ": " in text else ""
        found.append(
            CounterKey(label or f"f:{line}", "drop", text, line, "" if label else f"meaning of {text}")
        )
    return found


def told(old: list[CounterKey], new: list[CounterKey]) -> list[tuple[str, str, str | None]]:
    return [(one.what, one.text, one.before) for one in rule_changes(old, new)]


def test_equal_rules_change_nothing_wherever_their_lines_are() -> None:
    assert told(keys("drop if tcp", "drop if udp"), keys("drop if tcp", "drop if udp")) == []
    assert told(keys("drop if udp"), keys("drop if tcp", "drop if udp")) == [("added", "drop if tcp", None)]


def test_one_that_goes() -> None:
    assert told(keys("drop if tcp", "drop if udp"), keys("drop if udp")) == [("removed", "drop if tcp", None)]


def test_one_that_moves() -> None:
    old, new = (
        keys("a: drop if tcp", "pass if udp", "pass if icmp"),
        keys("pass if udp", "pass if icmp", "a: drop if tcp"),
    )
    assert told(old, new) == [("moved", "a: drop if tcp", None)]


def test_a_label_with_another_text() -> None:
    assert told(keys("a: drop if tcp"), keys("a: drop if udp")) == [
        ("changed", "a: drop if udp", "a: drop if tcp")
    ]


def test_a_line_with_another_rule_is_no_change_of_it() -> None:
    assert [one[0] for one in told(keys("drop if tcp"), keys("drop if udp"))] == ["added", "removed"]


def test_two_of_one_text_are_two() -> None:
    assert told(keys("drop if tcp"), keys("drop if tcp", "drop if tcp")) == [("added", "drop if tcp", None)]
