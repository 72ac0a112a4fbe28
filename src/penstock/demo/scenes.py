"""The story of the demo, told as a sequence of moments.

    for moment in scenes(seconds=10):
        moment.headline, moment.flows, moment.counters

A generator: whoever shows the moments decides how.  When it ends, or is closed,
everything it made is gone.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from importlib.resources import files

from penstock.demo import blocklist
from penstock.demo.traffic import Flow, Traffic
from penstock.demo.world import World, world
from penstock.kernel import netns
from penstock.pipeline.attach import Attached, attach
from penstock.pipeline.counters import Counter
from penstock.pipeline.policy import LoadedPolicy, load_policy

POLICY_NAME = "dns.policy"
_MOMENT_S = 0.5


@dataclass(frozen=True, slots=True)
class Moment:
    """What is seen at one time.  `flows` counts from the scene's beginning, `counters` from the policy's.

    `news` is set when a scene begins: what has just been done.
    """

    scene: str
    elapsed_s: float
    flows: dict[int, Flow]
    counters: dict[str, Counter]
    news: str | None = None


def policy_text() -> str:
    """The text of examples/dns.policy, which is shipped with the package."""
    return (files("penstock.demo") / POLICY_NAME).read_text(encoding="utf-8")


def changed_text() -> str:
    """The same policy after one rule was changed: NTP in place of DNS, under the same label."""
    head = policy_text().partition('test "')[0]
    return head.replace("drop if udp dst port 53", "drop if udp dst port 123")


def scenes(seconds: float) -> Generator[Moment, None, None]:
    """The moments of a demo of about `seconds`, and a third of that for the blocklist; two a second.

    Raises:
        PenstockError: the policy could not be put in place.
    """
    first, second, third = (
        load_policy(policy_text(), name=POLICY_NAME),
        load_policy(changed_text(), name=POLICY_NAME),
        load_policy(blocklist.TEXT, name=blocklist.NAME),
    )
    start = time.monotonic()
    with world() as place, Traffic(place) as traffic:
        yield from _scene(
            "no filter", "traffic flows: every packet is answered", start, seconds / 5, traffic, None
        )
        with _attached(place, first) as running:
            news = f"{POLICY_NAME} attached at XDP ({_mode(place, running)} mode): drop if udp dst port 53"
            yield from _scene("DNS dropped", news, start, seconds * 2 / 5, traffic, running)
            running.replace(second)
            news = "one rule changed while packets flow: drop if udp dst port 123; the counter is kept"
            yield from _scene("NTP dropped", news, start, seconds / 5, traffic, running)
        yield from _scene(
            "no filter", "filter detached: every packet is answered again", start, seconds / 5, traffic, None
        )
        with _attached(place, third) as running:
            for news in _changes(running):
                yield from _scene("a million addresses", news, start, seconds / 10, traffic, running)


def _changes(running: Attached) -> Iterator[str]:
    """What is done to the blocklist, one after the other."""
    took = blocklist.fill(running)
    count = running.sets["blocked"].count
    yield f"blocklist.policy attached: drop if src in @blocked, where {count:,} addresses were put in {took:.1f} s"
    yield f"the client is added to them, in {blocklist.block(running) * 1000:.1f} ms: none of its packets arrives"
    yield f"and removed, in {blocklist.release(running) * 1000:.1f} ms: every packet is answered again"


def _attached(place: World, policy: LoadedPolicy) -> Attached:
    with netns.inside(place.server):
        return attach(place.interface, policy)


def _mode(place: World, running: Attached) -> str:
    with netns.inside(place.server):
        return running.mode


def _scene(
    name: str, news: str | None, start: float, seconds: float, traffic: Traffic, running: Attached | None
) -> Iterator[Moment]:
    before = traffic.counts()
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        counters = running.counters() if running else {}
        yield Moment(name, time.monotonic() - start, _since(before, traffic.counts()), counters, news)
        news = None
        time.sleep(min(_MOMENT_S, left))
    counters = running.counters() if running else {}
    yield Moment(name, time.monotonic() - start, _since(before, traffic.counts()), counters)


def _since(before: dict[int, Flow], now: dict[int, Flow]) -> dict[int, Flow]:
    return {
        port: Flow(flow.sent - before[port].sent, flow.echoed - before[port].echoed)
        for port, flow in now.items()
    }
