"""Check 34 with its number: ten thousand entries with random times, each asked about just before and behind its end.

The program's clock is the test's, so nothing waits: what is written by the boot clock is asked about
at its end.  A quarter of them each are addresses, networks in a trie, networks in a flat set (beside
some that stay), and addresses that a rule adds.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from random import Random

import pytest
from tests.packets import UDP, Ether, IPv4, IPv6
from tests.property.dataplane import DataPlane

from penstock.compiler.ir.ops import RuleSet
from penstock.model.sets import control_map, set_map
from penstock.model.verdict import Verdict
from penstock.pipeline.live_set import LiveSet
from penstock.pipeline.policy import rule_set_of
from penstock.pipeline.set_store import live

pytestmark = [pytest.mark.privileged, pytest.mark.check(34)]

COUNT = 2500
SECOND = 10**9
V4, V6 = (bytes(Ether() / kind() / UDP(dport=9)) for kind in (IPv4, IPv6))
#: The port on which rules let an address stay, and how many seconds.
STAYS = dict(enumerate([1, 2, 3, 5, 17, 60, 61, 120], 100))


def frame_of(address: str, port: int = 9) -> bytes:
    packed = ip_address(address).packed
    whole, at, end = (V4, 26, 36) if len(packed) == 4 else (V6, 22, 56)
    return whole[:at] + packed + whole[at + len(packed) : end] + port.to_bytes(2, "big") + whole[end + 2 :]


def drawn(draw: Random, lengths: tuple[range, range]) -> dict[str, int]:
    """Entries and how many seconds they stay; networks overlap."""
    found: dict[str, int] = {}
    while len(found) < COUNT:
        is_four = draw.random() < 0.5
        number = draw.getrandbits(20) if is_four else draw.getrandbits(60)
        address = ip_address(0x0A000000 + number if is_four else (0x20010DB8 << 96) + number)
        network = ip_network((address, draw.choice(lengths[not is_four])), strict=False)
        found[str(network).removesuffix("/32").removesuffix("/128")] = draw.randint(1, 5000)
    return found


def opened(rules: RuleSet, plane: DataPlane) -> LiveSet:
    (spec,) = rules.sets
    maps = {table: plane.maps[set_map(0, table)].duplicate() for table in spec.tables}
    return live(spec, maps, plane.maps[control_map(0)].duplicate(), {})


Ends = tuple[int, int]


def written(held: LiveSet, entries: dict[str, int]) -> dict[str, Ends]:
    """Each entry's earliest and latest end: half of them come at once, some alone, and then the rest."""
    lines = [(text, f"{text} timeout {stay}s", stay) for text, stay in entries.items()]
    half = COUNT // 2
    found: dict[str, Ends] = {}
    for part in (lines[:half], *([line] for line in lines[half : half + 5]), lines[half + 5 :]):
        before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        held.update([line for _, line, _ in part])
        behind = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        found |= {text: (before + stay * SECOND, behind + stay * SECOND) for text, _, stay in part}
    return found


def covered(entries: dict[str, Ends]) -> Iterator[tuple[str, Ends]]:
    """Each entry's first address, and the last ends of what covers it."""
    ends = {_key(ip_network(text)): end for text, end in entries.items()}
    for bits, length, number in ends:
        address = number << bits - length
        keys = ((bits, size, address >> bits - size) for size in range(bits + 1))
        around = [ends[key] for key in keys if key in ends]
        kind = IPv4Address if bits == 32 else IPv6Address
        yield str(kind(address)), (max(low for low, _ in around), max(high for _, high in around))


def _key(network: IPv4Network | IPv6Network) -> tuple[int, int, int]:
    bits = network.max_prefixlen
    return bits, network.prefixlen, int(network.network_address) >> bits - network.prefixlen


@pytest.mark.parametrize(
    ("kind", "lengths"),
    [
        ("host", (range(32, 33), range(128, 129))),
        ("net size 8192 as trie", (range(14, 33), range(70, 129))),
        ("net size 8192 as flat", (range(14, 33), range(70, 129))),
    ],
    ids=["host", "trie", "flat"],
)
def test_check_34_entries_end_at_their_times_and_never_before(
    kind: str, lengths: tuple[range, range]
) -> None:
    rules = rule_set_of(f"set s : {kind}\nfilter edge at xdp {{\n default pass\n drop if src in @s\n}}\n")
    entries = drawn(Random(kind), lengths)
    with DataPlane.of(rules) as plane:
        held = opened(rules, plane)
        held.update([f"203.0.113.{number}" for number in range(200)])
        early, late = [], []
        for address, (first, last) in covered(written(held, entries)):
            frame = frame_of(address)
            if plane.outcome(frame, now_ns=first - 1000).verdict is not Verdict.DROP:
                early.append(address)
            if plane.outcome(frame, now_ns=last).verdict is not Verdict.PASS:
                late.append(address)
        held.close()
    assert (early, late) == ([], [])


def test_check_34_entries_of_rules_end_at_their_times_and_never_before() -> None:
    """In the order of time, since whoever is added makes room where others have ended."""
    adds = "".join(f" add src to @s for {stay}s if udp dst port {port}\n" for port, stay in STAYS.items())
    rules = rule_set_of(
        f"set s : host size 4096\nfilter edge at xdp {{\n default pass\n{adds} drop if src in @s\n}}\n"
    )
    draw, start = Random(34), time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    todo = [
        (start + draw.randrange(90 * SECOND), address, draw.choice(list(STAYS)))
        for address in drawn(draw, (range(32, 33), range(128, 129)))
    ]
    heapify(todo)
    early, late, ended = [], [], 0
    with DataPlane.of(rules) as plane:
        while todo:
            now, address, port = heappop(todo)
            verdict = plane.outcome(frame_of(address, max(port, 9)), now_ns=now).verdict
            if port in STAYS:
                end = now + STAYS[port] * SECOND
                heappush(todo, (end - 1000, address, 1))
                heappush(todo, (end, address, 0))
            elif port == 1 and verdict is not Verdict.DROP:
                early.append(address)
            elif port == 0:
                ended += 1
                if verdict is not Verdict.PASS:
                    late.append(address)
    assert (early, late, ended) == ([], [], COUNT)
