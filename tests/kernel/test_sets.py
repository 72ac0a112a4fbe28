"""Sets in the kernel: at every hook what the reference says, expiries, limits, writers that are killed."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytest
from tests.packets import TCP, UDP, Ether, IPv4, IPv6
from tests.property.dataplane import DataPlane, disagreements
from tests.property.test_kernel_agrees import truncations

from penstock.compiler.codegen.plan import Wish
from penstock.compiler.codegen.weigh import Form
from penstock.compiler.diagram.boxes import NO_RULE
from penstock.compiler.diagram.build import build
from penstock.compiler.diagram.convert import decisions
from penstock.compiler.diagram.evaluate import decide, terminal_of
from penstock.compiler.diagram.order import axis_order
from penstock.compiler.diagram.reduce import reduce
from penstock.compiler.ir.evaluate import Packet as Parsed
from penstock.compiler.ir.evaluate import evaluate_packet, holds, matches
from penstock.compiler.ir.explain import explain
from penstock.compiler.ir.lower import lower_filter
from penstock.compiler.ir.ops import RuleSet
from penstock.compiler.ir.stores import SetContent, Stores
from penstock.compiler.lang.parser import parse_policy
from penstock.compiler.lang.source import Source
from penstock.engine.policy import KernelEngine, ReferenceEngine
from penstock.errors import KernelError, LimitError, PenstockError
from penstock.kernel.elf import Symbol, variables
from penstock.kernel.map_rows import map_rows
from penstock.kernel.maps import Map, MapType
from penstock.model.boot_clock import boot_clock_ns
from penstock.model.hook import Hook
from penstock.model.sets import REST, SetSpec, control_map, set_map
from penstock.model.verdict import Verdict
from penstock.pipeline import live_set, set_few, set_whole
from penstock.pipeline.live_set import LiveSet
from penstock.pipeline.policy import load_policy
from penstock.pipeline.set_change import settled
from penstock.pipeline.set_contents import modelled, of_entries
from penstock.pipeline.set_keys import Content, arrays_of, keys_of, nothing
from penstock.pipeline.set_maps import create_maps, read_map
from penstock.pipeline.set_store import live

pytestmark = pytest.mark.privileged

SETS = """set nets : net as trie
set blocks : net as flat
set hosts : host counters
set ports : port
set cards : mac
set flows : host . proto . port
set pairs : host . host . proto . port
"""
RULES = """filter edge at {hook} {{
    default drop
    on malformed continue
    nets:  audit if src in @nets
    vlan:  count if vlan and ip src in @hosts
    cards: count if ether src in @cards and not udp dst port in @ports
    count if inner(dst in @nets)
    pass if dst in @hosts and not src in @blocks
    count if inner(src in @blocks) or vlan and ip6 src in @blocks
    drop if tcp src or dst port in @ports
    pass if src . proto . dst port in @flows
    drop if src . dst . proto . dst port in @pairs
    pass if port in @ports or udp port 500
}}
"""


def rule_set(text: str, hook: Hook = Hook.XDP) -> RuleSet:
    policy = parse_policy(Source("edge.policy", SETS + text.format(hook=hook.value)))
    return lower_filter(policy, policy.filters[0])


def opened(rules: RuleSet, plane: DataPlane, name: str) -> LiveSet:
    """A set of a loaded program."""
    number = next(at for at, spec in enumerate(rules.sets) if spec.name == name)
    spec = rules.sets[number]
    maps = {table: plane.maps[set_map(number, table)].duplicate() for table in spec.tables}
    return live(spec, maps, plane.maps[control_map(number)].duplicate(), {})


def stores_of(contents: dict[str, tuple[SetSpec, list[str]]]) -> Stores:
    """The reference's model of what was put into sets."""
    return Stores(
        {
            name: SetContent(spec.kind, dict.fromkeys(_numbers(spec, texts), 0))
            for name, (spec, texts) in contents.items()
        }
    )


