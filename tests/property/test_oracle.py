"""The reference evaluator against libpcap: the same answer, but where the language page says otherwise.

Expressions are drawn, and each is put to a whole collection of frames, valid
ones and broken ones.  Where the answers differ, one of the documented reasons
must apply *to this pair*: libpcap ran over the packet's end in an expression
that is not a plain conjunction, or the packet has the feature (a tag, an
extension header …) of which the two meanings differ.  Such pairs are counted,
and must stay few.  Each documented difference has a case of its own in
`tests/unit/test_differences.py`, with both answers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests import frames
from tests.property import expressions
from tests.strategies import expression_texts

from penstock.compiler.ir.classic import run
from penstock.compiler.ir.depth import leaves
from penstock.compiler.ir.evaluate import Packet, holds
from penstock.compiler.ir.lower import lower_expression
from penstock.compiler.ir.ops import (
    All,
    Any,
    Binary,
    Compare,
    FieldRef,
    FieldTerm,
    HeaderWalked,
    Negation,
    Predicate,
    Read,
    Scope,
    Term,
    Within,
)
from penstock.compiler.lang import ast
from penstock.compiler.lang.parser import parse_expression
from penstock.compiler.lang.source import Source
from penstock.compiler.libpcap import LibpcapError, Program, compile_filter
from penstock.errors import PenstockError, PolicyError

NETMASK = 0xFFFF0000
EXAMPLES = 400


@dataclass(frozen=True)
class Pair:
    """One expression in both forms."""

    text: str
    tree: ast.Expr | None
    predicate: Predicate
    program: Program
    literal: Program

    def asked_tags(self, scope: Scope) -> int:
        """How many tags of a scope the expression steps over by itself, before it asks anything else."""
        if not self.text.startswith(("vlan", "geneve")):
            return 0
        tags = [
            ref.index + 1 for ref in _refs(self.predicate) if ref.name == "vlan.tpid" and ref.scope == scope
        ]
        return max(tags, default=0)

    def libpcap(self, frame: bytes) -> bool:
        return self.program.matches(frame)

    def penstock(self, packet: Packet) -> bool:
        return holds(self.predicate, packet)


def compiled(text: str) -> Pair | None:
    """Both forms of an expression; None when both sides refuse it, an error when only one does."""
    source = Source("<expression>", text)
    theirs = _refusal(lambda: optimized(text, compile_filter(text, netmask=NETMASK, optimize=False)))
    ours = _refusal(lambda: lower_expression(parse_expression(source), source, netmask=NETMASK))
    if theirs is None and ours is None:
        tree, literal = parse_expression(source), compile_filter(text, netmask=NETMASK, optimize=False)
        predicate = lower_expression(tree, source, netmask=NETMASK)
        return Pair(text, tree, predicate, optimized(text, literal), literal)
    if ours is None:
        # libpcap looks at the first constant of a right operand only: `8 >> (40 - 38)` is refused.
        constant = "by zero" in str(theirs) or "31 bits" in str(theirs)
        assert constant or _confined(parse_expression(source)), f"libpcap alone refuses {text!r}: {theirs}"
    if theirs is None:
        # libpcap lets a divisor be computed to zero, and its program then dies of it.
        assert isinstance(ours, PolicyError)
        assert {found.code for found in ours.diagnostics} == {"PS307"}, f"penstock alone refuses {text!r}"
    return None


def _refusal(attempt: Callable[[], object]) -> PenstockError | None:
    try:
        attempt()
    except PenstockError as refused:
        return refused
    return None


def optimized(text: str, literal: Program) -> Program:
    """What tcpdump runs; libpcap's optimizer refuses expressions that nothing can match, those run as they are."""
    try:
        return compile_filter(text, netmask=NETMASK)
    except LibpcapError as refused:
        if "rejects all packets" in refused.message:
            return literal
        raise


# ── documented differences ───────────────────────────────────────────────────


def differences(pair: Pair, frame: bytes) -> set[str]:
    """The documented reasons for which this pair may be answered differently."""
    packet = Packet(frame)
    return {
        *_truncation(pair, frame),
        *(reason for scope in _scopes(pair.predicate) for reason in _features(pair, packet, scope)),
        *_expression_reasons(pair),
    }


def _truncation(pair: Pair, frame: bytes) -> set[str]:
    found = set()
    result = run(pair.program.instructions, frame)
    literal = run(pair.literal.instructions, frame)
    if result.out_of_bounds and not (_is_plain(pair.tree) and _is_conjunction(pair.predicate)):
        found.add("truncated")
    if result.zero_divisor:
        found.add("a division by zero")
    if literal != result:
        found.add("libpcap's optimizer left a load out")
    return found


