"""What is made of several feeds says of every address, at every time, what the feeds said."""

from __future__ import annotations

import math
import random
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.feeds.fold import Aggregate, containing, fold, joined
from penstock.feeds.protected import SPECIAL, Protected, split, without_protected
from penstock.feeds.result import Listed, Until
from penstock.model.prefixes import Network, Prefixes

NOW = 1_790_072_042.0


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


@settings(max_examples=150, deadline=None)
@given(SOURCES)
def test_no_entry_hides_another(sources: dict[str, list[tuple[Network, float]]]) -> None:
    every = [entry for entries in sources.values() for entry in entries]
    content = held(fold(joined(listed(entries) for entries in sources.values())))
    for address in addresses([network for network, _ in every]):
        for now in (NOW, NOW + 10, NOW + 25, NOW + 1e9):
            wanted = any(
                address.version == network.version and address in network and end > now
                for network, end in every
            )
            assert is_blocked_by_map(content, address, now) == wanted, (address, now)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["replace", "add", "remove", "forget"]),
                          st.lists(st.tuples(NETWORKS, ENDS), max_size=6)), max_size=8))  # fmt: skip
def test_changes_lead_where_a_new_start_would(
    steps: list[tuple[str, str, list[tuple[Network, float]]]],
) -> None:
    """A set that follows the changes is what a set made of all sources is; the model is a dictionary."""
    aggregate = Aggregate()
    model: dict[str, dict[Network, float]] = {}
    content: dict[Network, float] = {}
    for source, action, entries in steps:
        theirs = model.setdefault(source, {})
        match action:
            case "replace" | "add":
                if action == "replace":
                    theirs.clear()
                for network, end in entries:
                    theirs[network] = max(end, theirs.get(network, 0))
                change = getattr(aggregate, action)(source, listed(entries))
            case "remove":
                for network, _ in entries:
                    theirs.pop(network, None)
                change = aggregate.remove(source, Prefixes.of(network for network, _ in entries))
            case _:
                theirs.clear()
                change = aggregate.remove(source)
        for network in change.removed.networks():
            del content[network]
        content.update(held(change.written))
        assert content == held(aggregate.held)
        assert content == held(fold(joined(listed(list(one.items())) for one in model.values())))


@pytest.mark.check(28)
def test_the_same_content_again_is_no_change() -> None:
    aggregate = Aggregate()
    entries = Listed(Prefixes.of(["203.0.113.0/24", "198.51.100.7", "2001:db8::/48"]))
    assert len(aggregate.replace("a", entries).written.prefixes) == 3
    again = aggregate.replace("a", entries)
    assert (len(again.written.prefixes), len(again.removed)) == (0, 0)


@pytest.mark.check(35)
def test_what_two_sources_list_stays_when_one_takes_it_back() -> None:
    aggregate = Aggregate()
    both = Listed(Prefixes.of(["198.51.100.7", "2001:db8::7"]))
    aggregate.replace("a", both)
    aggregate.replace("b", both)
    for change in (aggregate.remove("a"), aggregate.replace("c", Listed(Prefixes()))):
        assert (len(change.written.prefixes), len(change.removed)) == (0, 0)
    assert aggregate.sources_of("198.51.100.7") == ["b"]
    gone = aggregate.remove("b", Prefixes.of(["198.51.100.7"]))
    assert gone.removed.texts() == ["198.51.100.7"]
    assert aggregate.held.prefixes.texts() == ["2001:db8::7"]


def test_what_contains_an_address() -> None:
    every = Prefixes.of(
        ["203.0.113.0/24", "203.0.113.9", "203.0.112.0/23", "0.0.0.0/0", "2001:db8::/64", "::/0"]
    )
    found = [str(one) for one in containing(every, ip_network("203.0.113.9"))]
    assert found == ["0.0.0.0/0", "203.0.112.0/23", "203.0.113.0/24", "203.0.113.9/32"]
    assert [str(one) for one in containing(every, ip_network("2001:db8::5"))] == ["::/0", "2001:db8::/64"]


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


def test_a_million_prefixes_fold_as_a_few_do() -> None:
    """The same construction with many: each /24 hides its addresses but those that outlast it."""
    inner = np.arange(0x0B000000, 0x0B000000 + 200_000, dtype=np.uint32)
    outer = np.arange(0x0B000000, 0x0B000000 + 100_000, 256, dtype=np.uint32)
    prefixes = Prefixes(
        np.concatenate([inner, outer]),
        np.concatenate([np.full(len(inner), 32, np.uint8), np.full(len(outer), 24, np.uint8)]),
    )
    ends = np.concatenate([np.where(inner % 10 == 0, math.inf, NOW), np.full(len(outer), NOW + 1)])
    content = fold(Listed(prefixes, Until(ends, np.zeros(0))))
    covered = len(outer) * 256
    lasting = int(np.count_nonzero(inner[:covered] % 10 == 0))
    assert len(content.prefixes) == len(outer) + lasting + len(inner) - covered
