"""Flat sets in the kernel: exact beside tries, whole while packets flow, and whoever is killed leaves old or new."""

from __future__ import annotations

import gc
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv6Address, ip_network
from pathlib import Path
from threading import Event, Thread
from types import FrameType
from typing import Any

import pytest
from tests.kernel.test_sets import opened
from tests.packets import UDP, Ether, IPv4, IPv6
from tests.property.dataplane import DataPlane

from penstock.compiler.ir.lower import lower_filter
from penstock.compiler.lang.parser import parse_policy
from penstock.compiler.lang.source import Source
from penstock.errors import LimitError
from penstock.kernel.maps import Map
from penstock.model.flat import MARKED
from penstock.model.spec import COUNTERS_MAP
from penstock.model.verdict import Verdict
from penstock.pipeline.flat_batch import Batch
from penstock.pipeline.flat_content import FewMoves
from penstock.pipeline.flat_log import line_of
from penstock.pipeline.live_set import Changed, LiveSet

pytestmark = pytest.mark.privileged


@contextmanager
def planes(
    body: str, sets: str = "set nets : net as flat\n"
) -> Iterator[tuple[DataPlane, dict[str, LiveSet]]]:
    policy = parse_policy(Source("edge.policy", f"{sets}filter edge at xdp {{\n default pass\n {body}\n}}\n"))
    rules = lower_filter(policy, policy.filters[0])
    with DataPlane.of(rules) as plane:
        held = {spec.name: opened(rules, plane, spec.name) for spec in rules.sets}
        try:
            yield plane, held
        finally:
            for one in held.values():
                one.close()


def frame(address: IPv4Address | IPv6Address | str) -> bytes:
    layer = IPv6 if ":" in str(address) else IPv4
    return bytes(Ether() / layer(src=str(address)) / UDP(dport=53))


