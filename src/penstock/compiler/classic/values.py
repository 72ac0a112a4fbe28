"""Fields and terms in register A, or a jump to where their absence leads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import assert_never

from penstock.compiler.classic.assemble import (
    ADD,
    ALU,
    AND,
    DIV,
    JEQ,
    JGE,
    JGT,
    LSH,
    MOD,
    MUL,
    OR,
    RSH,
    SUB,
    XOR,
    Label,
    X,
)
from penstock.compiler.classic.headers import Headers
from penstock.compiler.classic.needs import Part
from penstock.compiler.classic.packet import ABSENT, FARTHEST, NONE, Code, Fixed, Header, Kept, Where
from penstock.compiler.classic.start import (
    INTERFACE,
    KIND,
    MARK,
    OUTGOING,
    PROTOCOL,
    TAG,
    TAG_PRESENT,
    TAG_TYPE,
    Start,
)
from penstock.compiler.ir.fields import FIXED, Place
from penstock.compiler.ir.headers import ARP, IPV4, IPV6, RARP
from penstock.compiler.ir.ops import Base, Binary, FieldRef, FieldTerm, Literal32, Read, Scope, Term
from penstock.model.field import VLAN_TPIDS

_OPERATIONS = {
    "+": ADD, "-": SUB, "*": MUL, "/": DIV, "%": MOD, "&": AND, "|": OR, "^": XOR, "<<": LSH, ">>": RSH,
}  # fmt: skip
#: Fields that are kept as they are, with the IP family they belong to.
_KEPT: dict[str, tuple[Part, int]] = {
    "eth.type": ("type", 0),
    "proto": ("proto", 0),
    "ip.proto": ("proto", IPV4),
    "ip6.proto": ("proto", IPV6),
    "ip6.headers": ("headers", 0),
    "chain.proto": ("chain", 0),
}
_BESIDE = {"mark": MARK, "ifindex": INTERFACE, "outbound": KIND}
_BEHIND_LINK = 14
WORD = 0xFFFFFFFF


@dataclass(slots=True)
class Values:
    """Writes loads of fields; `cached` are those that were loaded once for all rules."""

    code: Code
    headers: Headers
    cached: dict[FieldRef, int] = field(default_factory=dict)

    def field(self, ref: FieldRef, absent: Label) -> None:
        """A is a field of at most 32 bits."""
        code, name = self.code, ref.name
        if ref in self.cached:
            code.recall(self.cached[ref])
            code.when(JEQ, NONE, absent)
        elif name == "len":
            self._length(ref.scope, absent)
        elif name in _BESIDE:
            self._beside(name)
        elif name in FIXED:
            self.locate(ref, absent)
            self._placed(ref, FIXED[name])
        elif name in _KEPT:
            self._kept(ref, absent)
        elif name in ("frag", "frag.offset"):
            code.recall(self.headers.word("frag", ref.scope))
            code.when(JEQ, NONE, absent)
            code.alu(*((AND, 3) if name == "frag" else (RSH, 2)))
        elif name.startswith("vlan."):
            self._tag(ref, absent)
        else:
            self._by_family(ref, absent)

    def _beside(self, name: str) -> None:
        """What the kernel keeps beside the packet."""
        code = self.code
        code.ancillary(_BESIDE[name])
        if name == "outbound":
            # 0 becomes 1, and all else 0.
            code.alu(XOR, OUTGOING)
            code.alu(ADD, WORD)
            code.alu(RSH, 31)

    def _length(self, scope: Scope, absent: Label) -> None:
        """The frame's length with its link header, and with the tag that lies beside it."""
        code = self.code
        if scope:
            code.recall(self.headers.word("exists", scope))
            code.when(JEQ, NONE, absent)
        if code.start.may_keep_tag:
            code.ancillary(TAG_PRESENT)
            code.alu(LSH, 2)
            code.to_x()
        code.length()
        if code.start.may_keep_tag:
            code.alu_x(ADD)
        if not code.start.has_frame:
            code.alu(ADD, _BEHIND_LINK)

    def _kept(self, ref: FieldRef, absent: Label) -> None:
        part, family = _KEPT[ref.name]
        if family:
            self._family(ref.scope, family, absent)
        self.code.recall(self.headers.word(part, ref.scope))
        self.code.when(JEQ, NONE, absent)

    def _family(self, scope: Scope, kind: int, absent: Label) -> None:
        self.code.recall(self.headers.word("type", scope))
        self.code.unless(JEQ, kind, absent)

    # ── bytes at a place ─────────────────────────────────────────────────────

    def locate(self, ref: FieldRef, absent: Label) -> tuple[Where, int, int]:
        """Where a plain field's bytes are, guarded: the base (X, if it is kept), the offset and the size."""
        code, name = self.code, ref.name
        if name in ("eth.dst", "eth.src"):
            where, offset, size = self._base(Base.FRAME, ref.scope), 6 * (name == "eth.src"), 6
            if not self.headers.places[ref.scope].has_macs:
                code.go(absent)
        else:
            place = FIXED[name]
            where, offset, size = self._base(place.base, ref.scope), place.offset, place.size
            self._preconditions(ref.scope, place, absent)
        code.guard(where, offset + size, absent)
        return where, offset, size

    def _base(self, base: Base, scope: Scope) -> Where:
        return self.headers.base(base, scope)

    def _preconditions(self, scope: Scope, place: Place, absent: Label) -> None:
        code = self.code
        if place.family:
            self._family(scope, IPV4 if place.family == 4 else IPV6, absent)
        if not place.protocols:
            return
        right = code.label()
        code.recall(self.headers.word("proto", scope))
        for protocol in place.protocols[:-1]:
            code.when(JEQ, protocol, right)
        code.unless(JEQ, place.protocols[-1], absent)
        code.place(right)

    def _placed(self, ref: FieldRef, place: Place) -> None:
        """The bytes that `locate` found, shifted and masked."""
        self.code.read(self._base(place.base, ref.scope), place.offset, place.size)
        if place.shift:
            self.code.alu(RSH, place.shift)
        if place.mask < (1 << 8 * place.size) - 1:
            self.code.alu(AND, place.mask)

    def _by_family(self, ref: FieldRef, absent: Label) -> None:
        """Addresses as IPv4 and ARP have them; what IPv4 and IPv6 both have, at different places."""
        code, network = self.code, self._base(Base.NETWORK, ref.scope)
        second, done = code.label(), code.label()
        address = ref.name.startswith("addr.")
        source = ref.name == "addr.src"
        code.recall(self.headers.word("type", ref.scope))
        code.when(JEQ, IPV4, (four := code.label()))
        if address:
            code.when(JEQ, ARP, second)
        code.unless(JEQ, RARP if address else IPV6, absent)
        code.place(second)
        if address:
            code.load(network, 14 if source else 24, 4, absent)
        elif ref.name == "ttl":
            code.load(network, 7, 1, absent)
        else:
            code.load(network, 0, 4, absent)
            code.alu(RSH, 20)
            code.alu(AND, 0xFF)
        code.go(done)
        code.place(four)
        offset, size = (12 if source else 16, 4) if address else (8 if ref.name == "ttl" else 1, 1)
        code.load(network, offset, size, absent)
        code.place(done)
        if ref.name == "dscp":
            code.alu(RSH, 2)
        elif ref.name == "ecn":
            code.alu(AND, 3)

    # ── VLAN tags ────────────────────────────────────────────────────────────

    def _tag(self, ref: FieldRef, absent: Label) -> None:
        code, start = self.code, self.code.start
        if not self.headers.places[ref.scope].has_tags or (not ref.scope and start.is_untagged):
            code.go(absent)
            return
        done = code.label()
        if not ref.scope and start.may_keep_tag:
            plain = code.label()
            code.ancillary(TAG_PRESENT)
            code.when(JEQ, 0, plain)
            self._tag_word(ref, 1, absent)
            code.go(done)
            code.place(plain)
        self._tag_word(ref, 0, absent)
        code.place(done)
        if ref.name == "vlan.id":
            code.alu(AND, 0xFFF)
        elif ref.name == "vlan.pcp":
            code.alu(RSH, 13)
        elif ref.name == "vlan.dei":
            code.alu(RSH, 12)
            code.alu(AND, 1)

    def _tag_word(self, ref: FieldRef, beside: int, absent: Label) -> None:
        """The tag's type or its control word; `beside` tags are not in the bytes, but of a tag's type."""
        is_type = ref.name == "vlan.tpid"
        for tag in range(beside, ref.index + (not is_type)):
            self._tag_type(ref.scope, tag - beside, absent)
            self._one_of_tag_types(absent)
        if ref.index < beside:
            self.code.ancillary(TAG_TYPE if is_type else TAG)
        elif is_type:
            self._tag_type(ref.scope, ref.index - beside, absent)
        else:
            self._tag_bytes(ref.scope, 4 * (ref.index - beside) + 2, absent)

    def _tag_type(self, scope: Scope, number: int, absent: Label) -> None:
        if self.code.start is Start.COOKED and not scope and not number:
            self.code.ancillary(PROTOCOL)
        else:
            self._tag_bytes(scope, 4 * number, absent)

    def _tag_bytes(self, scope: Scope, offset: int, absent: Label) -> None:
        """Two bytes, counted from where the first tag's type is or would be."""
        if self.code.start is Start.COOKED and not scope:
            self.code.load(Fixed(0), offset - 2, 2, absent)
        else:
            self.code.load(self._base(Base.FRAME, scope), 12 + offset, 2, absent)

    def _one_of_tag_types(self, absent: Label) -> None:
        known = self.code.label()
        for kind in VLAN_TPIDS[:-1]:
            self.code.when(JEQ, kind, known)
        self.code.unless(JEQ, VLAN_TPIDS[-1], absent)
        self.code.place(known)

    # ── terms ────────────────────────────────────────────────────────────────

    def term(self, term: Term, absent: Label) -> None:
        """A is the term's value."""
        match term:
            case Literal32(value):
                self.code.constant(value)
            case FieldTerm(ref):
                self.field(ref, absent)
            case Read():
                self._read(term, absent)
            case Binary():
                self._binary(term, absent)
            case _:
                assert_never(term)

    def _binary(self, term: Binary, absent: Label) -> None:
        code, operation = self.code, _OPERATIONS[term.operator]
        if isinstance(term.right, Literal32):
            self.term(term.left, absent)
            self._by_constant(term.operator, operation, term.right.value, absent)
            return
        self.term(term.left, absent)
        with code.spare() as left:
            code.keep(left)
            self.term(term.right, absent)
            done = code.label()
            if term.operator in ("/", "%"):
                code.when(JEQ, 0, absent)
            if term.operator in ("<<", ">>"):
                near = code.label()
                code.unless(JGE, 32, near)
                code.constant(0)
                code.go(done)
                code.place(near)
            code.to_x()
            code.recall(left)
            code.emit(ALU | operation | X)
            code.place(done)

    def _by_constant(self, operator: str, operation: int, value: int, absent: Label) -> None:
        """What the kernel refuses in a constant is written out: a division by zero, a shift of 32 bits."""
        if operator in ("/", "%") and value == 0:
            self.code.go(absent)
        elif operator in ("<<", ">>") and value >= 32:
            self.code.constant(0)
        else:
            self.code.alu(operation, value)

    def _read(self, read: Read, absent: Label) -> None:
        where = self._base(read.base, read.scope)
        constant = read.offset.value if isinstance(read.offset, Literal32) else None
        if constant is None or (read.base is Base.TRANSPORT and constant > FARTHEST):
            self._read_computed(read, where, absent)
        elif read.base is Base.FRAME and not read.scope and self.code.start is Start.PACKET:
            self._read_frame(constant, read.size, absent)
        else:
            self.code.load(where, constant, read.size, absent)

    def _read_computed(self, read: Read, where: Where, absent: Label) -> None:
        code = self.code
        self.term(read.offset, absent)
        if read.base is Base.TRANSPORT:
            # The distance from the network header is what wraps at 2**32.
            assert isinstance(where, Kept)
            network = self._base(Base.NETWORK, read.scope)
            with code.spare() as offset:
                code.keep(offset)
                code.recall(where.word)
                code.when(JGE, ABSENT, absent)
                if isinstance(network, Kept):
                    code.recall_x(network.word)
                    code.alu_x(SUB)
                code.recall_x(offset)
                code.alu_x(ADD)
            where = network
        code.when(JGT, FARTHEST, absent)
        code.plus(where)
        code.to_x()
        if isinstance(where, Header):
            code.read(Kept(0, where.origin), 0, read.size)
            return
        code.guard_x(read.size, absent)
        code.read(Kept(0), 0, read.size)

    def _read_frame(self, offset: int, size: int, absent: Label) -> None:
        """Bytes of the frame as it was on the wire, its tag in place."""
        code, frame = self.code, Fixed(0)
        if offset + size <= 12:
            code.load(frame, offset, size, absent)
            return
        plain, done = code.label(), code.label()
        code.ancillary(TAG_PRESENT)
        code.when(JEQ, 0, plain)
        if offset >= 16:
            code.load(frame, offset - 4, size, absent)
        elif (offset, size) in ((12, 2), (14, 2)):
            code.ancillary(TAG_TYPE if offset == 12 else TAG)
        else:
            self._joined(offset, size, absent)
        code.go(done)
        code.place(plain)
        code.load(frame, offset, size, absent)
        code.place(done)

    def _joined(self, offset: int, size: int, absent: Label) -> None:
        """Bytes some of which are the tag's, one after the other."""
        code, frame = self.code, Fixed(0)
        code.guard(frame, max(offset + size - 4, 12), absent)
        with code.spare() as sum_word:
            code.constant(0)
            code.keep(sum_word)
            for at in range(offset, offset + size):
                if 12 <= at < 16:
                    code.ancillary(TAG_TYPE if at < 14 else TAG)
                    code.alu(*((AND, 0xFF) if at % 2 else (RSH, 8)))
                else:
                    code.read(frame, at if at < 12 else at - 4, 1)
                code.to_x()
                code.recall(sum_word)
                code.alu(LSH, 8)
                code.alu_x(OR)
                code.keep(sum_word)
