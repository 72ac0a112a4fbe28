"""`check` on what rules mean together: sentences, summaries and records."""

from __future__ import annotations

import pytest
from tests.golden import Case, check, read_cases

from penstock.compiler.analysis.review import review
from penstock.compiler.lang.ast import NOWHERE
from penstock.compiler.lang.diagnostic import Severity
from penstock.compiler.lang.render import render
from penstock.compiler.lang.source import Source
from penstock.pipeline.analysis import MOST_NOTES, MOST_WARNINGS, Analysis
from penstock.pipeline.policy import checked_text, rule_set_of

#: Notes of the language's own, which are told elsewhere.
OTHERS = ("PS21", "PS22")


def _said(text: str) -> str:
    found = checked_text(Source("edge.policy", text)).diagnostics
    return "".join(render(one) for one in found if not one.code.startswith(OTHERS)) or "nothing to say\n"


@pytest.mark.parametrize("case", read_cases("meaning"), ids=lambda case: case.id)
def test_meaning(case: Case) -> None:
    check(case, _said)


def _many(line: str) -> str:
    lines = "\n".join(f"    {line.format(at)}" for at in range(120))
    return f"filter edge at xdp {{\n    default pass\n{lines}\n}}\n"


def test_many_findings_become_one_sentence() -> None:
    found = checked_text(Source("edge.policy", _many("pass if udp dst port {}")))
    told = [one for one in found.diagnostics if one.code == "PS232"]
    assert len(told) == MOST_WARNINGS + 1
    assert "70 more rules change nothing" in told[-1].message
    redundant = found.analyses[0].record()["redundant"]
    assert isinstance(redundant, list)
    assert len(redundant) == 120


def test_many_pairs_become_one_note() -> None:
    text = _many("drop if udp dst port {}").replace(
        "default pass", "default pass\n    pass if src net 10.0.0.0/8"
    )
    found = checked_text(Source("edge.policy", text))
    told = [one for one in found.diagnostics if one.code == "PS233"]
    assert len(told) == MOST_NOTES + 1
    assert "117 more pairs of rules" in told[-1].message
    assert {one.severity for one in told} == {Severity.NOTE}
    correlated = found.analyses[0].record()["correlated"]
    assert isinstance(correlated, list)
    assert len(correlated) == 120
    assert all(pair["example"] for pair in correlated)


def test_what_was_not_judged_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.compiler.analysis.review.ALL", 3_000)
    rules = rule_set_of(_many("pass if udp dst port {}"))
    analysis = Analysis(rules, review(rules), NOWHERE)
    (told,) = (one for one in analysis.diagnostics() if one.code == "PS235")
    assert told.severity is Severity.NOTE
    assert f"{len(analysis.review.undecided)} rules" in told.message
    assert analysis.record()["undecided"]
