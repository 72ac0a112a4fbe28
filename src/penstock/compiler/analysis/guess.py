"""Packets of a class that may also satisfy its opaque predicates.

`examples` knows nothing of arithmetic on packet bytes, of tunnels or of packets
that are malformed.  Here its packets are changed where such a predicate looks:
bytes that are compared get the values that they are compared with, inner packets
get what is asked of them.  Whether a guess is right is for the caller to find out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import TypeVar

from penstock.compiler.analysis.example import Example, examples, is_in, text_of
from penstock.compiler.analysis.listing import Literal, Odd, satisfies
from penstock.compiler.analysis.shapes import Fields, Layers, Wish, malformed, shapes
from penstock.compiler.diagram.disjunction import Term as DisjunctTerm
from penstock.compiler.diagram.disjunction import TooManyTermsError, terms
from penstock.compiler.ir.depth import leaves
from penstock.compiler.ir.headers import Packet
from penstock.compiler.ir.lower import lower_expression
from penstock.compiler.ir.ops import (
    Binary,
    Classic,
    Compare,
    FieldRef,
    Literal32,
    Predicate,
    Read,
    Scope,
    Step,
    Term,
    Within,
)
from penstock.compiler.lang.parser import parse_expression
from penstock.compiler.lang.source import Source
from penstock.errors import PacketNotationError, PolicyError
from penstock.model.net import IntervalSet
from penstock.model.notation import LayerSpec
from penstock.model.packet import build_packet, format_packet

_BASES = 6
_MOST_BYTES = 512

Leaf = TypeVar("Leaf", Classic, Compare, Within)


def guesses(fields: Fields, literals: frozenset[Literal]) -> Iterator[Example]:
    """Packets of the class of which every literal holds; finitely many."""
    for one in _candidates(fields, literals):
        packet = Packet(one.frame)
        if is_in(packet, fields) and all(satisfies(literal, packet) for literal in literals):
            yield one


def _candidates(fields: Fields, literals: frozenset[Literal]) -> Iterator[Example]:
    yield from examples(fields)
    atoms = [literal.atom for literal in literals]
    predicates = [atom for atom in atoms if not isinstance(atom, Odd)]
    if len(predicates) < len(atoms):
        yield from _built(malformed(Wish(fields)))
    wanted = [atom for atom, holds in literals if holds and not isinstance(atom, Odd)]
    yield from _quoted(fields, wanted)
    yield from _built(_tunnelled(fields, wanted))
    for one in islice(examples(fields), _BASES):
        for frame in _patched(one.frame, predicates):
            yield Example(text_of(frame), frame)


def _built(stacks: Iterator[Layers]) -> Iterator[Example]:
    for layers in stacks:
        try:
            yield Example(format_packet(layers), build_packet(layers))
        except PacketNotationError:
            continue


# ── libpcap's programs ───────────────────────────────────────────────────────


def _quoted(fields: Fields, predicates: list[Predicate]) -> Iterator[Example]:
    """Packets of which `pcap "EXPR"` holds, if it says about what penstock says by the same words."""
    for test in _leaves(predicates, Classic):
        for term in islice(_read_as_penstock(test.text), _BASES):
            both = {ref: fields.get(ref, values) & values for ref, values in term.fields.items()}
            if all(both.values()):
                yield from islice(examples({**fields, **both}), _BASES)


def _read_as_penstock(text: str) -> tuple[DisjunctTerm, ...]:
    source = Source("pcap", text)
    try:
        return terms(lower_expression(parse_expression(source), source))
    except (PolicyError, TooManyTermsError):
        return ()


# ── bytes ────────────────────────────────────────────────────────────────────


def _patched(frame: bytes, predicates: list[Predicate]) -> Iterator[bytes]:
    """The frame with bytes that a comparison looks at changed, one comparison after the other."""
    found = [frame]
    for test in _leaves(predicates, Compare):
        reads = [*_reads(test.left), *_reads(test.right)]
        values = sorted({near for value in _constants(test) for near in (value, value + 1, value - 1)} | {0})
        changed = [
            other
            for one in found[:_BASES]
            for read in reads
            for value in values
            if (other := _with(one, read, value)) is not None
        ]
        yield from changed
        found = [*changed, *found]


def _with(frame: bytes, read: Read, value: int) -> bytes | None:
    headers = Packet(frame).headers(read.scope)
    start = headers.base(read.base) if headers is not None else None
    if start is None or not isinstance(read.offset, Literal32) or not 0 <= value < 1 << 8 * read.size:
        return None
    at = start + read.offset.value
    if at + read.size > len(frame) + _MOST_BYTES:
        return None
    longer = frame.ljust(at + read.size, b"\0")
    return longer[:at] + value.to_bytes(read.size, "big") + longer[at + read.size :]


def _leaves(predicates: list[Predicate], kind: type[Leaf]) -> Iterator[Leaf]:
    return (one for predicate in predicates for one, _ in leaves(predicate) if isinstance(one, kind))


def _reads(term: Term) -> Iterator[Read]:
    match term:
        case Read():
            yield term
        case Binary(_, left, right):
            yield from _reads(left)
            yield from _reads(right)


def _constants(test: Compare) -> Iterator[int]:
    """Numbers that the bytes may have to be, also before they are shifted."""
    numbers = [*_numbers(test.left), *_numbers(test.right)]
    yield from numbers
    shifts = [number for number in numbers if number < 32]
    yield from (number << shift & 0xFFFFFFFF for number in numbers for shift in shifts)


def _numbers(term: Term) -> Iterator[int]:
    match term:
        case Literal32(value):
            yield value
        case Binary(_, left, right):
            yield from _numbers(left)
            yield from _numbers(right)


# ── tunnels ──────────────────────────────────────────────────────────────────


def _tunnelled(fields: Fields, predicates: list[Predicate]) -> Iterator[Layers]:
    """Inner packets with the fields that are asked for, behind the encapsulations that they are behind."""
    asked: dict[Scope, dict[FieldRef, IntervalSet]] = {}
    for test in _leaves(predicates, Within):
        if test.ref.scope:
            known = asked.setdefault(test.ref.scope, {})
            plain = FieldRef(test.ref.name, (), test.ref.index)
            known[plain] = known[plain] & test.values if plain in known else test.values
    for scope, wanted in asked.items():
        outer = list(islice(_around(fields, scope), 8))
        for inner in islice(shapes(Wish(wanted)), 40):
            yield from ([*around, *inner] for around in outer)


def _around(fields: Fields, scope: Scope) -> Iterator[Layers]:
    around = [layer for at, step in enumerate(scope) for layer in _layers(step, inside=at > 0)]
    for stack in shapes(Wish(fields)):
        carriers = [layer for layer in stack if layer.name in ("Ether", "Dot1Q", "Dot1AD")]
        if scope[0] in ("geneve", "inner"):
            if stack[-1].name == "UDP":
                yield [*stack[:-1], LayerSpec("UDP"), *around]
        else:
            yield [*carriers, *around]


def _layers(step: Step, *, inside: bool) -> Iterator[LayerSpec]:
    """An encapsulation; of the tunnels one that carries frames, with its own carrier if it is `inside` another."""
    names: Mapping[Step, str] = {"mpls": "MPLS", "pppoes": "PPPoES", "geneve": "Geneve", "inner": "VXLAN"}
    if inside and step in ("geneve", "inner"):
        yield from (LayerSpec(name) for name in ("Ether", "IPv4", "UDP"))
    yield LayerSpec(names[step])
