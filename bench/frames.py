"""Ethernet frames for the packets that bench.rulesets samples.

In: columns of fields, IPv4 or IPv6.  Out: an array with a frame a row, all of
SIZE bytes, so that IPv4 and IPv6 can be mixed: a header, ports or a type, and
a transport header that is right for TCP and for UDP.  What differs from frame
to frame lies in the bytes that bench.feed hands on.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from bench.rulesets import PORT_PROTOCOLS, Column

SIZE = 14 + 40 + 20
Frames = npt.NDArray[np.uint8]
"""One frame a row."""

_LINK, _IPV4, _IPV6 = 14, 20, 40
_ICMP, _UDP = 1, 17
#: Next headers that are extensions, or that IPv6 forbids; a packet that only claims one is malformed.
_NOT_IN_IPV6 = (0, 43, 44, 51, 60, 135, 139, 140, 253, 254)
_NO_NEXT_HEADER = 59


def plain(columns: Mapping[str, Column], *, ipv6: bool) -> dict[str, Column]:
    """The packets with such protocols alone as a packet can have by its header and without extensions."""
    found = dict(columns)
    if ipv6:
        odd = np.isin(found["proto"], _NOT_IN_IPV6)
        found["proto"] = np.where(odd, np.uint64(_NO_NEXT_HEADER), found["proto"])
    return found


def frames_of(columns: Mapping[str, Column], *, ipv6: bool) -> Frames:
    """The frames of packets that `plain` has made plain."""
    found = np.zeros((len(columns["proto"]), SIZE), np.uint8)
    found[:, :12] = 2
    header = _IPV6 if ipv6 else _IPV4
    (_fill_ipv6 if ipv6 else _fill_ipv4)(found[:, _LINK:], columns)
    found[:, 12:14] = (0x86, 0xDD) if ipv6 else (0x08, 0x00)
    _fill_transport(found[:, _LINK + header :], columns)
    return found


def _fill_ipv4(ip: Frames, columns: Mapping[str, Column]) -> None:
    ip[:, 0], ip[:, 2:4], ip[:, 8] = 0x45, (0, SIZE - _LINK), 64
    ip[:, 9] = columns["proto"]
    ip[:, 12:16] = _big_endian(columns["src"], 4)
    ip[:, 16:20] = _big_endian(columns["dst"], 4)
    words = ip[:, :_IPV4].reshape(len(ip), -1, 2).astype(np.uint32)
    total = (words[:, :, 0] << 8 | words[:, :, 1]).sum(axis=1)
    folded = (total & 0xFFFF) + (total >> 16)
    ip[:, 10:12] = _big_endian(~(folded + (folded >> 16)) & 0xFFFF, 2)


def _fill_ipv6(ip: Frames, columns: Mapping[str, Column]) -> None:
    ip[:, 0], ip[:, 4:6], ip[:, 7] = 0x60, (0, SIZE - _LINK - _IPV6), 64
    ip[:, 6] = columns["proto"]
    for name, at in (("src", 8), ("dst", 24)):
        ip[:, at : at + 8] = _big_endian(columns[name][:, 0], 8)
        ip[:, at + 8 : at + 16] = _big_endian(columns[name][:, 1], 8)


def _fill_transport(after: Frames, columns: Mapping[str, Column]) -> None:
    """Ports, the length of UDP and the header length of TCP: for each protocol the others' are payload.

    The columns `flags`, `icmp_type` and `icmp_code` may be missing, and are 0 then.
    """
    protocol = columns["proto"]
    with_ports = np.isin(protocol, PORT_PROTOCOLS)
    for name, at in (("sport", 0), ("dport", 2)):
        after[:, at : at + 2] = _big_endian(np.where(with_ports, columns[name], 0), 2)
    after[protocol == _UDP, 4:6] = (0, after.shape[1])
    after[:, 12] = 0x50
    after[:, 13] = columns.get("flags", 0)
    for at, name in enumerate(("icmp_type", "icmp_code")):
        if name in columns:
            after[:, at] = np.where(protocol == _ICMP, columns[name], after[:, at])


def _big_endian(values: npt.NDArray[np.unsignedinteger], size: int) -> Frames:
    return np.ascontiguousarray(values.astype(f">u{size}")).view(np.uint8).reshape(len(values), size)
