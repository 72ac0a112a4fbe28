"""What is tested on the link: broadcast and multicast, length, encapsulations, LLC, direction.

An encapsulation is a test like any other and, besides, moves what stands to its
right in the same chain of `and` behind itself: `encapsulation` returns both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.compiler.ir.constants import LLC_SUPERVISORY, LLC_UNNUMBERED
from penstock.compiler.ir.headers import IPV4, IPV6, MPLS, PPPOE_SESSION
from penstock.compiler.ir.lower_protocol import is_802_3, link_type, network_equals
from penstock.compiler.ir.lowering import MAX_SCOPE, Lowering, Position
from penstock.compiler.ir.ops import Base, Binary, Compare, FieldRef, FieldTerm, Literal32, Predicate, Read
from penstock.compiler.ir.simplify import FALSE, TRUE, all_of, any_of, equals, within
from penstock.compiler.ir.tunnel import GENEVE_PORT, VXLAN_PORT
from penstock.model.field import AT_INTERFACE, VLAN_TPIDS
from penstock.model.hook import Hook
from penstock.model.net import IntervalSet

if TYPE_CHECKING:
    from penstock.compiler.lang.ast import AtInterface, Cast, Encapsulation, LengthTest, Llc, Way

PPPOE_DISCOVERY = 0x8863
#: Kind -> the highest number that can be asked for, and what it is called.
NUMBERS = {
    "vlan": (0xFFF, "a VLAN id"),
    "mpls": (0xFFFFF, "an MPLS label"),
    "pppoes": (0xFFFF, "a PPPoE session"),
    "geneve": (0xFFFFFF, "a Geneve network identifier"),
    "vxlan": (0xFFFFFF, "a VXLAN network identifier"),
}


def length(test: LengthTest, position: Position) -> Predicate:
    """`less N` and `greater N`, both with N included."""
    bounds = (0, test.length) if test.kind == "less" else (test.length, 0xFFFFFFFF)
    return within(position.field("len"), IntervalSet.of(bounds)) if bounds[0] <= bounds[1] else FALSE


def way(lowering: Lowering, test: Way) -> Predicate:
    """`inbound` and `outbound`: told by the hook, at a socket by each packet, never by a frame alone."""
    hook = lowering.hook
    if hook is None:
        message = f"`{test.kind}` cannot be tested here: a frame does not say which way it goes"
        return lowering.fault("PS311", message, test.span)
    if hook is Hook.SOCKET:
        return equals(FieldRef("outbound"), int(test.kind == "outbound"))
    if (test.kind == "outbound") != (hook is Hook.TC_EGRESS):
        message = f"a filter at {hook.value} never sees an {test.kind} packet"
        return lowering.fault("PS311", message, test.span, hint="leave the rule out")
    return TRUE


def at_interface(lowering: Lowering, test: AtInterface) -> Predicate:
    """`ifname "eth0"`; which interface that is is found out where the filter is loaded."""
    if lowering.hook is None:
        message = "`ifname` cannot be tested here: a frame does not say which interface it is at"
        return lowering.fault("PS311", message, test.span)
    return equals(FieldRef(AT_INTERFACE + test.name), 1)


# ── broadcast, multicast ─────────────────────────────────────────────────────


def cast(lowering: Lowering, test: Cast, position: Position) -> Predicate:
    """`[ether|ip|ip6] broadcast|multicast`."""
    match test.protocol, test.kind:
        case None | "ether", _ if position.on_ppp:
            return lowering.fault("PS309", "behind PPPoE there are no Ethernet addresses", test.span)
        case None | "ether", "broadcast":
            return equals(position.field("eth.dst"), 0xFFFFFFFFFFFF)
        case None | "ether", "multicast":
            first = Read(Base.FRAME, Literal32(0), 1, position.scope)
            return Compare("!=", Binary("&", first, Literal32(1)), Literal32(0))
        case "ip", "broadcast":
            return _ip_broadcast(lowering, test, position)
        case "ip", "multicast":
            # 224.0.0.0 and above: libpcap takes the reserved class E along.
            first = Read(Base.NETWORK, Literal32(16), 1, position.scope)
            ip = link_type(lowering, IPV4, position, test.span)
            return all_of((ip, Compare(">=", first, Literal32(224))))
        case "ip6", "multicast":
            ip6 = link_type(lowering, IPV6, position, test.span)
            return all_of((ip6, network_equals(24, 1, 0xFF, position)))
        case protocol, kind:
            return lowering.fault("PS303", f"{protocol} has no {kind} addresses", test.span)


def _ip_broadcast(lowering: Lowering, test: Cast, position: Position) -> Predicate:
    """The host part of the destination is all zeros or all ones."""
    if lowering.netmask is None:
        return lowering.fault(
            "PS310",
            "`ip broadcast` needs the netmask of the network, which is not known here",
            test.span,
            hint="name the address: ip dst 192.0.2.255; or say `ether broadcast`",
        )
    host_bits = ~lowering.netmask & 0xFFFFFFFF
    host = Binary("&", FieldTerm(position.field("ip.dst")), Literal32(host_bits))
    return any_of([Compare("==", host, Literal32(value)) for value in (0, host_bits)])


# ── LLC ──────────────────────────────────────────────────────────────────────


def llc(lowering: Lowering, test: Llc, position: Position) -> Predicate:
    """An 802.2 LLC header, of the kind asked for; a length and 0xFFFF is raw IPX, not LLC."""
    if position.on_ppp:
        return lowering.fault("PS309", "behind PPPoE there is no LLC header", test.span)
    head = Read(Base.NETWORK, Literal32(0), 2, position.scope)
    is_llc = all_of((is_802_3(position), Compare("!=", head, Literal32(0xFFFF))))
    return is_llc if test.kind is None else all_of((is_llc, _llc_kind(lowering, test, position)))


def _llc_kind(lowering: Lowering, test: Llc, position: Position) -> Predicate:
    word = (test.kind or "").lower()
    if word in LLC_SUPERVISORY:
        mask, value = 0x0F, LLC_SUPERVISORY[word]
    elif word in LLC_UNNUMBERED:
        mask, value = 0xEF, LLC_UNNUMBERED[word]
    elif word in ("i", "s", "u"):
        mask, value = {"i": (0x01, 0x00), "s": (0x03, 0x01), "u": (0x03, 0x03)}[word]
    else:
        return lowering.fault("PS304", f"no LLC frame is named `{test.kind}`", test.span)
    control = Read(Base.NETWORK, Literal32(2), 1, position.scope)
    return Compare("==", Binary("&", control, Literal32(mask)), Literal32(value))


# ── encapsulations ───────────────────────────────────────────────────────────


def encapsulation(lowering: Lowering, test: Encapsulation, at: Position) -> tuple[Predicate, Position]:
    """The test, and where what follows it in the same chain of `and` looks."""
    most, name = NUMBERS.get(test.kind, (0, ""))
    if test.number is not None and test.number > most:
        return lowering.fault("PS305", f"{name} is at most {most}, not {test.number}", test.span), at
    if len(at.scope) >= MAX_SCOPE and test.kind not in ("vlan", "pppoed"):
        return lowering.fault("PS313", f"more than {MAX_SCOPE} encapsulations in one chain", test.span), at
    match test.kind:
        case "vlan":
            return _vlan(lowering, test, at), at.behind_tag()
        case "mpls":
            return _mpls(test, at), at.behind("mpls")
        case "pppoes":
            return _pppoe_session(lowering, test, at), at.behind("pppoes")
        case "geneve":
            return _geneve(test, at), at.behind("geneve")
        case "vxlan":
            return _vxlan(test, at), at.behind("inner")
        case "pppoed":
            return link_type(lowering, PPPOE_DISCOVERY, at, test.span), at


def _vlan(lowering: Lowering, test: Encapsulation, at: Position) -> Predicate:
    if at.in_mpls or at.on_ppp:
        where = "an MPLS label" if at.in_mpls else "PPPoE"
        return lowering.fault("PS309", f"behind {where} there are no VLAN tags", test.span)
    tagged = equals(at.next_tag("vlan.tpid"), *VLAN_TPIDS)
    numbered = TRUE if test.number is None else equals(at.next_tag("vlan.id"), test.number)
    return all_of((tagged, numbered))


def _mpls(test: Encapsulation, at: Position) -> Predicate:
    """The first label follows its Ethernet type; a further one follows a label that is not the last."""
    if at.in_mpls:
        above = Position(at.scope[:-1])
        flags = Read(Base.NETWORK, Literal32(2), 1, above.scope)
        outer = equals(above.field("eth.type"), MPLS) if not above.in_mpls else TRUE
        labelled = all_of((outer, Compare("==", Binary("&", flags, Literal32(1)), Literal32(0))))
    else:
        labelled = equals(at.field("eth.type"), MPLS)
    if test.number is None:
        return labelled
    entry = Read(Base.NETWORK, Literal32(0), 4, at.scope)
    label = Compare("==", Binary(">>", entry, Literal32(12)), Literal32(test.number))
    return all_of((labelled, label))


def _pppoe_session(lowering: Lowering, test: Encapsulation, at: Position) -> Predicate:
    session = link_type(lowering, PPPOE_SESSION, at, test.span)
    if test.number is None:
        return session
    return all_of((session, network_equals(2, 2, test.number, at)))


def _vxlan(test: Encapsulation, at: Position) -> Predicate:
    """UDP to VXLAN's port with the flag that says that there is a network identifier (RFC 7348).

    Of such a packet "inner" is what VXLAN carries.
    """
    flags = Read(Base.TRANSPORT, Literal32(8), 1, at.scope)
    parts = [
        equals(at.field("udp.dport"), VXLAN_PORT),
        Compare("!=", Binary("&", flags, Literal32(0x08)), Literal32(0)),
    ]
    if test.number is not None:
        entry = Read(Base.TRANSPORT, Literal32(12), 4, at.scope)
        parts.append(Compare("==", Binary(">>", entry, Literal32(8)), Literal32(test.number)))
    return all_of(parts)


def _geneve(test: Encapsulation, at: Position) -> Predicate:
    """UDP to Geneve's port, version 0, and a type of the payload (RFC 8926)."""
    flags = Read(Base.TRANSPORT, Literal32(8), 1, at.scope)
    kind = Read(Base.TRANSPORT, Literal32(10), 2, at.scope)
    parts = [
        equals(at.field("udp.dport"), GENEVE_PORT),
        Compare("==", Binary("&", flags, Literal32(0xC0)), Literal32(0)),
        Compare(">=", kind, Literal32(0)),
    ]
    if test.number is not None:
        entry = Read(Base.TRANSPORT, Literal32(12), 4, at.scope)
        parts.append(Compare("==", Binary(">>", entry, Literal32(8)), Literal32(test.number)))
    return all_of(parts)
