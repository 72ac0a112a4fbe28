"""One meaning at every hook: random policies and frames, tags beside the packet, aggregates, real traffic."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TypeVar

import pytest
from tests.kernel.conftest import CompileC, Ends
from tests.netns import Namespace
from tests.packets import TCP, UDP, Ether, IPv4, IPv6, Packet, Raw
from tests.property.dataplane import DataPlane, disagreements
from tests.property.rulesets import RuleSets
from tests.property.test_kernel_agrees import FRAMES, oldest_clang, straddling, truncations

from penstock.compiler.codegen.plan import Wish
from penstock.compiler.codegen.weigh import Form
from penstock.compiler.ir.evaluate import evaluate
from penstock.compiler.ir.lower import lower_filter
from penstock.compiler.ir.ops import DEFAULT_SLOT, FIRST_RULE_SLOT, Effect, RuleSet
from penstock.compiler.ir.outcome import Outcome
from penstock.compiler.lang.parser import parse_policy
from penstock.compiler.lang.source import Source
from penstock.kernel.bpf_object import load_object
from penstock.kernel.link import Link, attach_xdp
from penstock.kernel.netlink import interface
from penstock.kernel.program import Program, skb_context
from penstock.kernel.tcx import attach_tcx
from penstock.model.field import Layer
from penstock.model.hook import Hook
from penstock.model.metadata import Metadata
from penstock.model.verdict import Verdict

pytestmark = pytest.mark.privileged

#: TC's two hooks have the same program; beside XDP's own tests.
SKB_HOOKS = [pytest.param(hook, id=hook.value) for hook in (Hook.TC_INGRESS, Hook.SOCKET)]
SO_ATTACH_BPF = 50
PATIENCE_S = 5.0

Action = TypeVar("Action", Verdict | Effect, Verdict | None, Verdict)


def rule_set(text: str, hook: Hook) -> RuleSet:
    policy = parse_policy(Source("edge.policy", f"filter edge at {hook.value} {{\n{text}\n}}\n"))
    return lower_filter(policy, policy.filters[0])


def drawn(seed: int, rules: int, hook: Hook, depth: Layer | None = None) -> RuleSet:
    """Random rules, of verdicts that every hook has."""
    found = replace(RuleSets(seed).rule_set(rules, depth=depth), hook=hook)
    return replace(
        found,
        default=_everywhere(found.default),
        conditions=tuple((odd, _everywhere(then)) for odd, then in found.conditions),
        rules=tuple(replace(rule, action=_everywhere(rule.action)) for rule in found.rules),
    )


def _everywhere(action: Action) -> Action:
    return Verdict.DROP if isinstance(action, Verdict) and action is not Verdict.PASS else action


# ── test runs ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("hook", SKB_HOOKS)
@pytest.mark.parametrize(("seed", "rules"), [(11, 1), (12, 4), (13, 4), (14, 20), (15, 60)])
def test_random_rule_sets(seed: int, rules: int, hook: Hook) -> None:
    found = drawn(seed, rules, hook)
    with DataPlane.of(found) as plane:
        assert disagreements(found, plane, FRAMES) == []


@pytest.mark.parametrize("seed", [13, 14, 25])
def test_members_of_the_context_are_read_from_it_itself(seed: int) -> None:
    """clang 14 kept the address of a member for its next read, which the verifier refuses."""
    found = drawn(seed, 12, Hook.TC_INGRESS)
    with DataPlane.of(found, oldest_clang()) as plane:
        assert disagreements(found, plane, FRAMES[:50]) == []


@pytest.mark.parametrize("hook", SKB_HOOKS)
def test_tables_by_the_oldest_clang(hook: Hook) -> None:
    found = drawn(16, 14, hook)
    with DataPlane.of(found, oldest_clang(), Wish(Form.TABLES, inline=False)) as plane:
        assert disagreements(found, plane, FRAMES) == []


@pytest.mark.parametrize("hook", SKB_HOOKS)
@pytest.mark.parametrize("depth", Layer)
def test_every_length(depth: Layer, hook: Hook) -> None:
    found = drawn(33, 12, hook, depth)
    around = [frame[:length] for frame in straddling() for length in range(118, len(frame) + 1)]
    with DataPlane.of(found) as plane:
        assert disagreements(found, plane, [*truncations(), *around]) == []


# ── a tag beside the packet ──────────────────────────────────────────────────

#: What a device does that keeps tags out of the bytes; then the filter.
BESIDE = """
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} ps_jump SEC(".maps");
SEC("tc") int ps_beside(struct __sk_buff *skb)
{
	__u16 tag[2];
	if (bpf_skb_load_bytes(skb, 12, tag, 4) || bpf_skb_vlan_pop(skb))
		return 99;
	if (bpf_skb_vlan_push(skb, tag[0], __builtin_bswap16(tag[1])) || !skb->vlan_present)
		return 98;
	bpf_tail_call(skb, &ps_jump, 0);
	return 97;
}
"""


def tagged(frames: Sequence[bytes]) -> Iterator[bytes]:
    """The frames that have a tag which a device takes out, and those without one behind such a tag."""
    for number, frame in enumerate(frames):
        if 22 <= len(frame) < 1500 and frame[12:14] in (b"\x81\x00", b"\x88\xa8"):
            yield frame
        elif number % 4 == 0 and 16 <= len(frame) < 1500:
            yield frame[:12] + b"\x81\x00\xa0\x05" + frame[12:]


@pytest.mark.parametrize("form", [None, Form.TABLES], ids=["planned", "tables"])
@pytest.mark.parametrize("seed", [21, 22, 23])
def test_a_tag_beside_the_packet_is_at_its_place(compile_c: CompileC, seed: int, form: Form | None) -> None:
    """VLAN tests, offsets, lengths and what is malformed: as if the tag lay in the bytes."""
    found = drawn(seed, 12, Hook.TC_INGRESS, Layer.TRANSPORT)
    frames = list(tagged(FRAMES))
    assert len(frames) > 150
    wish = None if form is None else Wish(form, inline=False)
    with DataPlane.of(found, wish=wish) as plane, load_object(compile_c(BESIDE), "beside") as beside:
        beside.maps["ps_jump"].update(bytes(4), plane.program.fd.to_bytes(4, "little"))
        for frame in frames:
            plane.expect()
            code = beside.programs["ps_beside"].test_run(frame).retval
            assert code not in (97, 98, 99), (code, frame.hex())
            assert plane.said(code) == evaluate(found, frame), frame.hex()


# ── aggregates ───────────────────────────────────────────────────────────────

COUNTING = """
default pass
on malformed drop
all: count
full: count if len == 1514
theirs: count if pcap "len = 1514"
"""


@pytest.mark.parametrize("hook", SKB_HOOKS)
@pytest.mark.parametrize(
    ("frame", "size", "segments", "headers"),
    [
        (Ether() / IPv4() / TCP(dport=80) / Raw(bytes(2920)), 1460, 2, 54),
        (Ether() / IPv4() / TCP(dport=80) / Raw(bytes(2921)), 1460, 3, 54),
        (Ether() / IPv6() / TCP(dport=80) / Raw(bytes(2880)), 1440, 2, 74),
        (Ether() / IPv4() / UDP(dport=80) / Raw(bytes(2944)), 1472, 2, 42),
        (Ether() / IPv4() / UDP(dport=80) / Raw(bytes(3000)), 1000, 3, 42),
    ],
    ids=["tcp", "tcp-rest", "tcp6", "udp", "udp-short"],
)
def test_an_aggregate_counts_as_its_frames(
    frame: Packet, size: int, segments: int, headers: int, hook: Hook
) -> None:
    """`len` is that of a whole frame of it, packets and bytes are the wire's."""
    data = bytes(frame)
    found = rule_set(COUNTING, hook)
    with DataPlane.of(found) as plane:
        outcome = plane.outcome(data, ctx=skb_context(segments=segments, segment_size=size))
        counted = plane.counters()
    full = headers + size == 1514
    hits = (FIRST_RULE_SLOT, FIRST_RULE_SLOT + 1, FIRST_RULE_SLOT + 2) if full else (FIRST_RULE_SLOT,)
    assert outcome == Outcome(Verdict.PASS, DEFAULT_SLOT, hits)
    assert outcome == evaluate(found, data, metadata=Metadata(segment_size=size))
    octets = len(data) + (segments - 1) * headers
    assert counted == dict.fromkeys((DEFAULT_SLOT, *hits), (segments, octets))


