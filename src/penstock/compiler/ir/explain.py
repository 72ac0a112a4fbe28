"""Why a packet met its verdict: for every rule before the deciding one, the first term that failed.

>>> story = explain(rule_set, frame)              # doctest: +SKIP
>>> [(miss.rule.name, miss.reason) for miss in story.rules]   # doctest: +SKIP
[('dns', 'destination port is 54, wanted 53'), ('ping', 'not IPv4: no ICMP')]

A term is one test of one field.  In a conjunction it is the first that is
false; in a disjunction all are, and the one that came nearest is named: the
first whose field the packet has.  Under `not` it is the test that was true.

What a rule that holds asked besides the packet itself is told as well: which entry
of which set has it, and what its bucket is taken to hold (reasons.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, assert_never

from penstock.compiler.ir.buckets import FULL, Buckets, key_of
from penstock.compiler.ir.classic import run
from penstock.compiler.ir.dump import dump_interval, dump_predicate, dump_term
from penstock.compiler.ir.evaluate import change, evaluate_packet, holds, matches, term_value
from penstock.compiler.ir.headers import Packet, frame_length
from penstock.compiler.ir.ops import (
    FIRST_RULE_SLOT,
    All,
    Always,
    Any,
    Classic,
    Compare,
    FieldRef,
    FieldTerm,
    HeaderWalked,
    Literal32,
    Member,
    Negation,
    Over,
    Predicate,
    Rule,
    RuleSet,
    Sample,
    Term,
    Within,
)
from penstock.compiler.ir.outcome import Outcome
from penstock.compiler.ir.reasons import PROTOCOL_WORDS, reasons, shown, told
from penstock.compiler.ir.stores import EMPTY, SetContent, Stores
from penstock.model.field import VLAN_TPIDS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penstock.model.net import IntervalSet

#: More values than this are not listed one by one.
MAX_SHOWN = 4

_WORDS = {
    "len": "length", "eth.dst": "destination MAC", "eth.src": "source MAC", "eth.type": "Ethernet type",
    "addr.src": "source address", "addr.dst": "destination address",
    "ip.src": "IPv4 source", "ip.dst": "IPv4 destination",
    "ip6.src": "IPv6 source", "ip6.dst": "IPv6 destination",
    "proto": "protocol", "ip.proto": "IPv4 protocol", "ip6.proto": "IPv6 protocol", "chain.proto": "protocol",
    "sport": "source port", "dport": "destination port", "frag.offset": "fragment offset",
    "tcp.sport": "TCP source port", "tcp.dport": "TCP destination port",
    "udp.sport": "UDP source port", "udp.dport": "UDP destination port",
    "vlan.id": "VLAN id", "vlan.tpid": "tag type",
}  # fmt: skip
_FRAGMENTS = {0: "not a fragment", 1: "a first fragment", 2: "a later fragment"}


@dataclass(frozen=True, slots=True)
class Passed:
    """A rule that did not decide: it `matched` (audit, count), or failed for the `reason`."""

    rule: Rule
    slot: int
    matched: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """The outcome, and every rule that was tried before the search ended, in order.

    `because` is what the rule that decided found in sets and buckets.
    """

    outcome: Outcome
    rules: tuple[Passed, ...]
    because: tuple[str, ...] = ()


def explain(
    rule_set: RuleSet,
    frame: bytes,
    wire_length: int | None = None,
    now_ns: int | None = None,
    *,
    sets: Mapping[str, SetContent] | None = None,
    buckets: Buckets = FULL,
) -> Explanation:
    """What becomes of a frame, and why not something else; arguments as for `evaluate`.

    What `sets` says nothing of is empty at first.  Rules behind find what rules in front have added.
    """
    packet = Packet(frame, wire_length)
    outcome = evaluate_packet(rule_set, packet, now_ns, _stores(rule_set, sets, buckets))
    stores = _stores(rule_set, sets, buckets)
    tried: list[Passed] = []
    because: tuple[str, ...] = ()
    if outcome.slot == 0 or outcome.slot >= FIRST_RULE_SLOT:
        for slot, rule in enumerate(rule_set.rules, FIRST_RULE_SLOT):
            if slot == outcome.slot:
                because = reasons(rule.condition, packet, stores)
                break
            tried.append(_passed(rule, slot, packet, now_ns, stores))
    return Explanation(outcome, tuple(tried), because)


def _stores(rule_set: RuleSet, sets: Mapping[str, SetContent] | None, buckets: Buckets) -> Stores:
    """What rules can ask, with nothing added by rules yet."""
    known = sets or {}
    contents = {
        spec.name: SetContent(
            spec.kind, known[spec.name].entries if spec.name in known else {}, spec.timeout_ns
        )
        for spec in rule_set.sets
    }
    return Stores(contents, buckets=buckets)


def _passed(rule: Rule, slot: int, packet: Packet, now_ns: int | None, stores: Stores) -> Passed:
    if matches(rule, packet, now_ns, stores):
        because = "".join(f": {one}" for one in ["; ".join(reasons(rule.condition, packet, stores))] if one)
        if rule.target is not None:
            change(rule, packet, stores)
        return Passed(
            rule, slot, matched=True, reason=f"matched{because}; {rule.action.value} does not decide"
        )
    if holds(rule.condition, packet, stores):
        return Passed(rule, slot, matched=False, reason="its time is over")
    return Passed(rule, slot, matched=False, reason=first_failure(rule.condition, packet, stores))


def first_failure(predicate: Predicate, packet: Packet, stores: Stores = EMPTY) -> str:
    """The first term for which the predicate is false of the packet, with what the packet had."""
    return _blame(predicate, packet, stores, wanted=True)[0]


#: A sentence, and whether the packet had what was asked about.
_Blame = tuple[str, bool]


def _blame(predicate: Predicate, packet: Packet, stores: Stores, *, wanted: bool) -> _Blame:
    """Why the predicate is not `wanted`, given that it is not."""
    match predicate:
        case Negation(operand):
            return _blame(operand, packet, stores, wanted=not wanted)
        case All(operands) if wanted:
            return _blame(
                next(one for one in operands if not holds(one, packet, stores)), packet, stores, wanted=True
            )
        case All(operands):
            return _blame(operands[-1], packet, stores, wanted=False)
        case Any(operands) if wanted:
            blames = [_blame(one, packet, stores, wanted=True) for one in operands]
            return next((blame for blame in blames if blame[1]), blames[0])
        case Any(operands):
            return _blame(
                next(one for one in operands if holds(one, packet, stores)), packet, stores, wanted=False
            )
        case Always():
            return "it never matches", True
        case Within(ref, values):
            return _blame_field(ref, values, packet, wanted=wanted)
        case Compare():
            return _blame_comparison(predicate, packet, wanted=wanted)
        case HeaderWalked(number, _, _):
            return f"{'no' if wanted else 'has an'} extension header {number}", not wanted
        case Member() | Over() | Sample():
            return _blame_kept(predicate, packet, stores)
        case Classic():
            return _blame_program(predicate, packet, wanted=wanted)
        case _:
            assert_never(predicate)


def _blame_program(test: Classic, packet: Packet, *, wanted: bool) -> _Blame:
    result, text = run(test.program, packet.frame, frame_length(packet)), dump_predicate(test)
    if result.out_of_bounds:
        return f"{text} reads beyond the packet's end, which makes it false as a whole", False
    if result.zero_divisor:
        return f"{text} divides by zero, which makes it false as a whole", False
    return f"{text} does not match" if wanted else f"{text} matches", True


def _blame_kept(test: Member | Over | Sample, packet: Packet, stores: Stores) -> _Blame:
    """What a set or a bucket says; a packet without the key has nothing to ask with."""
    if isinstance(test, Member):
        absent = next((ref for ref in test.keys if packet.value(ref) is None), None)
        if absent is not None:
            return _absence(absent, packet), False
    elif isinstance(test, Over) and key_of(test, packet) is None:
        return f"it has no {test.limiter.key.kind} to be limited by", False
    return told(test, packet, stores), True


def _blame_field(ref: FieldRef, values: IntervalSet, packet: Packet, *, wanted: bool) -> _Blame:
    found = packet.value(ref)
    if ref.scope[-1:] == ("inner",) and packet.headers(ref.scope) is None:
        what = "the packet inside" if len(ref.scope) > 1 else "it"
        return f"{what} carries no packet: no tunnel that is looked into", False
    if ref.name == "len" and ref.scope and not wanted:
        return "it carries a packet", True
    name, inner = _WORDS.get(ref.name, ref.name), " of the inner packet" if ref.scope else ""
    if found is None:
        what, _, why = _absence(ref, packet).partition(":")
        return f"{what}{inner}" + (f":{why}" if why else ""), False
    if ref.name == "frag":
        wish = " or ".join(text for value, text in _FRAGMENTS.items() if (value in values) == wanted)
        return f"it is {_FRAGMENTS[found]}{inner}, wanted {wish}", True
    if ref.name == "vlan.tpid" and values.size() == len(VLAN_TPIDS):
        return f"{'no' if wanted else 'has a'} VLAN tag{inner}", True
    verb = "wanted" if wanted else "wanted anything but"
    return f"{name}{inner} is {shown(ref, found)}, {verb} {_listed(ref, values)}", True


def _listed(ref: FieldRef, values: IntervalSet) -> str:
    texts = [
        shown(ref, interval[0]) if interval[0] == interval[1] else dump_interval(ref, interval)
        for interval in values.intervals[:MAX_SHOWN]
    ]
    more = len(values.intervals) - len(texts)
    return " or ".join(texts) + (f" or {more} more" if more else "")


def _absence(ref: FieldRef, packet: Packet) -> str:
    """Why the packet does not have the field."""
    name = _WORDS.get(ref.name, ref.name)
    headers = packet.headers(ref.scope)
    if headers is None:
        return f"no {ref.scope[-1].upper()} header" if ref.scope else "no header"
    if ref.name == "eth.type" and ref.scope[-1:] == ("mpls",):
        return "no IP header directly behind the label"
    family = ref.name.partition(".")[0]
    if (family == "ip" and not headers.is_ipv4) or (family == "ip6" and not headers.is_ipv6):
        return f"no {'IPv4' if family == 'ip' else 'IPv6'} header"
    if ref.name in ("addr.src", "addr.dst") and not (headers.is_ipv4 or headers.is_arp):
        return "no IPv4 or ARP header"
    needed = {"tcp": 6, "udp": 17, "icmp": 1, "icmp6": 58}.get(family)
    ports = ref.name in ("sport", "dport")
    if needed is not None and headers.network.proto != needed:
        return f"no {PROTOCOL_WORDS[needed]} header"
    if ports and headers.network.proto not in (6, 17, 132):
        return "no TCP, UDP or SCTP header"
    if (needed is not None or ports) and headers.network.frag == 2:
        return f"a later fragment has no {name}"
    if not (headers.is_ipv4 or headers.is_ipv6) and ref.field.layer > 1:
        return "no IP header"
    return f"no {name}: the packet is too short or broken"


def _blame_comparison(test: Compare, packet: Packet, *, wanted: bool) -> _Blame:
    left, right = term_value(test.left, packet), term_value(test.right, packet)
    if left is None or right is None:
        return f"{dump_predicate(test)} reads what the packet does not have", False
    verb = "wanted" if wanted else "not wanted"
    bound = "" if isinstance(test.right, Literal32) else f", which is {_value(test.right, right)}"
    found = f"{dump_term(test.left)} is {_value(test.left, left)}"
    return f"{found}, {verb} {test.operator} {dump_term(test.right)}{bound}", True


def _value(term: Term, value: int) -> str:
    """A term's value, as its field is written."""
    return shown(term.ref, value) if isinstance(term, FieldTerm) else str(value)
