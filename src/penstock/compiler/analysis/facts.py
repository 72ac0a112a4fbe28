"""What is never true of a frame: combinations of field values that no packet has.

In go the fields that a rule set asks for and what its `on …` lines decide before
the rules; out come `Never`s, each a set of values for some fields that are never
found together.  They hold for whole frames, as a hook sees them; a capture that
cut frames short knows less.  Everything follows from where a field lies
(`ir/headers.py`) and from what the odd-packet conditions mean (`ir/conditions.py`).

    proto there, eth.type no IP's                  always
    dport there, proto neither TCP, UDP nor SCTP   always
    eth.type IPv4, addr.dst absent                 where `on malformed` decides

A missing fact costs precision only; a wrong one would make penstock lie.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations

from penstock.compiler.ir.ops import FieldRef, RuleSet
from penstock.model.field import EXTENSION_HEADERS, VLAN_TPIDS, Layer
from penstock.model.net import Interval, IntervalSet
from penstock.model.verdict import Condition

Never = Mapping[FieldRef, IntervalSet]
"""Values (``2**bits`` is absent) that these fields never have all at once."""
Parts = Mapping[FieldRef, tuple[Interval, ...]]
"""For a field the ranges that rules tell apart, the absent one left out."""

IPV4, IPV6, ARPS = 0x0800, 0x86DD, (0x0806, 0x8035)
TCP, UDP, SCTP, ICMP, ICMP6 = 6, 17, 132, 1, 58

#: How many bytes of its own header a field needs, for those that are there whenever the bytes are.
_IPV4_ENDS = {
    "dscp": 2, "ecn": 2, "ip.len": 4, "ip.id": 6, "ip.df": 8, "frag": 8, "frag.offset": 8, "ttl": 9,
    "proto": 10, "addr.src": 16, "addr.dst": 20,
}  # fmt: skip
_IPV6_ENDS = {"dscp": 4, "ecn": 4, "ip6.flow": 4, "ip6.headers": 7, "ttl": 8, "ip6.src": 24, "ip6.dst": 40}
_ARP_ENDS = {"addr.src": 18, "addr.dst": 28}
_ENDS = {IPV4: _IPV4_ENDS, IPV6: _IPV6_ENDS, **dict.fromkeys(ARPS, _ARP_ENDS)}
_HEADER = {IPV4: 20, IPV6: 40, **dict.fromkeys(ARPS, 28)}
_ETHERNET, _MOST_TAGS = 14, 8

#: Ethernet types with which a field can be there at all.
_FAMILIES: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("proto", "ttl", "dscp", "ecn", "frag", "frag.offset"), (IPV4, IPV6)),
    **dict.fromkeys(("addr.src", "addr.dst"), (IPV4, *ARPS)),
    **dict.fromkeys(("ip.len", "ip.id", "ip.df", "chain.proto"), (IPV4,)),
    **dict.fromkeys(("ip6.src", "ip6.dst", "ip6.flow", "ip6.headers"), (IPV6,)),
}


@dataclass(frozen=True, slots=True)
class _Transport:
    """A field of the transport header: how many of its bytes it needs, and the protocols that have it."""

    end: int
    protocols: tuple[int, ...]
    families: tuple[int, ...] = (IPV4, IPV6)


_TRANSPORT = {
    "sport": _Transport(2, (TCP, UDP, SCTP)),
    "dport": _Transport(4, (TCP, UDP, SCTP)),
    "tcp.seq": _Transport(8, (TCP,)),
    "tcp.ack": _Transport(12, (TCP,)),
    "tcp.flags": _Transport(14, (TCP,)),
    "tcp.window": _Transport(16, (TCP,)),
    "udp.len": _Transport(6, (UDP,)),
    "icmp.type": _Transport(1, (ICMP,), (IPV4,)),
    "icmp.code": _Transport(2, (ICMP,), (IPV4,)),
    "icmp6.type": _Transport(1, (ICMP6,), (IPV6,)),
    "icmp6.code": _Transport(2, (ICMP6,), (IPV6,)),
}
#: (Ethernet type, protocol) -> bytes of the transport header without which a packet is malformed.
_LEAST = {
    **{(family, number): size for family in (IPV4, IPV6) for number, size in ((TCP, 20), (UDP, 8), (SCTP, 12))},
    (IPV4, ICMP): 8,
    (IPV6, ICMP6): 4,
}  # fmt: skip

TYPE, PROTO, FRAG, OFFSET, LENGTH = map(FieldRef, ("eth.type", "proto", "frag", "frag.offset", "len"))
_WHOLE = IntervalSet.of((0, 1))
_TAGS = IntervalSet.single(*VLAN_TPIDS)


@dataclass(frozen=True, slots=True)
class World:
    """Which frames reach the rules: those with none of the `decided` conditions, judged down to `depth`."""

    decided: frozenset[Condition] = field(default_factory=frozenset)
    depth: Layer = Layer.TRANSPORT

    def without(self, condition: Condition, layer: Layer) -> bool:
        """Whether packets with this condition are decided before the rules, as far as `layer` is looked at."""
        return condition in self.decided and self.depth >= layer


EVERY_FRAME = World()


def world_of(rule_set: RuleSet) -> World:
    """The frames that reach a rule set's rules."""
    decided = frozenset(condition for condition, verdict in rule_set.conditions if verdict is not None)
    return World(decided, rule_set.depth)


