"""Parsing, done once before the rules: where headers lie and what the IP headers say, in words of memory.

What is found, and what is not, is what `ir.headers` and `ir.chain` define; this
is the same walk with its loop written out eight times.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import get_args

from penstock.compiler.classic import ipv6, tunnel
from penstock.compiler.classic.assemble import ADD, AND, JEQ, JGE, JSET, LSH, OR, RSH, Label
from penstock.compiler.classic.needs import Needs, Part
from penstock.compiler.classic.packet import ABSENT, NONE, Code, Fixed, Header, Kept, Where
from penstock.compiler.classic.start import LINK_HEADER, NETWORK_HEADER, PROTOCOL, TAG_PRESENT, Start
from penstock.compiler.ir.chain import AUTHENTICATION
from penstock.compiler.ir.headers import IPV4, IPV6, MPLS, PPP_TYPES, PPPOE_SESSION
from penstock.compiler.ir.ops import Base, Scope
from penstock.compiler.ir.tunnel import TRANSPARENT_ETHERNET
from penstock.model.field import MAX_EXTENSION_HEADERS, MAX_VLAN_TAGS, VLAN_TPIDS

_OFFSETS: frozenset[Part] = frozenset(("frame", "network", "transport"))


@dataclass(frozen=True, slots=True)
class Place:
    """Where one scope's parts are kept: a word of memory, or an offset that is known."""

    words: dict[Part, int]
    bases: dict[Base, Where]
    has_macs: bool = True
    has_tags: bool = True


@dataclass(slots=True)
class Headers:
    """The parsed packet, as the rest of the program finds it."""

    code: Code
    places: dict[Scope, Place] = field(default_factory=dict)

    def base(self, base: Base, scope: Scope) -> Where:
        """Where offsets from a base count from."""
        return self.places[scope].bases[base]

    def word(self, part: Part, scope: Scope = ()) -> int:
        """The word that holds a part."""
        return self.places[scope].words[part]


def parse(code: Code, needs: Needs, bad: Label | None = None) -> Headers:
    """Code that parses what is needed; goes to `bad` where an IPv6 header chain runs beyond the packet."""
    headers = Headers(code)
    for scope, parts in needs.items():
        headers.places[scope] = _place(code, scope, parts)
    _initialize(code, headers)
    for scope, parts in needs.items():
        done = code.label()
        if not scope:
            _first_link(code, headers, parts, done)
        elif parts:
            _step(code, headers, scope, done)
        code.place(done)
        if "transport" in parts:
            _network(code, headers, scope, bad if not scope else None)
    return headers


def _place(code: Code, scope: Scope, parts: set[Part]) -> Place:
    """Words for what is found on the way; what the socket's kind says needs none."""
    bases: dict[Base, Where] = {}
    if not scope:
        bases = _known_bases(code.start)
    order: tuple[Part, ...] = get_args(Part)
    named: dict[Part, Base] = {"frame": Base.FRAME, "network": Base.NETWORK, "transport": Base.TRANSPORT}
    words: dict[Part, int] = {}
    for part in order:
        if part in parts and named.get(part) not in bases and (scope or part != "exists"):
            words[part] = code.word()
            if part in named:
                bases[named[part]] = Kept(words[part])
    links = [step for step in scope if step != "mpls"]
    ppp = links[-1:] == ["pppoes"]
    return Place(words, bases, has_macs=not ppp, has_tags=not scope or scope[-1] in ("geneve", "inner"))


def _known_bases(start: Start) -> dict[Base, Where]:
    match start:
        case Start.FRAME | Start.PACKET:
            return {Base.FRAME: Fixed(0)}
        case Start.COOKED:
            return {Base.FRAME: Header(LINK_HEADER)}
        case Start.NETWORK | Start.BARE:
            return {Base.FRAME: Header(LINK_HEADER), Base.NETWORK: Fixed(0)}
        case Start.TRANSPORT:
            return {Base.FRAME: Header(LINK_HEADER), Base.NETWORK: Header(NETWORK_HEADER)}


def _initialize(code: Code, headers: Headers) -> None:
    """Every word is written before anything else: the kernel refuses a program that might read one unwritten."""
    for value, are_offsets in ((ABSENT, True), (NONE, False)):
        words = [
            word
            for place in headers.places.values()
            for part, word in place.words.items()
            if (part in _OFFSETS) is are_offsets
        ]
        if words:
            code.constant(value)
        for word in words:
            code.keep(word)


