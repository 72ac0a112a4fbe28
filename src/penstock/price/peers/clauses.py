"""What a policy says in terms that other filters have too, or why it cannot be said so.

In: a rule set.  Out: for each rule clauses, one of which a packet has to
satisfy.  A clause tests fields that are there: whether a field can be absent is
turned into tests of family and protocol, because an absent port is false here
and whatever bytes lie at its place elsewhere.

    drop if not udp port 53   ->   protocols but 17 | udp, sport but 53, dport but 53

Peers are compared on what every one of them sees: whole, well-formed, untagged
IPv4 and IPv6 packets without IPv4 options and extension headers (`is_common`),
and none that the stack drops on its own account before it asks a filter.
A rule about anything else is refused, never approximated.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product

from penstock.compiler.diagram.disjunction import Term, TooManyTermsError, terms
from penstock.compiler.ir.evaluate import Packet, conditions_of
from penstock.compiler.ir.ops import Effect, FieldRef, Rule, RuleSet
from penstock.model.field import Layer
from penstock.model.net import IntervalSet
from penstock.model.verdict import Verdict

IPV4, IPV6 = 0x0800, 0x86DD
FAMILIES = {IPV4: 4, IPV6: 6}
ANY_PROTOCOL = IntervalSet.full(8)
#: A rule that falls into more clauses than this is refused.
MAX_CLAUSES = 256
_ANY_SIZE = 1 << 62

_BOTH = frozenset({4, 6})
_PORTS = IntervalSet.single(6, 17, 132)
_TCP, _UDP = IntervalSet.single(6), IntervalSet.single(17)

#: field -> (families, protocols) of the common packets that have it.
_PRESENT: dict[str, tuple[frozenset[int], IntervalSet]] = {
    "eth.src": (_BOTH, ANY_PROTOCOL),
    "eth.dst": (_BOTH, ANY_PROTOCOL),
    "ttl": (_BOTH, ANY_PROTOCOL),
    "dscp": (_BOTH, ANY_PROTOCOL),
    "ecn": (_BOTH, ANY_PROTOCOL),
    **{name: (frozenset({4}), ANY_PROTOCOL) for name in ("addr.src", "addr.dst", "ip.id", "ip.len", "ip.df")},
    **{name: (frozenset({6}), ANY_PROTOCOL) for name in ("ip6.src", "ip6.dst", "ip6.flow")},
    **dict.fromkeys(("sport", "dport"), (_BOTH, _PORTS)),
    **{f"tcp.{part}": (_BOTH, _TCP) for part in ("seq", "ack", "flags", "window")},
    "udp.len": (_BOTH, _UDP),
    **{f"icmp.{part}": (frozenset({4}), IntervalSet.single(1)) for part in ("type", "code")},
    **{f"icmp6.{part}": (frozenset({6}), IntervalSet.single(58)) for part in ("type", "code")},
}


@dataclass(frozen=True, slots=True)
class Clause:
    """A conjunction; `families` of 4 and 6, `tests` of fields that packets of these protocols have."""

    families: frozenset[int]
    protocols: IntervalSet
    tests: tuple[tuple[str, IntervalSet], ...]

    def only(self, family: int) -> Clause:
        """The same for one family."""
        return Clause(self.families & {family}, self.protocols, self.tests)


@dataclass(frozen=True, slots=True)
class PlainRule:
    """A rule as clauses; without any it matches no common packet."""

    name: str
    line: int
    action: Verdict | Effect
    clauses: tuple[Clause, ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A rule that cannot be said, and why."""

    rule: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"rule {self.rule} (line {self.line}) {self.reason}"


#: Actions that the other filters have, or that they can say why they have not.
_PLAIN = frozenset({Verdict.PASS, Verdict.DROP, Verdict.BOUNCE, Effect.COUNT, Effect.AUDIT})


class CannotSayError(Exception):
    """Some rules cannot be said; all of them are listed."""

    def __init__(self, refusals: Iterable[Refusal]) -> None:
        self.refusals = tuple(refusals)
        more = f" (and {len(self.refusals) - 1} more rules)" if len(self.refusals) > 1 else ""
        super().__init__(f"{self.refusals[0]}{more}")


class UnsayableError(Exception):
    """One rule cannot be said: the predicate of a sentence about it."""


def plain_rules(rule_set: RuleSet) -> tuple[PlainRule, ...]:
    """The rules as clauses, in order.

    Raises:
        CannotSayError: naming every rule that only penstock can say.
    """
    found, refused = [], []
    for rule in rule_set.rules:
        try:
            if rule.action not in _PLAIN:
                raise UnsayableError(f"is `{rule.doing}`, which is not compared")
            found.append(PlainRule(rule.name, rule.line, rule.action, _clauses(rule)))
        except UnsayableError as error:
            refused.append(Refusal(rule.name, rule.line, str(error)))
    if rule_set.default not in _PLAIN:
        refused.append(Refusal("default", 1, f"is `{rule_set.default.value}`, which is not compared"))
    if refused:
        raise CannotSayError(refused)
    return tuple(found)