def fields_beneath(refs: list[FieldRef]) -> list[FieldRef]:
    """The fields, and those that what is never true of them is told by."""
    plain = [ref for ref in refs if not ref.scope]
    needed: list[FieldRef] = []
    if any(ref.name in _FAMILIES or ref.name in _TRANSPORT or ref.name == "vlan.tpid" for ref in plain):
        needed.append(TYPE)
    if any(ref.name in _TRANSPORT for ref in plain):
        needed += [PROTO, FRAG]
    if FRAG in plain or OFFSET in plain:
        needed += [FRAG, OFFSET]
    deepest = max((ref.index for ref in plain if ref.name.startswith("vlan.")), default=-1)
    needed += [FieldRef("vlan.tpid", (), index) for index in range(deepest + 1)]
    return list(dict.fromkeys((*refs, *needed)))


def facts(parts: Parts, world: World = EVERY_FRAME) -> Iterator[Never]:
    """Everything that is never true of these fields."""
    for never in (*_always(parts), *_decided_before(world)):
        known = {ref: values for ref, values in never.items() if ref in parts}
        if len(known) == len(never) and all(never.values()):
            yield known


#: Values of everyday packets, for fields that are never 0 in them.
_USUAL = {"len": (100, 1500), "ip.len": (80, 1400), "udp.len": (20, 1300), "ttl": (32, 128)}


def usual_values(ref: FieldRef, family: int, number: int | None) -> Interval | None:
    """What a field holds in an untagged, whole packet of this Ethernet type and protocol; None if it is absent."""
    name = ref.name
    fixed = {TYPE: family, PROTO: number, FieldRef("chain.proto"): number, FRAG: 0, OFFSET: 0}
    families = _FAMILIES.get(name, _TRANSPORT[name].families if name in _TRANSPORT else (family,))
    if family not in families or (name in _TRANSPORT and number not in _TRANSPORT[name].protocols):
        return None
    if name.startswith("vlan."):
        return (family, family) if ref == FieldRef("vlan.tpid") else None
    value = fixed.get(ref)
    return _USUAL.get(name, (0, (1 << ref.field.bits) - 1)) if value is None else (value, value)


def _always(parts: Parts) -> Iterator[Never]:
    if TYPE not in parts:
        yield from _apart({name: frozenset(families) for name, families in _FAMILIES.items()})
    if PROTO not in parts:
        yield from _apart({name: frozenset(place.protocols) for name, place in _TRANSPORT.items()})
    yield from _link()
    yield from _tags(parts)
    yield from _network(parts)
    yield from _transport()
    yield from _lengths()


def _decided_before(world: World) -> Iterator[Never]:
    if world.without(Condition.UNKNOWN_TAG, Layer.LINK):
        yield {TYPE: _TAGS}
    if world.without(Condition.FRAGMENT, Layer.NETWORK):
        yield {FRAG: IntervalSet.single(2)}
        yield {OFFSET: IntervalSet.of((1, 0xFFFF))}
    if world.without(Condition.MALFORMED, Layer.LINK):
        yield {TYPE: _absent(TYPE)}
    if world.without(Condition.MALFORMED, Layer.NETWORK):
        yield from _whole_network(Condition.EXTHDR_LIMIT in world.decided)
    if world.without(Condition.MALFORMED, Layer.TRANSPORT):
        yield from _whole_transport()


# ── values ───────────────────────────────────────────────────────────────────


def _absent(ref: FieldRef) -> IntervalSet:
    return IntervalSet.single(1 << ref.field.bits)


