"""What is made of several feeds says of every address, at every time, what the feeds said."""

from __future__ import annotations

import math
import random
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.feeds.protected import SPECIAL, LeftOut, Protected, around, outside, split
from penstock.feeds.result import Listed, Until
from penstock.model.moment import Moment
from penstock.model.prefixes import Network, Prefixes
from penstock.model.set_text import text_of
from penstock.model.sets import EXPIRY_MASK, SetSpec
from penstock.pipeline.feed_content import content_of
from penstock.pipeline.ledger import Ledger, Line
from penstock.pipeline.ledger_content import of_texts, together
from penstock.pipeline.set_change import initial
from penstock.pipeline.set_keys import Content

NOW = 1_790_072_042.0
BOOT = Moment(NOW, 1 << 50, "this boot")
NET = SetSpec("threats", ("net",), structure="trie")


def _v4(bits: int, length: int) -> IPv4Network:
    return IPv4Network((0xCB007100 | bits & 0xFF, length), strict=False)


def _v6(bits: int, length: int) -> IPv6Network:
    return IPv6Network((0x20010DB8 << 96 | (bits & 0xF) << 62 | bits >> 4, length), strict=False)


#: Few addresses and many lengths, so that prefixes lie in each other; for IPv6 on both sides of the middle.
NETWORKS: st.SearchStrategy[Network] = st.one_of(
    st.builds(_v4, st.integers(0, 255), st.integers(22, 32)),
    st.builds(_v6, st.integers(0, 255), st.sampled_from([60, 62, 63, 64, 65, 66, 124, 126, 128])),
)
ENDS = st.sampled_from([NOW + 10, NOW + 20, NOW + 30, math.inf])
SOURCES = st.dictionaries(st.sampled_from("abc"), st.lists(st.tuples(NETWORKS, ENDS), max_size=12))


def listed(entries: list[tuple[Network, float]]) -> Listed:
    ends4 = [end for network, end in entries if network.version == 4]
    ends6 = [end for network, end in entries if network.version == 6]
    until = Until(np.array(ends4, np.float64), np.array(ends6, np.float64))
    return Listed(Prefixes.of(network for network, _ in entries), until)


def held(content: Listed) -> dict[Network, float]:
    ends = content.ends()
    return dict(zip(content.prefixes.networks(), [*ends.v4.tolist(), *ends.v6.tolist()], strict=True))


def is_blocked_by_map(content: dict[Network, float], address: IPv4Address | IPv6Address, now: float) -> bool:
    """As the kernel decides: the longest prefix alone answers, and only while it lasts."""
    found = [network for network in content if address.version == network.version and address in network]
    return bool(found) and content[max(found, key=lambda one: one.prefixlen)] > now


def addresses(networks: list[Network]) -> list[IPv4Address | IPv6Address]:
    """Both ends of each, and their neighbours."""
    found = []
    for network in networks:
        kind = type(network.network_address)
        for value in (int(network.network_address), int(network.broadcast_address)):
            found += [kind(value - 1), kind(value), kind(value + 1)]
    return found


def in_kernel(content: Content) -> dict[Network, float]:
    """What the tries of a set with this content hold: networks with their ends, in seconds behind NOW."""
    found: dict[Network, float] = {}
    for family, entries in content.items():
        written = initial(NET, entries)
        for key, words in zip(written.keys, written.values.tolist(), strict=True):
            end = words[0] & EXPIRY_MASK
            network = ip_network(text_of(NET, family, key.tobytes()))
            found[network] = NOW + (end - BOOT.boot_ns) / 1e9 if end else math.inf
    return found


@settings(max_examples=150, deadline=None)
@given(SOURCES)
def test_no_entry_hides_another(sources: dict[str, list[tuple[Network, float]]]) -> None:
    every = [entry for entries in sources.values() for entry in entries]
    parts = [content_of(NET, listed(entries), BOOT, BOOT) for entries in sources.values()]
    content = in_kernel(together(NET, parts))
    for address in addresses([network for network, _ in every]):
        for now in (NOW + 1, NOW + 15, NOW + 25, NOW + 1e9):
            wanted = any(
                address.version == network.version and address in network and end > now
                for network, end in every
            )
            assert is_blocked_by_map(content, address, now) == wanted, (address, now)


@pytest.mark.check(35)
@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["a", "b", "manual"]), st.sampled_from(["list", "add", "remove"]),
                          st.lists(NETWORKS, max_size=6)), max_size=6))  # fmt: skip
