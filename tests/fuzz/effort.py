"""Bounded time, as the fuzzers ask for it: of this thread's processor, whatever else the machine does.

hypothesis' own deadline goes by the clock, and a machine that does other things misses it.

    @given(…)
    @within(2)
    def test_…
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from time import thread_time
from typing import ParamSpec

P = ParamSpec("P")


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