def _there(ref: FieldRef) -> IntervalSet:
    return IntervalSet.full(ref.field.bits)


def _but(ref: FieldRef, values: IntervalSet) -> IntervalSet:
    """Every other value, and absent."""
    return IntervalSet.of(*values.complement(ref.field.bits), *_absent(ref))


def _of(*families: int) -> IntervalSet:
    return IntervalSet.single(*families)


def _apart(kinds: Mapping[str, frozenset[int]]) -> Iterator[Never]:
    """Fields of which no packet has both, because they are of different kinds of packets."""
    for (name, own), (other, others) in combinations(kinds.items(), 2):
        if not own & others:
            yield {FieldRef(name): _there(FieldRef(name)), FieldRef(other): _there(FieldRef(other))}


# ── link layer ───────────────────────────────────────────────────────────────


def _link() -> Iterator[Never]:
    yield {LENGTH: _absent(LENGTH)}
    source, target = FieldRef("eth.src"), FieldRef("eth.dst")
    yield {source: _there(source), target: _absent(target)}
    for ref in (source, target):
        yield {TYPE: _there(TYPE), ref: _absent(ref)}


def _tags(parts: Parts) -> Iterator[Never]:
    for index in range(_MOST_TAGS):
        kind, then = FieldRef("vlan.tpid", (), index), FieldRef("vlan.tpid", (), index + 1)
        inside = [FieldRef(name, (), index) for name in ("vlan.id", "vlan.pcp", "vlan.dei")]
        for ref in (*inside, then):
            yield {ref: _there(ref), kind: _but(kind, _TAGS)}
            yield from ({ref: _there(ref), other: _absent(other)} for other in inside if other != ref)
        if index <= 2:
            yield from _typed_by(kind, index, parts)


def _typed_by(kind: FieldRef, index: int, parts: Parts) -> Iterator[Never]:
    """Tag `index`'s place has the Ethernet type itself when it has no tag's, and always behind two tags."""
    yield {**_tagged(index), kind: _absent(kind), TYPE: _there(TYPE)}
    if index < 2:
        yield {TYPE: _TAGS, kind: _but(kind, _TAGS)}
    for part in parts.get(kind, ()):
        values = IntervalSet.of(part) if index == 2 else IntervalSet.of(part) - _TAGS
        yield {**_tagged(index), kind: values, TYPE: _but(TYPE, IntervalSet.of(part))}


def _tagged(count: int) -> dict[FieldRef, IntervalSet]:
    return {FieldRef("vlan.tpid", (), index): _TAGS for index in range(count)}


# ── network layer ────────────────────────────────────────────────────────────


def _network(parts: Parts) -> Iterator[Never]:
    for name, families in _FAMILIES.items():
        yield {FieldRef(name): _there(FieldRef(name)), TYPE: _but(TYPE, _of(*families))}
    for family, ends in _ENDS.items():
        yield from _prefix(ends, {TYPE: _of(family)})
    yield from _fragments(parts.get(OFFSET, ()))
    headers, chain = FieldRef("ip6.headers"), FieldRef("chain.proto")
    for ref in (PROTO, FRAG):
        yield {TYPE: _of(IPV6), ref: _there(ref), headers: _absent(headers)}
    # The chain of a later fragment may name an extension header that lies elsewhere.
    yield {TYPE: _of(IPV6), FRAG: _but(FRAG, IntervalSet.single(2)), PROTO: _of(*EXTENSION_HEADERS)}
    authentication = IntervalSet.single(51)
    for part in parts.get(chain, ()):
        values = IntervalSet.of(part)
        yield {chain: values, PROTO: _but(PROTO, values | authentication)}


def _prefix(ends: Mapping[str, int], given: Never) -> Iterator[Never]:
    """A field that is there, and one that needs no more bytes than it and is not."""
    for name, end in ends.items():
        for other, least in ends.items():
            if other != name and least <= end:
                ref, earlier = FieldRef(name), FieldRef(other)
                yield {**given, ref: _there(ref), earlier: _absent(earlier)}


def _fragments(offsets: tuple[Interval, ...]) -> Iterator[Never]:
    zero, later = IntervalSet.single(0), IntervalSet.single(2)
    yield {FRAG: IntervalSet.single(3)}
    yield {FRAG: _WHOLE, OFFSET: _but(OFFSET, zero)}
    yield {FRAG: later, OFFSET: IntervalSet.of(*zero, *_absent(OFFSET))}
    yield {FRAG: _absent(FRAG), OFFSET: _there(OFFSET)}
    for first, last in offsets:
        if first // 8 == last // 8 and first % 8:
            yield {OFFSET: IntervalSet.of((first, last))}


