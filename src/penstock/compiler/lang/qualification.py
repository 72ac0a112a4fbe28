"""Which values may stand behind which qualifiers.

libpcap decides this while it generates code; penstock does it while the place
of the value is still known.  The rules are those of libpcap 1.10 on Ethernet:

    ether host 02:00:00:00:00:01     fine
    tcp host 10.0.0.1                refused: a host is not looked for behind tcp
    net 10.0.0.1/8                   refused: bits beyond the prefix are set
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from penstock.compiler.lang.ast import (
    Address,
    Constant,
    Mac,
    Name,
    Number,
    PartialAddress,
    PortRange,
    Prefix,
    Qualifiers,
    Value,
)
from penstock.compiler.lang.values import MAX_PORT, BadValue, port_like_range

#: The protocols that libpcap lets stand before a value, by the shape of the value.
_IPV4_HOST = frozenset({None, "ip", "arp", "rarp", "decnet"})
_IPV4_NAME = frozenset({None, "ip", "arp", "rarp"})
_IPV6_HOST = frozenset({None, "ip6"})
_PORTS = frozenset({None, "tcp", "udp", "sctp"})
_PROTO_NUMBER = frozenset({None, "ether", "ip", "ip6", "iso", "isis"})
_PROTO_NAME = frozenset({None, "ether", "ip", "ip6", "iso"})
_PROTOCHAIN = frozenset({None, "ip", "ip6"})


def check_value(qualifiers: Qualifiers, value: Value) -> None:
    """Nothing when the value may stand behind the qualifiers; a constant may stand behind any.

    Raises:
        BadValue: it may not; the message says why.
    """
    match qualifiers.kind:
        case None | "host":
            _check_host(qualifiers.protocol, value)
        case "net":
            _check_net(qualifiers.protocol, value)
        case "port" | "portrange":
            _check_port(qualifiers, value)
        case "proto" | "protochain":
            _check_proto(qualifiers, value)
        case "gateway":
            raise BadValue("`gateway` is not supported", "write `ether host MAC and not host ADDRESS`")


def _check_host(protocol: str | None, value: Value) -> None:
    match value:
        case Mac():
            if protocol != "ether":
                hint = f"ether host {value.octets.hex(':')}"
                raise BadValue("an Ethernet address needs `ether` before it", hint)
        case Prefix():
            raise BadValue("`host` takes one address; `net` takes a prefix", "write `net` instead")
        case PortRange():
            raise BadValue("a range of ports needs `portrange` before it")
        case Name():
            _allow(protocol, _IPV4_NAME | {"ether", "ip6"}, "host")
        case _:
            _check_address(protocol, value, "host")


def _check_net(protocol: str | None, value: Value) -> None:
    match value:
        case Mac():
            raise BadValue("an Ethernet address is not a network")
        case PortRange():
            raise BadValue("a range of ports needs `portrange` before it")
        case Name():
            _allow(protocol, _IPV4_NAME, "net")
        case Prefix():
            check_prefix(value)
            _check_address(protocol, value.network, "net")
        case _:
            _check_address(protocol, value, "net")


def _check_address(protocol: str | None, value: Value, kind: str) -> None:
    match value:
        case Address(address=IPv6Address()):
            if protocol in _IPV4_HOST and protocol is not None:
                raise BadValue(f"`{protocol}` does not carry IPv6 addresses")
            _allow(protocol, _IPV6_HOST, kind)
        case Address() | PartialAddress() | Number():
            if protocol == "ip6":
                raise BadValue("this is an IPv4 address, and `ip6` stands before it")
            if protocol == "ether":
                raise BadValue("`ether` takes an Ethernet address such as 02:00:00:00:00:01")
            _allow(protocol, _IPV4_HOST, kind)
            if isinstance(value, PartialAddress):
                _check_octets(value, protocol)
        case _:
            return


def _check_octets(value: PartialAddress, protocol: str | None) -> None:
    if protocol == "decnet":
        if len(value.octets) != 2:
            raise BadValue("a DECnet address is written AREA.NODE")
    elif max(value.octets) > 255:
        dotted = ".".join(map(str, value.octets))
        raise BadValue(f"`{dotted}` is not the beginning of an IPv4 address: its parts go up to 255")


def _check_port(qualifiers: Qualifiers, value: Value) -> None:
    kind = str(qualifiers.kind)
    match value:
        case Number():
            if value.value > MAX_PORT:
                raise BadValue(f"there is no port {value.value}: ports go up to 65535")
        case PortRange():
            if kind == "port":
                raise BadValue(
                    "`port` takes one port; `portrange` takes a range", "write `portrange` instead"
                )
        case Name():
            if kind == "port" and port_like_range(value.text):
                raise BadValue(
                    "`port` takes one port; `portrange` takes a range", "write `portrange` instead"
                )
        case Constant():
            pass
        case _:
            raise BadValue(f"an address cannot stand behind `{kind}`")
    _allow(qualifiers.protocol, _PORTS, kind, "tcp, udp and sctp have ports")


def _check_proto(qualifiers: Qualifiers, value: Value) -> None:
    kind, protocol = str(qualifiers.kind), qualifiers.protocol
    if isinstance(value, Address | PartialAddress | Prefix | Mac):
        raise BadValue(f"an address cannot stand behind `{kind}`")
    if isinstance(value, PortRange):
        raise BadValue(f"a range cannot stand behind `{kind}`")
    if kind == "protochain":
        _allow(protocol, _PROTOCHAIN, kind)
    else:
        _allow(protocol, _PROTO_NAME if isinstance(value, Name) else _PROTO_NUMBER, kind)


def _allow(protocol: str | None, allowed: frozenset[str | None], kind: str, note: str | None = None) -> None:
    if protocol not in allowed:
        raise BadValue(f"`{kind}` cannot stand behind `{protocol}`", note)


def check_prefix(prefix: Prefix) -> None:
    """Nothing when the prefix is one: a fitting length or mask, and no bits set beyond it.

    Raises:
        BadValue: the sentence that says which it is.
    """
    network = prefix.network
    if isinstance(network, PartialAddress):
        _check_octets(network, None)
        padded = (*network.octets, 0, 0, 0)[:4]
        network = Address(IPv4Address(bytes(padded)))
    width = network.address.max_prefixlen
    if prefix.mask is not None:
        mask = int(prefix.mask)
    else:
        length = prefix.length or 0
        if length > width:
            raise BadValue(f"a prefix of an IPv{network.address.version} address has at most {width} bits")
        mask = ((1 << length) - 1) << (width - length)
    inside = int(network.address) & mask
    if inside != int(network.address):
        kept = type(network.address)(inside)
        right = f"{kept} mask {prefix.mask}" if prefix.mask else f"{kept}/{prefix.length}"
        raise BadValue("this network has bits set beyond its prefix", f"{right} is the network it lies in")