# ── link headers ─────────────────────────────────────────────────────────────


def _first_link(code: Code, headers: Headers, parts: set[Part], done: Label) -> None:
    if not parts & {"type", "network"}:
        return
    words = headers.places[()].words
    match code.start:
        case Start.FRAME:
            _ethernet(code, words, Fixed(0), MAX_VLAN_TAGS, done)
        case Start.PACKET:
            plain = code.label()
            code.ancillary(TAG_PRESENT)
            code.when(JEQ, 0, plain)
            _ethernet(code, words, Fixed(0), MAX_VLAN_TAGS - 1, done)
            code.place(plain)
            _ethernet(code, words, Fixed(0), MAX_VLAN_TAGS, done)
        case Start.COOKED:
            _cooked(code, words, done)
        case Start.NETWORK | Start.BARE | Start.TRANSPORT:
            code.ancillary(PROTOCOL)
            _keep_part(code, words, "type")


def _exists(code: Code, words: dict[Part, int]) -> None:
    """There is such a scope, whatever of it can be read."""
    if "exists" in words:
        code.constant(0)
        code.keep(words["exists"])


def _keep_part(code: Code, words: dict[Part, int], part: Part) -> None:
    if part in words:
        code.keep(words[part])


def _ethernet(code: Code, words: dict[Part, int], at: Where, tags: int, done: Label) -> None:
    """Step over tags; A is the type when the network header has been reached."""
    for tag in range(tags + 1):
        code.load(at, 12 + 4 * tag, 2, done)
        behind = _unless_tag(code, tag < tags)
        _keep_part(code, words, "type")
        code.advance(at, 14 + 4 * tag)
        _keep_part(code, words, "network")
        code.go(done)
        code.place(behind)


def _unless_tag(code: Code, may_step: bool) -> Label:
    """Where to go on if A is a tag's type, and another may be stepped over."""
    behind = code.label()
    if may_step:
        for kind in VLAN_TPIDS:
            code.when(JEQ, kind, behind)
    return behind


def _cooked(code: Code, words: dict[Part, int], done: Label) -> None:
    """The kernel keeps the type; if it is a tag's, the packet begins with that tag's number."""
    plain = code.label()
    code.ancillary(TAG_PRESENT)
    code.when(JEQ, 0, plain)
    for tags, behind_all in ((MAX_VLAN_TAGS - 1, False), (MAX_VLAN_TAGS, True)):
        if behind_all:
            code.place(plain)
        for tag in range(tags + 1):
            if tag:
                code.load(Fixed(0), 4 * tag - 2, 2, done)
            else:
                code.ancillary(PROTOCOL)
            behind = _unless_tag(code, tag < tags)
            _keep_part(code, words, "type")
            code.constant(4 * tag)
            _keep_part(code, words, "network")
            code.go(done)
            code.place(behind)


# ── encapsulations ───────────────────────────────────────────────────────────


def _step(code: Code, headers: Headers, scope: Scope, done: Label) -> None:
    outer, words, step = headers.places[scope[:-1]], headers.places[scope].words, scope[-1]
    match step:
        case "mpls":
            _behind_mpls(code, outer, words, scope[-2:-1] == ("mpls",), done)
        case "pppoes":
            _behind_pppoe(code, outer, words, done)
        case "geneve" | "inner":
            _behind_tunnel(code, outer, words, step == "geneve", done)


def _behind_mpls(code: Code, outer: Place, words: dict[Part, int], after_label: bool, done: Label) -> None:
    network = outer.bases[Base.NETWORK]
    if after_label:
        # The label above: its last byte but one, two bytes before what follows it.
        code.advance(network, (1 << 32) - 2)
        code.to_x()
        code.guard_x(1, done)
        code.read(Kept(0), 0, 1)
        code.when(JSET, 1, done)
    else:
        code.recall(outer.words["type"])
        code.unless(JEQ, MPLS, done)
    _exists(code, words)
    if "frame" in words:
        code.advance(outer.bases[Base.FRAME], 0)
        code.keep(words["frame"])
    code.advance(network, 4)
    _keep_part(code, words, "network")
    if "type" not in words:
        return
    code.load(network, 2, 1, done)
    code.unless(JSET, 1, done)
    code.load(network, 4, 1, done)
    code.alu(RSH, 4)
    for version, kind in ((4, IPV4), (6, IPV6)):
        other = code.label()
        code.unless(JEQ, version, other)
        code.constant(kind)
        code.keep(words["type"])
        code.go(done)
        code.place(other)


