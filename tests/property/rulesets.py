"""Random rule sets and frames, from a seed.

Values come from small pools that the frames draw from as well, so that tests
are true often enough; every field, base, operator and scope can turn up.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from penstock.compiler.ir.depth import depth_of
from penstock.compiler.ir.ops import (
    All,
    Always,
    Any,
    Base,
    Binary,
    Compare,
    Effect,
    FieldRef,
    FieldTerm,
    HeaderWalked,
    Literal32,
    Negation,
    Predicate,
    Read,
    Rule,
    RuleSet,
    Scope,
    Term,
    Within,
)
from penstock.compiler.lang.source import Source, Span
from penstock.model.field import EXTENSION_HEADERS, FIELDS, Layer, is_metadata
from penstock.model.hook import Hook
from penstock.model.net import IntervalSet
from penstock.model.verdict import Condition, Verdict

SCOPES: tuple[Scope, ...] = (
    ("mpls",),
    ("mpls", "mpls"),
    ("pppoes",),
    ("pppoes", "mpls"),
    ("geneve",),
    ("geneve", "mpls"),
    ("mpls", "geneve"),
    ("geneve", "geneve"),
    ("inner",),
    ("inner",),
    ("inner", "inner"),
    ("mpls", "inner"),
    ("inner", "mpls"),
    ("geneve", "inner"),
)
_COMMON = (
    "ip.src",
    "ip.dst",
    "ip6.src",
    "proto",
    "ip.proto",
    "dport",
    "sport",
    "tcp.dport",
    "udp.dport",
    "eth.type",
)
_POOLS: dict[str, tuple[int, ...]] = {
    "ip": (0x0A000001, 0x0A000002, 0xC0000201, 0xFFFFFFFF),
    "ip6": (0x20010DB8 << 96 | 1, 0xFE80 << 112 | 1, (1 << 128) - 1),
    "port": (22, 53, 80, 443, 1024, 6081),
    "proto": (1, 6, 17, 44, 51, 58, 132),
    "type": (0x0800, 0x0806, 0x86DD, 0x8100, 0x8847, 0x8864),
}
#: What a test run can carry out by itself: a redirection needs its device, a rejection writes into the packet.
VERDICTS = (Verdict.PASS, Verdict.DROP, Verdict.BOUNCE)
_OPERATORS = ("+", "-", "*", "/", "%", "&", "|", "^", "<<", ">>")


class RuleSets:
    """Draws rule sets; the same seed gives the same ones."""

    def __init__(self, seed: int, *, scopes: bool = True) -> None:
        self._random = random.Random(seed)
        self._scopes = scopes

    def rule_set(self, rules: int, *, depth: Layer | None = None) -> RuleSet:
        draw = self._random
        source = Source("random.policy", "".join(f"    rule {line}\n" for line in range(1, rules + 1)))
        made = tuple(self._rule(source, line) for line in range(1, rules + 1))
        deep = max(depth_of(rule.condition for rule in made), depth or draw.choice(tuple(Layer)))
        choices = (None, None, Verdict.DROP, Verdict.PASS)
        conditions = tuple((condition, draw.choice(choices)) for condition in Condition)
        default = draw.choice((Verdict.PASS, Verdict.DROP))
        return RuleSet("random", Hook.XDP, default, conditions, made, deep, source)

    def _rule(self, source: Source, line: int) -> Rule:
        start = source.text.index(f"rule {line}\n")
        action = self._random.choice((*VERDICTS, Effect.COUNT, Effect.COUNT, Effect.AUDIT))
        return Rule(f"random:{line}", action, self.predicate(), Span(start, start + 6), line)

    def predicate(self, nesting: int = 3) -> Predicate:
        draw = self._random
        if nesting and draw.random() < 0.5:
            match draw.randrange(3):
                case 0:
                    return Negation(self.predicate(nesting - 1))
                case 1:
                    return All(self._operands(nesting))
                case _:
                    return Any(self._operands(nesting))
        match draw.randrange(12):
            case 0:
                return Always(draw.random() < 0.5)
            case 1:
                return self._walked()
            case 2 | 3 | 4:
                return Compare(draw.choice(("<", "<=", ">", ">=", "==", "!=")), self.term(), self.term())
            case _:
                ref = self.ref()
                return Within(ref, self.values(ref))

    def _operands(self, nesting: int) -> tuple[Predicate, ...]:
        return tuple(self.predicate(nesting - 1) for _ in range(self._random.randrange(2, 4)))

    def _walked(self) -> HeaderWalked:
        if self._random.random() < 0.3:
            return HeaderWalked(51, self.scope(), ipv4=True)
        return HeaderWalked(self._random.choice(tuple(EXTENSION_HEADERS)), self.scope())

    def scope(self) -> Scope:
        if self._scopes and self._random.random() < 0.25:
            return self._random.choice(SCOPES)
        return ()

    def ref(self, most_bits: int = 128) -> FieldRef:
        names = [name for name, field in FIELDS.items() if field.bits <= most_bits and not is_metadata(name)]
        common = [name for name in _COMMON if name in names]
        name = self._random.choice(common if self._random.random() < 0.4 else names)
        index = self._random.choice((0, 0, 1, 2, 3)) if name.startswith("vlan.") else 0
        return FieldRef(name, self.scope(), index)

    def values(self, ref: FieldRef) -> IntervalSet:
        draw = self._random
        count = draw.choice((1, 1, 1, 1, 2, 3, 6, 12, 40, 200))
        found = IntervalSet.of(*(self._interval(ref) for _ in range(count)))
        return found.complement(ref.field.bits) if draw.random() < 0.1 else found

    def _interval(self, ref: FieldRef) -> tuple[int, int]:
        draw, bits = self._random, ref.field.bits
        low = self._value(ref)
        match draw.randrange(4):
            case 0:
                host = draw.randrange(bits + 1)
                low = low >> host << host
                return low, low + (1 << host) - 1
            case 1:
                return low, min(low + draw.randrange(300), (1 << bits) - 1)
            case _:
                return low, low

    def _value(self, ref: FieldRef) -> int:
        draw, bits = self._random, ref.field.bits
        if draw.random() < 0.2:
            return draw.getrandbits(bits)
        for key, pool in (("ip6.src", "ip6"), ("ip6.dst", "ip6"), ("ip.", "ip"), ("addr", "ip")):
            if ref.name.startswith(key) and bits >= 32:
                return draw.choice(_POOLS[pool])
        if "port" in ref.name:
            return draw.choice(_POOLS["port"])
        if "proto" in ref.name:
            return draw.choice(_POOLS["proto"])
        if ref.name in ("eth.type", "vlan.tpid"):
            return draw.choice(_POOLS["type"])
        return min(draw.choice((0, 1, 2, 5, 20, 60, 64, 100)), (1 << bits) - 1)

    def term(self, nesting: int = 2) -> Term:
        draw = self._random
        if nesting and draw.random() < 0.35:
            return Binary(draw.choice(_OPERATORS), self.term(nesting - 1), self.term(nesting - 1))
        match draw.randrange(4):
            case 0:
                return Literal32(draw.choice((0, 1, 2, 4, 6, 12, 17, 31, 32, 53, 0xFFFC, 0xFFFFFFFF, 0x800)))
            case 1:
                return FieldTerm(self.ref(32))
            case _:
                offset: Term = Literal32(
                    draw.choice((0, 1, 2, 6, 9, 12, 13, 16, 40, 1400, 65535, 0xFFFFFFFC))
                )
                if nesting and draw.random() < 0.25:
                    offset = self.term(nesting - 1)
                return Read(draw.choice(tuple(Base)), offset, draw.choice((1, 2, 4)), self.scope())


class Frames:
    """Draws frames of nested headers that are mostly right, then cut, padded or hit by a random byte."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def frame(self) -> bytes:
        draw = self._random
        data = self._ethernet(2)
        match draw.randrange(8):
            case 0 | 1:
                data = data[: draw.randrange(14, max(15, len(data)))]
            case 2:
                data += bytes(draw.randrange(40))
            case 3:
                changed = bytearray(data)
                for _ in range(draw.randrange(1, 3)):
                    changed[draw.randrange(12, len(data))] = draw.getrandbits(8)
                data = bytes(changed)
            case 4 if draw.random() < 0.3:
                data += bytes(draw.randrange(9000 - len(data)))
        return data.ljust(14, b"\0")

    def _ethernet(self, nesting: int) -> bytes:
        draw = self._random
        head = bytes([2, 0, 0, 0, 0, draw.choice((1, 2))]) + bytes([2, 0, 0, 0, 0, draw.choice((1, 2))])
        tags = b""
        for _ in range(draw.choice((0, 0, 0, 0, 1, 2, 3, 4))):
            tags += _u16(draw.choice((0x8100, 0x88A8, 0x9100))) + _u16(draw.choice((0, 5, 100, 0xF005)))
        return head + tags + self._typed(nesting)

    def _typed(self, nesting: int) -> bytes:
        draw = self._random
        match draw.randrange(12):
            case 0 | 1 | 2 | 3 | 4:
                return _u16(0x0800) + self._ipv4(nesting)
            case 5 | 6 | 7 | 8:
                return _u16(0x86DD) + self._ipv6(nesting)
            case 9:
                return (
                    _u16(draw.choice((0x0806, 0x8035)))
                    + draw.randbytes(14)
                    + b"\x0a\0\0\x01"
                    + draw.randbytes(10)
                )
            case 10:
                return _u16(0x8847) + self._labels(nesting)
            case _:
                protocol, body = draw.choice(((0x21, 4), (0x57, 6), (0x281, 0), (0xC021, 0)))
                inner = (
                    self._ipv4(nesting)
                    if body == 4
                    else self._ipv6(nesting)
                    if body
                    else self._labels(nesting)
                )
                return _u16(0x8864) + b"\x11\0\0\x07" + _u16(len(inner) + 2) + _u16(protocol) + inner

    def _labels(self, nesting: int) -> bytes:
        draw = self._random
        count = draw.choice((1, 1, 2, 3))
        labels = b"".join(bytes([0, 1, 0 if at + 1 < count else 1, 64]) for at in range(count))
        return labels + (self._ipv4(nesting) if draw.random() < 0.5 else self._ipv6(nesting))

    def _address4(self) -> bytes:
        return self._random.choice(_POOLS["ip"]).to_bytes(4, "big")

    def _ipv4(self, nesting: int) -> bytes:
        draw = self._random
        proto, payload = self._transport(nesting, v6=False)
        options = bytes(4 * draw.choice((0, 0, 0, 0, 0, 1, 2, 10)))
        fragment = draw.choice((0, 0, 0x4000, 0x4000, 0x4000, 0x2000, 0x2005, 0x0010))
        total = 20 + len(options) + len(payload) + draw.choice((0, 0, 0, 0, 0, 0, 0, -1, 1, -9))
        first = 0x45 + len(options) // 4
        if draw.random() < 0.04:
            first = draw.getrandbits(8)
        tos, ttl = draw.choice((0, 0xB8, 1)), draw.choice((1, 64, 255))
        head = bytes([first, tos]) + _u16(total) + _u16(7) + _u16(fragment)
        return head + bytes([ttl, proto]) + b"\0\0" + self._address4() + self._address4() + options + payload

    def _ipv6(self, nesting: int) -> bytes:
        draw = self._random
        proto, payload = self._transport(nesting, v6=True)
        for _ in range(draw.choice((0, 0, 0, 0, 0, 0, 1, 1, 2, 3, 8, 9))):
            number = draw.choice((0, 43, 44, 51, 60, 135))
            if number == 44:
                header = (
                    bytes([proto, draw.choice((0, 200))])
                    + _u16(draw.choice((0, 0, 1, 1, 8, 0x101)))
                    + bytes(4)
                )
            elif number == 51:
                header = bytes([proto, 4]) + bytes(22)
            else:
                units = draw.choice((0, 0, 1))
                header = bytes([proto, units]) + bytes(6 + 8 * units)
            proto, payload = number, header + payload
        length = 0 if draw.random() < 0.04 else len(payload) + draw.choice((0, 0, 0, 0, 0, 0, -1, 1, -7))
        first = draw.choice((0x60, 0x60, 0x60, 0x60, 0x6B, 0x40))
        source = draw.choice(_POOLS["ip6"]).to_bytes(16, "big")
        target = draw.choice(_POOLS["ip6"]).to_bytes(16, "big")
        head = bytes([first, draw.choice((0, 0x12)), 0, 5]) + _u16(max(length, 0)) + bytes([proto, 64])
        return head + source + target + payload

    def _transport(self, nesting: int, *, v6: bool) -> tuple[int, bytes]:
        draw = self._random
        ports = _u16(draw.choice(_POOLS["port"])) + _u16(draw.choice(_POOLS["port"]))
        data = draw.randbytes(draw.choice((0, 0, 1, 8, 30)))
        match draw.randrange(9):
            case 0 | 1:
                offset = draw.choice((5, 5, 5, 5, 6, 4, 15))
                flags = draw.choice((2, 0x10, 0x12, 4))
                head = ports + draw.randbytes(8) + bytes([offset << 4, flags]) + _u16(100) + bytes(4)
                return 6, head + bytes(4 if offset == 6 else 0) + data
            case 2 | 3 | 4:
                length = 8 + len(data) + draw.choice((0, 0, 0, 0, 0, -1, 1, -9))
                return 17, ports + _u16(0 if draw.random() < 0.05 else max(length, 0)) + b"\0\0" + data
            case 5:
                return 132, ports + bytes(8) + data
            case 6:
                return (58 if v6 or draw.random() < 0.1 else 1), bytes(
                    [draw.choice((0, 3, 8, 128)), 0]
                ) + bytes(6) + data
            case 7 if nesting:
                return self._tunnel(nesting - 1)
            case 8 if not v6:
                proto = 17
                for _ in range(draw.choice((1, 2, 8, 9))):
                    data, proto = bytes([proto, 4]) + bytes(22) + data, 51
                return 51, data
            case _:
                return draw.choice((2, 47, 50, 59, 103, 255)), data

    def _tunnel(self, nesting: int) -> tuple[int, bytes]:
        """Something that carries a packet, and its protocol number."""
        draw = self._random
        match draw.randrange(8):
            case 0:
                return 4, self._ipv4(nesting)
            case 1:
                return 41, self._ipv6(nesting)
            case 2 | 3:
                return 47, self._gre(nesting)
            case 4:
                head = bytes([draw.choice((8, 8, 8, 0, 0xFF)), 0, 0, 0, 0, 0, 5, 0])
                return 17, self._datagram(4789, head + self._ethernet(nesting))
            case 5 | 6:
                return 17, self._datagram(2152, self._gtp(nesting))
            case _:
                return 17, self._geneve(nesting)

    def _datagram(self, port: int, payload: bytes) -> bytes:
        return _u16(1024) + _u16(port) + _u16(8 + len(payload)) + b"\0\0" + payload

    def _payload(self, nesting: int, kind: int) -> bytes:
        match kind:
            case 0x6558:
                return self._ethernet(nesting)
            case 0x0800:
                return self._ipv4(nesting)
            case 0x86DD:
                return self._ipv6(nesting)
            case _:
                return self._labels(nesting)

    def _gre(self, nesting: int) -> bytes:
        draw = self._random
        bits = [bit for bit in (0x8000, 0x2000, 0x1000) if draw.random() < 0.4]
        kind = draw.choice((0x6558, 0x0800, 0x0800, 0x86DD, 0x8847))
        flags = sum(bits) | draw.choice((0, 0, 0, 0, 0, 0, 1, 0x4000, 0x0800))
        return _u16(flags) + _u16(kind) + bytes(4 * len(bits)) + self._payload(nesting, kind)

    def _gtp(self, nesting: int) -> bytes:
        draw = self._random
        payload = self._payload(nesting, draw.choice((0x0800, 0x86DD, 0x8847)))
        flags = draw.choice((0x30, 0x30, 0x32, 0x31, 0x34, 0x34, 0x36, 0x20, 0x50))
        optional = b""
        if flags & 7:
            lengths = [draw.choice((1, 1, 2, 0)) for _ in range(draw.choice((0, 1, 2, 4, 5)))]
            kinds = [0x85] * len(lengths) + [0]
            headers = (
                bytes([words, *bytes(max(4 * words - 2, 2)), kind])
                for words, kind in zip(lengths, kinds[1:], strict=True)
            )
            optional = bytes([0, 9, 0, kinds[0] if flags & 4 else draw.choice((0, 0x85))])
            optional += b"".join(headers) if flags & 4 else b""
        kind = draw.choice((0xFF, 0xFF, 0xFF, 0xFF, 1))
        return bytes([flags, kind]) + _u16(len(payload) + len(optional)) + bytes(4) + optional + payload

    def _geneve(self, nesting: int) -> bytes:
        draw = self._random
        options = 4 * draw.choice((0, 0, 1, 3))
        kind = draw.choice((0x6558, 0x6558, 0x0800, 0x86DD, 0x8847))
        inner = self._payload(nesting, kind)
        first = options // 4 | draw.choice((0, 0, 0, 0, 0x40))
        body = bytes([first, 0]) + _u16(kind) + bytes([0, 0, 1, 0]) + bytes(options) + inner
        return self._datagram(6081, body)


def _u16(value: int) -> bytes:
    return value.to_bytes(2, "big")


def frames(seed: int, count: int) -> Sequence[bytes]:
    """`count` frames of at least 14 bytes."""
    source = Frames(seed)
    return [source.frame() for _ in range(count)]
