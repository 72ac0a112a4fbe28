"""Rules that can never match because an earlier rule of the filter decides their packets.

The simple cases, told from the text alone: an earlier rule without condition,
with the same condition, or with one that asks for less (`udp` before
`udp dst port 53`).  Nothing reported here is ever wrong; not everything that is
shadowed is found.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from penstock.compiler.lang.ast import (
    Accessor,
    Address,
    Direction,
    Encapsulation,
    Expr,
    Filter,
    Kind,
    Prefix,
    Primitive,
    Protocol,
    Qualifiers,
    Relation,
    Rule,
)
from penstock.compiler.lang.findings import Findings
from penstock.compiler.lang.spelling import format_expression, spell_leaf
from penstock.compiler.lang.walk import alternatives, conjuncts, leaves, terms

_DECIDING = frozenset({"pass", "drop", "bounce"})
#: A rule with more alternatives than this is only compared as a whole.
_MOST_ALTERNATIVES = 256


def check_shadows(item: Filter, findings: Findings) -> None:
    """Warn of each rule that can never match, and name the rule that shadows it."""
    seen = _Seen()
    for rule in item.rules:
        before = seen.everything
        if before is not None:
            message = f"this rule can never match: {_name(before, findings)} decides every packet"
            findings.warning("PS201", message, rule.span)
            continue
        found = seen.shadowing(rule)
        if found is not None:
            code, shadowing, reason = found
            message = f"this rule can never match: {_name(shadowing, findings)} {reason}"
            findings.warning(code, message, rule.span)
        elif rule.action in _DECIDING:
            seen.add(rule)


def _name(rule: Rule, findings: Findings) -> str:
    label = f"`{rule.label}` " if rule.label else ""
    return f"the rule {label}on {findings.place(rule.span)}"


class _Seen:
    """The deciding rules so far, found by what they ask for."""

    def __init__(self) -> None:
        self.everything: Rule | None = None
        self._by_text: dict[str, Rule] = {}
        self._by_term: dict[str, list[tuple[frozenset[str], Rule]]] = {}
        self._lengths: set[int] = set()

    def add(self, rule: Rule) -> None:
        if rule.condition is None:
            self.everything = rule
            return
        self._by_text.setdefault(format_expression(rule.condition), rule)
        self._lengths.update(_prefix_lengths(rule.condition))
        for alternative in _alternatives(rule.condition):
            asked = frozenset(format_expression(term) for term in conjuncts(alternative))
            self._by_term.setdefault(min(asked), []).append((asked, rule))

    def shadowing(self, rule: Rule) -> tuple[str, Rule, str] | None:
        """The code, the earlier rule that decides all packets of this one, and why it does."""
        if rule.condition is None:
            return None
        same = self._by_text.get(format_expression(rule.condition))
        if same is not None:
            return "PS202", same, "has the same condition"
        found = [self._wider(alternative) for alternative in _alternatives(rule.condition)]
        if not found or None in found:
            return None
        first = found[0]
        assert first is not None
        return "PS203", first, "asks for less and decides first"

    def _wider(self, alternative: Expr) -> Rule | None:
        """An earlier rule that matches wherever this does."""
        implied = {text for term in conjuncts(alternative) for text in _implied(term, self._lengths)}
        for text in implied:
            for asked, rule in self._by_term.get(text, ()):
                if asked <= implied:
                    return rule
        return None


def _alternatives(expr: Expr) -> list[Expr]:
    """The operands of the `or` chain; none where terms are not independent of their neighbours."""
    if any(isinstance(leaf, Encapsulation) for leaf in leaves(expr)):
        return []
    found = alternatives(expr)
    return found if len(found) <= _MOST_ALTERNATIVES else []


# ── what follows from a term ─────────────────────────────────────────────────


def _implied(term: Expr, lengths: Iterable[int]) -> Iterator[str]:
    """The texts of terms that hold wherever this one does, its own among them; prefixes only of these lengths."""
    yield format_expression(term)
    match term:
        case Primitive():
            yield from _wider_primitives(term, lengths)
        case Relation():
            for part in terms(term):
                # An accessor is only there in packets of its protocol; comparisons of what is absent are false.
                if isinstance(part, Accessor) and part.protocol != "ether":
                    yield part.protocol
        case Protocol(name="icmp" | "igmp"):
            yield "ip"
        case Protocol(name="icmp6"):
            yield "ip6"
        case _:
            return


def _wider_primitives(primitive: Primitive, lengths: Iterable[int]) -> Iterator[str]:
    qualifiers = primitive.qualifiers
    if qualifiers.protocol in {"tcp", "udp", "sctp", "ip", "ip6", "arp", "rarp"}:
        yield qualifiers.protocol
    wider_values = (primitive, *_wider_nets(primitive, lengths))
    for protocol, direction in _wider_qualifiers(qualifiers):
        for value in wider_values:
            kinds: tuple[Kind | None, ...] = (value.qualifiers.kind,)
            if direction is not None and kinds[0] in {None, "host"}:
                kinds = (None, "host")
            for kind in kinds:
                yield spell_leaf(Primitive(Qualifiers(protocol, direction, kind), value.value))


def _wider_qualifiers(qualifiers: Qualifiers) -> Iterator[tuple[str | None, Direction | None]]:
    """The protocols and directions under which the same value is found in more packets, or as many."""
    protocols = {qualifiers.protocol}
    if qualifiers.kind not in {"proto", "protochain"} and qualifiers.protocol not in {"ether", "decnet"}:
        protocols.add(None)
    directions: set[Direction | None] = {qualifiers.direction}
    if qualifiers.direction in {"src", "dst", "src and dst"}:
        directions |= {None, "src or dst"}
    if qualifiers.direction == "src and dst":
        directions |= {"src", "dst"}
    if qualifiers.direction in {None, "src or dst"}:
        directions = {None, "src or dst"}
    for protocol in protocols:
        for direction in directions:
            yield protocol, direction


def _prefix_lengths(expr: Expr) -> Iterator[int]:
    for leaf in leaves(expr):
        if isinstance(leaf, Primitive) and isinstance(leaf.value, Prefix) and leaf.value.length is not None:
            yield leaf.value.length


def _wider_nets(primitive: Primitive, lengths: Iterable[int]) -> Iterator[Primitive]:
    """The host or network as a member of the networks around it that have one of the lengths."""
    qualifiers, value = primitive.qualifiers, primitive.value
    if qualifiers.kind not in {None, "host", "net"} or qualifiers.protocol == "ether":
        return
    as_net = Qualifiers(qualifiers.protocol, qualifiers.direction, "net")
    if isinstance(value, Prefix) and isinstance(value.network, Address) and value.length is not None:
        network, length = value.network, value.length
    elif isinstance(value, Address):
        network, length = value, value.address.max_prefixlen
    else:
        return
    width = network.address.max_prefixlen
    for shorter in lengths:
        if shorter <= length:
            kept = int(network.address) >> (width - shorter) << (width - shorter)
            yield Primitive(as_net, Prefix(Address(type(network.address)(kept)), shorter))