# ── what lies beside the packet ──────────────────────────────────────────────

BESIDE_RULES = """
marked: count if mark == 7
part: count if mark & 0xf0 = 0x50 or mark > 0xfffffff0
here: count if ifindex 1
there: count if ifindex 2 or ifindex > 3
named: count if ifname lo
other: count if not ifname "eth0"
"""


@pytest.mark.parametrize("form", [None, Form.NESTED, Form.TABLES], ids=["planned", "nested", "tables"])
@pytest.mark.parametrize("hook", [Hook.TC_INGRESS, Hook.TC_EGRESS, Hook.SOCKET], ids=lambda hook: hook.value)
def test_mark_and_interface(hook: Hook, form: Form | None) -> None:
    found = rule_set(BESIDE_RULES, hook)
    wish = None if form is None else Wish(form, inline=False)
    frame = bytes(Ether() / IPv4() / UDP())
    with DataPlane.of(found, wish=wish) as plane:
        for mark in (0, 7, 0x57, 0xFFFFFFFF):
            got = plane.outcome(frame, ctx=skb_context(mark=mark))
            assert got == evaluate(found, frame, metadata=Metadata(mark=mark)), mark


def test_the_interface_at_xdp() -> None:
    found = rule_set(
        "here: count if ifindex 1\nthere: count if not ifindex 1\nway: count if inbound", Hook.XDP
    )
    frame = bytes(Ether() / IPv4() / UDP())
    with DataPlane.of(found) as plane:
        assert plane.outcome(frame) == evaluate(found, frame)
        assert plane.outcome(frame).hits == (FIRST_RULE_SLOT, FIRST_RULE_SLOT + 2)


