"""What becomes of a packet: what is decided of it, what counts it, what is done with it besides.

found = evaluate(rule_set, packet)      ->  Outcome(Verdict.PASS, slot=0, hits=(7,))
asked(rule_set, found)                  ->  Asked(mark=Mark(0x10), mirrors=("tap0",))
"""

from __future__ import annotations

from dataclasses import dataclass

from penstock.compiler.ir.ops import FIRST_RULE_SLOT, Decision, Redirection, RuleSet
from penstock.model.action import Device, Dscp, Mark
from penstock.model.verdict import Condition, Verdict


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one packet.

    `slot` is the counter slot of what decided (the default, a condition or a
    rule); `hits` the slots of the non-deciding rules that matched before;
    `conditions` every odd-packet condition that holds, decided or not.
    Counted are: `slot`, all of `hits`, and every one of `conditions`.
    """

    verdict: Verdict
    slot: int
    hits: tuple[int, ...] = ()
    conditions: frozenset[Condition] = frozenset()


@dataclass(frozen=True, slots=True)
class Asked:
    """What is done with a packet besides its verdict.

    `device` is where it is redirected to; `mirrors` are the devices that get a
    copy of it as it arrived, also when it is dropped; `mark` and `dscp` are set
    on a packet that goes on, None where nothing is.
    """

    device: str | None = None
    mirrors: tuple[str, ...] = ()
    mark: Mark | None = None
    dscp: int | None = None


#: After these a packet goes on, so that a mark or a DSCP means something.
_GOES_ON = frozenset({Verdict.PASS, Verdict.REDIRECT, Verdict.BOUNCE})


def asked(rule_set: RuleSet, outcome: Outcome) -> Asked:
    """What the rules that a packet met ask for: of marks and DSCPs the last one counts, bit by bit."""
    mark: Mark | None = None
    dscp: int | None = None
    mirrors: list[str] = []
    for slot in outcome.hits:
        match rule_set.rules[slot - FIRST_RULE_SLOT].argument:
            case Mark() as wanted:
                mark = wanted.over(mark)
            case Dscp(value):
                dscp = value
            case Device(name):
                mirrors.append(name)
    decider = rule_set.rules[outcome.slot - FIRST_RULE_SLOT] if outcome.slot >= FIRST_RULE_SLOT else None
    decision = decider.decision if decider else None
    device = decision.device if isinstance(decision, Redirection) else None
    if outcome.verdict not in _GOES_ON:
        mark = dscp = None
    return Asked(device, tuple(dict.fromkeys(mirrors)), mark, dscp)


def decision_on(rule_set: RuleSet, outcome: Outcome) -> Decision:
    """What was decided, with the device of a redirection."""
    device = asked(rule_set, outcome).device
    return outcome.verdict if device is None else Redirection(device)
