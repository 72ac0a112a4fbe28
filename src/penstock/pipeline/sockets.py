"""A filter on one socket: what it drops is hidden from that socket, and from no other.

    with attach_socket(sock, "udp port 53") as running:          # tcpdump's way: what matches is kept
        sock.recv(65535)
        running.counters()["expression"].packets

    attach_socket(sock, "filter guard at socket { drop if src net 10.0.0.0/8 }", classic=True)

Packet sockets (SOCK_RAW, SOCK_DGRAM), raw, UDP and TCP sockets, over IPv4 and
IPv6.  `classic` makes a classic BPF program: it needs neither privilege nor
clang, and counts nothing.
"""

from __future__ import annotations

import socket
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from penstock.errors import PenstockError, PrivilegeError
from penstock.kernel.bpf_object import BpfObject, load_object
from penstock.kernel.elf import initial_value
from penstock.kernel.libc import synchronize_rcu
from penstock.kernel.socket_filter import attach_classic, attach_program, describe, detach, only_new
from penstock.model.closing import Closing
from penstock.model.hook import Hook
from penstock.model.spec import COUNTERS_MAP, PROGRAM
from penstock.pipeline.counters import Counter, Totals, added, carried_over, named, nothing, read_totals
from penstock.pipeline.expression import is_policy, load_expression, matcher
from penstock.pipeline.identity import kept_slots
from penstock.pipeline.link_header import BARE
from penstock.pipeline.policy import LoadedPolicy, load_policy, rule_set_of

if TYPE_CHECKING:
    from penstock.compiler.classic.start import Start
    from penstock.compiler.ir.ops import RuleSet
    from penstock.model.classic import Program

#: Tells the program what the socket's packets begin with, on kernels that do not (socket.bpf.h).
_PART_VARIABLE = "ps_socket_part"
_PARTS = {"packet": 0, "cooked": 1, "network": 1, "bare": 1, "transport": 2}
SOCKET = Hook.SOCKET.value
_NO_PRIVILEGE = "a classic filter needs no privilege: attach_socket(…, classic=True)"


@dataclass(frozen=True, slots=True)
class _Made:
    """A filter that is ready to be attached: a program in the kernel, or classic instructions."""

    policy: LoadedPolicy | None
    loaded: BpfObject | None
    instructions: Program = ()

    def attach(self, sock: socket.socket) -> None:
        if self.loaded is None:
            attach_classic(sock, self.instructions)
        else:
            attach_program(sock, self.loaded.programs[PROGRAM])

    def close(self) -> None:
        if self.loaded is not None:
            self.loaded.close()


class SocketFilter(Closing):
    """A filter on a socket.  It ends with `close`, with its block, and with the socket."""

    def __init__(self, sock: socket.socket, made: _Made) -> None:
        self.socket = sock
        self._made: _Made | None = made
        self._base = nothing(len(made.policy.counters) if made.policy else 0)

    @property
    def is_classic(self) -> bool:
        """Whether it is a classic BPF program, which counts nothing."""
        return self._made is not None and self._made.loaded is None

    def counters(self) -> dict[str, Counter]:
        """Packets and bytes by name: ``default``, ``on malformed`` and so on, then the rules in order.

        Raises:
            PenstockError: this is a classic filter, which counts nothing, or it has been taken off.
        """
        made = self._running()
        if made.policy is None:
            raise PenstockError(
                f"the filter of {describe(self.socket)} is classic BPF, which counts nothing",
                hint="an eBPF filter counts: attach_socket without classic=True",
            )
        return named(made.policy.counters, self._totals(made))

    def replace(self, policy: LoadedPolicy | str) -> None:
        """Put another filter in place in one step; rules with the same label keep their counters.

        Raises:
            PenstockError: the new one cannot be made; the old one runs on.
        """
        old = self._running()
        new = _made(policy, start_of(self.socket), classic=self.is_classic)
        try:
            new.attach(self.socket)
        except BaseException:
            new.close()
            raise
        if old.policy is not None and new.policy is not None:
            # Then nobody runs the old program any more, and what it counted is final.
            synchronize_rcu()
            pairs = kept_slots(old.policy.counters, new.policy.counters)
            self._base = carried_over(pairs, self._totals(old), nothing(len(new.policy.counters)))
        old.close()
        self._made = new

    def close(self) -> None:
        """Take the filter off the socket, unless that is closed; a second call does nothing."""
        made, self._made = self._made, None
        if made is None:
            return
        try:
            if self.socket.fileno() >= 0:
                detach(self.socket)
        finally:
            made.close()

    def _running(self) -> _Made:
        if self._made is None:
            raise PenstockError(f"the filter of {describe(self.socket)} has been taken off")
        return self._made

    def _totals(self, made: _Made) -> Totals:
        assert made.loaded is not None
        assert made.policy is not None
        own = read_totals(made.loaded.maps[COUNTERS_MAP], len(made.policy.counters))
        return added(own, self._base)


