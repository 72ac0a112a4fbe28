"""The packets that a host must go on exchanging through an interface, or whoever works on it is locked out.

In: an attach point, and the host as it is now: the SSH connection of this
session, routes, addresses, neighbours, resolvers.  Out: a `Lifeline` for each
packet, in the direction that the hook sees, as it would be on the wire.

    lifelines(point)[0]   ->  Lifeline("the SSH connection from 203.0.113.9", "Ether(…)/IPv4(…)/TCP(…)", "src host …")

Only what really goes by this interface is among them: the kernel is asked for
the route to each peer.  An interface in a bridge or a bond carries what goes by
that.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_interface
from pathlib import Path

from penstock.errors import KernelError
from penstock.kernel.attach_point import AttachPoint
from penstock.kernel.netlink import interface
from penstock.kernel.routes import (
    Address,
    Device,
    InterfaceAddress,
    addresses,
    devices,
    gateways,
    neighbours,
    route_to,
)
from penstock.model.hook import Hook
from penstock.pipeline.ssh_packets import carrying, opening

#: Where resolvers are listed; the second has those behind systemd-resolved's own address.
RESOLVER_FILES = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))
#: A connection that somebody types into; and what is tried again until it succeeds: connections, questions, renewals.
TYPING_A_MINUTE, FEW_A_MINUTE = 300, 3
_SOME_PORT, _OTHER_PORT = 40017, 40018  # of the range that connections are made from
#: What packets of connections from elsewhere are as long as, and what IPv4 takes at least (RFC 791).
_USUAL_MTU, _LEAST_MTU = 1500, 576
_SOME_MAC = bytes.fromhex("020000000001")
_BROADCAST = b"\xff" * 6
_DISCOVERY = "icmp6[icmp6type] >= 133 and icmp6[icmp6type] <= 137"


@dataclass(frozen=True, slots=True)
class Lifeline:
    """`what` is for people, `packet` as `penstock explain` takes it, `mend` the expression that lets it through.

    `per_minute` is how many such packets have to pass if the line is to be of use.
    """

    what: str
    packet: str
    mend: str
    per_minute: int = FEW_A_MINUTE


@dataclass(frozen=True, slots=True)
class _Connection:
    peer: Address
    peer_port: int
    local: Address
    local_port: int


def lifelines(point: AttachPoint, environment: Mapping[str, str] = os.environ) -> tuple[Lifeline, ...]:
    """What must pass at an attach point, each packet once.

    None for an interface that is not here, and none where packets have no Ethernet header
    (tun, WireGuard): a test run has no such packets.
    """
    here = _Here(point)
    if here.device is None or here.device.mac is None:
        return ()
    if here.device.is_loopback:
        found = [*here.ssh(environment), *here.loopback(), *here.resolvers()]
    else:
        found = [
            *here.ssh(environment),
            *here.neighbours(environment),
            *here.routers(),
            *here.resolvers(),
            *here.leases(),
        ]
    return tuple({one.packet: one for one in found}.values())


class _Here:
    """The host's surroundings as seen from one attach point."""

    def __init__(self, point: AttachPoint) -> None:
        every = devices()
        self.device = every.get(point.ifindex)
        self._inbound = point.hook is not Hook.TC_EGRESS
        self._carried = _with_masters(every, point.ifindex)
        self._addresses = addresses()
        self._neighbours = {
            address: mac for index in self._carried for address, mac in neighbours(index).items()
        }
        top = every.get(self._carried[-1])
        self._mac = (top.mac if top else None) or _SOME_MAC
        self._gateways = [one for index in self._carried for one in gateways(index)]
        self._advertised = {one for index in self._carried for one in gateways(index, is_advertised=True)}

    def ssh(self, environment: Mapping[str, str]) -> Iterator[Lifeline]:
        """The connection that this command is run from, and another one from there."""
        connection = ssh_connection(environment)
        if connection is None or not self._is_own(connection.local) or not self._goes_by(connection.peer):
            return
        peer, port = connection.peer, connection.local_port
        mend = self._between(peer, "tcp", port) if self._inbound else self._between(peer, "tcp", port, "src")
        old, new = ((at, port) if self._inbound else (port, at) for at in (connection.peer_port, _SOME_PORT))
        mtu, version = self._mtu(), peer.version
        words = f"the SSH connection from {peer}"
        for shape in carrying(old, version=version, mtu=mtu):
            packet = self._packet(peer, connection.local, shape.segment, shape.ipv4)
            yield Lifeline(words, packet, mend, TYPING_A_MINUTE)
        shape = opening(new, is_inbound=self._inbound, version=version, mtu=mtu)
        packet = self._packet(peer, connection.local, shape.segment, shape.ipv4)
        yield Lifeline(f"a new SSH connection from {peer}", packet, mend)

    def neighbours(self, environment: Mapping[str, str]) -> Iterator[Lifeline]:
        """Address resolution with all that packets are handed to: gateways, and who is on the link."""
        for neighbour, words in self._next_hops(environment).items():
            own = self._address_towards(neighbour)
            if own is None:
                continue
            if isinstance(neighbour, IPv4Address):
                yield from self._arp(neighbour, own, words)
            else:
                yield from self._discovery(neighbour, own, words)

    def routers(self) -> Iterator[Lifeline]:
        """What IPv6 routers say of themselves: a default route that came so ends without it (RFC 4861, 6.3.4)."""
        for router in self._gateways if self._inbound else ():
            if router in self._advertised:
                mac = self._neighbours.get(router, _SOME_MAC)
                packet = (
                    f'{_ether(bytes.fromhex("333300000001"), mac)}/IPv6(src="{router}",dst="ff02::1",hlim=255)'
                    '/ICMPv6(type="router-advertisement",id=16384,seq=1800)/Raw(len=8)'
                )
                yield Lifeline(f"router advertisements from {router}", packet, _DISCOVERY)

    def _next_hops(self, environment: Mapping[str, str]) -> dict[Address, str]:
        """Whom packets to the peers are handed to at this interface, and what they are called."""
        found = {gateway: f"the gateway {gateway}" for gateway in self._gateways}
        connection = ssh_connection(environment)
        peers = [(one, f"the resolver {one}") for one in resolvers()]
        if connection is not None and self._is_own(connection.local):
            peers.insert(0, (connection.peer, f"the SSH peer {connection.peer}"))
        for peer, words in peers:
            route = route_to(peer)
            if route is not None and route.ifindex in self._carried:
                hop = route.gateway
                found.setdefault(hop or peer, f"the gateway {hop}" if hop else words)
        return found

    def resolvers(self) -> Iterator[Lifeline]:
        """Answers of the name servers, or at egress questions to them."""
        for server in resolvers():
            own = self._source_towards(server)
            if own is not None and self._goes_by(server):
                ports = (53, _SOME_PORT) if self._inbound else (_SOME_PORT, 53)
                words = f"the resolver {server}"
                mend = self._between(server, "udp", 53, "src" if self._inbound else "dst")
                yield Lifeline(words, self._packet(server, own, _udp(*ports)), mend)

    def leases(self) -> Iterator[Lifeline]:
        """The renewal of addresses that DHCP has given."""
        for own in self._own():
            if own.is_leased and own.address.version == 4:
                server = next((one for one in self._gateways if one.version == 4), None) or _first_host(own)
                yield self._renewal("DHCP", server, own.address, 67, 68)
            # RFC 8415: an address by DHCPv6 has no prefix of its own; one with /64 is SLAAC's.
            elif own.is_leased and own.prefix_length == 128:
                server = next((one for one in self._gateways if one.version == 6), ip_address("fe80::1"))
                link_local = next(
                    (one.address for one in self._own() if one.address.is_link_local), own.address
                )
                yield self._renewal("DHCPv6", server, link_local, 547, 546)

    def loopback(self) -> Iterator[Lifeline]:
        """The host's connections with itself."""
        for own in self._own():
            if own.address.is_loopback:
                segment = _tcp(_SOME_PORT, _OTHER_PORT, "PA")
                words = f"the host's own connections ({own.address})"
                packet = self._packet(own.address, own.address, segment)
                yield Lifeline(words, packet, f"src host {own.address}", TYPING_A_MINUTE)

    def _renewal(self, words: str, server: Address, own: Address, far: int, near: int) -> Lifeline:
        ports = (far, near) if self._inbound else (near, far)
        packet = self._packet(server, own, f'{_udp(*ports)}/Raw(hex="{"00" * 240}")')
        mend = f"udp src port {ports[0]} and dst port {ports[1]}"
        return Lifeline(f"the renewal of this host's {words} lease", packet, mend)

    def _arp(self, neighbour: Address, own: Address, called: str) -> Iterator[Lifeline]:
        far = self._neighbours.get(neighbour, _SOME_MAC)
        (sender, sender_mac), (target, target_mac) = (neighbour, far), (own, self._mac)
        if not self._inbound:
            (sender, sender_mac), (target, target_mac) = (target, target_mac), (sender, sender_mac)
        says = f'hwsrc="{_mac(sender_mac)}",psrc="{sender}"'
        reply = f'hwdst="{_mac(target_mac)}",pdst="{target}"'
        to_all, to_one = _ether(_BROADCAST, sender_mac), _ether(target_mac, sender_mac)
        for words, packet in (
            (
                f"ARP requests {self._way} {called}",
                f'{to_all}/ARP(op="request",{says},pdst="{target}")',
            ),
            (f"ARP replies {self._way} {called}", f'{to_one}/ARP(op="reply",{says},{reply})'),
        ):
            yield Lifeline(words, packet, "arp")

    def _discovery(self, neighbour: Address, own: Address, called: str) -> Iterator[Lifeline]:
        source, target = (neighbour, own) if self._inbound else (own, neighbour)
        far = self._neighbours.get(neighbour, _SOME_MAC)
        source_mac, target_mac = (far, self._mac) if self._inbound else (self._mac, far)
        group = ip_address(ip_address("ff02::1:ff00:0").packed[:13] + target.packed[13:])
        many = _ether(b"\x33\x33" + group.packed[12:], source_mac)
        head = f'IPv6(src="{source}",hlim=255'
        wants = f'ICMPv6(type="neighbor-solicitation",target="{target}")'
        tells = f'ICMPv6(type="neighbor-advertisement",target="{source}")'
        words = f"{self._way} {called}"
        yield Lifeline(
            f"neighbour solicitations {words}", f'{many}/{head},dst="{group}")/{wants}', _DISCOVERY
        )
        one = f'{_ether(target_mac, source_mac)}/{head},dst="{target}")/{tells}'
        yield Lifeline(f"neighbour advertisements {words}", one, _DISCOVERY)

    @property
    def _way(self) -> str:
        return "from" if self._inbound else "to"

    def _between(self, peer: Address, protocol: str, port: int, side: str = "dst") -> str:
        return f"{'src' if self._inbound else 'dst'} host {peer} and {protocol} {side} port {port}"

    def _packet(self, peer: Address, own: Address, rest: str, ipv4: str = "") -> str:
        """A packet between a peer and this host, from the one that sends it at this hook.

        `ipv4` is what an IPv4 header has beside the addresses.
        """
        far = self._mac if self.device is None or self.device.is_loopback else self._mac_of(peer)
        source, target, source_mac, target_mac = peer, own, far, self._mac
        if not self._inbound:
            source, target, source_mac, target_mac = own, peer, self._mac, far
        head = f'src="{source}",dst="{target}"'
        ip = (
            f"IPv6({head})"
            if isinstance(peer, IPv6Address)
            else f"IPv4({','.join(filter(None, (head, ipv4)))})"
        )
        return f"{_ether(target_mac, source_mac)}/{ip}/{rest}"

    def _mtu(self) -> int:
        """How long the packets of a connection are that comes from elsewhere."""
        try:
            return min(max(interface(self._carried[-1]).mtu, _LEAST_MTU), _USUAL_MTU)
        except KernelError:
            return _USUAL_MTU

    def _mac_of(self, peer: Address) -> bytes:
        route = route_to(peer)
        return self._neighbours.get((route.gateway if route else None) or peer, _SOME_MAC)

    def _own(self) -> list[InterfaceAddress]:
        return [one for index in self._carried for one in self._addresses.get(index, [])]

    def _is_own(self, address: Address) -> bool:
        return any(address == one.address for found in self._addresses.values() for one in found)

    def _goes_by(self, address: Address) -> bool:
        route = route_to(address)
        return route is not None and route.ifindex in self._carried

    def _source_towards(self, address: Address) -> Address | None:
        route = route_to(address)
        return (route.source if route else None) or self._address_towards(address)

    def _address_towards(self, address: Address) -> Address | None:
        """An address of this host's that is on a link with another one, or any of its version."""
        same = [one for one in self._own() if one.address.version == address.version]
        near = [one for one in same if address in ip_interface(f"{one.address}/{one.prefix_length}").network]
        return next((one.address for one in (*near, *same)), None)


