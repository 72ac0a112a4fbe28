"""The odd packets that a filter decides before its rules, in the order in which they are decided.

What each condition is, `ir.conditions` says.  A socket's packet is never cut, so
its length is the length on the wire.  What the stack has looked at already is
not looked at again: a packet that a UDP or TCP socket is given is not malformed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from penstock.compiler.classic.assemble import (
    ADD,
    AND,
    JEQ,
    JGE,
    JGT,
    LSH,
    RSH,
    SUB,
    Label,
    X,
)
from penstock.compiler.classic.headers import Headers
from penstock.compiler.classic.needs import Part
from penstock.compiler.classic.packet import ABSENT, NONE, OVER, Code, Kept
from penstock.compiler.classic.start import Start
from penstock.compiler.ir.headers import ARP, IPV4, IPV6, RARP
from penstock.compiler.ir.ops import Base, RuleSet
from penstock.model.field import VLAN_TPIDS, Layer
from penstock.model.verdict import Condition, Verdict

_PARTS: dict[Condition, tuple[Part, ...]] = {
    Condition.UNKNOWN_TAG: ("type",),
    Condition.EXTHDR_LIMIT: ("transport",),
    Condition.FRAGMENT: ("frag",),
    Condition.IP_OPTIONS: ("network", "type"),
}


def judged(rules: RuleSet, start: Start) -> dict[Condition, Verdict]:
    """The conditions that decide, down to the depth at which the rule set judges."""
    deepest = {Condition.MALFORMED: Layer.LINK, Condition.UNKNOWN_TAG: Layer.LINK}
    return {
        condition: verdict
        for condition, verdict in rules.conditions
        if verdict is not None
        and rules.depth >= deepest.get(condition, Layer.NETWORK)
        and not (condition is Condition.MALFORMED and start is Start.TRANSPORT)
    }


def parts_of(rules: RuleSet, start: Start) -> set[Part]:
    """What judging needs of the frame's headers."""
    found: set[Part] = set()
    for condition in judged(rules, start):
        found |= set(_PARTS.get(condition, ()))
        if condition is Condition.MALFORMED:
            found |= {"network", "type"} if rules.depth < Layer.TRANSPORT else {"transport", "frag"}
            found |= {"transport"} if rules.depth >= Layer.NETWORK else set()
    return found