def _numbers(spec: SetSpec, texts: list[str]) -> Iterator[tuple[int, ...]]:
    for text in texts:
        for family, key in keys_of(spec, text):
            bits = {"v4": 32, "v6": 128, "all": 0}[family]
            if spec.kind == ("net",):
                yield int.from_bytes(key[4:], "big"), int(text.partition("/")[2]), bits
                continue
            at, parts = 0, []
            for count in spec.part_bytes(family):
                parts.append(int.from_bytes(key[at : at + count], "big"))
                at += count
            yield (*parts, bits)


def drawn(frames: Sequence[bytes], seed: int) -> dict[str, list[str]]:
    """Entries that some of the frames are in."""
    chance, found = (
        random.Random(seed),
        {name: set[str]() for name in ("nets", "blocks", "hosts", "ports", "cards", "flows", "pairs")},
    )
    from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

    from penstock.compiler.ir.ops import FieldRef

    for frame in chance.sample(list(frames), min(60, len(frames))):
        packet = Parsed(frame)
        value = {
            name: packet.value(FieldRef(name))
            for name in ("addr.src", "ip6.dst", "addr.dst", "ip6.src", "dport", "eth.src", "proto")
        }
        sources = [
            (value["addr.src"], 4),
            (value["ip6.src"], 6),
            (value["addr.dst"], 4),
            (value["ip6.dst"], 6),
        ]
        for number, version in sources:
            if number is None:
                continue
            address = ip_address(number.to_bytes(4 if version == 4 else 16, "big"))
            if getattr(address, "ipv4_mapped", None):
                continue
            length = chance.randint(
                0 if chance.random() < 0.02 else address.max_prefixlen // 2, address.max_prefixlen
            )
            found[chance.choice(["nets", "blocks", "hosts"])].add(
                str(ip_network((address, length), strict=False))
            )
            if value["proto"] is not None and value["dport"] is not None:
                found["flows"].add(f"{address} . {value['proto']} . {value['dport']}")
        for source, destination, kind in (
            ("addr.src", "addr.dst", IPv4Address),
            ("ip6.src", "ip6.dst", IPv6Address),
        ):
            if None not in (value[source], value[destination], value["proto"], value["dport"]):
                ends = kind(value[source]), kind(value[destination])
                if not any(getattr(end, "ipv4_mapped", None) for end in ends):
                    found["pairs"].add(" . ".join(map(str, (*ends, value["proto"], value["dport"]))))
        if value["dport"] is not None and chance.random() < 0.5:
            found["ports"].add(str(value["dport"]))
        if value["eth.src"] is not None and chance.random() < 0.5:
            found["cards"].add(value["eth.src"].to_bytes(6, "big").hex(":"))
    found["hosts"] = {text.partition("/")[0] for text in found["hosts"]}
    return {name: sorted(texts) for name, texts in found.items()}


@pytest.mark.parametrize(
    "form", [None, Form.NESTED, Form.TABLES], ids=lambda form: form.value if form else "own"
)
@pytest.mark.parametrize("hook", Hook, ids=lambda hook: hook.value)
def test_the_kernel_says_what_the_reference_says(hook: Hook, form: Form | None) -> None:
    from tests.property.test_kernel_agrees import FRAMES

    rules = rule_set(RULES, hook)
    wish = Wish(form, inline=False) if form else None
    frames = [*FRAMES[:250], *list(truncations())[::40]]
    with DataPlane.of(rules, wish=wish) as plane:
        contents: dict[str, tuple[SetSpec, list[str]]] = {}
        for name, texts in drawn(FRAMES[:250], 7).items():
            held = opened(rules, plane, name)
            held.update(texts)
            contents[name] = held.spec, texts
        assert disagreements(rules, plane, frames, stores_of(contents)) == []


