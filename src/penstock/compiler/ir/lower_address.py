"""Addresses: `host` and `net` of IPv4, ARP, RARP and IPv6, `ether host`, `decnet host`.

`host 10.0.0.1` asks IPv4 packets and the addresses that ARP and RARP packets
carry; `ip host`, `arp host` and `rarp host` ask one of them; `host ::1` asks
IPv6.  A name stands for all of its addresses.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from typing import TYPE_CHECKING

from penstock.compiler.ir.headers import ARP, RARP
from penstock.compiler.ir.lower_protocol import DECNET, link_type
from penstock.compiler.ir.ops import Base, Binary, Compare, FieldRef, FieldTerm, Literal32, Predicate, Read
from penstock.compiler.ir.simplify import FALSE, all_of, any_of, equals, within
from penstock.compiler.lang.ast import Address, Direction, Mac, Name, Number, PartialAddress, Prefix, Value
from penstock.model.net import IntervalSet

if TYPE_CHECKING:
    from penstock.compiler.ir.lowering import Lowering, Position
    from penstock.compiler.ir.names import IPAddress
    from penstock.compiler.lang.source import Span

#: What a direction asks of the source and of the destination.
Side = Callable[[str], Predicate]


def by_direction(direction: Direction | None, side: Side) -> Predicate:
    """`side("src")` and `side("dst")`, joined as the direction says; none is `src or dst`."""
    match direction:
        case "src" | "dst":
            return side(direction)
        case "src and dst":
            return all_of((side("src"), side("dst")))
        case _:
            return any_of((side("src"), side("dst")))


class Addresses:
    """One `host` or `net` primitive: `kind` of them, with its qualifiers, at its place."""

    def __init__(
        self,
        lowering: Lowering,
        protocol: str | None,
        direction: Direction | None,
        kind: str,
        position: Position,
        span: Span,
    ) -> None:
        self.lowering = lowering
        self.protocol = protocol
        self.direction = direction
        self.kind = kind
        self.position = position
        self.span = span

    def lower(self, value: Value) -> Predicate:
        """The primitive for one value."""
        if self.protocol == "decnet":
            return self._decnet(value)
        match value:
            case Mac(octets):
                return self._mac(octets)
            case Name(text):
                return self._name(text)
            case Address(address) if isinstance(address, IPv4Address):
                return self._ipv4(int(address), 0xFFFFFFFF)
            case Address(address):
                return self._ipv6(IPv6Network(address))
            case PartialAddress(octets):
                return self._partial(octets)
            case Prefix():
                return self._prefix(value)
            case Number(number):
                return self._ipv4(*self._number(number))
            case _:
                return self._fault("PS302", f"`{self.kind}` takes an address, not ports")

    def _fault(self, code: str, message: str, *, hint: str | None = None) -> Predicate:
        return self.lowering.fault(code, message, self.span, hint=hint)

    def _partial(self, octets: tuple[int, ...]) -> Predicate:
        if max(octets) > 255:
            return self._fault("PS305", "a part of an IPv4 address is at most 255")
        return self._ipv4(*partial_network(octets))

    def _number(self, number: int) -> tuple[int, int]:
        """As an address and mask: `net 10` is 10.0.0.0/8, `host 10` is 0.0.0.10."""
        address, mask = number & 0xFFFFFFFF, 0xFFFFFFFF
        while self.kind == "net" and address and not address & 0xFF000000:
            address, mask = address << 8, mask << 8 & 0xFFFFFFFF
        return address, mask

    # ── IP ───────────────────────────────────────────────────────────────────

    def _ipv4(self, address: int, mask: int) -> Predicate:
        match self.protocol:
            case None if self.position.in_mpls:
                names = "ip.src", "ip.dst"
            case "ip":
                names = "ip.src", "ip.dst"
            case None | "arp" | "rarp":
                names = "addr.src", "addr.dst"
            case "ip6":
                return self._fault("PS302", f"`ip6 {self.kind}` takes an IPv6 address, this is an IPv4 one")
            case _:
                return self._wrong_protocol()
        test = by_direction(
            self.direction,
            lambda side: masked(self.position.field(names[0 if side == "src" else 1]), address, mask),
        )
        if self.protocol in ("arp", "rarp"):
            number = ARP if self.protocol == "arp" else RARP
            return all_of((link_type(self.lowering, number, self.position, self.span), test))
        return test

    def _ipv6(self, network: IPv6Network) -> Predicate:
        if self.protocol in ("ip", "arp", "rarp"):
            message = f"`{self.protocol} {self.kind}` takes an IPv4 address, this is an IPv6 one"
            return self._fault("PS302", message)
        if self.protocol not in (None, "ip6"):
            return self._wrong_protocol()
        values = IntervalSet.prefix(network)
        return by_direction(self.direction, lambda side: within(self.position.field(f"ip6.{side}"), values))

    def _wrong_protocol(self) -> Predicate:
        if self.protocol == "ether":
            return self._fault("PS302", f"`ether {self.kind}` takes an Ethernet address, not an IP one")
        return self._fault(
            "PS303",
            f"`{self.protocol} {self.kind}` cannot be tested: {self.protocol} packets have no such address",
            hint=f"{self.protocol} and {self.kind} …",
        )

    def _prefix(self, prefix: Prefix) -> Predicate:
        network = self._network(prefix)
        if network is None:
            return FALSE
        if self.kind != "net" and not (isinstance(network, IPv6Network) and network.prefixlen == 128):
            return self._fault("PS302", "a mask goes with networks only", hint="write `net` before it")
        if isinstance(network, IPv6Network):
            return self._ipv6(network)
        return self._ipv4(*network)

    def _network(self, prefix: Prefix) -> tuple[int, int] | IPv6Network | None:
        """As an IPv4 address and mask, or an IPv6 network; None when it is neither, a fault recorded."""
        base = prefix.network
        if isinstance(base, Address) and isinstance(base.address, IPv6Address):
            return self._ipv6_network(base.address, prefix)
        if isinstance(base, PartialAddress) and max(base.octets) > 255:
            self._partial(base.octets)
            return None
        address = partial_network(base.octets)[0] if isinstance(base, PartialAddress) else int(base.address)
        if prefix.mask is not None:
            mask = int(prefix.mask)
        else:
            length = 32 if prefix.length is None else prefix.length
            if length > 32:
                self._fault("PS306", f"an IPv4 prefix is at most 32 bits long, not {length}")
                return None
            mask = 0xFFFFFFFF << (32 - length) & 0xFFFFFFFF
        if address & ~mask:
            self._host_bits(IPv4Address(address & mask), prefix)
            return None
        return address, mask

    def _ipv6_network(self, address: IPv6Address, prefix: Prefix) -> IPv6Network | None:
        length = 128 if prefix.length is None else prefix.length
        if prefix.mask is not None:
            self._fault("PS306", "an IPv6 network has a length, not a mask", hint=f"{address}/64")
            return None
        if length > 128:
            self._fault("PS306", f"an IPv6 prefix is at most 128 bits long, not {length}")
            return None
        network = IPv6Network((address, length), strict=False)
        if network.network_address != address:
            self._host_bits(network.network_address, prefix)
            return None
        return network

    def _host_bits(self, meant: IPAddress, prefix: Prefix) -> None:
        mask = f" mask {prefix.mask}" if prefix.mask is not None else f"/{prefix.length}"
        self._fault("PS306", "the network has bits set behind its mask", hint=f"did you mean {meant}{mask}?")

    # ── names ────────────────────────────────────────────────────────────────

    def _name(self, text: str) -> Predicate:
        if self.protocol == "ether":
            octets = self.lowering.names.ether_host(text)
            if octets is None:
                return self._fault("PS304", f"no Ethernet address is known for `{text}` (/etc/ethers)")
            return self._mac(octets)
        if self.kind == "net":
            number = self.lowering.names.network(text)
            if not number:
                return self._fault("PS304", f"no network is named `{text}` (/etc/networks)")
            return self._ipv4(*self._number(number))
        addresses = self.lowering.names.host(text)
        fitting = [address for address in addresses if self._fits(address)]
        if not fitting:
            family = f" for `{self.protocol}`" if addresses else ""
            return self._fault("PS304", f"no address is known{family} for the host `{text}`")
        return any_of([self.lower(Address(address)) for address in fitting])

    def _fits(self, address: IPAddress) -> bool:
        if self.protocol == "ip6":
            return isinstance(address, IPv6Address)
        return self.protocol is None or isinstance(address, IPv4Address)

    # ── other addresses ──────────────────────────────────────────────────────

    def _mac(self, octets: bytes) -> Predicate:
        if self.protocol != "ether" or self.kind == "net":
            return self._fault("PS302", "an Ethernet address goes with `ether host`", hint="ether host …")
        if self.position.on_ppp:
            return self._fault("PS309", "behind PPPoE there are no Ethernet addresses")
        number = int.from_bytes(octets, "big")
        return by_direction(self.direction, lambda side: equals(self.position.field(f"eth.{side}"), number))

    def _decnet(self, value: Value) -> Predicate:
        """A DECnet host, `AREA.NODE`, in the four forms that a DECnet header can have."""
        match value:
            case PartialAddress((area, node)):
                number = area << 10 & 0xFC00 | node & 0x3FF
            case Number(written):
                number = written & 0xFFFF
            case _:
                return self._fault("PS302", "`decnet host` takes an address such as 10.2")
        carried = link_type(self.lowering, DECNET, self.position, self.span)
        return all_of((carried, by_direction(self.direction, lambda side: self._decnet_side(number, side))))

    def _decnet_side(self, number: int, side: str) -> Predicate:
        """The address is little-endian, behind the length, an optional byte of padding, and flags."""
        short, long = (1, 7) if side == "dst" else (3, 15)
        swapped = (number & 0xFF) << 8 | number >> 8
        forms = (
            (2, 0x8106, 0xFF07, 2 + 1 + long),
            (1, 0x06, 0x07, 2 + long),
            (2, 0x8102, 0xFF07, 2 + 1 + short),
            (1, 0x02, 0x07, 2 + short),
        )
        return any_of([self._decnet_form(size, flags, mask, at, swapped) for size, flags, mask, at in forms])

    def _decnet_form(self, size: int, flags: int, mask: int, at: int, address: int) -> Predicate:
        scope = self.position.scope
        head = Read(Base.NETWORK, Literal32(2), size, scope)
        found = Read(Base.NETWORK, Literal32(at), 2, scope)
        return all_of(
            (
                Compare("==", Binary("&", head, Literal32(mask)), Literal32(flags)),
                Compare("==", found, Literal32(address)),
            )
        )


def partial_network(octets: tuple[int, ...]) -> tuple[int, int]:
    """`10.1` as address and mask: 10.1.0.0 and 255.255.0.0."""
    bits = 8 * len(octets)
    address = int.from_bytes(bytes(octets), "big") << (32 - bits)
    return address, 0xFFFFFFFF << (32 - bits) & 0xFFFFFFFF


def masked(ref: FieldRef, address: int, mask: int) -> Predicate:
    """The IPv4 address under the mask is `address`; an interval where the mask is a prefix's."""
    host_bits = ~mask & 0xFFFFFFFF
    if host_bits & (host_bits + 1) == 0:
        return within(ref, IntervalSet(((address, address | host_bits),)))
    return Compare("==", Binary("&", FieldTerm(ref), Literal32(mask)), Literal32(address))
