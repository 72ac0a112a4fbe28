"""The packets of an SSH connection, as they are on the wire: with the options, sizes and flags that real ones have.

In: whether they come in, and the longest packet of the interface.  Out: a `Shape` for each kind of packet
without which a connection comes to nothing, behind its IP header as `penstock explain` takes it.

    opening(is_inbound=True, …)   ->  SYN with the options of RFC 9293 and RFC 7323
    carrying(…)                   ->  a key that is typed, an acknowledgement, and a packet as long as there may be:
                                      the exchange of keys needs those, and so does every screenful
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_TIMES = "1a2b3c4d5e6f7081"
#: Two no-operations and the time stamps: RFC 7323, appendix A.
_STAMPED = "0101080a" + _TIMES
_TYPED = 36
_SEQUENCE, _ACKNOWLEDGED = 0x5A3C91E7, 0x2B7D40C5
_IPV4_HEADER, _IPV6_HEADER, _TCP_HEADER = 20, 40, 20
#: An IPv4 header's identification; an answer to SYN has none.
_IDENTIFICATION = 0x6B21


@dataclass(frozen=True, slots=True)
class Shape:
    """What is behind the IP header, and what that has beside the addresses."""

    segment: str
    ipv4: str

    @staticmethod
    def of(ports: tuple[int, int], flags: str, options: str, payload: int = 0) -> Shape:
        """A segment of these ports, flags and options, and so many bytes."""
        is_syn = "S" in flags
        acknowledged = _ACKNOWLEDGED if "A" in flags else 0
        tcp = (
            f'TCP(sport={ports[0]},dport={ports[1]},seq={_SEQUENCE},ack={acknowledged},flags="{flags}",'
            f'window={64240 if is_syn else 501},options="{options}")'
        )
        number = 0 if is_syn and acknowledged else _IDENTIFICATION
        return Shape(f"{tcp}/Raw(len={payload})" if payload else tcp, f'id={number},flags="DF"')


def opening(ports: tuple[int, int], *, is_inbound: bool, version: int, mtu: int) -> Shape:
    """The first packet of a connection in this direction: SYN, or the answer to it."""
    room = mtu - _TCP_HEADER - (_IPV4_HEADER if version == 4 else _IPV6_HEADER)
    times = _TIMES[:8] + ("00000000" if is_inbound else _TIMES[8:])
    return Shape.of(ports, "S" if is_inbound else "SA", f"0204{room:04x}0402080a{times}01030307")


def carrying(ports: tuple[int, int], *, version: int, mtu: int) -> Iterator[Shape]:
    """What goes over it from then on."""
    headers = _TCP_HEADER + len(_STAMPED) // 2 + (_IPV4_HEADER if version == 4 else _IPV6_HEADER)
    yield Shape.of(ports, "PA", _STAMPED, _TYPED)
    yield Shape.of(ports, "A", _STAMPED)
    yield Shape.of(ports, "A", _STAMPED, mtu - headers)
