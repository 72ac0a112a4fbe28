"""What is done when something fails: a decision for each event, with how often it was needed.

    decisions(settings, counts, filters)    ->  (Decision("load", "a policy does not load", "…", 0, …), …)

Whether a fault lets packets pass or stops them is never left to chance: what runs
goes on, and where nothing runs the settings say so.  `status` prints them, with a
daemon and without one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from penstock.daemon.settings import Settings
from penstock.daemon.state import Counts
from penstock.model.verdict import Condition

if TYPE_CHECKING:
    from penstock.pipeline.status import Status

_ON_LOAD = {
    "open": "what runs stays; else pass, with an alarm",
    "closed": "what runs stays; else only lifelines pass",
}


@dataclass(frozen=True, slots=True)
class Decision:
    """`count` is how often it happened, None for what cannot happen yet; `decided_by` is who may choose."""

    event: str
    what: str
    decision: str
    count: int | None
    decided_by: str


def decisions(settings: Settings, counts: Counts, filters: Sequence[Status]) -> tuple[Decision, ...]:
    """The decision of each event; `filters` are those in place, with their counters."""
    load, design = settings.failure.load, "design"
    on_malformed = f"on {Condition.MALFORMED.value}"
    malformed = sum(one.counters[on_malformed].packets for one in filters if on_malformed in one.counters)
    crowded = sum(usage.refused for one in filters for usage in one.limiters)
    return (
        Decision("load", "a policy does not load", _ON_LOAD[load], counts.load, f"failure.load = {load}"),
        Decision("daemon", "the daemon ends", "what is in place filters on", counts.daemon, design),
        Decision(
            "set_full", "a set is full", "the change is refused, the content stays", counts.set_full, design
        ),
        Decision(
            "limiter_full",
            "a table of limits is full",
            "one limit for all that find no place",
            crowded,
            design,
        ),
        Decision(
            "malformed",
            "a packet cannot be parsed",
            "as the policy says: `on malformed`",
            malformed,
            "policy",
        ),
        Decision(
            "events_full", "the buffer of events is full", "the event is lost, never the packet", None, design
        ),
    )
