"""When to ask a source again.

After success: the interval, give or take a tenth, so that machines which started together
do not ask together; never sooner than the source's least interval.  After failures: a
random part of a time that doubles with each (full jitter), never sooner than the server
asked for (Retry-After), nor than the least interval, of which an hour counts.

>>> from random import Random
>>> 3240 <= after_success(3600, 60, Random(1)) <= 3960
True
"""

from __future__ import annotations

from random import Random

_JITTER = 0.1
_FIRST_S = 60.0
_HOUR_S = 3600.0
_MOST_DOUBLINGS = 30


def after_success(interval_s: float, min_interval_s: float, random: Random) -> float:
    """Seconds until the next request."""
    return max(interval_s * random.uniform(1 - _JITTER, 1 + _JITTER), min_interval_s)


def after_failure(
    failures: int, interval_s: float, min_interval_s: float, retry_after_s: float | None, random: Random
) -> float:
    """Seconds until the next request when the last `failures` ones have failed."""
    longest = min(_FIRST_S * 2 ** min(failures, _MOST_DOUBLINGS), interval_s)
    return max(random.uniform(0, longest), min(min_interval_s, _HOUR_S), retry_after_s or 0.0)
