"""Python's cyclic garbage collector, paused while a policy becomes an object.

A policy of 10,000 rules is a million small values that all stay until it is
compiled and hold no cycles.  The collector would look through them again and
again, for a third of the whole time, and find nothing.

    with paused():
        load()
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused() -> Iterator[None]:
    """No cyclic collection within the block (or, as a decorator, the function); afterwards what was before."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