# ── real traffic ─────────────────────────────────────────────────────────────


def only_counting(seed: int, hook: Hook) -> RuleSet:
    """Random conditions of which every packet meets all, whatever hook it passes first."""
    found = drawn(seed, 10, hook, Layer.TRANSPORT)
    rules = tuple(replace(rule, action=Effect.COUNT) for rule in found.rules)
    conditions = tuple((odd, None) for odd, _ in found.conditions)
    return replace(found, default=Verdict.PASS, conditions=conditions, rules=rules)


def can_be_sent(frame: bytes) -> bool:
    """Whether a frame gets through a veth pair: the kernel drops tags that are cut off before it shows anyone."""
    whole_tags = len(frame) >= 22 or frame[12:14] not in (b"\x81\x00", b"\x88\xa8")
    return 14 < len(frame) <= 1514 and whole_tags


def silence(ends: Ends) -> None:
    """Keep neighbour discovery and the like, the hosts' own, from coming in between."""
    for side, name in zip(ends, ("v0", "v1"), strict=True):
        side.run("sysctl", "-qw", f"net.ipv6.conf.{name}.disable_ipv6=1")


class Places:
    """One filter at all hooks of a veth pair: sent at v1, seen at v1's egress, v0's XDP, TC and packet sockets."""

    def __init__(self, ends: Ends, stack: ExitStack, seed: int) -> None:
        self._ends, self._stack, self._seed = ends, stack, seed
        self.planes: dict[str, DataPlane] = {}
        silence(ends)
        with ends[1].inside():
            index = interface("v1").index
            self.sender = stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
            self.sender.bind(("v1", 0))
            stack.enter_context(attach_tcx(self._plane("egress", Hook.TC_EGRESS), index, Hook.TC_EGRESS))
        with ends[0].inside():
            index = interface("v0").index
            stack.enter_context(self._xdp(index))
            stack.enter_context(attach_tcx(self._plane("ingress", Hook.TC_INGRESS), index, Hook.TC_INGRESS))
            for kind in (socket.SOCK_RAW, socket.SOCK_DGRAM):
                made = stack.enter_context(socket.socket(socket.AF_PACKET, kind, socket.htons(3)))
                program = self._plane(f"socket {kind.name}", Hook.SOCKET)
                made.setsockopt(socket.SOL_SOCKET, SO_ATTACH_BPF, program.fd)
                made.bind(("v0", 3))

    def _xdp(self, index: int) -> Link:
        return attach_xdp(self._plane("xdp", Hook.XDP), index, mode="native")

    def _plane(self, name: str, hook: Hook) -> Program:
        plane = self._stack.enter_context(DataPlane.of(only_counting(self._seed, hook)))
        self.planes[name] = plane
        return plane.program

    def send(self, frame: bytes) -> None:
        """Send a frame and wait until every place has seen it."""
        for plane in self.planes.values():
            plane.expect()
        self.sender.send(frame)
        end = time.monotonic() + PATIENCE_S
        while not all(plane.has_decided for plane in self.planes.values()):
            missing = [name for name, plane in self.planes.items() if not plane.has_decided]
            assert time.monotonic() < end, (missing, frame.hex())