def is_common(frame: bytes) -> bool:
    """Whether every peer sees this frame as penstock does: see the module's docstring."""
    packet = Packet(frame)
    headers = packet.headers()
    if headers is None or headers.link.network != 14 or conditions_of(packet, Layer.TRANSPORT):
        return False
    if headers.network.frag != 0:
        return False
    if headers.is_ipv4:
        return _has_right_checksum(frame[14:34])
    # A payload length of 0 is a jumbogram's here (RFC 2675), elsewhere a packet without a payload.
    has_payload = frame[18:20] != bytes(2)
    is_plain = headers.is_ipv6 and has_payload and not headers.network.walked
    return is_plain and _is_received(frame[22:38], frame[38:54])


def _has_right_checksum(header: bytes) -> bool:
    """The stack drops an IPv4 packet with a wrong one before any of its hooks (ip_rcv_core)."""
    total = sum(int.from_bytes(header[at : at + 2], "big") for at in range(0, len(header), 2))
    return (total & 0xFFFF) + (total >> 16) == 0xFFFF


def _is_received(source: bytes, target: bytes) -> bool:
    """The stack drops IPv6 packets of such addresses before any of its hooks (ip6_rcv_core)."""
    loopback = bytes(15) + b"\1"
    is_multicast, is_node_local = source[0] == 0xFF, target[0] == 0xFF and target[1] & 0x0F <= 1
    return not is_multicast and not is_node_local and loopback not in (source, target)


def _clauses(rule: Rule) -> tuple[Clause, ...]:
    if rule.until_ns is not None:
        raise UnsayableError("lapses at a time")
    try:
        alternatives = terms(rule.condition, _ANY_SIZE)
    except TooManyTermsError as error:
        raise UnsayableError("falls into too many cases") from error
    found = tuple(dict.fromkeys(clause for term in alternatives for clause in _of_term(term)))
    if len(found) > MAX_CLAUSES:
        raise UnsayableError("falls into too many cases")
    return found


def _of_term(term: Term) -> Iterator[Clause]:
    if term.opaque:
        raise UnsayableError("computes with the packet's bytes or looks behind a tunnel")
    parts = [tuple(_of_test(ref, values)) for ref, values in term.fields.items()]
    for choice in product(*parts):
        clause = _joined(choice)
        if clause is not None:
            yield clause


def _of_test(ref: FieldRef, values: IntervalSet) -> Iterator[Clause]:
    """The test of a field that may be absent as tests of fields that are there."""
    bits = ref.field.bits
    held, is_absent = values & IntervalSet.full(bits), 1 << bits in values
    match ref.name:
        case "eth.type":
            yield Clause(frozenset(FAMILIES[kind] for kind in FAMILIES if kind in held), ANY_PROTOCOL, ())
        case "proto":
            yield Clause(_BOTH, held, ())
        case name if name in _PRESENT:
            families, protocols = _PRESENT[name]
            if held:
                tests = () if held.is_full(bits) else ((name, held),)
                yield Clause(families, protocols, tests)
            if is_absent:
                yield Clause(_BOTH - families, ANY_PROTOCOL, ())
                yield Clause(families, ANY_PROTOCOL - protocols, ())
        case name:
            raise UnsayableError(f"asks for {name}, which the peers do not compare alike")


def _joined(clauses: Iterable[Clause]) -> Clause | None:
    families, protocols, tests = _BOTH, ANY_PROTOCOL, dict[str, IntervalSet]()
    for clause in clauses:
        families, protocols = families & clause.families, protocols & clause.protocols
        for name, values in clause.tests:
            tests[name] = tests[name] & values if name in tests else values
    if not families or not protocols or not all(tests.values()):
        return None
    return Clause(families, protocols, tuple(sorted(tests.items())))


# ── what several translators need ────────────────────────────────────────────


def by_family(clause: Clause) -> Iterator[Clause]:
    """The clause once for each of its families."""
    for family in sorted(clause.families):
        yield clause.only(family)


def masks(values: IntervalSet) -> tuple[tuple[int, int], ...]:
    """A byte's values as (mask, value) pairs: in the set is what has some ``byte & mask == value``; few, not fewest."""
    whole = sum(1 << number for low, high in values for number in range(low, high + 1))
    left, found = whole, list[tuple[int, int]]()
    for mask in sorted(range(256), key=int.bit_count):
        for value in sorted({number & mask for number in range(256) if left >> number & 1}):
            held = _held(mask, value)
            if held & left and not held & ~whole:
                found.append((mask, value))
                left &= ~held
    return tuple(found)


@cache
def _held(mask: int, value: int) -> int:
    """The bytes with ``byte & mask == value``, as bits of a number."""
    return sum(1 << number for number in range(256) if number & mask == value)
