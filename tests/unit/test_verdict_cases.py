"""Every packet of every case, decided by the reference evaluator and by decision diagrams."""

from __future__ import annotations

import pytest
from tests import verdict_cases
from tests.verdict_cases import Case, in_words, wanted

CASES = verdict_cases.cases()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("back_end", verdict_cases.BACK_ENDS, ids=lambda back_end: back_end.name)
def test_case(case: Case, back_end: verdict_cases.BackEnd) -> None:
    rule_set = case.rule_set()
    frames = [(packet.frame, packet.wire_length) for packet in case.packets]
    wrong = [
        f"{case.path.name}:{packet.line}: {packet.text}\n"
        f"    wanted {in_words(rule_set, wanted(rule_set, packet))}\n"
        f"    found  {in_words(rule_set, outcome)}"
        for packet, outcome in zip(case.packets, back_end.outcomes(rule_set, frames), strict=True)
        if outcome != wanted(rule_set, packet)
    ]
    assert not wrong, "\n".join(wrong)


def test_there_are_enough_cases() -> None:
    assert len(CASES) >= 15
    assert sum(len(case.packets) for case in CASES) >= 60
