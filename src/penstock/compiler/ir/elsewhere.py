"""What of a rule set is something else at another hook, told where a rule touches it.

At every hook a packet is addressed as it is on the wire and the same frame has
the same verdict.  What differs is the frames themselves: a card has taken a tag
off, segments have been joined, fragments put together.  Each of these is known
here, with what a rule has to ask for to notice.

    differences(rules, Hook.SOCKET, written)   ->  [warning[PS253] … a UDP socket meets packets put together again]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from penstock.compiler.ir.depth import leaves
from penstock.compiler.ir.ops import (
    Base,
    Binary,
    Classic,
    Compare,
    FieldRef,
    FieldTerm,
    HeaderWalked,
    Literal32,
    Member,
    Over,
    Predicate,
    Read,
    Rule,
    RuleSet,
    Term,
    Within,
)
from penstock.compiler.lang.ast import Filter
from penstock.compiler.lang.diagnostic import Diagnostic, Severity
from penstock.compiler.lang.source import Span
from penstock.model.hook import Hook
from penstock.model.verdict import Condition, Verdict

#: What a part of a predicate asks for.
_Asked = FieldRef | Read | HeaderWalked | Classic


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that differs at some hooks, and how to tell that a rule or a condition touches it."""

    code: str
    hooks: frozenset[Hook]
    what: str
    touches: Callable[[_Asked], bool] = lambda _: False
    condition: Condition | None = None
    hint: str | None = None
    verdict: Verdict | None = None


def differences(rules: RuleSet, hook: Hook, written: Filter) -> tuple[Diagnostic, ...]:
    """A warning for each thing that differs at `hook`, at the first rule or line of the filter that touches it."""
    known = [one for one in _DIFFERENCES if hook in one.hooks]
    if _is_outgoing(hook) != _is_outgoing(rules.hook) and hook is not Hook.SOCKET:
        known.append(_OUTWARD if _is_outgoing(hook) else _INWARD)
    found = (_found(rules, hook, written, one) for one in known)
    return tuple(diagnostic for diagnostic in found if diagnostic is not None)


def _is_outgoing(hook: Hook) -> bool:
    return hook is Hook.TC_EGRESS


def _found(rules: RuleSet, hook: Hook, written: Filter, difference: Difference) -> Diagnostic | None:
    touching = [rule for rule in rules.rules if _touches(rule, difference)]
    spans = [*(rule.span for rule in touching), *_lines(written, difference)]
    if not spans:
        return None
    others = ", ".join(rule.name for rule in touching[1:])
    return Diagnostic(
        difference.code,
        Severity.WARNING,
        difference.what.replace("{hook}", hook.value),
        rules.source,
        spans[0],
        (f"so {'do' if len(touching) > 2 else 'does'} {others}",) if others else (),
        difference.hint,
    )


def _lines(written: Filter, difference: Difference) -> Iterator[Span]:
    """The places of `on …` and `default` that touch it."""
    for line in written.conditions:
        if line.condition is difference.condition and line.verdict is not None:
            yield line.span
    if written.default is not None and written.default is difference.verdict:
        yield written.default_span


def _touches(rule: Rule, difference: Difference) -> bool:
    if difference.verdict is not None:
        return rule.action is difference.verdict
    return any(difference.touches(part) for part in _asked(rule.condition))


def _asked(predicate: Predicate) -> Iterator[_Asked]:
    for leaf, _ in leaves(predicate):
        match leaf:
            case Within(ref, _):
                yield ref
            case Compare(_, left, right):
                yield from _of_term(left)
                yield from _of_term(right)
            case Member(_, keys):
                yield from keys
            case Over(_, refs):
                yield from refs
            case HeaderWalked() | Classic():
                yield leaf
            case _:
                pass


def _of_term(term: Term) -> Iterator[_Asked]:
    match term:
        case FieldTerm(ref):
            yield ref
        case Read():
            yield term
            yield from _of_term(term.offset)
        case Binary(_, left, right):
            yield from _of_term(left)
            yield from _of_term(right)
        case _:
            pass