def test_a_ledger_claims_what_its_sources_list(steps: list[tuple[str, str, list[Network]]]) -> None:
    """The model is a set of networks for each source: commands add and take back, feeds exchange."""
    model: dict[str, set[str]] = {"a": set(), "b": set(), "manual": set()}
    with TemporaryDirectory() as place:
        ledger = Ledger("threats", Path(place))
        for source, action, networks in steps:
            texts = {str(network) for network in networks}
            theirs = model[source]
            with ledger.changing():
                if source != "manual":
                    file = ledger.write_entries(NET.kind, of_texts(NET, texts))
                    ledger.append(Line("feed", BOOT, source, file=file, source=source))
                    model[source] = texts
                    continue
                op: Literal["remove", "only", "add"] = (
                    "remove" if action == "remove" else "only" if action == "list" else "add"
                )
                ledger.append(Line(op, BOOT, "alice", tuple((text, 0) for text in sorted(texts))))
                model[source] = {"remove": theirs - texts, "only": texts, "add": theirs | texts}[op]
        content = Ledger("threats", Path(place)).book().content(NET, BOOT)
        assert {str(network) for network in in_kernel(content)} == set().union(*model.values())
        ledger.close()


def without_protected(
    entries: Listed, protected: tuple[Protected, ...] | list[Protected]
) -> tuple[Listed, tuple[LeftOut, ...]]:
    entries, removed = outside(entries, protected)
    entries, met = around(entries, protected)
    return entries, (*removed, *met)


@pytest.mark.check(30)
@settings(max_examples=150, deadline=None)
@given(st.lists(NETWORKS, max_size=12), st.lists(NETWORKS, max_size=4))
def test_protected_addresses_are_never_left(entries: list[Network], holes: list[Network]) -> None:
    protected = [Protected(hole, "ours") for hole in holes]
    left, reports = without_protected(Listed(Prefixes.of(entries)), protected)
    kept = list(left.prefixes.networks())
    for address in addresses([*entries, *holes]):
        listed_ = any(address.version == one.version and address in one for one in entries)
        ours = any(address.version == one.version and address in one for one in holes)
        stays = any(address.version == one.version and address in one for one in kept)
        assert stays == (listed_ and not ours), address
    assert bool(reports) == any(
        one.version == hole.version and one.overlaps(hole) for one in entries for hole in holes
    )


@pytest.mark.check(30)
def test_what_is_split_around_a_protected_address_ends_as_it_did() -> None:
    entries = listed([(ip_network("203.0.113.0/30"), NOW + 5), (ip_network("2001:db8::/127"), NOW + 7)])
    protected = [Protected(ip_network(text), "ours") for text in ("203.0.113.2", "2001:db8::1")]
    left, reports = without_protected(entries, protected)
    assert held(left) == {
        ip_network("203.0.113.0/31"): NOW + 5,
        ip_network("203.0.113.3"): NOW + 5,
        ip_network("2001:db8::"): NOW + 7,
    }
    assert [(one.removed, one.split, one.example) for one in reports] == [
        (0, 1, "203.0.113.0/30"),
        (0, 1, "2001:db8::/127"),
    ]


@pytest.mark.check(30)
@pytest.mark.parametrize("order", [1, -1])
def test_protected_addresses_in_and_beside_each_other(order: int) -> None:
    protected = [
        Protected(ip_network(text), "ours") for text in ("203.0.113.0/31", "203.0.113.0/30")[::order]
    ]
    left, _ = without_protected(Listed(Prefixes.of(["203.0.113.0/29"])), protected)
    assert left.prefixes.texts() == ["203.0.113.4/30"]
    neighbours = [Protected(ip_network(text), "ours") for text in ("203.0.113.0", "203.0.113.1")[::order]]
    left, _ = without_protected(Listed(Prefixes.of(["203.0.113.0/30"])), neighbours)
    assert left.prefixes.texts() == ["203.0.113.2/31"]


@pytest.mark.check(30)
def test_special_addresses_are_left_out_and_counted() -> None:
    entries = Prefixes.of(
        ["10.1.2.0/24", "192.168.0.0/16", "224.0.0.0/3", "127.0.0.1", "198.51.100.7", "::1", "fe80::1"]
    )
    left, reports = without_protected(Listed(entries), SPECIAL)
    assert left.prefixes.texts() == ["198.51.100.7"]
    assert sum(one.removed for one in reports) == 6
    assert {one.protected.reason for one in reports} == {
        "private", "loopback", "multicast and reserved", "unspecified and loopback", "link-local",
    }  # fmt: skip


@pytest.mark.check(33)
def test_a_block_and_what_passes_in_it() -> None:
    """10,000 pairs of a blocked and a passing prefix: what passes wins, whichever of the two is longer."""
    draw = random.Random(33)
    for _ in range(10_000):
        block = IPv4Network((draw.getrandbits(32), draw.randint(8, 28)), strict=False)
        near = int(block.network_address) | draw.getrandbits(32 - block.prefixlen)
        passing = IPv4Network((near, draw.randint(6, 32)), strict=False)
        kept = split(block, [passing])
        for address in (near, near ^ 1 << draw.randrange(32), int(block.broadcast_address)):
            one = IPv4Address(address)
            assert any(one in piece for piece in kept) == (one in block and one not in passing)
