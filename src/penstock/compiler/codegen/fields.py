"""A packet field as the C expression that reads it, and what reading it costs the parser.

In C a field is a number that lies outside its domain when the packet does not
have it (bpf/include/penstock/view.bpf.h), so tests of it need no second look:

    FieldRef("dport")                    ->  s[0].dport
    FieldRef("vlan.id", index=1)         ->  ps_tag_id(s[0].tci[1])
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from penstock.compiler.ir.ops import (
    All,
    Always,
    Any,
    Base,
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
    Sample,
    Scope,
    Term,
    Within,
)
from penstock.model.field import AT_INTERFACE, FIELDS, MAX_VLAN_TAGS, Layer, field_of, is_metadata

_TAG_PARTS = {"vlan.id": "ps_tag_id", "vlan.pcp": "ps_tag_pcp", "vlan.dei": "ps_tag_dei"}


@dataclass(frozen=True, slots=True)
class Naming:
    """How a place in the C spells what the rules read: the length, which view is which scope's, and interfaces."""

    length: str
    scopes: tuple[Scope, ...]
    devices: tuple[str, ...] = ()

    def view(self, scope: Scope) -> str:
        return f"s[{self.scopes.index(scope)}]"

    def field(self, ref: FieldRef) -> str:
        """The expression for a field of at most 48 bits."""
        if ref.name == "len":
            return self.length
        if is_metadata(ref.name):
            return self._beside(ref.name)
        view = self.view(ref.scope)
        if ref.name == "vlan.tpid":
            return f"{view}.tpid[{ref.index}]"
        if ref.name in _TAG_PARTS:
            return f"{_TAG_PARTS[ref.name]}({view}.tci[{ref.index}])"
        return f"{view}.{c_name(ref.name)}"

    def _beside(self, name: str) -> str:
        if name.startswith(AT_INTERFACE):
            number = self.devices.index(name.removeprefix(AT_INTERFACE))
            return f"(__u32)(ps_ifindex(ctx) == ps_devices[{number}])"
        return f"ps_{name}(ctx)"


def c_name(field: str) -> str:
    """A field's member in struct ps_view."""
    return field.replace(".", "_")


def is_wide(ref: FieldRef) -> bool:
    """Whether the C holds the field in 64 bits, being too wide for an absent value in 32."""
    return ref.field.bits in (32, 48) and ref.name != "len"


# ── what a set of predicates reads ───────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Reads:
    """Everything the parser must know of: fields, scopes (parents first), tags, and the deepest layer."""

    fields: frozenset[str]
    scopes: tuple[Scope, ...]
    tags: int
    level: Layer

    def words(self) -> int:
        """How many 64-bit words one view's fields take."""
        return self.tags + sum(3 if field_of(name).bits == 128 else 1 for name in self.fields)

    def wants(self) -> list[tuple[str, int]]:
        """The PS_WANT_ constants, one for every field that a view can hold."""
        views = [
            name
            for name in FIELDS
            if name != "len" and not name.startswith("vlan.") and not is_metadata(name)
        ]
        wanted = [(f"PS_WANT_{c_name(name)}", int(name in self.fields)) for name in views]
        tags = any(name.startswith("vlan.") for name in self.fields)
        return [("PS_WANT_vlan", int(tags)), *wanted]


def reads_of(predicates: Iterable[Predicate], depth: Layer) -> Reads:
    """What these predicates read, when odd packets are judged down to `depth`."""
    refs: set[FieldRef] = set()
    places: set[tuple[Scope, Layer]] = set()
    for predicate in predicates:
        _collect(predicate, refs, places)
    places.update((ref.scope, ref.field.layer) for ref in refs)
    scopes = _with_parents(scope for scope, _ in places)
    level = max([depth, *(layer for _, layer in places)])
    if any("geneve" in scope or "inner" in scope for scope in scopes):
        level = Layer.TRANSPORT
    tags = max((ref.index + 1 for ref in refs), default=0)
    return Reads(frozenset(ref.name for ref in refs), scopes, max(tags, MAX_VLAN_TAGS + 1), level)


def _with_parents(scopes: Iterable[Scope]) -> tuple[Scope, ...]:
    """The scopes and all that enclose them, () first, each behind its parent."""
    known: set[Scope] = {()}
    for scope in scopes:
        known.update(scope[:length] for length in range(len(scope) + 1))
    return tuple(sorted(known, key=lambda scope: (len(scope), scope)))


def _collect(node: Predicate | Term, refs: set[FieldRef], places: set[tuple[Scope, Layer]]) -> None:
    match node:
        case Within(ref) | FieldTerm(ref):
            refs.add(ref)
        case HeaderWalked(_, scope, ipv4):
            refs.add(FieldRef("ip.proto" if ipv4 else "ip6.headers", scope))
        case Read(base, offset, _, scope):
            layer = {Base.FRAME: Layer.LINK, Base.NETWORK: Layer.LINK, Base.TRANSPORT: Layer.TRANSPORT}[base]
            places.add((scope, layer))
            _collect(offset, refs, places)
        case Member(_, keys):
            refs.update(keys)
        case Over(_, found):
            refs.update(found)
        case Always() | Literal32() | Classic() | Sample():
            pass
        case _:
            for part in _parts(node):
                _collect(part, refs, places)


def _parts(node: Compare | Binary | Negation | All | Any) -> Sequence[Predicate | Term]:
    match node:
        case Compare(_, left, right) | Binary(_, left, right):
            return left, right
        case Negation(operand):
            return (operand,)
        case All(operands) | Any(operands):
            return operands