def _behind_pppoe(code: Code, outer: Place, words: dict[Part, int], done: Label) -> None:
    network, found = outer.bases[Base.NETWORK], code.label()
    code.recall(outer.words["type"])
    code.unless(JEQ, PPPOE_SESSION, done)
    _exists(code, words)
    for part, distance in (("frame", 6), ("network", 8)):
        if part in words:
            code.advance(network, distance)
            code.keep(words[part])
    if "type" not in words:
        return
    code.load(network, 6, 2, done)
    for protocol, kind in PPP_TYPES.items():
        other = code.label()
        code.unless(JEQ, protocol, other)
        code.constant(kind)
        code.go(found)
        code.place(other)
    code.place(found)
    code.keep(words["type"])


def _behind_tunnel(code: Code, outer: Place, words: dict[Part, int], is_geneve: bool, done: Label) -> None:
    """A frame or an IP packet; Geneve may carry something else too."""
    proto, transport, ethernet = outer.words["proto"], outer.bases[Base.TRANSPORT], code.label()
    with code.spare() as start:
        if is_geneve:
            tunnel.geneve(code, proto, transport, start, words.get("exists"), done)
        else:
            tunnel.inner(code, proto, transport, start, done)
            if "exists" in words:
                code.keep(words["exists"])
        code.when(JEQ, TRANSPARENT_ETHERNET, ethernet)
        _keep_part(code, words, "type")
        code.recall(start)
        _keep_part(code, words, "network")
        code.go(done)
        code.place(ethernet)
        if "frame" in words:
            code.recall(start)
            code.keep(words["frame"])
        _ethernet(code, words, Kept(start), MAX_VLAN_TAGS, done)


# ── network headers ──────────────────────────────────────────────────────────


def _network(code: Code, headers: Headers, scope: Scope, bad: Label | None) -> None:
    place = headers.places[scope]
    done, four, six = code.label(), code.label(), code.label()
    code.recall(place.words["type"])
    code.when(JEQ, IPV4, four)
    code.jump(JEQ, IPV6, six, done)
    code.place(four)
    _ipv4(code, place, done)
    code.go(done)
    code.place(six)
    ipv6.walk(code, place.bases[Base.NETWORK], place.words, done, bad)
    code.place(done)


def _ipv4(code: Code, place: Place, done: Label) -> None:
    network, words = place.bases[Base.NETWORK], place.words
    no_proto, parsed, later = code.label(), code.label(), code.label()
    code.load(network, 9, 1, no_proto)
    code.keep(words["proto"])
    code.place(no_proto)
    code.load(network, 6, 2, parsed)
    code.when(JSET, 0x1FFF, later)
    if "frag" in words:
        code.alu(RSH, 13)
        code.alu(AND, 1)
        code.keep(words["frag"])
    code.load(network, 0, 1, parsed)
    code.alu(AND, 0x0F)
    code.unless(JGE, 5, parsed)
    code.alu(LSH, 2)
    if code.start is Start.TRANSPORT and isinstance(network, Header):
        code.constant(0)
    code.plus(network)
    code.keep(words["transport"])
    code.go(parsed)
    code.place(later)
    if "frag" in words:
        # As `frag` reads it: the offset in bytes above two bits that say which fragment this is.
        code.alu(AND, 0x1FFF)
        code.alu(LSH, 5)
        code.alu(OR, 2)
        code.keep(words["frag"])
    code.place(parsed)
    if "chain" in words:
        _ipv4_chain(code, words, done)


def _ipv4_chain(code: Code, words: dict[Part, int], done: Label) -> None:
    cut = code.label()
    code.recall(words["proto"])
    code.keep(words["chain"])
    code.recall(words["transport"])
    code.when(JGE, ABSENT, done)
    with code.spare() as at:
        code.keep(at)
        for _ in range(MAX_EXTENSION_HEADERS):
            code.recall(words["chain"])
            code.unless(JEQ, AUTHENTICATION, done)
            code.guard(Kept(at), 2, cut)
            code.read(Kept(at), 0, 1)
            code.keep(words["chain"])
            code.read(Kept(at), 1, 1)
            code.alu(ADD, 2)
            code.alu(LSH, 2)
            code.plus(Kept(at))
            code.keep(at)
    code.recall(words["chain"])
    code.unless(JEQ, AUTHENTICATION, done)
    code.place(cut)
    code.constant(NONE)
    code.keep(words["chain"])