@pytest.mark.parametrize("hook", Hook, ids=lambda hook: hook.value)
def test_all_meet_the_contents_that_a_test_gives(hook: Hook) -> None:
    """The reference, the diagram, the explanation and the kernel: one half of the entries, both, and others."""
    from tests.property.test_kernel_agrees import FRAMES

    rules = rule_set(RULES, hook)
    run = decisions(rules)
    diagram = reduce(build(run.boxes, axis_order(run.boxes).all))
    with KernelEngine(rules) as kernel, ReferenceEngine(rules) as reference:
        for seed in (1, 2):
            drawn_texts = drawn(FRAMES[:250], seed)
            for engine in (kernel, reference):
                engine.start_afresh()
            for part in (slice(0, None, 2), slice(1, None, 2)):
                half = {spec.name: of_entries(spec, drawn_texts[spec.name][part]) for spec in rules.sets}
                kernel.give(half)
                reference.give(half)
                so_far = slice(None) if part.start else part
                given = {spec.name: (spec, drawn_texts[spec.name][so_far]) for spec in rules.sets}
                stores = stores_of(given)
                told = modelled(rules.sets, {name: of_entries(*one) for name, one in given.items()})
                assert {name: dict(one.entries) for name, one in told.items()} == {
                    name: dict(one.entries) for name, one in stores.sets.items()
                }
                for frame in FRAMES[seed:250:5]:
                    packet = Parsed(frame)
                    expected = evaluate_packet(rules, packet, stores=stores)
                    assert reference.outcome(frame, len(frame)) == expected
                    assert kernel.outcome(frame, len(frame)) == expected
                    assert explain(rules, frame, sets=told).outcome == expected
                    fields = {axis.ref: packet.value(axis.ref) for axis in run.boxes.axes}
                    held = [False, *(holds(asked, packet, stores) for asked in run.opaque)]
                    found = decide(terminal_of(diagram, fields), held.__getitem__)
                    first = next(
                        (at for at in run.rules if matches(rules.rules[at], packet, stores=stores)), NO_RULE
                    )
                    assert (NO_RULE if found == NO_RULE else run.rules[found]) == first


# ── one set ──────────────────────────────────────────────────────────────────

ONE = "filter edge at {hook} {{\n drop if src in @nets\n drop if src in @hosts\n}}"


@contextmanager
def loaded(
    size: str = "", structure: str = "trie"
) -> Iterator[tuple[Callable[[str], bool], LiveSet, LiveSet]]:
    """Whether a packet from an address is dropped, and the two sets that say so."""
    sets = SETS.replace("counters", f"counters {size}").replace(
        ": net as trie", f": net {size} as {structure}"
    )
    text = sets + ONE.format(hook="xdp")
    policy = parse_policy(Source("edge.policy", text))
    rules = lower_filter(policy, policy.filters[0])
    with DataPlane.of(rules) as plane:

        def dropped(address: str) -> bool:
            frame = bytes(Ether() / (IPv6 if ":" in address else IPv4)(src=address) / UDP(dport=53))
            return plane.verdicts([frame]) == [Verdict.DROP]

        with opened(rules, plane, "nets") as nets, opened(rules, plane, "hosts") as hosts:
            yield dropped, nets, hosts


BOTH = pytest.mark.parametrize("structure", ["trie", "flat"])


@pytest.mark.check(34)
@BOTH
def test_an_entry_ends_at_its_time_and_never_before(structure: str) -> None:
    """Check 34, of the longest and the shortest ways to be covered."""
    with loaded(structure=structure) as (dropped, nets, hosts):
        began = time.clock_gettime(time.CLOCK_BOOTTIME)
        hosts.update(["192.0.2.1"], timeout=0.3)
        nets.update(["198.51.100.0/24"], timeout=0.3)
        nets.update(["198.51.100.0/25"])
        while dropped("192.0.2.1") or dropped("198.51.100.200"):
            assert time.clock_gettime(time.CLOCK_BOOTTIME) - began < 1.3
        assert time.clock_gettime(time.CLOCK_BOOTTIME) - began >= 0.3
        assert dropped("198.51.100.1")
        assert "192.0.2.1" not in hosts
        assert [entry.text for entry in nets] == ["198.51.100.0/25"]
        assert hosts.sweep().removed == 1
        assert hosts.count == 0