def attach_socket(
    sock: socket.socket,
    policy: LoadedPolicy | str,
    *,
    classic: bool = False,
    drain: bool | None = None,
) -> SocketFilter:
    """Filter the packets of a socket until the result is closed.

    `policy` is a compiled policy, the text of one with a filter at socket, or a
    bare expression, whose matches are kept.  `drain` throws away what was queued
    before, as libpcap does: what a packet socket gives from then on was
    filtered.  By default that is done for packet sockets only, as elsewhere the
    queue may hold what somebody waits for.

    Raises:
        PolicyError: the text is no policy and no expression, or classic BPF cannot say it.
        PenstockError: the socket is of a kind that sees no packets.
        KernelError: a capability is missing, or the kernel refuses the program.
    """
    drain = sock.family == socket.AF_PACKET if drain is None else drain
    if drain and sock.type == socket.SOCK_STREAM:
        raise PenstockError("a TCP socket's queue is not drained: its bytes are acknowledged already")
    made = _made(policy, start_of(sock), classic=classic)
    try:
        with only_new(sock) if drain else nullcontext():
            made.attach(sock)
    except BaseException:
        made.close()
        raise
    return SocketFilter(sock, made)


def start_of(sock: socket.socket) -> Start:
    """Where the packet begins that a filter of this socket is given.

    Raises:
        PenstockError: it is of a kind that sees no packets of a network.
    """
    from penstock.compiler.classic.start import Start

    match sock.family, sock.type:
        case socket.AF_PACKET, _ if sock.getsockname()[3] in BARE:
            return Start.BARE
        case socket.AF_PACKET, socket.SOCK_RAW:
            return Start.PACKET
        case socket.AF_PACKET, _:
            return Start.COOKED
        case socket.AF_INET, socket.SOCK_RAW:
            return Start.NETWORK
        case socket.AF_INET | socket.AF_INET6, _:
            return Start.TRANSPORT
        case _:
            raise PenstockError(
                f"{describe(sock)} sees no packets of a network",
                hint="packet sockets, raw, UDP and TCP sockets do",
            )


# ── what to attach ───────────────────────────────────────────────────────────


def _made(policy: LoadedPolicy | str, start: Start, *, classic: bool) -> _Made:
    """The filter for packets that begin so."""
    if classic:
        from penstock.compiler.classic.generate import compile_classic

        return _Made(None, None, compile_classic(_rules(policy), start).instructions)
    compiled = _compiled(policy)
    return _Made(compiled, _load(compiled, start))


def _compiled(policy: LoadedPolicy | str) -> LoadedPolicy:
    """The policy, compiled for a socket."""
    if isinstance(policy, str):
        return load_policy(policy, hook=SOCKET) if is_policy(policy) else load_expression(policy)
    if policy.identity.hook != SOCKET:
        raise PenstockError(
            f"{policy.name} is at {policy.identity.hook}, not at socket", hint="filter NAME at socket { … }"
        )
    return policy


def _rules(policy: LoadedPolicy | str) -> RuleSet:
    """What the policy means at a socket; nothing is compiled."""
    if isinstance(policy, str):
        return rule_set_of(policy, hook=SOCKET) if is_policy(policy) else matcher(policy)
    rules = _compiled(policy).rule_set
    if rules is None:
        raise PenstockError(f"{policy.name} is a built file, which has no rules to make classic BPF of")
    return rules


def _load(policy: LoadedPolicy, start: Start) -> BpfObject:
    known = initial_value(policy.elf, _PART_VARIABLE) is not None
    rodata = {_PART_VARIABLE: _PARTS[start.value]} if known else {}
    try:
        return load_object(policy.elf, policy.name, rodata=rodata)
    except PrivilegeError as error:
        error.hint = f"{error.hint}; {_NO_PRIVILEGE}"
        raise
