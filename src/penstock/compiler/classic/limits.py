"""What classic BPF cannot say, rule by rule.

cannot_say(rules, Start.FRAME)   ->  one diagnostic for each rule that has to be left out

A classic program has one answer and no maps: nothing is counted, remembered or
sent elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator

from penstock.compiler.classic.start import Start
from penstock.compiler.ir.depth import leaves
from penstock.compiler.ir.ops import (
    Base,
    Binary,
    Classic,
    Compare,
    FieldRef,
    FieldTerm,
    Literal32,
    Member,
    Over,
    Predicate,
    Read,
    Rule,
    RuleSet,
    Sample,
    Scope,
    Term,
    Within,
)
from penstock.compiler.lang.diagnostic import Diagnostic, Severity
from penstock.errors import PolicyError
from penstock.model.verdict import Verdict

_ACTIONS = {
    "count": "nothing is counted in classic BPF, which has no memory that outlives a packet",
    "audit": "nothing is counted in classic BPF, so `audit` would say nothing",
}


def refuse(rules: RuleSet, start: Start) -> None:
    """Raises PolicyError with everything that classic BPF cannot say, if there is anything."""
    found = tuple(cannot_say(rules, start))
    if found:
        raise PolicyError(found)


def cannot_say(rules: RuleSet, start: Start) -> Iterator[Diagnostic]:
    """One diagnostic for each rule and reason."""
    for rule in rules.rules:
        for code, reason, hint in dict.fromkeys(_reasons(rule, start)):
            message = f"classic BPF cannot say rule {rule.name}: {reason}"
            yield Diagnostic(code, Severity.ERROR, message, rules.source, rule.span, (), hint)


_Reason = tuple[str, str, str | None]


def _reasons(rule: Rule, start: Start) -> Iterator[_Reason]:
    if rule.action not in (Verdict.PASS, Verdict.DROP):
        word = rule.action.value
        told = _ACTIONS.get(word, f"its answer is to keep a packet or to hide it, and `{word}` is neither")
        yield "PS401", told, "leave the rule out, or --classic"
    if rule.until_ns is not None:
        yield "PS402", "it has no clock, and this rule ends at a time", None
    for leaf, _ in leaves(rule.condition):
        yield from _of_leaf(leaf, start)


def _of_leaf(leaf: Predicate, start: Start) -> Iterator[_Reason]:
    match leaf:
        case Within(ref, _):
            yield from _of_field(ref, start)
        case Compare(_, left, right):
            yield from _of_term(left, start)
            yield from _of_term(right, start)
        case Member():
            yield "PS401", "it has no maps, and sets are kept in them", "leave the rule out, or --classic"
        case Over() | Sample():
            word = "over" if isinstance(leaf, Over) else "sample"
            yield "PS402", f"it keeps nothing from packet to packet, and `{word}` would need that", None
        case Classic() if start is not Start.FRAME:
            yield "PS404", _NO_PCAP, "write the expression without `pcap` and quotes"
        case _:
            pass


def _of_term(term: Term, start: Start) -> Iterator[_Reason]:
    match term:
        case FieldTerm(ref):
            yield from _of_field(ref, start)
        case Read():
            yield from _of_read(term, start)
            yield from _of_term(term.offset, start)
        case Binary(_, left, right):
            yield from _of_term(left, start)
            yield from _of_term(right, start)
        case Literal32():
            pass


def _of_read(read: Read, start: Start) -> Iterator[_Reason]:
    if read.base is not Base.FRAME or start is Start.FRAME:
        return
    if start is Start.BARE and (not read.scope or _shares_frame(read.scope)):
        yield "PS403", _BARE, None
        return
    constant = read.offset.value if isinstance(read.offset, Literal32) else None
    if not start.has_frame and _shares_frame(read.scope):
        yield "PS403", "behind an encapsulation the link header of the socket's packet is out of reach", None
    elif constant is None and not read.scope:
        told = "the tag that lies beside the packet would be missed by ether[…] at a computed offset"
        yield "PS403", told if start.has_frame else _NO_FRAME, "read at a constant offset"
    elif constant is not None and not start.has_frame and not read.scope and constant + read.size > 12:
        yield "PS403", _NO_FRAME, "ip[…], ip6[…], tcp[…] and udp[…] count from what is there"


def _shares_frame(scope: Scope) -> bool:
    """Whether a scope behind labels has the frame's own link header."""
    return bool(scope) and all(step == "mpls" for step in scope)


_NO_PCAP = (
    "libpcap's program counts from the frame's first byte with its tags in place, and a socket's packet is not laid "
    "out like that"
)
_BARE = "packets have no link header on this interface"
_NO_FRAME = "of the link header this kind of socket keeps only the two addresses"


def _of_field(ref: FieldRef, start: Start) -> Iterator[_Reason]:
    if ref.name in ("mark", "ifindex", "outbound") and start is Start.FRAME:
        yield "PS403", f"`{ref.name}` lies beside the packet, and a frame by itself does not say it", None
    elif ref.name.startswith("ifname:"):
        yield "PS403", "it knows interfaces by their number only", "ifindex NUMBER"
    elif ref.name.startswith("vlan.") and start.is_untagged and not ref.scope:
        yield "PS403", "VLAN tags are gone when a packet comes to this kind of socket", None
    elif ref.name == "len" and start is Start.TRANSPORT:
        yield "PS403", "the frame's length is not known where the packet starts at its transport header", None
    elif ref.name in ("eth.dst", "eth.src") and start is Start.BARE and not ref.scope:
        yield "PS403", _BARE, None
    elif ref.name in ("eth.dst", "eth.src") and not start.has_frame and _shares_frame(ref.scope):
        yield "PS403", "behind an encapsulation the link header of the socket's packet is out of reach", None