@BOTH
def test_a_narrow_entry_that_expires_hides_no_wider_one(structure: str) -> None:
    with loaded(structure=structure) as (dropped, nets, _):
        nets.update(["10.0.0.0/8"])
        nets.update(["10.1.0.0/16"], timeout=0.01)
        nets.update(["10.1.1.0/24"], timeout=3600)
        time.sleep(0.02)
        assert dropped("10.1.2.3")
        nets.discard(["10.0.0.0/8"])
        assert not dropped("10.1.2.3")
        assert dropped("10.1.1.1")
        nets.discard(["10.1.1.0/24"])
        assert not dropped("10.1.1.1")


@BOTH
def test_adding_again_extends_and_never_shortens(structure: str) -> None:
    with loaded(structure=structure) as (_, nets, hosts):
        for held, entry in ((nets, "10.0.0.0/8"), (hosts, "10.0.0.1")):
            assert held.update([entry], timeout=100).added == 1
            assert held.update([entry], timeout=10).changed == 0
            assert held.update([entry], timeout=1000).changed == 1
            (found,) = held
            assert found.expires_in is not None
            assert found.expires_in > 900
            assert held.update([entry], forever=True).changed == 1
            assert held.update([entry], timeout=1000).changed == 0
            assert [one.expires_in for one in held] == [None]


@pytest.mark.check(32)
@BOTH
def test_a_set_that_would_be_too_full_is_left_as_it_was(structure: str) -> None:
    """Check 32."""
    with loaded("size 4", structure) as (dropped, nets, hosts):
        cases = (
            (hosts, [f"192.0.2.{number}" for number in range(1, 6)]),
            (nets, [f"10.{number}.0.0/16" for number in range(5)]),
        )
        for held, entries in cases:
            held.update(entries[:3])
            before = [entry.text for entry in held]
            with pytest.raises(LimitError, match="is full: it takes 4 entries"):
                held.update(entries)
            with pytest.raises(LimitError, match="is full"):
                held.replace(entries)
            assert [entry.text for entry in held] == before
            held.update(entries[3])
            with pytest.raises(LimitError, match="is full"):
                held.update(entries[4])
            assert held.count == 4
            assert held.replace(list(reversed(entries))[:4]).added == 1
        assert dropped("192.0.2.5")
        assert not dropped("192.0.2.1")


