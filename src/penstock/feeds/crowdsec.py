"""CrowdSec's local API: the stream of decisions.

    GET /v1/decisions/stream?startup=true
    {"deleted":null,"new":[{"duration":"3h59m55.7s","id":4,"scope":"Ip","type":"ban","value":"192.0.2.7",…}]}

`null` stands for an empty list, durations are Go's, negative ones occur in `deleted`.
Several decisions may be in force for one value, so a deletion takes one decision back
and the value goes with its last one: that is what `Book` counts.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import msgspec

from penstock.errors import FeedError
from penstock.feeds.gather import Gather, decoded
from penstock.feeds.result import Parsed

_UNITS_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9}
_TERM = re.compile(r"(\d{1,18}(?:\.\d{0,18})?)(h|ms|m|s|us|µs|μs|ns)", re.ASCII)
_SCOPES = frozenset({"ip", "range"})


class Decision(msgspec.Struct, frozen=True):
    """One decision as the API writes it."""

    id: int = 0
    value: object = None
    duration: str | None = None
    scope: str = ""
    type: str = ""

    @property
    def concerns_addresses(self) -> bool:
        """Whether it bans an address or a range; others are for countries, users, or ask for a captcha."""
        return self.type == "ban" and self.scope.lower() in _SCOPES


class _Stream(msgspec.Struct):
    new: list[Decision] | None = None
    deleted: list[Decision] | None = None


def parse_stream(data: bytes, now: float) -> Parsed:
    """The bans of `new`, each until its time is over; `deleted` has none to add.

    Raises:
        FeedError: it is not such a stream.
    """
    book = Book()
    skipped = book.take(data, now)
    return book.parsed(now, skipped=skipped)


def stream_url(url: str, *, startup: bool) -> str:
    """The address of the stream: of all decisions, or of what has changed since this bouncer asked last.

    >>> stream_url("http://127.0.0.1:8080/v1/decisions/stream?scopes=ip", startup=False)
    'http://127.0.0.1:8080/v1/decisions/stream?scopes=ip&startup=false'
    """
    parts = urlsplit(url)
    query = [pair for pair in parse_qsl(parts.query, keep_blank_values=True) if pair[0] != "startup"]
    return urlunsplit(parts._replace(query=urlencode([*query, ("startup", str(startup).lower())])))


def is_empty(data: bytes) -> bool:
    """Whether an answer tells of no change.  Raises FeedError: it is no answer of this API."""
    stream = decoded(data, _Stream)
    return not stream.new and not stream.deleted


def seconds_of(duration: str) -> float | None:
    """Seconds of a duration as Go's time.ParseDuration reads it; None if it is none.

    >>> seconds_of("3h59m55.7s"), seconds_of("-1m0.5s"), seconds_of("4 hours")
    (14395.7, -60.5, None)
    """
    sign, text = (-1.0, duration[1:]) if duration.startswith("-") else (1.0, duration.removeprefix("+"))
    if text == "0":
        return 0.0
    at, total = 0, 0.0
    while at < len(text):
        term = _TERM.match(text, at)
        if term is None:
            return None
        total += float(term[1]) * _UNITS_S[term[2]]
        at = term.end()
    return sign * total if text else None


@dataclass(slots=True)
class Book:
    """The decisions in force, by value: what one `startup=true` answer and those after it add up to.

    A decision is known by its id: one that comes twice counts once, and one that is deleted without
    having come changes nothing.
    """

    decisions: dict[str, dict[int, float]] = field(default_factory=dict)
    asked_at: float | None = None
    """When the API was asked last for this book."""
    wrong: list[tuple[int, str, str]] = field(default_factory=list)

    def take(self, data: bytes, now: float) -> int:
        """Enter an answer of the API; gives how many of its decisions do not concern addresses.

        Raises:
            FeedError: it is no answer of this API; nothing has changed.
        """
        stream = decoded(data, _Stream)
        if (
            stream.new is None
            and stream.deleted is None
            and b'"new"' not in data
            and b'"deleted"' not in data
        ):
            raise FeedError("not of the expected shape: there is neither `new` nor `deleted`")
        # An answer that is taken twice, or that deletes and renews at once, must leave the new decision.
        for decision in stream.deleted or ():
            self._remove(decision)
        self.wrong.clear()
        return sum(
            not self._enter(number, decision, now) for number, decision in enumerate(stream.new or (), 1)
        )

    def _enter(self, number: int, decision: Decision, now: float) -> bool:
        if not decision.concerns_addresses:
            return False
        value = decision.value
        lasts = math.inf if decision.duration is None else seconds_of(decision.duration)
        if not isinstance(value, str):
            self.wrong.append((number, "", "there is no address"))
        elif lasts is None:
            self.wrong.append((number, value, f"`{str(decision.duration)[:40]}` is no duration"))
        elif lasts > 0:
            self.decisions.setdefault(value, {})[decision.id] = now + lasts
        return True

    def _remove(self, decision: Decision) -> None:
        value = decision.value
        if isinstance(value, str) and value in self.decisions:
            self.decisions[value].pop(decision.id, None)
            if not self.decisions[value]:
                del self.decisions[value]

    def written(self, now: float) -> bytes:
        """The decisions in force as one answer to ``startup=true``; those that are over are forgotten."""
        for value, held in list(self.decisions.items()):
            kept = {number: until for number, until in held.items() if until > now}
            if kept:
                self.decisions[value] = kept
            else:
                del self.decisions[value]
        new = [
            Decision(number, value, f"{until - now:.6f}s" if until != math.inf else None, "Range", "ban")
            for value, held in self.decisions.items()
            for number, until in held.items()
        ]
        return msgspec.json.encode(_Stream(new))

    def parsed(self, now: float, *, skipped: int = 0) -> Parsed:
        """What is banned now, each value until the last of its decisions ends."""
        entries = Gather(skipped=skipped)
        for number, text, reason in self.wrong:
            entries.reject(number, text, reason)
        for number, (value, held) in enumerate(self.decisions.items(), 1):
            until = max(held.values())
            if until > now:
                entries.add(value, number, until=until)
        return entries.parsed()