@dataclass(slots=True)
class Judge:
    """Writes the checks; `verdicts` are the labels where a verdict is answered."""

    code: Code
    headers: Headers
    rules: RuleSet
    verdicts: dict[Verdict, Label]

    def write(self) -> None:
        """Each condition that decides, in order; behind it the packet is not of that kind."""
        writers: dict[Condition, Callable[[Label], None]] = {
            Condition.MALFORMED: self._malformed,
            Condition.UNKNOWN_TAG: self._unknown_tag,
            Condition.EXTHDR_LIMIT: self._too_long,
            Condition.FRAGMENT: self._fragment,
            Condition.IP_OPTIONS: self._options,
        }
        for condition, verdict in judged(self.rules, self.code.start).items():
            self.code.owner = f"`on {condition.word}`"
            writers[condition](self.verdicts[verdict])

    def _unknown_tag(self, odd: Label) -> None:
        self.code.recall(self.headers.word("type"))
        for kind in VLAN_TPIDS:
            self.code.when(JEQ, kind, odd)

    def _too_long(self, odd: Label) -> None:
        self.code.recall(self.headers.word("transport"))
        self.code.when(JEQ, OVER, odd)

    def _fragment(self, odd: Label) -> None:
        code, none = self.code, self.code.label()
        code.recall(self.headers.word("frag"))
        code.when(JEQ, NONE, none)
        code.alu(AND, 3)
        code.when(JEQ, 2, odd)
        code.place(none)

    def _options(self, odd: Label) -> None:
        code, none = self.code, self.code.label()
        code.recall(self.headers.word("type"))
        code.unless(JEQ, IPV4, none)
        code.load(self.headers.base(Base.NETWORK, ()), 0, 1, none)
        code.alu(AND, 0x0F)
        code.when(JGT, 5, odd)
        code.place(none)

    # ── malformed ────────────────────────────────────────────────────────────

    def _malformed(self, odd: Label) -> None:
        code, fine = self.code, self.code.label()
        network = self.headers.base(Base.NETWORK, ())
        if isinstance(network, Kept):
            code.recall(network.word)
            code.when(JGE, ABSENT, odd)
        if self.rules.depth >= Layer.NETWORK:
            self._malformed_network(odd, fine)
        code.place(fine)

    def _malformed_network(self, odd: Label, fine: Label) -> None:
        code, network = self.code, self.headers.base(Base.NETWORK, ())
        arp, four, six, transport = (code.label() for _ in range(4))
        code.recall(self.headers.word("type"))
        code.when(JEQ, IPV4, four)
        code.when(JEQ, IPV6, six)
        for kind in (ARP, RARP):
            code.when(JEQ, kind, arp)
        code.go(fine)
        code.place(arp)
        code.guard(network, 28, odd)
        code.go(fine)
        with code.spare() as end:
            code.place(four)
            self._ipv4(end, odd)
            code.go(transport)
            code.place(six)
            self._ipv6(end, odd)
            code.place(transport)
            if self.rules.depth >= Layer.TRANSPORT:
                self._transport(end, odd, fine)

    def _ipv4(self, end: int, odd: Label) -> None:
        """`end` is what the header says of the packet's end, as an offset."""
        code, network = self.code, self.headers.base(Base.NETWORK, ())
        code.guard(network, 20, odd)
        code.read(network, 0, 1)
        code.alu(RSH, 4)
        code.unless(JEQ, 4, odd)
        code.read(network, 0, 1)
        code.alu(AND, 0x0F)
        code.unless(JGE, 5, odd)
        code.alu(LSH, 2)
        code.keep(end)
        code.plus(network)
        self._beyond(odd)
        if isinstance(network, Kept):
            code.recall_x(network.word)
        code.read(network, 2, 2)
        code.recall_x(end)
        code.unless(JGE | X, 0, odd)
        code.plus(network)
        code.keep(end)
        self._beyond(odd)

    def _ipv6(self, end: int, odd: Label) -> None:
        code, network = self.code, self.headers.base(Base.NETWORK, ())
        known = code.label()
        code.guard(network, 40, odd)
        code.read(network, 0, 1)
        code.alu(RSH, 4)
        code.unless(JEQ, 6, odd)
        code.length()
        code.keep(end)
        code.read(network, 4, 2)
        code.when(JEQ, 0, known)  # a jumbogram's length is elsewhere (RFC 2675)
        code.alu(ADD, 40)
        code.plus(network)
        code.keep(end)
        self._beyond(odd)
        code.place(known)

    def _beyond(self, odd: Label) -> None:
        """Odd if the offset in A lies beyond the packet."""
        self.code.to_x()
        self.code.length()
        self.code.unless(JGE | X, 0, odd)

    def _transport(self, end: int, odd: Label, fine: Label) -> None:
        """`end` becomes what is left behind the transport header's start."""
        code, transport = self.code, self.headers.base(Base.TRANSPORT, ())
        assert isinstance(transport, Kept)
        code.recall(transport.word)
        code.when(JGE, ABSENT, fine)
        code.to_x()
        code.recall(end)
        code.alu_x(SUB)
        code.keep(end)
        for protocol, least, kind in ((6, 20, 0), (17, 8, 0), (132, 12, 0), (1, 8, IPV4), (58, 4, IPV6)):
            other = code.label()
            code.recall(self.headers.word("proto"))
            code.unless(JEQ, protocol, other)
            if kind:
                code.recall(self.headers.word("type"))
                code.unless(JEQ, kind, fine)
            code.recall(end)
            code.when(JGE, 0x80000000, odd)
            code.unless(JGE, least, odd)
            if protocol == 6:
                self._tcp(transport, end, odd)
            if protocol == 17:
                self._udp(transport, end, odd, fine)
            code.go(fine)
            code.place(other)

    def _tcp(self, transport: Kept, end: int, odd: Label) -> None:
        code = self.code
        code.recall_x(transport.word)
        code.read(transport, 12, 1)
        code.alu(RSH, 4)
        code.unless(JGE, 5, odd)
        code.alu(LSH, 2)
        code.to_x()
        code.recall(end)
        code.unless(JGE | X, 0, odd)

    def _udp(self, transport: Kept, end: int, odd: Label, fine: Label) -> None:
        code, told = self.code, self.code.label()
        code.recall_x(transport.word)
        code.read(transport, 4, 2)
        code.unless(JEQ, 0, told)
        code.recall(self.headers.word("type"))
        code.jump(JEQ, IPV6, fine, odd)
        code.place(told)
        code.unless(JGE, 8, odd)
        # Of a fragment the whole is not here.
        code.recall(self.headers.word("frag"))
        code.unless(JEQ, 0, fine)
        code.read(transport, 4, 2)
        code.to_x()
        code.recall(end)
        code.unless(JGE | X, 0, odd)
