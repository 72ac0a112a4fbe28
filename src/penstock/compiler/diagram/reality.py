"""What packets cannot be, told as boxes, so that nothing is said about packets that do not exist.

Axes are independent numbers, headers are not: a packet with a TCP flag is TCP, a
port needs a protocol that has ports, an IPv6 source an IPv6 packet.  Boxes of the
pseudo-rule IMPOSSIBLE, put before all others, take such combinations out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from penstock.compiler.diagram.axis import Keys, keys_of
from penstock.compiler.diagram.boxes import Boxes, from_ranges
from penstock.compiler.ir.ops import FieldRef
from penstock.model.net import IntervalSet

IMPOSSIBLE = -2

_PORTS, _IP, _ARP = (6, 17, 132), (0x0800, 0x86DD), (0x0806, 0x8035)

#: field that is there -> (field, values one of which it then has).
_IMPLIED: dict[str, tuple[tuple[str, tuple[int, ...]], ...]] = {
    "sport": (("proto", _PORTS),),
    "dport": (("proto", _PORTS),),
    "proto": (("eth.type", _IP),),
    "ttl": (("eth.type", _IP),),
    "dscp": (("eth.type", _IP),),
    "ecn": (("eth.type", _IP),),
    "addr.src": (("eth.type", (0x0800, *_ARP)),),
    "addr.dst": (("eth.type", (0x0800, *_ARP)),),
    "ip6.src": (("eth.type", (0x86DD,)),),
    "ip6.dst": (("eth.type", (0x86DD,)),),
    "ip.id": (("eth.type", (0x0800,)),),
    "ip.len": (("eth.type", (0x0800,)),),
    "ip.df": (("eth.type", (0x0800,)),),
    "ip6.flow": (("eth.type", (0x86DD,)),),
    "ip6.headers": (("eth.type", (0x86DD,)),),
    **{f"tcp.{part}": (("proto", (6,)), ("eth.type", _IP)) for part in ("seq", "ack", "flags", "window")},
    "udp.len": (("proto", (17,)), ("eth.type", _IP)),
    **{f"icmp.{part}": (("proto", (1,)), ("eth.type", (0x0800,))) for part in ("type", "code")},
    **{f"icmp6.{part}": (("proto", (58,)), ("eth.type", (0x86DD,))) for part in ("type", "code")},
}
#: Behind the IP header: not read in later fragments (``frag`` 2).
_TRANSPORT = ("sport", "dport", *(name for name in _IMPLIED if name.startswith(("tcp.", "udp.", "icmp"))))
_NEVER_TOGETHER = [(four, six) for four in ("addr.src", "addr.dst") for six in ("ip6.src", "ip6.dst")]

Ranges = Mapping[FieldRef, tuple[Keys, Keys]]


def with_reality(boxes: Boxes) -> Boxes:
    """The boxes behind those of IMPOSSIBLE, over axes cut for both."""
    refs = [axis.ref for axis in boxes.axes]
    facts = list(impossible(refs))
    ranges = {}
    for at, axis in enumerate(boxes.axes):
        low, high = key_ranges(boxes, at)
        everything = (0, 1 << axis.bits)
        ends = [fact.get(axis.ref, everything) for fact in facts]
        first, last = (
            keys_of(axis.bits, [end[0] for end in ends]),
            keys_of(axis.bits, [end[1] for end in ends]),
        )
        ranges[axis.ref] = np.concatenate([first, low]), np.concatenate([last, high])
    nothing = np.zeros(len(facts), dtype=np.int32)
    return from_ranges(
        ranges, np.concatenate([nothing + IMPOSSIBLE, boxes.rule]), np.concatenate([nothing, boxes.opaque])
    )


def key_ranges(boxes: Boxes, at: int) -> tuple[Keys, Keys]:
    """The boxes' ranges on an axis as keys, inclusive; a range that holds absent ends with it."""
    axis = boxes.axes[at]
    last = boxes.high[:, at] - 1
    absent = axis.cuts[-1]
    ends = before(axis.cuts[np.minimum(boxes.high[:, at], axis.width - 1)])
    return axis.cuts[boxes.low[:, at]], np.where(last == axis.width - 1, absent, ends)


def before(keys: Keys) -> Keys:
    """Each key minus one; 0 stays."""
    if keys.dtype == np.uint64:
        return keys - np.minimum(keys, np.uint64(1))
    values = [max(0, int.from_bytes(key.ljust(17, b"\0"), "big") - 1) for key in keys.tolist()]
    return keys_of(128, values)


def impossible(refs: list[FieldRef]) -> Iterator[dict[FieldRef, tuple[int, int]]]:
    """Combinations of ranges (inclusive) that no packet has, of these fields."""
    plain = {ref.name: ref for ref in refs if not ref.scope}
    for name, implied in _IMPLIED.items():
        for other, values in implied:
            if name in plain and other in plain:
                for gap in _others(plain[other], values):
                    yield {plain[name]: (0, _top(plain[name])), plain[other]: gap}
    for name in _TRANSPORT:
        if name in plain and "frag" in plain:
            yield {plain[name]: (0, _top(plain[name])), plain["frag"]: (2, 2)}
    for four, six in _NEVER_TOGETHER:
        if four in plain and six in plain:
            yield {plain[four]: (0, _top(plain[four])), plain[six]: (0, _top(plain[six]))}


def _top(ref: FieldRef) -> int:
    return (1 << ref.field.bits) - 1


def _others(ref: FieldRef, values: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Every value but these, absent included."""
    absent = 1 << ref.field.bits
    gaps = IntervalSet.single(*values).complement(ref.field.bits)
    return IntervalSet.of(*gaps, (absent, absent)).intervals