@pytest.mark.check(32)
@pytest.mark.parametrize("kind", ["host", "net"])
def test_a_full_set_is_looked_through_only_if_an_entry_may_have_expired(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Check 32: whoever is refused again and again does not read the whole set each time."""
    spec = SetSpec("s", (kind,), 4)
    with LiveSet(spec, *create_maps(spec)) as held:
        held.update(["192.0.2.1"], timeout=0.000_001)
        held.update(["192.0.2.2", "192.0.2.3"], timeout=1000)
        held.update(["192.0.2.4"])
        assert held.update(["192.0.2.5"]).added == 1
        assert held.count == 4
        with pytest.raises(LimitError):
            held.update(["192.0.2.6"])
        with monkeypatch.context() as patched:
            patched.setattr(set_whole, "read_map", None)
            for more in (["192.0.2.6"], ["192.0.2.6", "192.0.2.7"]):
                with pytest.raises(LimitError):
                    held.update(more, timeout=1000)
            assert held.discard(["192.0.2.2"]).removed == 1
            assert held.update(["192.0.2.6"], timeout=0.000_001).added == 1
        assert held.update(["192.0.2.7"]).added == 1
        assert {entry.text.partition("/")[0] for entry in held} == {
            f"192.0.2.{last}" for last in (3, 4, 5, 7)
        }


@pytest.mark.check(33)
@pytest.mark.parametrize(
    "spec", [SetSpec("s", ("host",), 8192), SetSpec("s", ("net",), 8192, structure="trie")]
)
def test_many_entries_go_and_come_in_one_step(spec: SetSpec) -> None:
    """A change by difference, of more entries than are given as single ones, meets no other entry."""
    numbered = [f"10.{number >> 8}.{number & 255}.1" for number in range(6000)]
    with LiveSet(spec, *create_maps(spec)) as held:
        held.update(numbered[:5000])
        done = held.exchange(held.read(numbered[:600]), held.read([]), held.read(numbered[4900:5600], 1000))
        assert (done.added, done.changed, done.removed) == (600, 0, 600)
        assert held.count == 5000
        left = {entry.text.partition("/")[0]: entry.expires_in for entry in held}
        assert set(left) == set(numbered[600:5600])
        assert {text for text, end in left.items() if end} == set(numbered[5000:5600])
        _is_at_rest(held)


def test_what_is_no_entry_changes_nothing() -> None:
    with loaded() as (dropped, nets, _):
        with pytest.raises(PenstockError, match=r"^`10\.0\.0\.1/8` has bits set"):
            nets.update(["10.0.0.0/8", "10.0.0.1/8"])
        assert not dropped("10.0.0.1")
        assert nets.count == 0


def test_entries_count_and_keep_their_counts() -> None:
    with loaded() as (dropped, _, hosts):
        hosts.update(["192.0.2.1", "2001:db8::1"])
        assert [dropped("192.0.2.1") for _ in range(3)] == [True] * 3
        assert dropped("2001:db8::1")
        hosts.replace(["192.0.2.1", "192.0.2.3", "2001:db8::1"], timeout=60)
        assert {entry.text: entry.packets for entry in hosts} == {
            "192.0.2.1": 3,
            "192.0.2.3": 0,
            "2001:db8::1": 1,
        }


@pytest.mark.check(36)
@pytest.mark.parametrize("step", range(0, 12, 2))
def test_a_writer_that_is_killed_leaves_the_old_content_or_the_new(
    step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Check 36: kill -9 in the middle of a change of both families."""
    old = ["10.0.0.0/8", "10.1.0.0/16", "192.0.2.0/24", "2001:db8::/32"]
    new = ["10.1.0.0/16", "10.1.1.0/24", "198.51.100.0/24", "2001:db8:1::/48", "2001:db8:2::/48"]
    monkeypatch.setattr(live_set, "PART", 1)
    with loaded() as (dropped, nets, _):
        nets.update(old)
        asked = ["10.1.1.1", "10.2.0.1", "192.0.2.1", "198.51.100.1", "2001:db8:1::1", "2001:db8:3::1"]
        before = [dropped(address) for address in asked]
        _killed_at(step, nets, lambda: nets.replace(new))
        after = [dropped(address) for address in asked]
        texts = {entry.text for entry in nets}
        assert (after, texts) in ((before, set(old)), ([True, False, False, True, True, False], set(new)))
        nets.update(["203.0.113.0/24"])
        assert [dropped(address) for address in asked] == after
        assert {entry.text for entry in nets} == texts | {"203.0.113.0/24"}
        assert nets.count == len(texts) + 1


@pytest.mark.parametrize("step", range(0, 14, 2))
@pytest.mark.parametrize("goes", [False, True], ids=["comes", "goes"])
def test_a_writer_of_a_few_that_is_killed_leaves_what_was_or_what_it_wrote(
    step: int, goes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Check 36, where only what changes is read; wide entries whose times reach into narrow ones."""
    monkeypatch.setattr(live_set, "PART", 1)
    some = ["10.0.0.0/8", "10.1.0.0/16", "2001:db8::/32", "192.0.2.0/24"]
    with loaded() as (dropped, nets, _):
        nets.update(["10.1.1.0/24", "2001:db8:1::/48"], timeout=0.000_001)
        nets.update(["10.9.0.0/16"])
        if goes:
            nets.update(some)
        asked = ["10.1.1.1", "10.2.0.1", "10.9.0.1", "192.0.2.1", "2001:db8:1::1", "2001:db8:3::1"]
        before, stay = [dropped(address) for address in asked], [False, False, True, False, False, False]
        _killed_at(step, nets, lambda: nets.discard(some) if goes else nets.update(some))
        after = [dropped(address) for address in asked]
        assert after in (before, stay if goes else [True] * 6)
        nets.update(["203.0.113.0/24"])
        assert [dropped(address) for address in asked] == after
        assert nets.count == 8 - 4 * (after == stay)


def _killed_at(step: int, nets: LiveSet, change: Callable[[], object]) -> None:
    """Change the content in a process that dies behind the n-th entry it has written."""
    child = os.fork()
    if not child:
        seen = 0

        def progress(_done: int, _total: int) -> None:
            nonlocal seen
            if seen == step:
                os.kill(os.getpid(), signal.SIGKILL)
            seen += 1

        nets.progress = progress
        try:
            change()
        finally:
            os._exit(0)
    os.waitpid(child, 0)


@pytest.mark.check(33)
def test_random_changes_against_a_model() -> None:
    """Check 33, and single changes among large ones: 200 steps of a model in Python, by the compiled program."""
    chance = random.Random(3)
    spec = SetSpec("s", ("net",), 64)
    maps, control = create_maps(spec)
    with LiveSet(spec, maps, control) as held:
        model: set[str] = set()
        for _ in range(200):
            some = {_network(chance) for _ in range(chance.choice([1, 1, 3, 8]))}
            match chance.randrange(5):
                case 0 | 1:
                    held.update(some)
                    model |= some
                case 2:
                    gone = set(chance.sample(sorted(model), min(len(model), len(some)))) | some
                    held.discard(gone)
                    model -= gone
                case 3:
                    held.replace(some)
                    model = some
                case _:
                    held.clear()
                    model = set()
            assert {entry.text for entry in held} == model
            assert held.count == len(model)
            for value in range(16):
                assert (f"10.0.0.{value}" in held) == any(_holds(network, value) for network in model)


@pytest.mark.parametrize("structure", ["hash", "net"])
def test_a_few_changes_with_times_against_a_model(structure: str) -> None:
    """Checks 33 and 34: what the kernel answers, and that each state has the latest time of all that cover it."""
    chance = random.Random(5)
    spec = SetSpec("s", ("net" if structure == "net" else "host",), 64)
    maps, control = create_maps(spec)
    with LiveSet(spec, maps, control) as held:
        model: dict[str, float | None] = {}
        for _ in range(150):
            some = {_network(chance) for _ in range(chance.choice([1, 1, 2, 5]))}
            if structure != "net":
                some = {text.partition("/")[0] for text in some}
            if chance.random() < 0.6:
                seconds = chance.choice([None, 0.000_001, 1000.0, 2000.0, 3000.0])
                held.update(some, seconds)
                end = None if seconds is None else boot_clock_ns() + seconds * 1e9
                model |= {text: _later(end, model.get(text, 0.0)) for text in some}
            else:
                held.discard(some)
                model = {text: end for text, end in model.items() if text not in some}
            assert {entry.text for entry in held} == {text for text in model if _is_live(model[text])}
            assert held.count == len(model)
            for value in range(16):
                live = [text for text, end in model.items() if _is_live(end)]
                assert (f"10.0.0.{value}" in held) == any(_holds(text, value) for text in live)
            _is_at_rest(held)


@pytest.mark.check(33)
@pytest.mark.parametrize("counters", [False, True])
def test_thousands_of_entries_against_a_model(counters: bool) -> None:
    """Of both families, by the kernel's rows of work: what is there stays longer, never shorter, with its counts."""
    chance = np.random.default_rng(7)
    spec = SetSpec("s", ("host",), 12_000, counters=counters)
    with LiveSet(spec, *create_maps(spec)) as held:
        model = dict.fromkeys(_hosts(chance, 9000), 0)
        held.update(_content(spec, model))
        assert held.count == len(model)
        for turn in range(8):
            # Half of either is there.
            come = dict.fromkeys(_hosts(chance, 500) + list(model)[:500], (0, 1 << 60, 1 << 61)[turn % 3])
            gone = list(model)[-500:] + _hosts(chance, 500)
            end = next(iter(come.values()))
            later = {
                key: 0 if model.get(key, 1) == 0 or not end else max(end, model.get(key, end)) for key in come
            }
            done = held.exchange(_content(spec, dict.fromkeys(gone, 0)), nothing(spec), _content(spec, come))
            there = {key: end for key, end in model.items() if key not in gone or key in come}
            assert done.added == len(come.keys() - model.keys())
            assert done.removed == len(model) - len(there)
            assert done.changed == sum(later[key] != there[key] for key in come.keys() & there.keys())
            model = {**there, **later}
            assert _read(held) == model
            assert held.count == len(model)
            _is_at_rest(held)


def _hosts(chance: np.random.Generator, count: int) -> list[bytes]:
    """Keys, of a tenth as many of them IPv6."""
    found = [chance.bytes(16 if number % 10 == 0 else 4) for number in range(count)]
    return [key[:-2] + bytes((key[-2] & 127, key[-1])) for key in found]


def _content(spec: SetSpec, ends: dict[bytes, int]) -> Content:
    sides = {"v4": 4, "v6": 16}
    keys = {family: [key for key in ends if len(key) == width] for family, width in sides.items()}
    return arrays_of(spec, {family: {key: ends[key] for key in some} for family, some in keys.items()})


def _read(held: LiveSet) -> dict[bytes, int]:
    found = {}
    for table in held.maps.values():
        content = read_map(held.spec, table)
        found |= content.entries(held.spec).by_key()
    return found


def test_rows_are_put_once_turned_where_they_are_and_removed() -> None:
    with Map.create(MapType.HASH, "rows", key_size=12, value_size=24, max_entries=5000) as table:
        keys = np.arange(12 * 4000, dtype=np.uint32).view(np.uint8).reshape(-1, 12)[:4000]
        values = np.arange(3 * 4000, dtype=np.uint64).reshape(-1, 3)
        with map_rows(table, 1500) as rows:
            assert rows is not None
            assert rows.put(keys[::2], values[::2]).all()
            assert rows.put(keys, values).tolist() == [False, True] * 2000
            assert table.lookup(keys[7].tobytes()) == values[7].tobytes()
            rows.remove(keys[:1000])
            words = np.full(4000, 1 << 40, np.uint64)
            assert rows.turn(keys, words, keep=255).tolist() == [False] * 1000 + [True] * 3000
            expected = values[1234] & np.array([255, -1, -1], np.int64).view(np.uint64)
            expected[0] |= words[0]
            assert table.lookup(keys[1234].tobytes()) == expected.tobytes()
            more = np.arange(12 * 4000, 12 * 8000, dtype=np.uint32).view(np.uint8).reshape(-1, 12)[:4000]
            with pytest.raises(KernelError, match="update map"):
                rows.put(more, values)


def _later(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else max(one, other)


def _is_live(end: float | None) -> bool:
    return end is None or end > boot_clock_ns()


def _is_at_rest(held: LiveSet) -> None:
    for family, table in held.maps.items():
        content = read_map(held.spec, table)
        assert (content.values[:, 0] & REST == REST).all()
        kept, gone = settled(held.spec, content, held.state.active)
        assert (len(kept.keys), len(gone)) == (0, 0), family


def _network(chance: random.Random) -> str:
    length = chance.randint(28, 32)
    return f"10.0.0.{chance.randrange(16) >> 32 - length << 32 - length}/{length}"


def _holds(network: str, value: int) -> bool:
    address, _, length = network.partition("/")
    length = length or "32"
    return value >> 32 - int(length) == int(address.rpartition(".")[2]) >> 32 - int(length)


def test_an_odd_packet_is_looked_up_all_the_same() -> None:
    """A frame cut behind its addresses, a fragment, options: the source is asked."""
    rules = rule_set("filter edge at {hook} {{\n drop if src in @nets\n}}")
    whole = bytes(Ether() / IPv4(src="192.0.2.9") / TCP(dport=80))
    frames = [
        whole[:34],
        whole[:38],
        bytes(Ether() / IPv4(src="192.0.2.9", frag=100) / UDP()),
    ]
    with DataPlane.of(rules) as plane:
        opened(rules, plane, "nets").update(["192.0.2.0/24"])
        assert plane.verdicts(frames) == [Verdict.DROP] * 3


@pytest.mark.parametrize("hook", Hook, ids=lambda hook: hook.value)
def test_keys_of_two_addresses_leave_room_on_the_stack(hook: Hook) -> None:
    """Several long keys in rules that count and limit, each of which wants its own place there."""
    rules = rule_set(
        "filter edge at {hook} {{\n"
        " count if src . dst . proto . dst port in @pairs\n"
        " pass if dst . src . proto . src port in @pairs\n"
        " count if src . proto . dst port in @flows and over 10/s per flow\n"
        " drop if src . dst . proto . dst port in @pairs and src in @blocks\n}}",
        hook,
    )
    there = bytes(Ether() / IPv6(src="2001:db8::1", dst="2001:db8::2") / TCP(sport=9, dport=80))
    back = bytes(Ether() / IPv6(src="2001:db8::2", dst="2001:db8::1") / TCP(sport=80, dport=9))
    with DataPlane.of(rules) as plane:
        opened(rules, plane, "pairs").update(["2001:db8::1 . 2001:db8::2 . tcp . 80"])
        opened(rules, plane, "blocks").update(["2001:db8::/64"])
        assert plane.verdicts([there, back]) == [Verdict.DROP, Verdict.PASS]


def test_what_covers_a_large_set_is_not_looked_at_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network over 200,000 with a time took half a minute: each of them was looked up and written by itself."""
    walked: list[int] = []
    whole = set_whole.update
    monkeypatch.setattr(set_few, "MOST_BENEATH", 20)
    monkeypatch.setattr(set_whole, "update", lambda *told: (walked.append(1), whole(*told))[1])
    rules = rule_set("filter edge at {hook} {{\n drop if src in @nets\n}}")
    with DataPlane.of(rules) as plane, opened(rules, plane, "nets") as nets:
        nets.update([f"10.0.0.{n}" for n in range(20)], timeout=600)
        nets.update(["10.0.0.0/25"], timeout=900)
        assert walked == []
        nets.update(["10.0.0.0/24"], timeout=900)
        assert walked == [1]
        assert nets.count == 22
        assert all(entry.expires_in and entry.expires_in > 500 for entry in nets)


@pytest.mark.parametrize("kind", ["host dynamic", "net dynamic as flat", "net dynamic as trie"])
def test_a_policy_may_only_ask_what_rules_of_another_add_to(kind: str) -> None:
    policy = parse_policy(Source("asks", f"set s : {kind}\nfilter asks at xdp {{ drop if src in @s }}\n"))
    with DataPlane.of(lower_filter(policy, policy.filters[0])) as plane:
        assert plane.verdicts([bytes(Ether() / IPv4(src="192.0.2.9") / UDP())]) == [Verdict.PASS]


def test_the_control_of_a_set_is_a_variable_that_takes_no_lookup() -> None:
    elf = load_policy("set s : host\nfilter edge at xdp { drop if src in @s }\n").elf
    assert variables(elf)["ps_set0_control"] == Symbol(control_map(0), 0, 32)