@pytest.mark.parametrize("seed", [41, 42])
def test_real_frames_mean_the_same_at_every_hook(ends: Ends, seed: int) -> None:
    """Tags included: on the way in they lie beside the packet by the time TC and sockets see it."""
    rules = only_counting(seed, Hook.XDP)
    with ExitStack() as stack:
        places = Places(ends, stack, seed)
        for frame in filter(can_be_sent, FRAMES[:240]):
            places.send(frame)
            expected = evaluate(rules, frame)
            for name, plane in places.planes.items():
                assert plane.said() == expected, f"{name}: {frame.hex()}"


def test_what_is_counted_is_what_a_queue_counts(ends: Ends) -> None:
    """A TCP transfer by large segments: at both ends the frames and bytes of the sender's own queue."""
    left, right = ends
    silence(ends)
    left.ip("addr", "add", "10.9.0.1/24", "dev", "v0")
    right.ip("addr", "add", "10.9.0.2/24", "dev", "v1")
    right.run("tc", "qdisc", "replace", "dev", "v1", "root", "pfifo", "limit", "10000")
    with ExitStack() as stack:
        seen = {}
        for name, side, hook in (("v1", right, Hook.TC_EGRESS), ("v0", left, Hook.TC_INGRESS)):
            plane = seen[name] = stack.enter_context(DataPlane.of(rule_set("tcp: count if tcp", hook)))
            with side.inside():
                stack.enter_context(attach_tcx(plane.program, interface(name).index, hook))
        with left.inside():
            listener = stack.enter_context(socket.create_server(("10.9.0.1", 7000)))
        with right.inside():
            sender = stack.enter_context(socket.create_connection(("10.9.0.1", 7000), timeout=PATIENCE_S))
        receiver = stack.enter_context(listener.accept()[0])
        receiver.settimeout(PATIENCE_S)
        before = _queue(right)
        counted = {name: plane.counters()[FIRST_RULE_SLOT] for name, plane in seen.items()}
        sender.setblocking(True)
        sent = 0
        while sent < 1_000_000:
            sender.sendall(bytes(50_000))
            sent += 50_000
            missing = 50_000
            while missing:
                missing -= len(receiver.recv(missing))
        after = _queue(right)
        for name, plane in seen.items():
            packets, octets = plane.counters()[FIRST_RULE_SLOT]
            more = packets - counted[name][0], octets - counted[name][1]
            assert more == (after[0] - before[0], after[1] - before[1]), name
            assert more[0] > sent // 1500


def _queue(side: Namespace) -> tuple[int, int]:
    """Packets and bytes that the queue of v1 has sent."""
    (queue,) = json.loads(side.run("tc", "-s", "-j", "qdisc", "show", "dev", "v1").stdout)
    return queue["packets"], queue["bytes"]