def _with_masters(every: Mapping[int, Device], ifindex: int) -> list[int]:
    """An interface, and the bridge or bond that it is in, and so on."""
    found = [ifindex]
    while (device := every.get(found[-1])) is not None and device.master not in (0, *found):
        found.append(device.master)
    return found


def ssh_connection(environment: Mapping[str, str]) -> _Connection | None:
    """The SSH connection that the command is run from; sudo clears the variable, so a parent's is good too."""
    said = environment.get("SSH_CONNECTION") or _inherited(os.getppid(), "SSH_CONNECTION")
    try:
        peer, peer_port, local, local_port = said.split()
        return _Connection(_plain(peer), int(peer_port), _plain(local), int(local_port))
    except ValueError:
        return None


def _inherited(process: int, name: str) -> str:
    """A variable in the environment of the nearest ancestor that has it; empty where none has."""
    wanted = f"{name}=".encode()
    while process > 1:
        place = Path(f"/proc/{process}")
        try:
            variables = (place / "environ").read_bytes().split(b"\0")
            # The name of a process may hold anything, a closing parenthesis too.
            process = int((place / "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            return ""
        found = next((one for one in variables if one.startswith(wanted)), None)
        if found is not None:
            return found.removeprefix(wanted).decode(errors="replace")
    return ""


def resolvers() -> list[Address]:
    """The name servers of the resolver's files, in their order, each once."""
    found: dict[Address, None] = {}
    for file in RESOLVER_FILES:
        try:
            lines = file.read_text(errors="replace").splitlines()
        except OSError:
            continue
        for words in map(str.split, lines):
            if len(words) > 1 and words[0] == "nameserver":
                try:
                    found[_plain(words[1])] = None
                except ValueError:
                    continue
    return list(found)


def _plain(text: str) -> Address:
    """The address without a scope; an IPv4 address in IPv6's clothes as IPv4."""
    address = ip_address(text.partition("%")[0])
    return (address.ipv4_mapped if isinstance(address, IPv6Address) else None) or address


def _first_host(own: InterfaceAddress) -> Address:
    return ip_interface(f"{own.address}/{own.prefix_length}").network.network_address + 1


def _tcp(sport: int, dport: int, flags: str) -> str:
    return f'TCP(sport={sport},dport={dport},flags="{flags}")'


def _udp(sport: int, dport: int) -> str:
    return f"UDP(sport={sport},dport={dport})"


def _ether(destination: bytes, source: bytes) -> str:
    return f'Ether(dst="{_mac(destination)}",src="{_mac(source)}")'


def _mac(octets: bytes) -> str:
    return octets.hex(":")
