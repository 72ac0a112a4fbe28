"""Packets drawn from a policy's own rules: what makes large policies work.

In: a rule set.  Out: frames, each drawn from inside a rule chosen at random, its
corners among them, some fields swapped with another rule's, a little noise (as
`diagram.verify` draws them to test tables).

    drawn_frames(rules, 65536)[0]  ->  a frame of SIZE bytes, e.g. TCP to 10.1.2.3 port 80

Written are addresses, protocol, ports, TTL, flags and ICMP types; whatever else
a rule asks for is as in an ordinary packet, so a rule may be missed.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from penstock.compiler.diagram.axis import WIDE_BYTES, Keys, halves
from penstock.compiler.diagram.boxes import Boxes, Packets
from penstock.compiler.diagram.convert import decisions
from penstock.compiler.diagram.verify import probes
from penstock.compiler.ir.ops import FieldRef, RuleSet

#: Headers of IPv6 and TCP, the longest that are written.
SIZE = 14 + 40 + 20
Bytes = npt.NDArray[np.uint8]
_Numbers = npt.NDArray[np.uint64]

_PORTS = (6, 17, 132)
_USUAL_IPV6 = 0x20010DB8_00000000, 7
_USUAL = {"proto": 17, "sport": 40_000, "dport": 4_000, "ttl": 64}
#: Extension headers are no transport; a packet that only claims one would be malformed (RFC 8200).
_NOT_IN_IPV6 = (0, 43, 44, 51, 60, 135, 139, 140, 253, 254)
_NO_NEXT_HEADER = 59


def drawn_frames(rules: RuleSet, count: int, seed: int = 1) -> list[bytes]:
    """`count` frames, rules being equally likely; none if no rule tests a field."""
    boxes = decisions(rules).boxes
    if not len(boxes):
        return []
    packets = probes(_by_rule(boxes, count, seed), count, seed)
    frames = _frames(_Columns(packets, count), count)
    return [frame.tobytes() for frame in frames]


def _by_rule(boxes: Boxes, count: int, seed: int) -> Boxes:
    """Boxes drawn so that a rule with many is no likelier than one with a single."""
    rng = np.random.default_rng([seed, 3])
    rules, first, number = np.unique(boxes.rule, return_index=True, return_counts=True)
    chosen = rng.integers(0, len(rules), min(count, 4 * len(rules)))
    at = first[chosen] + (rng.random(len(chosen)) * number[chosen]).astype(np.int64)
    return boxes.take(np.sort(at))


class _Columns:
    """The drawn fields by name; `number` and `wide` have a value and whether there is one."""

    def __init__(self, packets: Packets, count: int) -> None:
        self._found: Mapping[str, Keys] = {
            ref.name: keys for ref, keys in packets.items() if not ref.scope and not ref.index
        }
        self.count = count

    def number(self, name: str, otherwise: int = 0) -> tuple[_Numbers, npt.NDArray[np.bool_]]:
        """Values up to 64 bits."""
        if name not in self._found:
            return np.full(self.count, otherwise, np.uint64), np.zeros(self.count, bool)
        keys = self._found[name]
        there = keys <= np.uint64((1 << FieldRef(name).field.bits) - 1)
        return np.where(there, keys, np.uint64(otherwise)), there

    def wide(self, name: str) -> tuple[_Numbers, _Numbers, npt.NDArray[np.bool_]]:
        """Upper and lower half of 128 bits."""
        usual = np.full(self.count, _USUAL_IPV6[0], np.uint64), np.full(self.count, _USUAL_IPV6[1], np.uint64)
        if name not in self._found:
            return *usual, np.zeros(self.count, bool)
        keys = self._found[name]
        high, low = halves(keys)
        # The first of 17 bytes is 1 in the key of an absent field.
        there = np.ascontiguousarray(keys).view(np.uint8).reshape(self.count, WIDE_BYTES)[:, 0] == 0
        return np.where(there, high, usual[0]), np.where(there, low, usual[1]), there


def _frames(columns: _Columns, count: int) -> Bytes:
    found = np.zeros((count, SIZE), np.uint8)
    found[:, :12] = 2
    is_six = _is_ipv6(columns)
    protocol = columns.number("proto", _USUAL["proto"])[0]
    protocol = _with_ports(columns, protocol, is_six)
    found[:, 12:14] = np.where(is_six[:, None], (0x86, 0xDD), (0x08, 0x00))
    _ipv4(found, np.flatnonzero(~is_six), columns, protocol)
    _ipv6(found, np.flatnonzero(is_six), columns, protocol)
    return found


def _is_ipv6(columns: _Columns) -> npt.NDArray[np.bool_]:
    kind, known = columns.number("eth.type")
    six = columns.wide("ip6.src")[2] | columns.wide("ip6.dst")[2]
    four = columns.number("addr.src")[1] | columns.number("addr.dst")[1]
    found: npt.NDArray[np.bool_] = np.where(known & ~four & ~six, kind == 0x86DD, six & ~four)
    return found


def _with_ports(columns: _Columns, protocol: _Numbers, is_six: npt.NDArray[np.bool_]) -> _Numbers:
    """A packet with flags is TCP, one with an ICMP type ICMP, and in IPv6 no header is only claimed."""
    for name, number in (("tcp.flags", 6), ("icmp.type", 1), ("icmp6.type", 58)):
        there = columns.number(name)[1] & ~columns.number("proto")[1]
        protocol = np.where(there, np.uint64(number), protocol)
    return np.where(is_six & np.isin(protocol, _NOT_IN_IPV6), np.uint64(_NO_NEXT_HEADER), protocol)


def _ipv4(frames: Bytes, at: npt.NDArray[np.int64], columns: _Columns, protocol: _Numbers) -> None:
    ip = np.zeros((len(at), SIZE - 14), np.uint8)
    ip[:, 0], ip[:, 2:4] = 0x45, (0, SIZE - 14)
    ip[:, 8] = columns.number("ttl", _USUAL["ttl"])[0][at]
    ip[:, 9] = protocol[at]
    ip[:, 12:16] = _big_endian(columns.number("addr.src", 0xC6336407)[0][at], 4)
    ip[:, 16:20] = _big_endian(columns.number("addr.dst", 0xC0000201)[0][at], 4)
    words = ip[:, :20].reshape(len(ip), 10, 2).astype(np.uint32)
    total = (words[:, :, 0] << 8 | words[:, :, 1]).sum(axis=1)
    folded = (total & 0xFFFF) + (total >> 16)
    ip[:, 10:12] = _big_endian((~(folded + (folded >> 16)) & 0xFFFF).astype(np.uint64), 2)
    _transport(ip[:, 20:], at, columns, protocol, "icmp")
    frames[at, 14:] = ip


def _ipv6(frames: Bytes, at: npt.NDArray[np.int64], columns: _Columns, protocol: _Numbers) -> None:
    ip = np.zeros((len(at), SIZE - 14), np.uint8)
    ip[:, 0], ip[:, 4:6] = 0x60, (0, SIZE - 14 - 40)
    ip[:, 6] = protocol[at]
    ip[:, 7] = columns.number("ttl", _USUAL["ttl"])[0][at]
    for name, start in (("ip6.src", 8), ("ip6.dst", 24)):
        high, low, _ = columns.wide(name)
        ip[:, start : start + 8] = _big_endian(high[at], 8)
        ip[:, start + 8 : start + 16] = _big_endian(low[at], 8)
    _transport(ip[:, 40:], at, columns, protocol, "icmp6")
    frames[at, 14:] = ip


def _transport(
    after: Bytes, at: npt.NDArray[np.int64], columns: _Columns, protocol: _Numbers, icmp: str
) -> None:
    """Ports, or an ICMP type and code; the length of UDP, the header length and flags of TCP."""
    of, with_ports = protocol[at], np.isin(protocol[at], _PORTS)
    for name, start in (("sport", 0), ("dport", 2)):
        values = columns.number(name, _USUAL[name])[0][at]
        after[with_ports, start : start + 2] = _big_endian(values[with_ports], 2)
    after[of == 17, 4:6] = (0, after.shape[1])
    after[of == 6, 12] = 0x50
    after[of == 6, 13] = columns.number("tcp.flags", 0x10)[0][at][of == 6]
    is_icmp = of == (1 if icmp == "icmp" else 58)
    for start, part in enumerate(("type", "code")):
        after[is_icmp, start] = columns.number(f"{icmp}.{part}", 8)[0][at][is_icmp]


def _big_endian(values: _Numbers, size: int) -> Bytes:
    return np.ascontiguousarray(values.astype(f">u{size}")).view(np.uint8).reshape(len(values), size)
