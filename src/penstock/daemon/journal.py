"""What the daemon tells: a line for each event on standard error, and the alarms that stand.

    journal.note("eth0: edge put in place")
    journal.alarm("policy edge.policy", "edge.policy:7: …")     logged once, until it is another text
    journal.settle("policy edge.policy")                         the alarm is over

Under systemd a line begins with its priority (sd-daemon(3)), which the journal
takes off.  What comes from outside cannot begin a line or move a cursor.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Lock

from penstock.model.printable import printable

_WORDS = {3: "error: ", 4: "warning: ", 6: "", 7: ""}


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something that is wrong and stays so until somebody mends it."""

    key: str
    message: str
    since: str


def to_stderr(priority: int, text: str) -> None:
    """Write one line, whatever the text holds."""
    begin = f"<{priority}>" if "JOURNAL_STREAM" in os.environ else _WORDS[priority]
    line = printable(text).replace("\n", " | ")
    try:
        sys.stderr.write(f"{begin}{line}\n")
        sys.stderr.flush()
    except OSError:
        # Whoever read it has gone; what is filtered does not depend on it.
        return


class Journal:
    """The log of a daemon; its methods may be called by any thread."""

    def __init__(self, write: Callable[[int, str], None] = to_stderr) -> None:
        self._write = write
        self._alarms: dict[str, Alarm] = {}
        self._lock = Lock()

    def note(self, text: str) -> None:
        """Something has happened as it should."""
        self._write(6, text)

    def warn(self, text: str) -> None:
        """Something has happened that somebody may want to know."""
        self._write(4, text)

    def alarm(self, key: str, message: str) -> None:
        """Something is wrong; logged unless this is known already."""
        with self._lock:
            known = self._alarms.get(key)
            if known is not None and known.message == message:
                return
            since = known.since if known else datetime.now(UTC).isoformat(timespec="seconds")
            self._alarms[key] = Alarm(key, message, since)
        self._write(3, message)

    def settle(self, key: str, words: str | None = None) -> None:
        """It is wrong no longer; `words` are logged if it was."""
        with self._lock:
            known = self._alarms.pop(key, None)
        if known is not None and words:
            self._write(6, words)

    def settle_all_but(self, begin: str, keys: Collection[str]) -> None:
        """What begins so and is none of these is wrong no longer: there is nothing that it could be wrong with."""
        with self._lock:
            for key in [key for key in self._alarms if key.startswith(begin) and key not in keys]:
                del self._alarms[key]

    @property
    def alarms(self) -> tuple[Alarm, ...]:
        """What is wrong now, the oldest first."""
        with self._lock:
            return tuple(sorted(self._alarms.values(), key=lambda one: (one.since, one.key)))
