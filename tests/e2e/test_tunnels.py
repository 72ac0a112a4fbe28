"""What the kernel's own tunnel carries is decided by what is in it, and libpcap's meaning by what is outside."""

from __future__ import annotations

import pytest
from tests.e2e.conftest import CLIENT, SERVER, Wire

import penstock

INSIDE = ("10.7.0.1", "10.7.0.2")
TEXT = """
filter guard at xdp {
    hidden: drop  if inner(udp dst port 53)
    ntp:    drop  if vxlan 5 and udp dst port 123
    plain:  drop  if pcap "udp dst port 5353"
    tunnel: count if pcap "udp dst port 4789"
}
"""


def _tunnel(wire: Wire) -> None:
    """A VXLAN over the wire, its neighbours known so that nothing but the datagrams goes through it."""
    macs = ("02:00:00:00:00:71", "02:00:00:00:00:72")
    for at, (space, device, remote) in enumerate(((wire.client, "v0", SERVER), (wire.server, "v1", CLIENT))):
        vxlan = "type", "vxlan", "id", "5", "dstport", "4789", "remote", remote, "dev", device
        space.ip("link", "add", "vx", "address", macs[at], *vxlan)
        space.ip("address", "add", f"{INSIDE[at]}/24", "dev", "vx")
        space.ip("link", "set", "vx", "up")
        space.ip("neighbour", "add", INSIDE[1 - at], "lladdr", macs[1 - at], "dev", "vx")


@pytest.mark.privileged
def test_a_datagram_in_a_tunnel_is_seen(wire: Wire) -> None:
    _tunnel(wire)
    with wire.server.inside():
        running = penstock.attach("v1", TEXT)
    with running:
        assert wire.arrived(53, count=4, ends=INSIDE) == 0
        assert wire.arrived(123, count=3, ends=INSIDE) == 0
        assert wire.arrived(5353, ends=INSIDE) == 5
        assert wire.arrived(53) == 5
        assert wire.arrived(5353, count=2) == 0
        counted = running.counters()
        assert (counted["hidden"].packets, counted["ntp"].packets, counted["plain"].packets) == (4, 3, 2)
        assert counted["tunnel"].packets >= 5
    assert wire.arrived(53, ends=INSIDE) == 5