def _is_plain(tree: ast.Expr | None) -> bool:
    """Whether an expression has no connective but `and`."""
    return not any(isinstance(node, ast.Or | ast.Xor | ast.Not) for node in nodes(tree))


def _is_conjunction(predicate: Predicate) -> bool:
    """Whether nothing could make the expression true once one of its tests has failed."""
    match predicate:
        case All(operands):
            return all(_is_conjunction(operand) for operand in operands)
        case Any() | Negation():
            return False
        case _:
            return True


def _features(pair: Pair, packet: Packet, scope: Scope) -> set[str]:
    headers = packet.headers(scope)
    if headers is None:
        return set()
    found = set()
    network = headers.link.network
    if _tags(packet, headers.link.tags) > pair.asked_tags(scope):
        found.add("vlan tags are stepped over")
    if headers.network.walked:
        found.add("extension headers are walked")
    if headers.is_ipv6 and _has_accessor(pair.tree, {"tcp", "udp", "sctp", "pim"}):
        found.add("accessors of IPv6")
    if headers.link.frame is None and _has_accessor(pair.tree, {"ether"}):
        found.add("no Ethernet header behind Geneve")
    negative = "[0 - 4" in pair.text or "[0xffffffff" in pair.text
    if negative and ((headers.is_ipv6 and "icmp6[" in pair.text) or "geneve" in scope):
        found.add("negative offsets")
    second = packet.number(headers.network.transport, 1) if headers.network.proto == 51 else None
    if "protochain" in pair.text and headers.is_ipv4 and second == 51:
        found.add("libpcap loses its way behind a second AH")
    first = packet.number(network, 1) if headers.is_ipv4 else None
    if first is not None and first & 0x0F < 5:
        found.add("ihl below 5")
    if headers.is_ipv4 and headers.network.frag == 2 and "protochain" in pair.text:
        found.add("fragments have no chain")
    return found


def _tags(packet: Packet, start: int | None) -> int:
    count = 0
    while start is not None and packet.number(start + 4 * count, 2) in (0x8100, 0x88A8, 0x9100):
        count += 1
    return count


def _has_accessor(tree: object, protocols: set[str]) -> bool:
    return any(isinstance(node, ast.Accessor) and node.protocol in protocols for node in nodes(tree))


def nodes(tree: object) -> list[object]:
    """Every node of a syntax tree."""
    found = [tree]
    for name in getattr(tree, "__slots__", ()):
        child = getattr(tree, name)
        if hasattr(child, "span"):
            found.extend(nodes(child))
    return found


def _confined(tree: ast.Expr | None) -> bool:
    """Whether an encapsulation stands in an `or` or `not`, out of which it does not reach."""
    return any(
        isinstance(inside, ast.Encapsulation) and inside.kind != "pppoed"
        for node in nodes(tree)
        if isinstance(node, ast.Or | ast.Xor | ast.Not)
        for inside in nodes(node)
    )


def _expression_reasons(pair: Pair) -> set[str]:
    found = {"encapsulations reach no further than `and`"} if _confined(pair.tree) else set()
    for node in nodes(pair.tree):
        inner = isinstance(node, ast.Binary | ast.Relation) and _has_accessor(node.right, _CHECKED)
        if isinstance(node, ast.Binary) and inner:
            found.add("the right operand's protocol is tested, too")
    return found


_CHECKED = {"ip", "ip6", "arp", "rarp", "tcp", "udp", "sctp", "icmp", "icmp6", "igmp", "pim", "vrrp"}


def _scopes(predicate: Predicate) -> set[Scope]:
    found: set[Scope] = {()}
    for leaf, _ in leaves(predicate):
        match leaf:
            case Compare(_, left, right):
                found |= {part.scope for part in (*_parts(left), *_parts(right)) if isinstance(part, Read)}
            case HeaderWalked(_, scope, _):
                found.add(scope)
    return found | {ref.scope for ref in _refs(predicate)}


def _refs(predicate: Predicate) -> list[FieldRef]:
    """Every field that the predicate asks."""
    found = []
    for leaf, _ in leaves(predicate):
        match leaf:
            case Within(ref, _):
                found.append(ref)
            case Compare(_, left, right):
                found += [part.ref for part in (*_parts(left), *_parts(right)) if isinstance(part, FieldTerm)]
    return found


def _parts(term: Term) -> list[Term]:
    """The term and all that it is made of."""
    match term:
        case Binary(_, left, right):
            return [term, *_parts(left), *_parts(right)]
        case Read(_, offset, _, _):
            return [term, *_parts(offset)]
        case _:
            return [term]


# ── the comparison ───────────────────────────────────────────────────────────


