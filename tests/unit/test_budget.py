"""Budgets as they are written, and what is said of a limit that is crossed."""

from __future__ import annotations

import pytest

from penstock.errors import PenstockError
from penstock.price.budget import KEYS, Crossing, Limit, crossed, parse_budget, unknown
from penstock.price.figures import Figures, ObjectFigures
from penstock.price.report import Price, TrafficPrice
from penstock.price.traffic import TrafficClass

FRAME = bytes(60)


def price(*above: float) -> Price:
    rows = tuple(
        TrafficPrice(TrafficClass(f"class {at}", FRAME), 20.0 + ns, 20.0, None) for at, ns in enumerate(above)
    )
    figures = Figures(1000, 5000, 300, None, 72, 4000, 392, 1776, 0.05)
    return Price("dns", rows, ObjectFigures(900, 4096), figures)


def test_limits_are_read_with_their_units() -> None:
    assert parse_budget("ns=40, insns=2000,load=1.5s,compile=300ms,memory=2MiB,table=64K") == (
        Limit("ns", 40.0),
        Limit("insns", 2000.0),
        Limit("load", 1500.0),
        Limit("compile", 300.0),
        Limit("memory", float(2 << 20)),
        Limit("table", 65536.0),
    )


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("nss=40", "no limit 'nss'", "did you mean ns?"),
        ("quux=1", "no limit 'quux'", "there are: ns, insns"),
        ("ns", "'ns' is no limit", "write ns=40"),
        ("ns=-1", "'ns=-1' is no limit", "write ns=40"),
        ("load=3KiB", "load is not counted in 'KiB'", "us, ms, s"),
        ("insns=3k", "insns is not counted in 'k'", "none"),
        ("", "no limit ''", "there are"),
    ],
)
def test_what_is_no_budget_is_refused_with_a_hint(text: str, message: str, hint: str) -> None:
    with pytest.raises(PenstockError, match=message) as caught:
        parse_budget(text)
    assert hint in str(caught.value.hint)
    assert caught.value.exit_code == 1


def test_a_limit_twice_is_refused() -> None:
    with pytest.raises(PenstockError, match="two limits for ns"):
        parse_budget("ns=1,ns=2")


def test_nanoseconds_are_those_of_the_dearest_class() -> None:
    (found,) = crossed(parse_budget("ns=9"), price(1.0, 10.0, 3.0), None)
    assert found.found == pytest.approx(10.0)
    assert crossed(parse_budget("ns=10.5"), price(1.0, 10.0), None) == []


def test_every_limit_can_be_crossed_and_kept() -> None:
    limits = parse_budget(",".join(f"{key}=0" for key in KEYS))
    assert [one.limit.key for one in crossed(limits, price(1.0), 0.3)] == list(KEYS)
    enough = parse_budget(",".join(f"{key}=1000000" for key in KEYS))
    assert crossed(enough, price(1.0), 0.3) == []


def test_what_is_not_known_crosses_nothing_and_is_named() -> None:
    limits = parse_budget("compile=0,ns=40")
    assert crossed(limits, price(1.0), None) == []
    assert unknown(limits, price(1.0), None) == ["compile"]


def test_the_sentence_names_figure_and_limit() -> None:
    said = str(Crossing(Limit("insns", 900.0), 1350.0))
    assert said == "the program has 1,350 instructions, the budget is 900"