# ── transport layer ──────────────────────────────────────────────────────────


def _transport() -> Iterator[Never]:
    for name, place in _TRANSPORT.items():
        ref = FieldRef(name)
        yield {ref: _there(ref), PROTO: _but(PROTO, _of(*place.protocols))}
        yield {ref: _there(ref), TYPE: _but(TYPE, _of(*place.families))}
        yield {ref: _there(ref), FRAG: _but(FRAG, _WHOLE)}
        for family in place.families:
            for other in _ENDS[family]:
                yield {TYPE: _of(family), ref: _there(ref), FieldRef(other): _absent(FieldRef(other))}
        yield from _transport_prefix(ref, place)


def _transport_prefix(ref: FieldRef, place: _Transport) -> Iterator[Never]:
    for name, other in _TRANSPORT.items():
        shared = set(place.protocols) & set(other.protocols)
        if name != ref.name and other.end <= place.end and shared:
            earlier = FieldRef(name)
            yield {ref: _there(ref), earlier: _absent(earlier), PROTO: _of(*shared)}


# ── lengths ──────────────────────────────────────────────────────────────────


def _lengths() -> Iterator[Never]:
    """The shortest frames that have a field, and the longest that lack it."""
    for ref, end in _LINK_ENDS.items():
        yield {ref: _there(ref), LENGTH: _below(end)}
    yield from ({ref: _absent(ref), LENGTH: _from(_LINK_ENDS[ref])} for ref in list(_LINK_ENDS)[:2])
    yield {TYPE: _absent(TYPE), LENGTH: _from(_ETHERNET + 8)}
    for family, ends in _ENDS.items():
        for name, end in ends.items():
            ref = FieldRef(name)
            yield {TYPE: _of(family), ref: _there(ref), LENGTH: _below(_ETHERNET + end)}
            yield {TYPE: _of(family), ref: _absent(ref), LENGTH: _from(_ETHERNET + 8 + end)}
    for name, place in _TRANSPORT.items():
        for family in place.families:
            least = _ETHERNET + _HEADER[family] + place.end
            yield {TYPE: _of(family), FieldRef(name): _there(FieldRef(name)), LENGTH: _below(least)}


_LINK_ENDS = {
    FieldRef("eth.dst"): 6,
    FieldRef("eth.src"): 12,
    TYPE: _ETHERNET,
    **{FieldRef("vlan.tpid", (), index): _ETHERNET + 4 * index for index in range(_MOST_TAGS)},
    **{
        FieldRef(name, (), index): _ETHERNET + 2 + 4 * index
        for index in range(_MOST_TAGS)
        for name in ("vlan.id", "vlan.pcp", "vlan.dei")
    },
}


def _below(length: int) -> IntervalSet:
    return IntervalSet.of((0, length - 1))


def _from(length: int) -> IntervalSet:
    return IntervalSet.of((length, (1 << LENGTH.field.bits) - 1))


# ── where malformed packets are decided before the rules ─────────────────────


def _whole_network(chains_end: bool) -> Iterator[Never]:
    for family, ends in _ENDS.items():
        yield {TYPE: _of(family), LENGTH: _below(_ETHERNET + _HEADER[family])}
        for name in ends:
            yield {TYPE: _of(family), FieldRef(name): _absent(FieldRef(name))}
    yield {TYPE: _of(IPV6), FRAG: _absent(FRAG)}
    if chains_end:
        yield {TYPE: _of(IPV6), PROTO: _absent(PROTO)}
    length = FieldRef("ip.len")
    yield {length: _below(20)}


def _whole_transport() -> Iterator[Never]:
    for (family, number), size in _LEAST.items():
        given = {TYPE: _of(family), PROTO: _of(number), FRAG: _WHOLE}
        yield {**given, LENGTH: _below(_ETHERNET + _HEADER[family] + size)}
        for name, place in _TRANSPORT.items():
            if number in place.protocols and family in place.families:
                yield {**given, FieldRef(name): _absent(FieldRef(name))}
    length = FieldRef("udp.len")
    yield {TYPE: _of(IPV4), length: _below(8)}
    yield {TYPE: _of(IPV6), length: IntervalSet.of((1, 7))}
