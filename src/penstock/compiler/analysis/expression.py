"""A class of packets as an expression that people read and penstock parses.

In goes what a diagram says of a class, for some fields the values that they may
have (``2**bits`` is absent); out comes text in the policy language that holds of
exactly these packets.

    proto 6, dport 22 or 8000-8100, addr.src 10.0.0.0/8
        ->  src net 10.0.0.0/8 and (tcp dst port 22 or 8000-8100)
    proto 17, dport anything but 53, absent too
        ->  udp and not dst port 53

What other fields imply is left out: a packet with TCP flags need not be called
`tcp` as well.  Values are told as they are or by what they are not, whichever
is shorter.  `ip6.headers`, which no expression tests as a number, is the one
field that a class is told of in words of its own (``ip6.headers in {…}``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, summarize_address_range

from penstock.compiler.analysis.reality import impossible
from penstock.compiler.ir.chain import AUTHENTICATION
from penstock.compiler.ir.dump import dump_interval
from penstock.compiler.ir.ops import FieldRef
from penstock.model.field import EXTENSION_HEADERS, VLAN_TPIDS
from penstock.model.net import Interval, IntervalSet

Fields = Mapping[FieldRef, IntervalSet]

_TYPES = {0x0800: "ip", 0x86DD: "ip6", 0x0806: "arp", 0x8035: "rarp"}
_PROTOCOLS = {6: "tcp", 17: "udp", 132: "sctp"}
_FAMILIES = {0x0800: {1: "icmp", 2: "igmp"}, 0x86DD: {58: "icmp6"}}
#: In the order in which people say it; what is not listed follows, tags last.
_ORDER = (
    "eth.src",
    "eth.dst",
    "eth.type",
    "proto",
    "addr.src",
    "ip6.src",
    "addr.dst",
    "ip6.dst",
    "sport",
    "dport",
)
_TAGGED = FieldRef("vlan.tpid")
_TAGS = IntervalSet.single(*VLAN_TPIDS)
_TAGGED_OR_NOT = _TAGS, IntervalSet.of(*_TAGS.complement(16), (1 << 16, 1 << 16))
_MAC_AT = {"eth.dst": 0, "eth.src": 6}


def expression(fields: Fields) -> str:
    """The class in the policy language; "" is every packet."""
    told = simplified(fields)
    parts = list(_parts(told))
    return (
        " and ".join(part.chained for part in parts)
        if len(parts) > 1
        else "".join(part.text for part in parts)
    )


@dataclass(frozen=True, slots=True)
class Text:
    """An expression, and as it stands beside `and` and behind `not`."""

    text: str

    @property
    def joined(self) -> str:
        return f"({self.text})" if not {"and", "or"}.isdisjoint(self._words()) else self.text

    @property
    def chained(self) -> str:
        """As it stands in a chain of `and`."""
        return f"({self.text})" if "or" in self._words() else self.text

    def _words(self) -> set[str]:
        """The words outside of parentheses."""
        found, depth = set(), 0
        for word in self.text.split():
            if depth == 0:
                found.add(word)
            depth += word.count("(") - word.count(")")
        return found


def _any(parts: list[str]) -> Text:
    return Text(" or ".join(parts))


def _all(parts: list[str]) -> Text:
    return Text(" and ".join(parts))


# ── what need not be said ────────────────────────────────────────────────────


def simplified(fields: Fields) -> dict[FieldRef, IntervalSet]:
    """The class without what packets cannot be anyway; fields that then say nothing are left out."""
    kept = dict(fields)
    for ref in sorted(fields, key=_informative):
        free = _impossible_values(ref, kept)
        whole = IntervalSet.of((0, 1 << ref.field.bits))
        if (kept[ref] | free) == whole:
            del kept[ref]
        elif ref == _TAGGED:
            kept[ref] = next((told for told in _TAGGED_OR_NOT if _same_but(kept[ref], told, free)), kept[ref])
    return kept


def _same_but(held: IntervalSet, other: IntervalSet, free: IntervalSet) -> bool:
    """Whether two sets differ in values only that are free."""
    return (held | free) == (other | free)


def _informative(ref: FieldRef) -> int:
    """Fields that imply others come last: what lies deeper is known by them to be there."""
    names = ("ip6.src", "ip6.dst", "addr.src", "addr.dst", "eth.type", "proto")
    return names.index(ref.name) if ref.name in names else -1


def in_order(refs: Iterable[FieldRef]) -> tuple[FieldRef, ...]:
    """The fields in an order of their own, so that what is known of them together is found again."""
    return tuple(sorted(refs, key=lambda ref: (ref.name, ref.index, ref.scope)))


def _impossible_values(ref: FieldRef, fields: Fields) -> IntervalSet:
    """Values that the field cannot have, given the others."""
    found = IntervalSet()
    for fact in impossible(in_order(fields)):
        others = [other for other in fact if other != ref]
        if ref in fact and all(fields[other].issubset(IntervalSet.of(fact[other])) for other in others):
            found |= IntervalSet.of(fact[ref])
    return found


# ── conjunction ──────────────────────────────────────────────────────────────


def _parts(fields: Fields) -> Iterator[Text]:
    """A text for each field; a protocol with few ports, or with its family, in one."""
    rest = dict(fields)
    kind, proto = FieldRef("eth.type"), FieldRef("proto")
    protocol = _only(rest.get(proto))
    word = _PROTOCOLS.get(protocol or -1, "")
    family = _FAMILIES.get(_only(rest.get(kind)) or -1, {})
    if protocol in family:
        del rest[kind], rest[proto]
        yield Text(family[protocol])
    ports = [
        ref for ref in (FieldRef("sport"), FieldRef("dport")) if ref in rest and not _may_lack(ref, rest)
    ]
    if word and ports:
        del rest[proto]
    else:
        word = ""
    for ref in sorted(rest, key=_place):
        yield _test(ref, rest[ref], word if ref in ports else "")


def _only(held: IntervalSet | None) -> int | None:
    return held.intervals[0][0] if held is not None and held.size() == 1 else None


def _may_lack(ref: FieldRef, fields: Fields) -> bool:
    return 1 << ref.field.bits in fields[ref]


def _place(ref: FieldRef) -> tuple[bool, int, str, int]:
    order = _ORDER.index(ref.name) if ref.name in _ORDER else len(_ORDER)
    return ref.name.startswith("vlan."), order, ref.name, ref.index


def _test(ref: FieldRef, held: IntervalSet, word: str) -> Text:
    """The field has one of the values, or is absent if they say so."""
    bits = ref.field.bits
    tell = _teller(ref, word)
    values, others = held & IntervalSet.full(bits), held.complement(bits)
    if 1 << bits in held:
        return Text(f"not {tell(others).joined}")
    if ref.name in _SIDES:
        return _addresses(ref, values)
    if len(values.intervals) <= len(others.intervals) + 2:
        return tell(values)
    return _all([tell(IntervalSet.full(bits)).joined, f"not {tell(others).joined}"])


# ── one field ────────────────────────────────────────────────────────────────

_SIDES = {
    f"{family}.{side}": side for family in ("addr", "ip", "ip6") for side in ("src", "dst")
}  # fmt: skip
_PORTS = {"sport": "src", "dport": "dst"}


def _teller(ref: FieldRef, word: str) -> Callable[[IntervalSet], Text]:
    """What renders "the field is there with one of these values"."""
    if ref.name in _SIDES:
        return lambda values: _addresses(ref, values)
    if ref.name in _PORTS:
        return lambda values: _ports(f"{word} {_PORTS[ref.name]}".lstrip(), values)
    if ref.name in _MAC_AT:
        return lambda values: _macs(ref, values)
    if ref.name.startswith("vlan.") and (ref.index or ref.name == "vlan.tpid"):
        return lambda values: _tag(ref, values)
    plain = {
        "eth.type": _types,
        "proto": _protocols,
        "frag": _fragments,
        "chain.proto": _chain,
        "outbound": _ways,
    }
    if ref.name in plain:
        return plain[ref.name]
    if not ref.field.word:
        return lambda values: _untold(ref, values)
    return lambda values: _any(
        [_range(ref.name, one, ref.field.bits, len(values.intervals) > 1) for one in values]
    )


def _untold(ref: FieldRef, values: IntervalSet) -> Text:
    return Text(f"{ref.name}{_IN}{', '.join(dump_interval(ref, one) for one in values)}}}")


_IN = " in {"


def is_untold(text: str) -> bool:
    """Whether a class is told in words, because no expression says it."""
    return _IN in text


def _addresses(ref: FieldRef, values: IntervalSet) -> Text:
    """Networks, or the smallest network that holds them all without some."""
    inside = _networks(ref, values)
    around = _around(ref, values)
    without = _networks(ref, IntervalSet.prefix(around) - values)
    if len(without) + 1 < len(inside):
        return _all([_nets(ref, [around]), f"not {Text(_nets(ref, without)).joined}"])
    return Text(_nets(ref, inside))


def _nets(ref: FieldRef, networks: Sequence[IPv4Network | IPv6Network]) -> str:
    prefix = "ip " if ref.name.startswith("ip.") else ""
    single = len(networks) == 1 and networks[0].prefixlen == networks[0].max_prefixlen
    shown = [str(one.network_address) if single else str(one) for one in networks]
    return " or ".join([f"{prefix}{_SIDES[ref.name]} {'host' if single else 'net'} {shown[0]}", *shown[1:]])


def _around(ref: FieldRef, values: IntervalSet) -> IPv4Network | IPv6Network:
    bits = ref.field.bits
    low, high = values.intervals[0][0], values.intervals[-1][1]
    length = bits - (low ^ high).bit_length()
    base = low >> (bits - length) << (bits - length)
    return IPv4Network((base, length)) if bits == 32 else IPv6Network((base, length))


def _networks(ref: FieldRef, values: IntervalSet) -> Sequence[IPv4Network | IPv6Network]:
    if ref.field.bits == 32:
        return [one for ends in values for one in summarize_address_range(*map(IPv4Address, ends))]
    return [one for ends in values for one in summarize_address_range(*map(IPv6Address, ends))]


def _ports(side: str, values: IntervalSet) -> Text:
    kind = "port" if all(low == high for low, high in values) else "portrange"
    shown = [str(low) if low == high else f"{low}-{high}" for low, high in values]
    return _any([f"{side} {kind} {shown[0]}", *shown[1:]])


def _types(values: IntervalSet) -> Text:
    return _named(values, _TYPES, lambda one, several: _range("eth.type", one, 16, several))


def _protocols(values: IntervalSet) -> Text:
    def either(one: Interval, _several: bool) -> str:
        if one[0] == one[1] and one[0] not in EXTENSION_HEADERS:
            return f"proto {one[0]}"
        both = " or ".join(_range(name, one, 8, True) for name in ("ip.proto", "ip6.proto"))
        return f"({both})"

    return _named(values, _PROTOCOLS, either)


def _named(values: IntervalSet, names: Mapping[int, str], other: Callable[[Interval, bool], str]) -> Text:
    """Values that have names by these, ranges as `other` says."""
    several = len(values.intervals) > 1
    return _any(
        [names[one[0]] if one[0] == one[1] and one[0] in names else other(one, several) for one in values]
    )


def _ways(values: IntervalSet) -> Text:
    words = [word for value, word in enumerate(("inbound", "outbound")) if value in values]
    return _any(words or ["less 0 and greater 1"])


def _fragments(values: IntervalSet) -> Text:
    words = {
        (0,): "frag.offset >= 0 and not frag",
        (0, 1): "frag.offset >= 0 and not frag.later",
        (0, 2): "frag.offset >= 0 and not frag.first",
        (1,): "frag.first",
        (2,): "frag.later",
        (1, 2): "frag",
        (): "less 0 and greater 1",
    }
    text = words.get(tuple(value for value in range(3) if value in values), "frag.offset >= 0")
    return Text(text)


def _chain(values: IntervalSet) -> Text:
    # `ip protochain 51` is also true of the authentication headers on the way to what ends the chain.
    if AUTHENTICATION in values:
        return _untold(FieldRef("chain.proto"), values)
    return _any([f"ip protochain {value}" for low, high in values for value in range(low, high + 1)])


# ── by comparison ────────────────────────────────────────────────────────────


def _range(term: str, interval: Interval, bits: int, several: bool) -> str:
    """``term`` within the interval; in parentheses if it is `several` comparisons beside others."""
    low, high = interval
    top = (1 << bits) - 1
    shown = [hex(value) if "flags" in term or "eth" in term else str(value) for value in interval]
    if low == high:
        return f"{term} == {shown[0]}"
    if high == top:
        return f"{term} >= {shown[0]}"
    if low == 0:
        return f"{term} <= {shown[1]}"
    both = f"{term} >= {shown[0]} and {term} <= {shown[1]}"
    return f"({both})" if several else both


def _tag(ref: FieldRef, values: IntervalSet) -> Text:
    """Tags further in have no name: their bytes are looked at, behind the tags before them."""
    if ref == _TAGGED and values == _TAGS:
        return Text("vlan")
    before = ref.index if ref.name == "vlan.tpid" else ref.index + 1
    tags = [_tpid(index, _TAGS) for index in range(before)]
    if ref.name == "vlan.tpid":
        return _all([*tags, _tpid(ref.index, values)])
    control = f"ether[{14 + 4 * ref.index}:2]"
    term = {
        "vlan.id": f"{control} & 0xfff",
        "vlan.pcp": f"{control} >> 13",
        "vlan.dei": f"{control} >> 12 & 1",
    }
    shown = _any([_range(term[ref.name], one, ref.field.bits, True) for one in values])
    return _all([*tags, shown.joined])


def _tpid(index: int, values: IntervalSet) -> str:
    return _any([_range(f"ether[{12 + 4 * index}:2]", one, 16, True) for one in values]).joined


def _macs(ref: FieldRef, values: IntervalSet) -> Text:
    return _any([_mac(ref, one) for one in values])


def _mac(ref: FieldRef, interval: Interval) -> str:
    """A range of addresses is compared in two parts, as no accessor takes six bytes."""
    low, high = interval
    if low == high:
        return f"ether {ref.name[4:]} host {low.to_bytes(6, 'big').hex(':')}"
    at = _MAC_AT[ref.name]
    first, last = f"ether[{at}:4]", f"ether[{at + 4}:2]"
    parts = [f"{last} >= 0"]
    if low:
        parts.append(
            f"({first} > {low >> 16:#x} or ({first} == {low >> 16:#x} and {last} >= {low & 0xFFFF:#x}))"
        )
    if high < (1 << 48) - 1:
        parts.append(
            f"({first} < {high >> 16:#x} or ({first} == {high >> 16:#x} and {last} <= {high & 0xFFFF:#x}))"
        )
    return f"({' and '.join(parts)})"