class Tally:
    """How many pairs were compared, matched, and excused for which reason."""

    def __init__(self) -> None:
        self.compared = self.matched = 0
        self.excused: Counter[str] = Counter()

    def compare(self, text: str, collection: list[bytes]) -> None:
        """Every frame against one expression.  A difference without a documented reason is a failure."""
        pair = compiled(text)
        if pair is None:
            return
        for frame in collection:
            theirs, ours = pair.libpcap(frame), pair.penstock(Packet(frame))
            self.compared += 1
            self.matched += theirs
            if theirs != ours:
                reasons = differences(pair, frame)
                assert reasons, f"{text!r}: libpcap {theirs}, penstock {ours}, frame {frame.hex()}"
                self.excused.update([min(reasons)])

    def check(self, *, least: int, excused: float) -> None:
        """Enough was compared, enough of it matched, and little was excused."""
        share = sum(self.excused.values()) / self.compared
        print(f"{self.compared} pairs, {self.matched} matched, excused {dict(self.excused)}")
        assert self.compared >= least
        assert self.matched >= self.compared // 100, f"{self.matched} of {self.compared} pairs matched at all"
        assert share <= excused, f"{share:.1%} of {self.compared} pairs were excused: {self.excused}"


oracle = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

UNTAGGED = ("ipv4", "ipv4 options", "ipv4 fragments", "ipv6", "link", "odd")


@pytest.mark.check(9)
def test_untagged_frames() -> None:
    tally = Tally()
    whole = frames.frames(*UNTAGGED)

    @oracle
    @given(expressions.plain(), st.lists(frames.broken(*UNTAGGED), min_size=5, max_size=30))
    def compare(text: str, some: list[bytes]) -> None:
        tally.compare(text, whole + some)

    compare()
    tally.check(least=10_000, excused=0.04)


@pytest.mark.check(9)
def test_any_expression_and_any_frame() -> None:
    tally = Tally()
    whole = frames.frames()

    @oracle
    @given(expression_texts(), st.lists(frames.broken(), min_size=5, max_size=20))
    def compare(text: str, some: list[bytes]) -> None:
        tally.compare(text, whole + some)

    compare()
    tally.check(least=10_000, excused=0.1)


PREFIXED = {
    "one tag": ("vlan", "vlan 5", "vlan 6", "vlan 100"),
    "two tags": ("vlan and vlan", "vlan 5 and vlan 6", "vlan and vlan 5"),
    "mpls": ("mpls", "mpls 16", "mpls and mpls", "mpls 100 and mpls 16", "mpls and mpls and mpls"),
    "pppoe": ("pppoes", "pppoes 7", "pppoes 1"),
    "geneve": ("geneve", "geneve 5", "geneve 1"),
}


@pytest.mark.check(9)
@pytest.mark.parametrize("kind", PREFIXED)
def test_behind_an_encapsulation(kind: str) -> None:
    tally = Tally()
    whole = frames.frames(kind)
    anywhere = kind in ("mpls", "pppoe")
    inner = expressions.on_any_link() if anywhere else expressions.plain()

    @settings(oracle, max_examples=EXAMPLES // 4)
    @given(
        st.sampled_from(PREFIXED[kind]).flatmap(lambda prefix: expressions.behind(prefix, inner)),
        st.lists(frames.broken(kind), min_size=10, max_size=30),
    )
    def compare(text: str, some: list[bytes]) -> None:
        tally.compare(text, whole + some)

    compare()
    tally.check(least=1_500, excused=0.04)


@pytest.mark.check(9)
@pytest.mark.parametrize(
    "text",
    [
        "ip",
        "ip6",
        "host 10.0.0.1",
        "net 2001:db8::/32",
        "tcp",
        "udp dst port 53",
        "port 80",
        "portrange 20-500",
        "icmp",
        "ip proto 17",
        "tcp[tcpflags] & tcp-syn != 0",
        "ip[6:2] & 0x1fff != 0",
        "icmp6[icmp6type] = 128",
        "arp src host 10.0.0.1",
        "ether dst ff:ff:ff:ff:ff:ff",
        "llc",
        "stp",
        "ipx",
        "isis",
        "decnet host 1.2",
        "ether multicast",
        "ip multicast",
        "vlan",
        "vlan 5",
        "vlan and vlan",
        "mpls 16",
        "mpls and mpls and ip",
        "pppoes 7 and udp",
        "geneve",
        "geneve 5 and tcp",
        "less 40",
    ],
)
def test_every_frame_cut_at_every_byte(text: str) -> None:
    tally = Tally()
    tally.compare(text, [cut for frame in frames.frames() for cut in frames.truncations(frame)])
    assert tally.compared > 8_000
    assert tally.matched > 0
