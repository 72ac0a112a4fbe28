"""Bounded time, as the fuzzers ask for it: of this thread's processor, whatever else the machine does.

hypothesis' own deadline goes by the clock, and a machine that does other things misses it.

    @settings(max_examples=often(300))
    @given(…)
    @within(2)
    def test_…

`make fuzz` tries more examples, by PENSTOCK_FUZZ_SECONDS, than the tests do.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from time import thread_time
from typing import ParamSpec

P = ParamSpec("P")
#: How much longer than usual: what the tests do takes each of them a few seconds.
_TIMES = max(1.0, float(os.environ.get("PENSTOCK_FUZZ_SECONDS", "0")) / 3)


def often(examples: int) -> int:
    """So many examples, or more if there is time."""
    return int(examples * _TIMES)


def within(seconds: float) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Fail an example that takes longer."""

    def bounded(test: Callable[P, None]) -> Callable[P, None]:
        @wraps(test)
        def timed(*args: P.args, **kwargs: P.kwargs) -> None:
            begun = thread_time()
            test(*args, **kwargs)
            spent = thread_time() - begun
            assert spent <= seconds, f"{spent:.1f} s of the processor for one example"

        return timed

    return bounded
