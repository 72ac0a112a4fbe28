"""The walk over IPv6 extension headers, written out once for each of the eight that are walked.

The word of `transport` is the position and that of `proto` the number of the
header there; at the end they are what they are called.  See `ir.chain`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.compiler.classic.assemble import ADD, AND, JEQ, JGE, JGT, JSET, LSH, OR, SUB, Label, X
from penstock.compiler.classic.packet import ABSENT, FARTHEST, NONE, OVER, Code, Header, Kept, Where
from penstock.compiler.ir.chain import AUTHENTICATION, FRAGMENT
from penstock.model.field import EXTENSION_HEADERS, MAX_EXTENSION_HEADERS

if TYPE_CHECKING:
    from penstock.compiler.classic.needs import Part

_SIZED = tuple(number for number in EXTENSION_HEADERS if number != FRAGMENT)


def walk(code: Code, network: Where, words: dict[Part, int], done: Label, bad: Label | None) -> None:
    """Walk from the fixed header at `network`; to `bad`, if there is that, when a header runs beyond the packet."""
    _Walk(code, network, words, done, bad).write()


class _Walk:
    def __init__(
        self, code: Code, network: Where, words: dict[Part, int], done: Label, bad: Label | None
    ) -> None:
        self.code, self.network, self.words, self.done, self.bad = code, network, words, done, bad
        self.proto, self.position = words["proto"], words["transport"]
        # Where the network header precedes the packet, positions count from it.
        self.origin = network.origin if isinstance(network, Header) else 0
        self.at = Kept(self.position, self.origin)
        self.reached, self.later = code.label(), code.label()
        self.cut, self.unread, self.no_fragment, self.over = (code.label() for _ in range(4))

    def write(self) -> None:
        code = self.code
        code.load(self.network, 6, 1, self.done)
        code.keep(self.proto)
        for part in ("frag", "headers"):
            if part in self.words:
                code.constant(0)
                code.keep(self.words[part])
        code.advance(self.network, 40)
        code.keep(self.position)
        for _ in range(MAX_EXTENSION_HEADERS):
            self._header()
        code.recall(self.proto)
        for number in EXTENSION_HEADERS:
            code.when(JEQ, number, self.over)
        code.go(self.reached)
        self._ends()

    def _header(self) -> None:
        code = self.code
        fragment, sized, following = code.label(), code.label(), code.label()
        code.recall(self.proto)
        code.when(JEQ, FRAGMENT, fragment)
        for number in _SIZED:
            code.when(JEQ, number, sized)
        code.go(self.reached)
        code.place(sized)
        self._mark_sized()
        self._sized()
        code.go(following)
        code.place(fragment)
        self._mark(FRAGMENT)
        self._fragment()
        code.place(following)

    def _mark_sized(self) -> None:
        """A is the header's number; note that it is there."""
        if "headers" not in self.words:
            return
        code, marked = self.code, self.code.label()
        for number in _SIZED:
            other = code.label()
            code.recall(self.proto)
            code.unless(JEQ, number, other)
            self._mark(number)
            code.go(marked)
            code.place(other)
        code.place(marked)

    def _mark(self, number: int) -> None:
        if "headers" in self.words:
            self.code.recall(self.words["headers"])
            self.code.alu(OR, 1 << EXTENSION_HEADERS[number])
            self.code.keep(self.words["headers"])

    def _reach(self, least: int, short: Label) -> None:
        """X is the header's position; go to `short`, A being what is there of it, if that is less than asked for."""
        code = self.code
        code.recall_x(self.position)
        if self.origin:
            return
        code.length()
        code.alu_x(SUB)
        if self.bad is not None:
            cut, short, least = self.bad, self.bad, 8
        else:
            cut = self.cut
        code.when(JGT, FARTHEST, cut)
        code.unless(JGE, least, short)

    def _sized(self) -> None:
        """Step over a header that tells its length, in units of eight bytes or, for authentication, of four."""
        code, authentication, stepped = self.code, self.code.label(), self.code.label()
        self._reach(2, self.unread)
        code.recall(self.proto)
        code.when(JEQ, AUTHENTICATION, authentication)
        for added, shift in ((1, 3), (2, 2)):
            code.read(self.at, 1, 1)
            code.alu(ADD, added)
            code.alu(LSH, shift)
            if shift == 3:
                code.go(stepped)
                code.place(authentication)
        code.place(stepped)
        code.alu_x(ADD)
        code.keep(self.position)
        code.read(self.at, 0, 1)
        code.keep(self.proto)
        if self.bad is not None:
            code.recall_x(self.position)
            code.length()
            code.unless(JGE | X, 0, self.bad)

    def _fragment(self) -> None:
        """Eight bytes; one with an offset has its transport header elsewhere."""
        code = self.code
        self._reach(4, self.no_fragment)
        code.read(self.at, 0, 1)
        code.keep(self.proto)
        code.read(self.at, 2, 2)
        if "frag" in self.words:
            first = code.label()
            code.unless(JSET, 0xFFF8, first)
            code.alu(AND, 0xFFF8)
            code.alu(LSH, 2)
            code.alu(OR, 2)
            code.keep(self.words["frag"])
            code.go(self.later)
            code.place(first)
            code.constant(1)
            code.keep(self.words["frag"])
        else:
            code.when(JSET, 0xFFF8, self.later)
        code.recall(self.position)
        code.alu(ADD, 8)
        code.keep(self.position)

    def _ends(self) -> None:
        """Where the walk can end besides at the transport header; a number that is not the last says nothing."""
        code, unread = self.code, self.code.label()
        code.place(self.no_fragment)
        code.when(JEQ, 0, self.cut)
        if "frag" in self.words:
            code.constant(NONE)
            code.keep(self.words["frag"])
        code.go(unread)
        code.place(self.unread)
        code.when(JEQ, 0, self.cut)
        code.place(unread)
        code.read(self.at, 0, 1)
        code.keep(self.proto)
        for number in EXTENSION_HEADERS:
            code.when(JEQ, number, self.cut)
        code.place(self.later)
        self._end(transport=ABSENT)
        code.place(self.cut)
        self._end(proto=NONE, transport=ABSENT)
        code.place(self.over)
        self._end(proto=NONE, transport=OVER)
        code.place(self.reached)
        if self.origin:
            self._end(transport=0)

    def _end(self, *, transport: int, proto: int | None = None) -> None:
        code = self.code
        code.constant(transport)
        code.keep(self.position)
        if proto is not None:
            code.constant(proto)
            code.keep(self.proto)
        code.go(self.done)
