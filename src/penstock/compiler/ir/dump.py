"""A rule set as text, for `--emit ir`, golden files and people.

    filter edge at xdp, default pass, depth transport
    on malformed continue
    …
    1  dns:            drop if all(proto in 17, dport in 53)

Promised: the same rule set gives the same text; every field, interval and
operand is shown, and what libpcap made of every `pcap "EXPR"` behind the rules.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, assert_never

from penstock.compiler.ir.depth import classics
from penstock.compiler.ir.ops import (
    FIRST_RULE_SLOT,
    All,
    Always,
    Any,
    Binary,
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
    Read,
    Rule,
    RuleSet,
    Sample,
    Scope,
    Term,
    Within,
)
from penstock.model.classic import listing
from penstock.model.net import IntervalSet

if TYPE_CHECKING:
    from penstock.model.net import Interval

_ADDRESS_FIELDS = {
    "addr.src": 32, "addr.dst": 32, "ip.src": 32, "ip.dst": 32, "ip6.src": 128, "ip6.dst": 128,
}  # fmt: skip
_HEX_FIELDS = frozenset({"eth.type", "vlan.tpid", "tcp.flags", "ip6.headers"})
WIDTH = 100


def dump(rule_set: RuleSet) -> str:
    """The rule set's text, line by line, with a line end behind the last."""
    head = f"filter {rule_set.name} at {rule_set.hook.value}, default {rule_set.default.value}"
    lines = [f"{head}, depth {rule_set.depth.name.lower()}"]
    for condition, verdict in rule_set.conditions:
        lines.append(f"on {condition.word} {verdict.value if verdict else 'continue'}")
    for slot, rule in enumerate(rule_set.rules, FIRST_RULE_SLOT):
        lines.extend(_rule(slot, rule))
    for program in classics(rule.condition for rule in rule_set.rules):
        lines += [dump_predicate(program), *(f"    {line}" for line in listing(program.program))]
    return "\n".join(lines) + "\n"


def _rule(slot: int, rule: Rule) -> list[str]:
    until = f" until {rule.until_ns}" if rule.until_ns is not None else ""
    head = f"{slot} {rule.name}: {rule.doing}{until}"
    found = [head] if rule.condition == Always(True) else [f"{head} if", *_block(rule.condition, 1)]
    return found if rule.target is None else [*found, "  of", *_block(rule.target, 1)]


def _block(predicate: Predicate, indent: int) -> list[str]:
    """The predicate on one line if it fits, else an operand a line."""
    margin = "    " * indent
    line = margin + dump_predicate(predicate)
    if len(line) <= WIDTH:
        return [line]
    match predicate:
        case All(operands) | Any(operands):
            word = "all" if isinstance(predicate, All) else "any"
            inner = [text for operand in operands for text in _block(operand, indent + 1)]
            return [f"{margin}{word}(", *inner, f"{margin})"]
        case Negation(operand):
            return [f"{margin}not(", *_block(operand, indent + 1), f"{margin})"]
        case _:
            return [line]


def dump_predicate(predicate: Predicate) -> str:
    """A predicate on one line."""
    match predicate:
        case Always(value):
            return "always" if value else "never"
        case Within(FieldRef("len", scope), values) if scope and values == IntervalSet.full(32):
            return f"{'/'.join(scope)} is there"
        case Within(ref, values):
            shown = ", ".join(dump_interval(ref, interval) for interval in values)
            return f"{dump_field(ref)} in {{{shown}}}"
        case Compare(operator, left, right):
            return f"{dump_term(left)} {operator} {dump_term(right)}"
        case HeaderWalked(number, scope, ipv4):
            return f"{_scoped(scope)}{'ip' if ipv4 else 'ip6'} header {number}"
        case Classic(_, text):
            return f'pcap "{text}"'
        case Member() | Over() | Sample():
            return _dump_kept(predicate)
        case Negation(operand):
            return f"not({dump_predicate(operand)})"
        case All(operands):
            return f"all({', '.join(dump_predicate(operand) for operand in operands)})"
        case Any(operands):
            return f"any({', '.join(dump_predicate(operand) for operand in operands)})"
        case _:
            assert_never(predicate)


def _dump_kept(test: Member | Over | Sample) -> str:
    match test:
        case Member(name, keys, _, moment):
            rules = "1 rule that changes" if moment == 1 else f"{moment} rules that change"
            behind = f" behind {rules} it" if moment else ""
            return f"{' . '.join(map(dump_field, keys))} in @{name}{behind}"
        case Over(limiter):
            return f"over {limiter.text} burst {limiter.burst} size {limiter.size} as {limiter.name}"
        case Sample(name, one_in):
            return f"sample 1/{one_in} as {name}"


def dump_term(term: Term) -> str:
    """A term; operators are always parenthesised."""
    match term:
        case Literal32(value):
            return str(value)
        case FieldTerm(ref):
            return dump_field(ref)
        case Read(base, offset, size, scope):
            return f"{_scoped(scope)}{base.value}[{dump_term(offset)}:{size}]"
        case Binary(operator, left, right):
            return f"({dump_term(left)} {operator} {dump_term(right)})"
        case _:
            assert_never(term)


def dump_field(ref: FieldRef) -> str:
    """`dport`, `vlan.id[1]`, `geneve/dport` for that of the inner packet."""
    index = f"[{ref.index}]" if ref.name.startswith("vlan.") else ""
    return f"{_scoped(ref.scope)}{ref.name}{index}"


def _scoped(scope: Scope) -> str:
    return "".join(f"{step}/" for step in scope)


def dump_interval(ref: FieldRef, interval: Interval) -> str:
    """One value, a prefix where it is one, or both ends."""
    low, high = interval
    bits = _ADDRESS_FIELDS.get(ref.name)
    size = high - low + 1
    if bits is not None and size & (size - 1) == 0 and low % size == 0:
        length = bits - size.bit_length() + 1
        return dump_value(ref, low) + (f"/{length}" if length < bits else "")
    return dump_value(ref, low) if low == high else f"{dump_value(ref, low)}-{dump_value(ref, high)}"


def dump_value(ref: FieldRef, value: int) -> str:
    """A field's value as people write it: addresses dotted, types in hexadecimal."""
    match _ADDRESS_FIELDS.get(ref.name):
        case 32:
            return str(IPv4Address(value))
        case 128:
            return str(IPv6Address(value))
    if ref.name.startswith("eth.") and ref.field.bits == 48:
        return value.to_bytes(6, "big").hex(":")
    return f"0x{value:04x}" if ref.name in _HEX_FIELDS else str(value)