def drawn(chance: random.Random, count: int) -> list[str]:
    """Networks of both families that nest and lie beside each other, some wide."""
    found = set[str]()
    while len(found) < count:
        if chance.random() < 0.5:
            length = chance.choice([4, 9, 14, 16, 17, 18, 19, 21, 23, 24, 25, 26, 28, 31, 32, 32])
            address, bits = chance.getrandbits(32) if length < 17 else chance.getrandbits(24) | 10 << 24, 32
        else:
            length, bits = chance.choice([12, 29, 32, 40, 47, 48, 56, 63, 64, 65, 72, 96, 121, 127, 128]), 128
            address = 0x2001 << 112 | chance.getrandbits(5) << 96 | chance.getrandbits(3) << 64
            address |= chance.getrandbits(64) if chance.random() < 0.5 else chance.getrandbits(9)
        if length < 15 and chance.random() < 0.9:
            continue
        packed = (address >> bits - length << bits - length).to_bytes(bits // 8, "big")
        found.add(str(ip_network((packed, length))))
    return sorted(found)


def test_flat_trie_and_ipaddress_agree_on_ten_thousand_addresses() -> None:
    """Boundaries of 3,000 networks, addresses in them, and others."""
    chance = random.Random(11)
    texts = drawn(chance, 3000)
    nets = [ip_network(text) for text in texts]
    known: dict[tuple[int, int], set[int]] = {}
    for net in nets:
        known.setdefault((net.version, net.prefixlen), set()).add(int(net.network_address))
    asked = set[IPv4Address | IPv6Address]()
    while len(asked) < 10_000:
        net = chance.choice(nets)
        first, last = int(net[0]), int(net[-1])
        for value in (first - 1, first, last, last + 1, chance.randint(first, last), chance.getrandbits(32)):
            if 0 <= value < 1 << net.max_prefixlen:
                asked.add((IPv4Address if net.version == 4 else IPv6Address)(value))
    body = "drop if src in @nets and src in @tree\n bounce if src in @nets\n bounce if src in @tree"
    with planes(body, "set nets : net as flat\nset tree : net as trie\n") as (plane, held):
        for one in held.values():
            one.update(texts)
        wrong, addresses = [], sorted(asked, key=str)
        for address, verdict in zip(addresses, plane.verdicts([*map(frame, addresses)]), strict=True):
            width = address.max_prefixlen
            expected = any(
                int(address) >> width - length << width - length in places
                for (version, length), places in known.items()
                if version == address.version
            )
            if verdict != (Verdict.DROP if expected else Verdict.PASS):
                wrong.append((address, expected, verdict))
        assert wrong == []
        assert {entry.text for entry in held["nets"]} == set(texts)


def test_random_changes_against_a_model() -> None:
    """Single changes in place, many at once, wide networks, entries with a time among them: 100 steps."""
    chance = random.Random(4)
    pool = drawn(chance, 60)
    probes = [str(ip_network(text)[at]) for text in chance.sample(pool, 12) for at in (0, -1)]
    with planes("drop if src in @nets") as (plane, held):
        nets, model = held["nets"], dict[str, float | None]()
        for _ in range(100):
            some = chance.sample(pool, chance.choice([1, 1, 1, 5]))
            time = chance.choice([None, None, None, 1000.0])
            match chance.randrange(7):
                case 0 | 1 | 2:
                    nets.update(some, time)
                    for text in some:
                        ends = {time, model.get(text, 0.0)}
                        model[text] = None if None in ends else 1000.0
                case 3 | 4:
                    assert nets.discard(some).removed == sum(text in model for text in some)
                    model = {text: end for text, end in model.items() if text not in some}
                case 5:
                    nets.replace(some, time)
                    model = dict.fromkeys(some, time)
                case _:
                    assert nets.sweep().removed == 0
            assert {e.text: e.expires_in and 1000.0 for e in nets} == model
            assert nets.count == len(model)
            held_by = [ip_network(text) for text in model]
            for probe in chance.sample(probes, 4):
                at = ip_network(probe)[0]
                expected = any(at in net for net in held_by)
                assert (plane.verdicts([frame(probe)]) == [Verdict.DROP]) == expected
                assert (probe in nets) == expected


class Killed(FewMoves):
    """A writer that ends when words name lines of the log that have not happened."""

    def name_lines(self, first: int) -> None:
        super().name_lines(first)
        raise InterruptedError


def test_who_meets_a_wide_network_of_ipv6_that_never_came_finds_nothing() -> None:
    """A word that moves from nothing, which a killed writer has left, leads nowhere: no line is read as a block."""
    with planes("drop if src in @nets") as (plane, held):
        nets = held["nets"]
        nets.replace(["10.1.1.0/24"])
        content = nets.content()
        batch = Batch(content)
        batch.change("v6", 0x2001 << 112, 32, is_added=True)
        ((slot, place),) = batch.moves.items()
        with pytest.raises(InterruptedError):
            content.carry_out(
                line_of(batch.changes[0], (slot, 0, place)), Killed(content, [(slot, place)], batch.come)
            )
        assert [*content.log.moving()] == [(slot, 0)]
        asked = [frame(str(IPv6Address((0x2001 << 112) + (n << 104)))) for n in range(256)]
        assert {*plane.verdicts(asked)} == {Verdict.PASS}


def test_thousands_come_and_go_in_place_as_in_a_trie() -> None:
    """Wide ones and narrow ones that hide one another; the content is the same map, until there is no room in it."""
    chance = random.Random(13)
    pool = [net for net in drawn(chance, 2500) if int(net.split("/")[1]) > 13]
    asked = [frame(str(ip_network(net)[at])) for net in chance.sample(pool, 150) for at in (0, -1)]
    body = "drop if src in @nets and src in @tree\n bounce if src in @nets\n bounce if src in @tree"
    sets = "set nets : net size 100k as flat\nset tree : net size 100k as trie\n"
    with planes(body, sets) as (plane, held):
        model = {f"{172 + (n >> 16)}.{n >> 8 & 255}.{n & 255}.0/30" for n in range(70_000)}
        for one in held.values():
            one.replace([*model])
        first = held["nets"].content()
        for count in (1, 70, 300, 2000):
            some = {*chance.sample(pool, count)}
            gone, come = some & model, {net for net in some - model if chance.random() < 0.9}
            wanted = [held["nets"].read(sorted(side), forever=True) for side in (gone, come)]
            for one in held.values():
                assert one.exchange(*wanted).added == len(come)
            model = model - gone | come
            assert {entry.text for entry in held["nets"]} == model
            assert held["nets"].count == len(model)
            verdicts = plane.verdicts(asked)
            assert {Verdict.PASS, Verdict.DROP} >= {*verdicts}
            assert (held["nets"].content() is first) == (count <= 70)


def test_packets_meet_an_entry_of_both_contents_at_every_moment() -> None:
    """While contents are replaced and changed in place, no packet from what they share comes through.

    Some are covered by a network that goes in the very batch that brings others for them: 3 or 80 of them.
    """
    with planes("drop if src in @nets") as (plane, held):
        nets, done = held["nets"], Event()
        wide = ["10.0.8.0/21", "2001:db8:7::/48", *(f"10.8.{n}.0/24" for n in range(80))]
        narrow = ["10.0.9.8/29", "2001:db8:7::8/125", *(f"10.8.{n}.0/25" for n in range(80))]
        contents = [[f"10.0.{n}.0/24", *wide[:2], "10.0.9.9", "10.64.0.0/12"] for n in (1, 2)]
        nets.replace(contents[0])
        shared = [frame(one) for one in ("10.0.9.9", "2001:db8:7::9")]
        other = plane.program

        def traffic() -> None:
            while not done.is_set():
                for one in shared:
                    other.test_run(one, repeat=10_000)

        flow = Thread(target=traffic)
        flow.start()
        try:
            for step in range(12):
                nets.replace(contents[step % 2])
                nets.discard(["10.0.9.9"])
                for count in (2, 82):
                    for gone, come in ((wide, narrow), (narrow, wide)):
                        nets.exchange(nets.read(gone[:count]), nets.read(come[:count]))
                nets.update(["10.0.9.9"])
                for text in ("10.0.9.8", "10.0.9.0/24", "10.0.8.0/24", "10.0.9.7/32"):
                    nets.update([text])
                    nets.discard([text])
        finally:
            done.set()
            flow.join()
        counted = plane.counters()
        assert len(counted) == 1, f"{COUNTERS_MAP}: {counted}"


def test_who_comes_late_to_a_slot_asks_the_other_content_where_its_table_is() -> None:
    """A packet that read the banks before they moved finds its slot empty, and another table in the other one.

    The front of the bank that counts knows no network here: only packets that come late find any.
    """
    asked, done = "2001:db8:7::/48", Event()
    with planes("drop if src in @nets") as (plane, held):
        nets = held["nets"]
        nets.replace([asked])
        nets.replace([asked, *(f"2001:db9:{n:x}::/48" for n in range(300))])
        now, content = nets.bank, nets.content()
        content.front[MARKED] = 0
        packet = frame("2001:db8:7::1")
        assert plane.verdicts([packet]) == [Verdict.PASS]
        ((missed, _),) = plane.counters().items()

        def flips() -> None:
            while not done.is_set():
                for _ in range(1000):
                    nets.state.active = 1 - now
                    nets.state.active = now

        writer = Thread(target=flips)
        writer.start()
        try:
            for _ in range(100):
                plane.program.test_run(packet, repeat=100_000)
                if plane.counters().keys() != {missed}:
                    break
        finally:
            done.set()
            writer.join()
        assert plane.counters().keys() != {missed}


@pytest.mark.parametrize("stays", [[], ["10.3.0.0/24"]], ids=["nothing stays", "something stays"])
def test_what_goes_from_the_trie_is_there_until_packets_have_left_its_bank(
    stays: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A packet that read the bank before needs it: the slot of that bank, if it has one, is empty before."""
    used = []
    with planes("drop if src in @nets") as (plane, held):
        nets = held["nets"]
        nets.replace([*stays, "10.1.0.0/24 timeout 1000s"])
        before, delete_all = nets.bank, Map.delete_all

        def deleted(table: Map, keys: Any) -> Any:
            used.append((nets.bank == 1 - before, nets.slots.is_used(before), len(keys)))
            return delete_all(table, keys)

        monkeypatch.setattr(Map, "delete_all", deleted)
        nets.replace(["10.1.0.0/16"])
        assert (True, False, 1) in used
        assert {one[:2] for one in used} == {(True, False)}
        assert plane.verdicts([frame("10.1.0.9")]) == [Verdict.DROP]


@pytest.mark.parametrize("count", [20, 300], ids=["few", "many"])
def test_packets_that_ask_twice_meet_all_of_a_batch_or_nothing(count: int) -> None:
    """One network goes with the first word that moves, another comes with the last: no packet misses both."""
    with planes("drop if src in @nets\n drop if dst in @nets") as (plane, held):
        nets, done = held["nets"], Event()
        source, target = ["10.0.0.0/24"], ["10.200.0.0/24"]
        filler = [f"10.{n % 100 + 50}.{n // 100}.0/30" for n in range(count)]
        nets.replace([*source, *(f"11.{n >> 8}.{n & 255}.0/24" for n in range(10_000))])
        asked = bytes(Ether() / IPv4(src="10.0.0.1", dst="10.200.0.1") / UDP(dport=53))
        assert plane.verdicts([frame("10.0.1.1")]) == [Verdict.PASS]
        ((default, missed),) = plane.counters().items()
        other = plane.program

        def traffic() -> None:
            while not done.is_set():
                other.test_run(asked, repeat=100_000)

        flow = Thread(target=traffic)
        flow.start()
        try:
            gone, come = map(nets.read, (source, [*filler, *target]))
            for _ in range(40 if count < 64 else 10):
                assert nets.exchange(gone, come) == Changed(count + 1, 0, 1)
                assert nets.update(source).added == 1
                assert nets.discard([*filler, *target]).removed == count + 1
        finally:
            done.set()
            flow.join()
        assert plane.counters()[default] == missed


STEPS = {
    "one comes": lambda nets: nets.update(["10.1.1.0/25"]),
    "one goes": lambda nets: nets.discard(["10.1.2.0/24"]),
    "one of IPv6 comes": lambda nets: nets.update(["2001:db8:5::/48"]),
    "some come": lambda nets: nets.update(
        ["10.1.1.0/25", "10.1.7.0/24", "2001:db8:5::/48", "2001:db8:5::/64"]
    ),
    "some go": lambda nets: nets.discard(["10.1.2.0/24", "10.1.3.3", "2001:db8:7::/48"]),
    "others come": lambda nets: nets.replace(["10.1.2.0/24", "10.64.0.0/10", "2001:db8:7::/48"]),
    "one has a time": lambda nets: nets.update(["10.1.2.0/24", "10.1.7.0/24"], 1000),
    "a time is given": lambda nets: nets.replace(["10.1.2.0/24", "10.9.0.0/16"], 1000),
    "all go": lambda nets: nets.clear(),
}
ASKED = [
    "10.1.1.1",
    "10.1.2.1",
    "10.1.7.1",
    "10.64.0.1",
    "10.9.9.9",
    "2001:db8:5::1",
    "2001:db8:7::1",
    "10.5.0.1",
]


@pytest.mark.parametrize("change", STEPS)
@pytest.mark.check(36)
def test_check_36_whoever_is_killed_at_any_line_leaves_the_old_content_or_the_new(change: str) -> None:
    old = ["10.1.2.0/24", "10.1.3.3", "2001:db8:7::/48"]
    with planes("drop if src in @nets") as (plane, held):
        nets = held["nets"]

        def begin() -> None:
            nets.replace([*old, "10.5.0.0/16 timeout 1000s"])

        def seen() -> tuple[list[bool], set[str]]:
            got = [verdict == Verdict.DROP for verdict in plane.verdicts([frame(one) for one in ASKED])]
            assert got == [one in nets for one in ASKED]
            return got, {entry.text for entry in nets}

        begin()
        before = seen()
        lines = _lines_of(lambda: STEPS[change](nets))
        after = seen()
        assert after != before or change == "one has a time"
        for step in sorted({*range(0, lines, max(1, lines // 9)), lines - 1}):
            begin()
            _killed_at(step, lambda: STEPS[change](nets))
            left = seen()
            assert left in (before, after), f"line {step} of {lines}"
            nets.update(["10.200.0.0/24"])
            got, texts = seen()
            assert (got, texts - {"10.200.0.0/24"}) == left
            assert nets.count == len(texts)


def _lines_of(work: Callable[[], Any]) -> int:
    """How many lines of flat sets' code are executed."""
    count = 0

    def counted() -> None:
        nonlocal count
        count += 1

    _traced(work, counted)
    return count


def _killed_at(step: int, work: Callable[[], Any]) -> None:
    """Do it in a process that dies before the n-th line."""
    child = os.fork()
    if not child:
        left = step

        def counted() -> None:
            nonlocal left
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

        try:
            _traced(work, counted)
        finally:
            os._exit(0)
    os.waitpid(child, 0)


def _traced(work: Callable[[], Any], counted: Callable[[], None]) -> None:
    def line(_frame: FrameType, event: str, _argument: object) -> Any:
        if event == "line":
            counted()
        return line

    def call(frame: FrameType, _event: str, _argument: object) -> Any:
        name = frame.f_code.co_filename
        return (
            line
            if "pipeline/flat_" in name and not name.endswith(("flat_build.py", "flat_keys.py"))
            else None
        )

    sys.settrace(call)
    try:
        work()
    finally:
        sys.settrace(None)


@pytest.mark.check(32)
def test_what_has_no_room_is_refused_and_what_is_left_takes_more() -> None:
    """Check 32; and changes in place go on when there is no room behind the lines any more."""
    with planes("drop if src in @nets", "set nets : net size 700 as flat\n") as (plane, held):
        nets = held["nets"]
        nets.update([f"10.{n // 250}.{n % 250}.0/24" for n in range(350)])
        for n in range(350):
            assert nets.update([f"10.3.{n % 250}.{n // 250}"]).added == 1
        with pytest.raises(LimitError, match="is full: it takes 700 entries"):
            nets.update(["10.7.0.0/24"])
        assert nets.count == 700
        assert nets.discard(["10.3.0.0"]).removed == 1
        assert nets.update(["10.7.0.0/24"]).added == 1
        assert plane.verdicts([frame("10.3.0.0"), frame("10.7.0.1")]) == [Verdict.PASS, Verdict.DROP]


def test_a_change_tells_how_far_it_is() -> None:
    """As the tries' does: the command line draws a bar from 100,000 entries on."""
    with planes("drop if src in @nets") as (_, held):
        told: list[tuple[int, int]] = []
        held["nets"].progress = lambda done, total: told.append((done, total))
        held["nets"].replace([f"10.0.{n}.1" for n in range(200)])
        assert {total for _, total in told} == {200}
        assert [done for done, _ in told] == sorted({0, 200, *(done for done, _ in told)})
        assert len(told) > 2


def test_a_content_is_given_back_when_another_counts() -> None:
    """Two changes leave one map of lines, and it is the smaller one."""
    with planes("drop if src in @nets") as (_, held):
        nets = held["nets"]
        empty = nets.memory
        nets.replace([f"10.{n // 250}.{n % 250}.1" for n in range(20_000)])
        large = nets.memory
        nets.replace(["10.0.0.1"])
        assert empty < nets.memory < large
        outer: Map = nets.maps["flat"]
        assert sum(outer.lookup(slot.to_bytes(4, "little")) is not None for slot in (0, 1)) == 1
        nets.clear()
        assert nets.memory == empty


SINGLE = """
import sys
from penstock.kernel.maps import Map
from penstock.model.sets import SetSpec
from penstock.pipeline.set_store import live
*maps, control = (Map(int(fd)) for fd in sys.argv[1:])
spec = SetSpec("nets", ("net",), structure="flat")
with live(spec, dict(zip(spec.tables, maps)), control, {}) as nets:
    for text in ("10.7.0.0/24", "10.7.0.9", "2001:db8:7::/48", "2001:db8:7::9"):
        assert nets.update([text]).added == 1 and text in nets and text in {entry.text.removesuffix("/32")
            .removesuffix("/128") for entry in nets}
    assert nets.discard(["10.7.0.9"]).removed == 1 and nets.count == 5
assert "numpy" not in sys.modules
"""


def test_single_changes_need_no_numpy() -> None:
    """Of both families, in a process that never imports it."""
    with planes("drop if src in @nets") as (plane, held):
        nets = held["nets"]
        nets.replace(["10.1.0.0/24", "2001:db8:1::/48"])
        fds = [held.fd for held in (*nets.maps.values(), nets.control)]
        subprocess.run([sys.executable, "-c", SINGLE, *map(str, fds)], pass_fds=fds, check=True)
        asked = ("10.1.0.9", "10.7.0.1", "2001:db8:1::1", "2001:db8:7::5", "10.8.0.0")
        assert plane.verdicts([frame(one) for one in asked]) == [Verdict.DROP] * 4 + [Verdict.PASS]


def test_no_old_content_waits_for_the_garbage_collector() -> None:
    """An error that held itself kept the frames above it, and with them the memory of every map that came before."""

    def mapped() -> int:
        return Path("/proc/self/maps").read_text().count("bpf-map")

    with planes("drop if src in @nets") as (_, held):
        held["nets"].update(["10.0.0.0/9"])
        gc.disable()
        try:
            before = mapped()
            for number in range(11, 16):
                held["nets"].update([f"{number}.0.0.0/9", f"{number}.0.0.0/10"])
            # A content is two: its lines, and its part of the front.
            assert mapped() <= before + 2
        finally:
            gc.enable()
