"""What penstock decides about a packet, and the odd packets that have a decision of their own.

A *verdict* ends the search through the rules; a *condition* is a property of an
odd packet that a policy decides before its rules (`on malformed drop`).
"""

from __future__ import annotations

from enum import Enum, IntEnum


class Verdict(Enum):
    """A deciding action.  What a program answers for it is its hook's business (`model.hook`)."""

    PASS = "pass"  # noqa: S105 - no password
    DROP = "drop"
    BOUNCE = "bounce"
    REDIRECT = "redirect"
    REJECT = "reject"


class Condition(IntEnum):
    """The ways in which a packet can be odd, in the order in which they are decided.

    The value is the bit index in the data path's condition mask and the offset
    of the condition's counter behind the default's.
    """

    MALFORMED = 0
    UNKNOWN_TAG = 1
    EXTHDR_LIMIT = 2
    FRAGMENT = 3
    IP_OPTIONS = 4

    @property
    def word(self) -> str:
        """The condition as policies spell it."""
        return self.name.lower().replace("_", "-")


#: What a verdict is in a program's decision (verdict.bpf.h), at every hook; never 0, which is "go on".
#: A decision is a counter's slot, shifted by three bits, and one of these.
DECISION_CODES = {
    Verdict.DROP: 1,
    Verdict.PASS: 2,
    Verdict.BOUNCE: 3,
    Verdict.REDIRECT: 4,
    Verdict.REJECT: 5,
}
#: Verdicts that keep a packet from where it wanted to go: a filter with such a default denies.
DENYING = frozenset({Verdict.DROP, Verdict.REJECT})

CONDITION_WORDS = {condition.word: condition for condition in Condition}
