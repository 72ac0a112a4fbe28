"""Where the packet begins that a packet carries, and of which type it is: the steps "geneve" and "inner".

What counts as carried is what `ir.tunnel` defines.  Each part goes to `none`
where nothing is carried, and comes out at its end with the start kept in a word
and the type in A.
"""

from __future__ import annotations

from penstock.compiler.classic.assemble import ADD, AND, JEQ, JSET, LSH, RSH, Label
from penstock.compiler.classic.packet import Code, Kept, Where
from penstock.compiler.ir.tunnel import (
    GENEVE_PORT,
    GRE,
    GTP_PORT,
    IN_IPV4,
    IN_IPV6,
    IPV4,
    IPV6,
    KINDS,
    MAX_GTP_EXTENSIONS,
    TRANSPARENT_ETHERNET,
    UDP,
    VXLAN_PORT,
)

_GRE_OPTIONAL, _GRE_UNKNOWN = (0x8000, 0x2000, 0x1000), 0x4007
_GTP_PDU, _GTP_EXTENSIONS, _GTP_OPTIONAL = 0xFF, 0x04, 0x07


def geneve(code: Code, proto: int, transport: Where, start: int, exists: int | None, none: Label) -> None:
    """Geneve to its port; it is there as soon as its version is right, whatever it carries."""
    code.recall(proto)
    code.unless(JEQ, UDP, none)
    code.load(transport, 2, 2, none)
    code.unless(JEQ, GENEVE_PORT, none)
    code.load(transport, 8, 1, none)
    code.when(JSET, 0xC0, none)
    if exists is not None:
        code.keep(exists)
    _behind_options(code, transport, start, none)


def inner(code: Code, proto: int, transport: Where, start: int, none: Label) -> None:
    """Any of the tunnels that are known."""
    known = code.label()
    for number, kind in ((IN_IPV4, IPV4), (IN_IPV6, IPV6)):
        other = code.label()
        code.recall(proto)
        code.unless(JEQ, number, other)
        code.advance(transport, 0)
        code.keep(start)
        code.constant(kind)
        code.go(known)
        code.place(other)
    not_gre, found = code.label(), code.label()
    code.unless(JEQ, GRE, not_gre)
    _gre(code, transport, start, none)
    code.go(found)
    code.place(not_gre)
    code.unless(JEQ, UDP, none)
    _udp(code, transport, start, none, found)
    code.place(found)
    for kind in KINDS:
        code.when(JEQ, kind, known)
    code.go(none)
    code.place(known)


def _gre(code: Code, transport: Where, start: int, none: Label) -> None:
    code.load(transport, 0, 2, none)
    code.when(JSET, _GRE_UNKNOWN, none)
    code.advance(transport, 4)
    code.keep(start)
    for bit in _GRE_OPTIONAL:
        without = code.label()
        code.load(transport, 0, 2, none)
        code.unless(JSET, bit, without)
        code.advance(Kept(start), 4)
        code.keep(start)
        code.place(without)
    code.load(transport, 2, 2, none)


def _udp(code: Code, transport: Where, start: int, none: Label, found: Label) -> None:
    """`found` is where a tunnel's type is in A; the last of them goes there by itself."""
    vxlan, options = code.label(), code.label()
    code.load(transport, 2, 2, none)
    code.when(JEQ, VXLAN_PORT, vxlan)
    code.when(JEQ, GENEVE_PORT, options)
    code.unless(JEQ, GTP_PORT, none)
    _gtp(code, transport, start, none)
    code.go(found)
    code.place(vxlan)
    code.load(transport, 8, 1, none)
    code.unless(JSET, 0x08, none)
    code.advance(transport, 16)
    code.keep(start)
    code.constant(TRANSPARENT_ETHERNET)
    code.go(found)
    code.place(options)
    code.load(transport, 8, 1, none)
    code.when(JSET, 0xC0, none)
    _behind_options(code, transport, start, none)


def _behind_options(code: Code, transport: Where, start: int, none: Label) -> None:
    """A is Geneve's first byte."""
    code.alu(AND, 0x3F)
    code.alu(LSH, 2)
    code.alu(ADD, 16)
    code.plus(transport)
    code.keep(start)
    code.load(transport, 10, 2, none)


def _gtp(code: Code, transport: Where, start: int, none: Label) -> None:
    plain, extended, reached, six = (code.label() for _ in range(4))
    code.load(transport, 8, 1, none)
    code.alu(AND, 0xF0)
    code.unless(JEQ, 0x30, none)
    code.load(transport, 9, 1, none)
    code.unless(JEQ, _GTP_PDU, none)
    code.advance(transport, 16)
    code.keep(start)
    code.load(transport, 8, 1, none)
    code.unless(JSET, _GTP_OPTIONAL, reached)
    code.advance(transport, 20)
    code.keep(start)
    code.load(transport, 8, 1, none)
    code.jump(JSET, _GTP_EXTENSIONS, extended, reached)
    code.place(extended)
    code.load(transport, 19, 1, none)
    _gtp_extensions(code, start, none, reached)
    code.place(reached)
    code.load(Kept(start), 0, 1, none)
    code.alu(RSH, 4)
    code.when(JEQ, 6, six)
    code.unless(JEQ, 4, none)
    code.constant(IPV4)
    code.go(plain)
    code.place(six)
    code.constant(IPV6)
    code.place(plain)


def _gtp_extensions(code: Code, start: int, none: Label, reached: Label) -> None:
    """A is the first one's type."""
    for _ in range(MAX_GTP_EXTENSIONS):
        code.when(JEQ, 0, reached)
        code.load(Kept(start), 0, 1, none)
        code.when(JEQ, 0, none)
        code.alu(LSH, 2)
        code.plus(Kept(start))
        code.keep(start)
        # Its last byte: one before the next one.
        code.alu(ADD, (1 << 32) - 1)
        code.to_x()
        code.guard_x(1, none)
        code.read(Kept(start), 0, 1)
    code.unless(JEQ, 0, none)
