"""When to try again what has failed, and how often to put back what somebody takes away.

    patience.wait("eth0", now)     ->  seconds; doubles each time, up to five minutes
    patience.may("eth0", now)      ->  whether that time is over

Two programs that each put their own filter back would otherwise fight for ever.
"""

from __future__ import annotations

from dataclasses import dataclass, field

FIRST_S, LONGEST_S, CALM_S = 1.0, 300.0, 600.0


@dataclass(slots=True)
class Patience:
    """For each name how often it was tried in vain, and until when it is left alone."""

    _tries: dict[str, int] = field(default_factory=dict)
    _until: dict[str, float] = field(default_factory=dict)
    _why: dict[str, str] = field(default_factory=dict)

    def may(self, name: str, now: float) -> bool:
        """Whether to try now."""
        return now >= self._until.get(name, now)

    def wait(self, name: str, now: float) -> float:
        """It was tried: the time until it is again.  After ten calm minutes it begins anew."""
        if now > self._until.get(name, now) + CALM_S:
            self._tries.pop(name, None)
        tries = self._tries[name] = self._tries.get(name, 0) + 1
        pause: float = min(FIRST_S * 2.0 ** (tries - 1), LONGEST_S)
        self._until[name] = now + pause
        self._why.pop(name, None)
        return pause

    def explain(self, name: str, why: str) -> None:
        """Why it was tried in vain, until it is tried again."""
        self._why[name] = why

    def why(self, name: str) -> str | None:
        """What was explained."""
        return self._why.get(name)

    def forget(self, name: str | None = None) -> None:
        """It has succeeded; or, without a name, something has changed that may help all of them."""
        if name is None:
            self._tries.clear()
            self._until.clear()
            self._why.clear()
            return
        self._tries.pop(name, None)
        self._until.pop(name, None)
        self._why.pop(name, None)

    def next_s(self, now: float) -> float | None:
        """Seconds until the first of them is tried again; None where nothing waits."""
        return min((until - now for until in self._until.values() if until > now), default=None)
