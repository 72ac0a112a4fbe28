"""The shapes of packets that are tried to find an example of a class.

A shape is a stack of layers whose arguments are taken from the class where the
usual value would not do.  The order is from what is seen every day (one IP
header, one transport header) to fragments, extension headers and nine of them.
Whether a shape is in the class is for the caller to find out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from itertools import product

from penstock.compiler.ir.ops import FieldRef
from penstock.model.field import EXTENSION_HEADERS, FIELDS
from penstock.model.layers.layer import EXPERIMENTAL_ETHERTYPE, EXPERIMENTAL_PROTOCOL
from penstock.model.layers.link import DESTINATION_IPV4, DESTINATION_MAC, SOURCE_IPV4, SOURCE_MAC
from penstock.model.layers.network import DESTINATION_IPV6, SOURCE_IPV6
from penstock.model.layers.transport import DESTINATION_PORT, SOURCE_PORT
from penstock.model.net import IntervalSet
from penstock.model.notation import LayerSpec

Fields = Mapping[FieldRef, IntervalSet]
Layers = list[LayerSpec]

_FLAGS = "FSRPAUEC"
_IPV4, _IPV6, _ARP, _RARP = 0x0800, 0x86DD, 0x0806, 0x8035
_TAGS = (0x8100, 0x88A8, 0x9100)
#: Layer -> (argument, field, usual value) for what is only a number.
_NUMBERS: dict[str, tuple[tuple[str, str, int], ...]] = {
    "IPv4": (("ttl", "ttl", 64), ("dscp", "dscp", 0), ("ecn", "ecn", 0), ("id", "ip.id", 1)),
    "IPv6": (("hlim", "ttl", 64), ("dscp", "dscp", 0), ("ecn", "ecn", 0), ("fl", "ip6.flow", 0)),
    "TCP": (("seq", "tcp.seq", 0), ("ack", "tcp.ack", 0), ("window", "tcp.window", 8192)),
    "UDP": (),
    "SCTP": (),
    "ICMP": (("type", "icmp.type", 8), ("code", "icmp.code", 0)),
    "ICMPv6": (("type", "icmp6.type", 128), ("code", "icmp6.code", 0)),
}
_TRANSPORTS = {17: "UDP", 6: "TCP", 132: "SCTP"}
_HEADERS = {0: "HopByHop", 43: "Routing", 60: "DestOpt", 44: "Fragment", 51: "AH", 135: "Mobility"}
_PLAIN, _ODD = 0, 1


@dataclass(frozen=True, slots=True)
class Wish:
    """What a class asks of fields."""

    fields: Fields

    def asks(self, *names: str) -> bool:
        """Whether any of the fields is restricted."""
        return any(ref.name in names for ref in self.fields)

    def held(self, *names: str, index: int = 0) -> IntervalSet | None:
        """The values that all of these fields allow, without absence; None if none is restricted."""
        found = None
        for name in names:
            own = self.fields.get(FieldRef(name, (), index))
            if own is not None:
                own &= IntervalSet.full(FIELDS[name].bits)
                found = own if found is None else found & own
        return found

    def allows(self, value: int, *names: str, index: int = 0) -> bool:
        """Whether the fields may have this value."""
        found = self.held(*names, index=index)
        return found is None or value in found

    def pick(self, usual: int, *names: str, index: int = 0) -> int | None:
        """A value in the place of the usual one; None if that will do, or nothing will."""
        found = self.held(*names, index=index)
        if not found or usual in found:
            return None
        return telling(found)


def telling(values: IntervalSet) -> int:
    """A value that looks like its kind: the first host of a network, never 0 where there is another."""
    low, high = values.intervals[0]
    if low == 0:
        return high
    return low + 1 if high - low >= 3 and low & 3 == 0 else low


def shapes(wish: Wish) -> Iterator[Layers]:
    """Stacks of layers to try, plain ones first."""
    for oddness in (_PLAIN, _ODD):
        for count, body in product(_tag_counts(wish), _bodies(wish, oddness)):
            yield _tagged(wish, count, body)


def malformed(wish: Wish) -> Iterator[Layers]:
    """Stacks whose headers contradict themselves, and IPv4 with options."""
    for layers in shapes(wish):
        name, at = layers[-1].name, len(layers) - 1
        wrong = {"TCP": ("dataofs", 4), "UDP": ("len", 7)}.get(name)
        if wrong is not None:
            yield [*layers[:at], _also(layers[at], wrong)]
        for place, layer in enumerate(layers):
            for more in {"IPv4": (("ihl", 3), ("options", 4), ("len", 19)), "IPv6": (("plen", 9999),)}.get(
                layer.name, ()
            ):
                yield [*layers[:place], _also(layer, more), *layers[place + 1 :]]


def _also(layer: LayerSpec, argument: tuple[str, int]) -> LayerSpec:
    return LayerSpec(layer.name, (*layer.arguments, argument))


# ── link ─────────────────────────────────────────────────────────────────────


def _tag_counts(wish: Wish) -> tuple[int, ...]:
    return (0, 1, 2, 3) if wish.asks("vlan.tpid", "vlan.id", "vlan.pcp", "vlan.dei", "eth.type") else (0,)


def _tagged(wish: Wish, count: int, body: Layers) -> Layers:
    """Ethernet, so many tags, the body; an Ethernet header that says nothing is left out."""
    macs = [
        (name, value.to_bytes(6, "big").hex(":"))
        for name, usual in (("dst", DESTINATION_MAC), ("src", SOURCE_MAC))
        if (value := wish.pick(int.from_bytes(usual, "big"), f"eth.{name}")) is not None
    ]
    stack = [LayerSpec("Ether", tuple(macs))]
    for index in range(count):
        tpid = wish.pick(0x8100, "vlan.tpid", index=index) or 0x8100
        if tpid == 0x9100:
            stack[-1] = LayerSpec(stack[-1].name, (*stack[-1].arguments, ("type", tpid)))
        stack.append(_tag(wish, index, "Dot1AD" if tpid == 0x88A8 else "Dot1Q"))
    if body and body[0].name == "":
        stack[-1] = LayerSpec(stack[-1].name, (*stack[-1].arguments, *body[0].arguments))
        body = body[1:]
    stack += body
    return stack[1:] if len(stack) > 1 and not stack[0].arguments and stack[1].name != "Raw" else stack


def _tag(wish: Wish, index: int, name: str) -> LayerSpec:
    parts = (("vlan", "vlan.id", 1), ("prio", "vlan.pcp", 0), ("dei", "vlan.dei", 0))
    picked = [(part, wish.pick(usual, field, index=index)) for part, field, usual in parts]
    return LayerSpec(name, tuple((part, value) for part, value in picked if value is not None))


def _bodies(wish: Wish, oddness: int) -> Iterator[Layers]:
    """What follows the tags.  A nameless first layer holds arguments of the link header before it."""
    if wish.allows(_IPV4, "eth.type"):
        yield from _over_ip(wish, "IPv4", oddness)
    if wish.allows(_IPV6, "eth.type"):
        yield from _over_ip(wish, "IPv6", oddness)
    if oddness == _PLAIN:
        for kind, name in ((_ARP, "ARP"), (_RARP, "RARP")):
            if wish.allows(kind, "eth.type"):
                yield [LayerSpec(name, tuple(_addresses(wish, ("psrc", "pdst"))))]
    for kind in _other_types(wish):
        yield [LayerSpec("", (("type", kind),)), LayerSpec("Raw", (("len", 46),))]


def _other_types(wish: Wish) -> Iterator[int]:
    """Types of no known header; a tag's behind two tags, and what stands in the place of a tag's, are such."""
    known = IntervalSet.single(_IPV4, _IPV6, _ARP, _RARP, *_TAGS)
    asked = [wish.held("eth.type"), *(wish.held("vlan.tpid", index=index) for index in range(3))]
    for held in [one for one in asked if one is not None] or [IntervalSet.full(16)]:
        others = held - known
        if EXPERIMENTAL_ETHERTYPE in others:
            yield EXPERIMENTAL_ETHERTYPE
        elif others:
            yield from dict.fromkeys((telling(others), others.intervals[-1][1]))
        if wish.asks("eth.type"):
            yield from (tag for tag in _TAGS if tag in held)


def _addresses(wish: Wish, names: tuple[str, str]) -> Iterator[tuple[str, str]]:
    for name, side, usual in zip(names, ("src", "dst"), (SOURCE_IPV4, DESTINATION_IPV4), strict=True):
        value = wish.pick(int.from_bytes(usual, "big"), f"addr.{side}", f"ip.{side}")
        if value is not None:
            yield name, str(IPv4Address(value))


# ── IP ───────────────────────────────────────────────────────────────────────


def _over_ip(wish: Wish, family: str, oddness: int) -> Iterator[Layers]:
    for number in _protocols(wish, family):
        transport = _transport(wish, number, family)
        said = () if transport[0].name != "Raw" else (("proto" if family == "IPv4" else "nh", number),)
        if oddness == _PLAIN:
            yield [_ip(wish, family, said), *transport]
        elif family == "IPv4":
            yield from _odd_ipv4(wish, number, said, transport)
        else:
            yield from _odd_ipv6(wish, number, transport)


def _protocols(wish: Wish, family: str) -> Iterator[int]:
    """Protocol numbers to try: the known ones, then some other."""
    own, control = ("ip.proto", 1) if family == "IPv4" else ("ip6.proto", 58)
    names = ("proto", own)
    known = (17, 6, control, 132)
    yield from (number for number in known if wish.allows(number, *names))
    walked = EXTENSION_HEADERS if family == "IPv6" else ()
    others = (wish.held(*names) or IntervalSet.full(8)) - IntervalSet.single(*known, *walked)
    if others:
        yield EXPERIMENTAL_PROTOCOL if EXPERIMENTAL_PROTOCOL in others else telling(others)


def _ip(wish: Wish, family: str, more: tuple[tuple[str, int | str], ...] = (), flag: str = "") -> LayerSpec:
    arguments: list[tuple[str, int | str]] = []
    if family == "IPv4":
        arguments += _addresses(wish, ("src", "dst"))
        flags = [flag] * bool(flag) + ["DF"] * (wish.pick(0, "ip.df") == 1)
        if flags:
            arguments.append(("flags", "+".join(flags)))
    else:
        for side, usual in (("src", SOURCE_IPV6), ("dst", DESTINATION_IPV6)):
            value = wish.pick(int.from_bytes(usual, "big"), f"ip6.{side}")
            if value is not None:
                arguments.append((side, str(IPv6Address(value))))
    return LayerSpec(family, (*arguments, *_numbers(wish, family), *more))


def _numbers(wish: Wish, layer: str) -> Iterator[tuple[str, int]]:
    for argument, field, usual in _NUMBERS[layer]:
        value = wish.pick(usual, field)
        if value is not None:
            yield argument, value


def _odd_ipv4(
    wish: Wish, number: int, said: tuple[tuple[str, int], ...], transport: Layers
) -> Iterator[Layers]:
    """Fragments, authentication headers, and a header that is shorter than it can be."""
    yield [_ip(wish, "IPv4", said, "MF"), *transport]
    units = _units(wish)
    later = _ip(wish, "IPv4", (("frag", units), ("proto", number)))
    yield [later, LayerSpec("Raw", (("len", 8),))]
    for inner in _TRANSPORTS if number == 51 or wish.asks("chain.proto") else ():
        if wish.allows(inner, "chain.proto"):
            yield [_ip(wish, "IPv4"), LayerSpec("AH"), *_transport(wish, inner, "IPv4")]
    yield [_ip(wish, "IPv4", (*said, ("ihl", 4))), *transport]


def _odd_ipv6(wish: Wish, number: int, transport: Layers) -> Iterator[Layers]:
    """Chains of extension headers, fragments, and one header more than is walked over."""
    own = (("nh", number),) if transport[0].name == "Raw" else ()
    for mask in _masks(wish):
        chosen = [header for header in _HEADERS if mask >> EXTENSION_HEADERS[header] & 1]
        headers = [LayerSpec(_HEADERS[header]) for header in chosen]
        if headers:
            last = LayerSpec(headers[-1].name, (*headers[-1].arguments, *own))
            yield [_ip(wish, "IPv6"), *headers[:-1], last, *transport]
    yield [_ip(wish, "IPv6"), LayerSpec("Fragment", (("m", 1), *own)), *transport]
    later = LayerSpec("Fragment", (("offset", _units(wish)), ("nh", number)))
    yield [_ip(wish, "IPv6"), later, LayerSpec("Raw", (("len", 8),))]
    yield [_ip(wish, "IPv6"), *[LayerSpec("DestOpt")] * 9, *transport]


def _masks(wish: Wish) -> Iterator[int]:
    """Sets of extension headers that are allowed, small ones first."""
    held = wish.held("ip6.headers")
    if held is not None:
        masks = [mask for mask in range(1 << len(EXTENSION_HEADERS)) if mask in held]
        yield from sorted(masks, key=lambda mask: (mask.bit_count(), mask))[:4]
    else:
        yield 1 << EXTENSION_HEADERS[60]


def _units(wish: Wish) -> int:
    """A later fragment's offset, in units of eight bytes."""
    value = wish.pick(8, "frag.offset") or 8
    return min(max(1, -(-value // 8)), 0x1FFF)


# ── transport ────────────────────────────────────────────────────────────────


def _transport(wish: Wish, number: int, family: str) -> Layers:
    if number in _TRANSPORTS:
        name = _TRANSPORTS[number]
        ports = _ports(wish, name.lower())
        return [LayerSpec(name, (*ports, *_numbers(wish, name), *_flags(wish, name)))]
    if number == (1 if family == "IPv4" else 58):
        name = "ICMP" if family == "IPv4" else "ICMPv6"
        return [LayerSpec(name, tuple(_numbers(wish, name)))]
    return [LayerSpec("Raw", (("len", 8),))]


def _ports(wish: Wish, protocol: str) -> Iterator[tuple[str, int]]:
    for side, usual in (("sport", SOURCE_PORT), ("dport", DESTINATION_PORT)):
        names = (side, f"{protocol}.{side}") if protocol != "sctp" else (side,)
        value = wish.pick(usual, *names)
        if value is not None:
            yield side, value


def _flags(wish: Wish, name: str) -> Iterator[tuple[str, int | str]]:
    value = wish.pick(2, "tcp.flags") if name == "TCP" else None
    if value is not None:
        yield "flags", "".join(letter for at, letter in enumerate(_FLAGS) if value >> at & 1)