# ── what a part touches ──────────────────────────────────────────────────────


def _tag(part: _Asked) -> bool:
    match part:
        case FieldRef(name, scope, _):
            return name.startswith("vlan.") and not scope
        case Read(Base.FRAME, Literal32(offset), size, ()):
            return offset < 16 and offset + size > 12
        case Classic():
            return True
        case _:
            return False


def _link_header(part: _Asked) -> bool:
    match part:
        case FieldRef(name, scope, _):
            return name in ("eth.src", "eth.dst") and all(step == "mpls" for step in scope)
        case Read(Base.FRAME, _, _, ()) | Classic():
            return True
        case _:
            return False


def _fragment(part: _Asked) -> bool:
    match part:
        case FieldRef(name):
            return name in ("frag", "frag.offset")
        case HeaderWalked(number):
            return number == 44
        case _:
            return False


def _length(part: _Asked) -> bool:
    match part:
        case FieldRef(name):
            return name in ("ip.len", "udp.len", "ip.id")
        case Read(Base.NETWORK, Literal32(offset), size, _):
            return offset < 6 and offset + size > 2
        case _:
            return False


def _checksum(part: _Asked) -> bool:
    """TCP's and UDP's; a few bytes of other protocols lie there too."""
    match part:
        case Read(Base.TRANSPORT, Literal32(offset), size, _):
            return any(offset < end and offset + size > start for start, end in ((6, 8), (16, 18)))
        case _:
            return False


def _side(part: _Asked) -> bool:
    return isinstance(part, FieldRef) and part.name.endswith(("src", "dst", "sport", "dport"))


_SKB = frozenset((Hook.TC_INGRESS, Hook.TC_EGRESS, Hook.SOCKET))
_DIFFERENCES = (
    Difference(
        "PS250",
        frozenset((Hook.XDP,)),
        "at xdp a VLAN tag that the card has taken off is nowhere to be seen",
        _tag,
        hint="ethtool -K DEVICE rxvlan off leaves tags in the packet",
    ),
    Difference(
        "PS251",
        frozenset((Hook.SOCKET,)),
        "at a raw, UDP or TCP socket VLAN tags are gone; a packet socket is shown them",
        _tag,
    ),
    Difference(
        "PS252",
        _SKB,
        "at {hook} several segments may come as one packet (GRO, GSO): lengths and numbers of its IP and UDP headers "
        "are the whole's",
        _length,
        hint="`len` and `greater` are those of one segment's frame, everywhere",
    ),
    Difference(
        "PS253",
        frozenset((Hook.SOCKET,)),
        "a UDP, TCP or raw socket meets packets put together again, never a fragment; a packet socket meets both kinds",
        _fragment,
        Condition.FRAGMENT,
    ),
    Difference(
        "PS254",
        frozenset((Hook.SOCKET,)),
        "at a socket a packet may have no Ethernet header (tunnels, tun): its addresses are then 0",
        _link_header,
    ),
    Difference(
        "PS255",
        _SKB,
        "at {hook} a packet of this host may have no checksum yet: its card computes it",
        _checksum,
    ),
    Difference(
        "PS256",
        frozenset((Hook.SOCKET,)),
        "at a socket `drop` hides a packet from that socket alone: the host and other sockets still get it",
        verdict=Verdict.DROP,
    ),
    Difference(
        "PS257",
        frozenset((Hook.SOCKET,)),
        "what is malformed comes to packet sockets only: the stack refuses it before it finds any other socket",
        condition=Condition.MALFORMED,
    ),
)
_OUTWARD = Difference(
    "PS258",
    frozenset((Hook.TC_EGRESS,)),
    "at tc egress packets go out: the source is this host where it was somebody else, and the destination not",
    _side,
)
_INWARD = Difference(
    "PS258",
    frozenset((Hook.XDP, Hook.TC_INGRESS)),
    "at {hook} packets come in: the source is somebody else where it was this host, and the destination not",
    _side,
)
