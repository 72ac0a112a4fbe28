"""What a guest is to do: objects made on this machine, packets, and what is to become of each.

* every verdict case of the tests at XDP, TC and a socket, with the outcome that the case asks for;
* a policy of hundreds of rules, so that tables and diagrams are loaded too, with the reference evaluator's outcomes;
* a policy with sets, rules that change them, and rates, asked about packets one after the other;
* a policy with a flat set, which the guest is given filled;
* every example policy and every program of examples/programs, loaded;
* one policy at each hook put in place, replaced and taken off.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from ipaddress import IPv4Address, IPv6Address, ip_network
from pathlib import Path
from typing import Any

import numpy as np
from tests.packets import TCP, UDP, Ether, IPv4, IPv6
from tests.verdict_cases import Case, cases, wanted

from penstock.compiler.driver import compile_rule_set
from penstock.compiler.ir.buckets import Buckets
from penstock.compiler.ir.evaluate import evaluate
from penstock.compiler.ir.ops import RuleSet
from penstock.compiler.ir.outcome import Outcome
from penstock.compiler.ir.stores import SetContent, Stores
from penstock.model.flat import FRONT_BYTES, LINE_BYTES, front_lines
from penstock.model.hook import TRAITS, Hook
from penstock.model.overlay import RULES
from penstock.model.sets import FAMILIES, FLAT, FRONT, set_map
from penstock.model.spec import PROGRAM, ProbeLayout
from penstock.model.verdict import DECISION_CODES
from penstock.pipeline.flat_filling import fill, fill_front, filling
from penstock.pipeline.flat_keys import packed
from penstock.pipeline.policy import load_policy, rule_set_of
from penstock.pipeline.program_object import open_program
from penstock.pipeline.set_keys import read_entries

_TOP = Path(__file__).parents[2]
_HOOKS = (Hook.XDP, Hook.TC_INGRESS, Hook.SOCKET)
_LARGE = 400
_REMEMBERING = """set some : host size 100 timeout 2s counters
set nets : net size 100
set none : net size 100
set keys : host . port size 100
filter kept at {hook} {{
    default pass
    drop if src in @none
    add src to @some if udp dst port 20
    add src to @nets for 3s if udp dst port 21
    add src . dst port to @keys if udp dst port 22
    remove src . dst port from @keys if udp dst port 23 and over 1/s per src burst 1
    count if src . dst port in @keys
    count if src in @nets
    drop if src in @some and over 1/s per src/24,64 burst 3
    drop if over 3/s per rule burst 9
}}
"""
_FLAT = """set nets : net as flat
filter flat at {hook} {{
    default pass
    drop if src in @nets
    count if dst in @nets
}}
"""
_NETS = [
    "198.51.100.0/24",
    "198.51.101.9",
    "203.0.113.128/25",
    "10.64.0.0/10",
    "2001:db8:7::/48",
    "2001:db8:8::9",
]
_NETS += ["2001:db8:8::a", "2001:da8::/31", "198.51.101.64/26"]
_SMALL = "filter small at {hook} {{ drop if udp dst port 53 }}"

Item = dict[str, Any]
#: A frame, its length on the wire (0: its own), what it is called, and what is to become of it.
Wanted = tuple[bytes, int, str, Outcome]


@cache
def work() -> bytes:
    """The work of every guest, as JSON."""
    with ThreadPoolExecutor() as threads:
        probed = list(threads.map(lambda made: _probed(*made), _rule_sets()))
        probed += threads.map(_remembering, _HOOKS)
        probed += threads.map(lambda hook: _remembering(hook, kernel_locks=True), _HOOKS[:-1])
        probed += threads.map(_flat, _HOOKS)
        examples = list(threads.map(_example, sorted((_TOP / "examples").glob("*.policy"))))
        programs = list(threads.map(_program, sorted((_TOP / "examples/programs").glob("*.bpf.c"))))
        attached = list(threads.map(_attached, _HOOKS))
    return json.dumps({"objects": [*probed, *examples, *programs], "attach": attached}).encode()


def _rule_sets() -> Iterator[tuple[str, RuleSet, list[Wanted]]]:
    for hook in _HOOKS:
        for case in cases():
            if {packet.verdict for packet in case.packets} <= TRAITS[hook].codes.keys():
                yield f"case {case.name} at {hook.value}", *_of_case(case, hook)
        yield f"{_LARGE} rules at {hook.value}", *_large(hook)


def _of_case(case: Case, hook: Hook) -> tuple[RuleSet, list[Wanted]]:
    rules = replace(case.rule_set(), hook=hook)
    return rules, [
        (
            packet.frame,
            packet.wire_length or 0,
            f"{case.path.name}:{packet.line}",
            wanted(rules, packet),
        )
        for packet in case.packets
    ]


def _large(hook: Hook) -> tuple[RuleSet, list[Wanted]]:
    lines = [
        f"{('drop', 'pass')[n % 3 == 0]} if {('tcp', 'udp')[n % 2]} dst port {n} and src net 10.{n % 200}.0.0/16"
        for n in range(1, _LARGE)
    ]
    rules = replace(rule_set_of("filter large at xdp {\n" + "\n".join(lines) + "\n}\n"), hook=hook)
    layers = (TCP, UDP)
    frames = [
        bytes(Ether() / IPv4(src=f"10.{(n + n % 2) % 200}.0.1") / layers[n % 2](dport=n))
        for n in range(1, _LARGE, 7)
    ]
    return rules, [(frame, 0, frame.hex(), evaluate(rules, frame)) for frame in frames]


def _probed(name: str, rules: RuleSet, packets: Sequence[Wanted], *, kernel_locks: bool = False) -> Item:
    built = compile_rule_set(rules, probe=True, kernel_locks=kernel_locks)
    layout = ProbeLayout(len(built.spec.slots) + (RULES if built.spec.overlay else 0))
    return {
        **_item(name, built.elf),
        "layout": {"slot": layout.slot, "now": layout.now_ns, "hits": layout.hits, "slots": layout.slots},
        "packets": [
            {"text": text, "frame": frame.hex(), "wire": wire, "wanted": _numbers(rules, outcome)}
            for frame, wire, text, outcome in packets
        ],
    }


def _remembering(hook: Hook, *, kernel_locks: bool = False) -> Item:
    """What each packet of a row leaves behind, and meets: entries, their times, and buckets."""
    rules = rule_set_of(_REMEMBERING.format(hook=hook.value), hook=hook.value)
    contents = {spec.name: SetContent(spec.kind, timeout_ns=spec.timeout_ns) for spec in rules.sets}
    stores = Stores(contents, 10**15, Buckets(10**15))
    wanted: list[tuple[int, Wanted]] = []
    for number in range(120):
        stores = replace(stores, now_ns=stores.now_ns + (number % 7) * 400_000_000)
        stores.buckets.now_ns = stores.now_ns
        head = IPv6(src=f"2001:db8::{number % 3}") if number % 4 == 3 else IPv4(src=f"192.0.2.{number % 5}")
        frame = bytes(Ether() / head / UDP(dport=(20, 21, 22, 23, 24, 25)[number * 5 // 3 % 6]))
        outcome = evaluate(rules, frame, stores=stores)
        wanted.append((stores.now_ns, (frame, 0, f"packet {number}", outcome)))
    name = f"sets and rates at {hook.value}" + (", under locks of the kernel's" if kernel_locks else "")
    made = _probed(name, rules, [packet for _, packet in wanted], kernel_locks=kernel_locks)
    for packet, (now, _) in zip(made["packets"], wanted, strict=True):
        packet["now"] = now
    return {**made, "needs": None if kernel_locks else "atomics"}


def _flat(hook: Hook) -> Item:
    """A flat set, filled here, and what packets from in and beside its networks meet."""
    rules = rule_set_of(_FLAT.format(hook=hook.value), hook=hook.value)
    nets = [ip_network(text) for text in _NETS]
    entries = {(int(net[0]), net.prefixlen, net.max_prefixlen): 0 for net in nets}
    stores = Stores({"nets": SetContent(("net",), entries)})
    near = {int(net[at]) + step: net.version for net in nets for at in (0, -1) for step in (-1, 0, 1)}
    packets: list[Wanted] = []
    for address, version in near.items():
        source = str((IPv4Address if version == 4 else IPv6Address)(address))
        frame = bytes(Ether() / (IPv4 if version == 4 else IPv6)(src=source) / UDP(dport=53))
        packets.append((frame, 0, f"from {source}", evaluate(rules, frame, stores=stores)))
    keys = {
        family: np.sort(
            packed(family, read_entries(rules.sets[0], "\n".join(_NETS).encode(), 0, 0)[family].keys)
        )
        for family in FAMILIES
    }
    made = filling(keys)
    memory, front = (
        bytearray(LINE_BYTES * made.total),
        bytearray(FRONT_BYTES * front_lines(rules.sets[0].size)),
    )
    fill(memoryview(memory), made)
    fill_front(memoryview(front), made)
    contents = {set_map(0, FLAT): memory, set_map(0, FRONT): front}
    return {
        **_probed(f"a flat set at {hook.value}", rules, packets),
        "flat": {name: base64.b64encode(zlib.compress(held)).decode() for name, held in contents.items()},
    }


def _numbers(rules: RuleSet, outcome: Outcome) -> list[int]:
    """Answer, decision, slot, conditions and hits, as the guest compares them."""
    return [
        TRAITS[rules.hook].codes[outcome.verdict],
        DECISION_CODES[outcome.verdict],
        outcome.slot,
        sum(1 << condition for condition in outcome.conditions),
        sum(1 << slot for slot in outcome.hits),
    ]


def _example(path: Path) -> Item:
    policy = load_policy(path.read_text(), name=path.name)
    needs = "atomics" if policy.identity.limiters else None
    return {**_item(f"policy {path.stem}", policy.elf), "needs": needs}


def _program(path: Path) -> Item:
    return _item(f"program {path.name.partition('.')[0]}", open_program(str(path)).elf)


def _attached(hook: Hook) -> Item:
    policy = load_policy(_SMALL.format(hook=hook.value), hook.value)
    return {**_item(f"at {hook.value}", policy.elf), "hook": hook.value}


def _item(name: str, elf: bytes) -> Item:
    return {"name": name, "elf": base64.b64encode(elf).decode(), "program": PROGRAM}
