"""Rules that change sets, in the kernel: as the reference has them, never beyond the size, and beside other changes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

import pytest
from tests.packets import ARP, ICMP, TCP, UDP, Ether, IPv4, IPv6, Packet
from tests.property.dataplane import DataPlane, disagreements
from tests.property.test_kernel_agrees import oldest_clang

from penstock.compiler.codegen.blocks import numbered
from penstock.compiler.codegen.plan import Wish, plan_of
from penstock.compiler.codegen.stages import Tabled
from penstock.compiler.codegen.weigh import Form
from penstock.compiler.ir.buckets import Buckets
from penstock.compiler.ir.evaluate import evaluate
from penstock.compiler.ir.lower import lower_filter
from penstock.compiler.ir.ops import RuleSet
from penstock.compiler.ir.stores import SetContent, Stores
from penstock.compiler.lang.parser import parse_policy
from penstock.compiler.lang.source import Source
from penstock.model.hook import Hook
from penstock.model.sets import REST, TALLY, control_map, set_map
from penstock.model.verdict import Verdict
from penstock.pipeline.dynamic_set import DynamicSet
from penstock.pipeline.set_store import live

pytestmark = pytest.mark.privileged

START = 10**15
SECOND = 10**9
SETS = """set a : host timeout 3s
set b : net
set c : port timeout 1m counters
set d : mac
set e : host . proto . port
set f : host . host counters
"""
_FIELDS = {
    "a": ["src", "dst", "ip src", "ip6 dst", "arp src"],
    "b": ["src", "ip dst", "ip6 src"],
    "c": ["src port", "udp dst port", "sctp src port"],
    "d": ["ether src", "ether dst"],
    "e": ["src . proto . dst port", "ip6 dst . proto . tcp src port"],
    "f": ["src . dst", "dst . src"],
}
_TESTS = ["tcp", "udp", "ip6", "src net 10.0.0.0/30", "dst port 53", "icmp or arp", "ip", "less 60"]
_HOOKS = [pytest.param(hook, id=hook.value) for hook in (Hook.XDP, Hook.TC_INGRESS, Hook.SOCKET)]


def rule_set(text: str, hook: Hook = Hook.XDP, sets: str = SETS) -> RuleSet:
    policy = parse_policy(Source("edge.policy", f"{sets}\nfilter edge at {hook.value} {{\n{text}\n}}\n"))
    return lower_filter(policy, policy.filters[0])


def change(draw: Random) -> str:
    name = draw.choice(list(_FIELDS))
    field = draw.choice(_FIELDS[name])
    if draw.random() < 0.25:
        return f"remove {field} from @{name}"
    stay = f" for {draw.choice(['1s', '5s', '2m'])}" if draw.random() < 0.5 else ""
    return f"add {field} to @{name}{stay}"


def condition(draw: Random) -> str:
    name = draw.choice(list(_FIELDS))
    member = f"{draw.choice(_FIELDS[name])} in @{name}"
    found = [draw.choice(_TESTS)]
    if draw.random() < 0.6:
        found.append(member)
    if draw.random() < 0.2:
        found.append(f"over {draw.choice(['1/s', '5/m'])} per src")
    return draw.choice([" and ", " or "]).join(draw.sample(found, len(found)))


def policy(draw: Random) -> str:
    rules = []
    for _ in range(draw.randint(4, 9)):
        action = draw.choice([change(draw), change(draw), "drop", "pass", "count", "audit"])
        # Of a field that packets cannot have nothing is said by lowering alone.
        rules.append(f"{action} if {condition(draw)}")
    return "\n".join(rules)


def frames(draw: Random) -> list[bytes]:
    tails = [TCP(sport=7, dport=53), UDP(sport=9, dport=53), UDP(dport=9), ICMP()]
    heads = [IPv4(src=f"10.0.0.{last}", dst="10.9.0.1") for last in range(1, 7)]
    heads += [IPv6(src=f"2001:db8::{last}", dst=f"2001:db8:0:{last}::1") for last in range(1, 4)]
    cards = [Ether(src=f"02:00:00:00:00:0{last}") for last in range(1, 4)]
    found = [bytes(draw.choice(cards) / draw.choice(heads) / draw.choice(tails)) for _ in range(30)]
    odd: list[Packet] = [ARP(psrc="10.0.0.1"), IPv4(src="10.0.0.1", frag=100) / UDP(dport=53)]
    return [*found, *(bytes(Ether() / one) for one in odd)]


def stores_of(rules: RuleSet) -> Stores:
    return Stores(
        {spec.name: SetContent(spec.kind, timeout_ns=spec.timeout_ns) for spec in rules.sets},
        START,
        Buckets(START),
    )


def differences(rules: RuleSet, plane: DataPlane, draw: Random, count: int) -> list[str]:
    """Packets at times that pass slowly and by leaps, each asked of both."""
    from dataclasses import replace

    stores, known, found = stores_of(rules), frames(draw), []
    for _ in range(count):
        step = draw.choice([0, 1, draw.randrange(SECOND), draw.randrange(10 * SECOND), 200 * SECOND])
        stores = replace(stores, now_ns=stores.now_ns + step)
        stores.buckets.now_ns = stores.now_ns
        frame = draw.choice(known)
        expected = evaluate(rules, frame, stores=stores)
        got = plane.outcome(frame, now_ns=stores.now_ns, chance=7)
        if got != expected:
            found.append(f"{stores.now_ns}: {frame.hex()}\n  reference {expected}\n  kernel    {got}")
    return found


@pytest.mark.parametrize("hook", _HOOKS)
@pytest.mark.parametrize("seed", [1, 2])
def test_random_policies(seed: int, hook: Hook) -> None:
    draw = Random(seed)
    rules = rule_set(policy(draw), hook)
    with DataPlane.of(rules) as plane:
        assert differences(rules, plane, draw, 250) == []


@pytest.mark.parametrize("form", [Form.NESTED, Form.TABLES], ids=lambda form: form.value)
@pytest.mark.parametrize("hook", _HOOKS)
def test_between_the_stretches_of_other_forms(hook: Hook, form: Form) -> None:
    draw = Random(91)
    text = "\n".join(
        [policy(draw), *(f"drop if udp dst port {port}" for port in range(100, 120)), policy(draw)]
    )
    rules = rule_set(text, hook)
    with DataPlane.of(rules, wish=Wish(form, inline=False)) as plane:
        assert differences(rules, plane, draw, 300) == []


@pytest.mark.parametrize("hook", _HOOKS)
def test_the_oldest_clang(hook: Hook) -> None:
    draw = Random(77)
    rules = rule_set(policy(draw), hook)
    with DataPlane.of(rules, oldest_clang()) as plane:
        assert differences(rules, plane, draw, 200) == []


def large(draw: Random) -> str:
    """Rules that fill tables, and between them few that remember; sets alone among them."""
    kinds = [
        "src net 10.0.0.{a} and udp dst port {p}",
        "tcp dst port {p}",
        "ip6 src 2001:db8::{a} and dst port {p}",
    ]
    rules = [
        f"{draw.choice(['drop', 'pass'])} if "
        + draw.choice(kinds).format(a=draw.randrange(1, 9), p=draw.choice([7, 9, 53, *range(100, 400)]))
        for _ in range(260)
    ]
    for _ in range(draw.randint(3, 8)):
        action = draw.choice([change(draw), "drop", "count", "pass"])
        rules.insert(draw.randrange(len(rules)), f"{action} if {condition(draw)}")
    for _ in range(draw.randint(1, 4)):
        rules.insert(
            draw.randrange(len(rules)), f"{draw.choice(['drop', 'pass'])} if src in @{draw.choice('ab')}"
        )
    return "\n".join([*rules, f"drop if over {draw.choice(['2/s', '9/m'])} per rule and src in @b"])


@pytest.mark.parametrize(
    ("seed", "hook"),
    [(12, Hook.XDP), (23, Hook.TC_INGRESS), (12, Hook.SOCKET)],
    ids=["xdp", "tc ingress", "socket"],
)
def test_rules_that_are_asked_between_those_of_one_table(seed: int, hook: Hook) -> None:
    draw = Random(seed)
    rules = rule_set(large(draw), hook)
    tables = [stage for stage in plan_of(rules, numbered(rules)).stages if isinstance(stage, Tabled)]
    assert any(stage.between for stage in tables)
    with DataPlane.of(rules) as plane:
        assert differences(rules, plane, draw, 400) == []


def test_sets_alone_are_asked_between_the_rules_of_a_table() -> None:
    """No rule of the policy remembers anything, so nothing says how far added rules let it be tried."""
    draw = Random(5)
    lines = [
        f"{draw.choice(['drop', 'pass'])} if udp dst port {port} and src net 10.0.0.{port % 9}"
        for port in range(300)
    ]
    lines.insert(200, "drop if src in @a")
    rules = rule_set("\n".join(["default pass", *lines]))
    with DataPlane.of(rules) as plane:
        table = plane.maps[set_map(0, "v4")]
        table.update(bytes([10, 0, 0, 3]), (REST).to_bytes(8, "little"))
        stores = Stores({"a": SetContent(("host",), {(0x0A000003, 32): 0})})
        found = [
            bytes(Ether() / IPv4(src=f"10.0.0.{n % 9}") / UDP(dport=p))
            for p in range(0, 400, 7)
            for n in (p, 3)
        ]
        assert disagreements(rules, plane, found, stores) == []


# ── one set ──────────────────────────────────────────────────────────────────

TRAP = """default pass
add src to @traps{stay} if udp dst port 23
remove src from @traps if udp dst port 24
drop if src in @traps
"""


@contextmanager
def trap(
    definition: str = "set traps : host size 4", stay: str = " for 10s"
) -> Iterator[tuple[DataPlane, DynamicSet]]:
    rules = rule_set(TRAP.format(stay=stay), sets=definition)
    (spec,) = rules.sets
    with DataPlane.of(rules) as plane:
        maps = {table: plane.maps[set_map(0, table)].duplicate() for table in spec.tables}
        added = {name: plane.maps[set_map(0, name)].duplicate() for name in spec.added_tables}
        with live(spec, maps, plane.maps[control_map(0)].duplicate(), added) as held:
            assert isinstance(held, DynamicSet)
            yield plane, held


def frame(address: str, port: int = 9) -> bytes:
    return bytes(Ether() / (IPv6 if ":" in address else IPv4)(src=address) / UDP(dport=port))


def dropped(plane: DataPlane, address: str, port: int = 9, now_ns: int = 0) -> bool:
    return plane.outcome(frame(address, port), now_ns=now_ns).verdict is Verdict.DROP


@pytest.mark.parametrize(
    "definition", ["set traps : host size 4", "set traps : net size 4", "set traps : net size 4 as flat"]
)
def test_a_full_set_refuses_evicts_nobody_and_has_room_again_when_entries_expire(definition: str) -> None:
    with trap(definition) as (plane, held):
        for number in range(1, 5):
            assert dropped(plane, f"192.0.2.{number}", 23, START)
        for number in range(5, 50):
            assert not dropped(plane, f"192.0.2.{number}", 23, START + number)
        assert [dropped(plane, f"192.0.2.{number}", 9, START + 1) for number in range(1, 6)] == [True] * 4 + [
            False
        ]
        assert (held.count, held.added.refused) == (4, 45)
        # Of the other family there is room, and once these are over there is here.
        assert dropped(plane, "2001:db8::1", 23, START)
        for number in range(101, 105):
            assert dropped(plane, f"192.0.2.{number}", 23, START + 11 * SECOND)
        assert (held.added.refused, held.count) == (45, 5)
        assert not dropped(plane, "192.0.2.1", 9, START + 11 * SECOND)


def test_what_commands_put_in_takes_room_and_no_rule_takes_it_away() -> None:
    with trap() as (plane, held):
        held.update(["192.0.2.1", "192.0.2.2", "192.0.2.3"])
        assert dropped(plane, "192.0.2.1", 24)
        assert dropped(plane, "192.0.2.9", 23)
        assert not dropped(plane, "192.0.2.10", 23)
        assert not dropped(plane, "192.0.2.9", 24)
        assert dropped(plane, "192.0.2.10", 23)
        # A command still finds its own room.
        held.update(["192.0.2.4"])
        assert {entry.text: entry.by_rule for entry in held} == {
            **{f"192.0.2.{number}": False for number in range(1, 5)},
            "192.0.2.10": True,
        }


def test_commands_see_and_take_away_what_rules_have_added() -> None:
    with trap("set traps : net counters") as (plane, held):
        for address in ("192.0.2.1", "192.0.2.2", "2001:db8::1"):
            assert dropped(plane, address, 23)
        assert dropped(plane, "192.0.2.1")
        assert "192.0.2.1/32" in held
        assert "192.0.2.0/24" not in held
        assert {entry.text: entry.packets for entry in held} == {
            "192.0.2.1/32": 2,
            "192.0.2.2/32": 1,
            "2001:db8::1/128": 1,
        }
        # What is replaced is what commands have put in.
        held.replace(["198.51.100.0/24"])
        assert dropped(plane, "192.0.2.1")
        assert held.discard(["192.0.2.1/32", "192.0.2.0/24"]).removed == 1
        assert not dropped(plane, "192.0.2.1")
        assert held.count == 3
        assert held.clear().removed == 3
        assert not dropped(plane, "2001:db8::1")
        assert (held.count, list(held)) == (0, [])
        # The queue remembers keys that are gone; they come again all the same.
        assert dropped(plane, "192.0.2.1", 23)
        assert held.count == 1


def test_sweeping_takes_what_has_expired() -> None:
    with trap() as (plane, held):
        assert dropped(plane, "192.0.2.2", 23)
        assert dropped(plane, "192.0.2.1", 23, now_ns=1)
        assert held.count == 2
        assert [entry.text for entry in held] == ["192.0.2.2"]
        assert held.sweep().removed == 1
        assert held.count == 1
        assert dropped(plane, "192.0.2.2")


def test_adding_again_extends_and_never_shortens() -> None:
    rules = "default pass\nadd src to @traps for 1h if udp dst port 1\nadd src to @traps for 1s if udp dst port 2\n"
    rules += "add src to @traps if udp dst port 3\ndrop if src in @traps"
    with DataPlane.of(rule_set(rules, sets="set traps : host")) as plane:
        for port, at, over in ((1, 0, 3600), (2, 0, 3600), (1, 10, 3610), (2, 3610, 3611), (2, 5000, 5001)):
            assert dropped(plane, "192.0.2.1", port, START + at * SECOND)
            assert dropped(plane, "192.0.2.1", 9, START + over * SECOND - SECOND // 2)
        assert not dropped(plane, "192.0.2.1", 9, START + 5002 * SECOND)
        assert dropped(plane, "192.0.2.1", 3, START + 6000 * SECOND)
        assert dropped(plane, "192.0.2.1", 2, START + 6001 * SECOND)
        assert dropped(plane, "192.0.2.1", 9, START * 2)


def test_stale_turns_never_fill_the_queue() -> None:
    """One key that comes and goes leaves a turn each time; entries that stay keep theirs."""
    with trap() as (plane, held):
        for number in range(1, 4):
            assert dropped(plane, f"192.0.2.{number}", 23)
        for _ in range(100):
            assert dropped(plane, "192.0.2.9", 23)
            assert not dropped(plane, "192.0.2.9", 24)
        assert (held.count, held.added.refused) == (3, 0)


def test_rules_and_commands_change_a_set_at_once_and_neither_loses_anything() -> None:
    """A change that is whole, over and over, while packets add and remove; then each side has exactly its own."""
    with trap("set traps : net size 10k") as (plane, held):
        contents = [
            [f"10.{number}.0.0/16" for number in range(200)],
            [f"10.{number}.0.0/17" for number in range(100, 300) if number < 256],
            [],
        ]
        done = threading.Event()

        def change_over_and_over() -> None:
            for turn in range(60):
                held.replace(contents[turn % 3])
            held.replace(contents[0])
            done.set()

        worker = threading.Thread(target=change_over_and_over)
        worker.start()
        added = set()
        number = 0
        while not done.is_set() or number < 2000:
            address = f"192.168.{number // 250 % 20}.{number % 250}"
            port = 24 if number % 3 == 2 else 23
            assert dropped(plane, address, port) == (port == 23), (number, address)
            (added.add if port == 23 else added.discard)(address)
            number += 1
        worker.join()
        assert {entry.text.removesuffix("/32") for entry in held if entry.by_rule} == added
        assert held.count == len(added) + 200
        assert all(dropped(plane, address) for address in sorted(added)[:50])


def test_the_tally_counts_what_the_map_holds_under_many_senders() -> None:
    with trap("set traps : host size 100", stay=" for 1s") as (plane, held):

        def send(seed: int) -> None:
            draw = Random(seed)
            for _ in range(1500):
                plane.program.test_run(frame(f"192.0.2.{draw.randrange(200)}", draw.choice([23, 23, 24])))

        workers = [threading.Thread(target=send, args=(seed,)) for seed in range(3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        held_keys = len(list(plane.maps[set_map(0, "v4_added")].keys()))
        assert held.added.count == held_keys <= 100
        assert plane.maps[set_map(0, TALLY)].view("u8")[0][0] >= held_keys
