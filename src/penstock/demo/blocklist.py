"""The demo's last part: a set of a million networks that changes while packets flow.

with attach(interface, load_policy(TEXT)) as running:
    fill(running)       ->  0.7, the seconds that it took
    block(running)      ->  0.0002; the client's packets end there
    release(running)    ->  0.0002; and come through again
"""

from __future__ import annotations

import time
from collections.abc import Callable

from penstock.demo.world import CLIENT_ADDRESS
from penstock.pipeline.attach import Attached

NAME = "blocklist.policy"
TEXT = """set blocked : net size 2M

filter blocklist at xdp {
    default pass

    blocked: drop if src in @blocked
}
"""


def fill(running: Attached) -> float:
    """Put a million networks into the set, the client in none of them; the seconds that it took."""
    lines = million().encode()
    return _timed(lambda: running.sets["blocked"].replace(lines))


def block(running: Attached) -> float:
    """Add the client; the seconds that it took."""
    return _timed(lambda: running.sets["blocked"].update([CLIENT_ADDRESS]))


def release(running: Attached) -> float:
    """Remove the client; the seconds that it took."""
    return _timed(lambda: running.sets["blocked"].discard([CLIENT_ADDRESS]))


def million() -> str:
    """Addresses of 10.0.0.0/8, one a line: the first 250 of each of 4,000 neighbouring /24."""
    lasts = [str(last) for last in range(250)]
    return "\n".join([f"10.{at >> 8}.{at & 255}.{last}" for at in range(4000) for last in lasts])


def _timed(change: Callable[[], object]) -> float:
    start = time.perf_counter()
    change()
    return time.perf_counter() - start
