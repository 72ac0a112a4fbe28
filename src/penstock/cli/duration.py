"""Times that are written with a unit.

seconds_of("1.5h")     ->  5400.0
"""

from __future__ import annotations

import re

LONGEST_S = 366 * 86400.0
#: How long an entry of a set stays: fail2ban doubles its bans without an end.
LONGEST_STAY_S, STAY_WORDS = 100 * LONGEST_S, "a hundred years"

_DURATION = re.compile(r"(?P<number>\d+(\.\d+)?)\s*(?P<unit>ms|s|m|h|d)?")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, None: 1.0}


def seconds_of(text: str, longest_s: float = LONGEST_S, words: str = "a year") -> float:
    """The seconds of `30s`, `10m`, `2h`, `1.5h`, `1d`; a bare number is seconds.  Raises ValueError: it is no time."""
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is not a time; write 30s, 10m, 2h or 1d")
    seconds = float(found["number"]) * _SECONDS[found["unit"]]
    if not 0 < seconds <= longest_s:
        raise ValueError(f"{text!r} is out of range: more than nothing and at most {words}")
    return seconds
