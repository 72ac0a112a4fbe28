"""One policy in several filters on wires of their own, measured round by round.

In: a rule set, its object, and traffic.  Out: `Comparison`: for each filter
that can say the policy nanoseconds a packet beside an XDP program that drops
everything, and for each other why it was left out.

    compare(rules, elf, {"all": frames}).prices[0].ns["all"]   ->  61.2

Before anything is timed, every filter has to deliver exactly the packets that
the reference evaluator passes.  What is sent are the packets that all filters
see alike (`clauses.is_common`); others are left aside and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from statistics import median

from penstock.compiler.clang import compile_c
from penstock.compiler.ir.ops import RuleSet
from penstock.errors import KernelError, PenstockError, PrivilegeError
from penstock.kernel.bpf_object import load_object
from penstock.kernel.program import XDP
from penstock.model.verdict import Verdict
from penstock.price.decide import affordable, decisions_on
from penstock.price.peers import iptables, naive_c, nft, xdp_filter
from penstock.price.peers.clauses import CannotSayError, PlainRule, is_common, plain_rules
from penstock.price.peers.tools import missing, own_bpffs, run
from penstock.price.peers.wire import LONGEST_FRAME, MOST_FRAMES, Wire, on_one_processor, prepared

#: Fewer packets a call do not show what one costs: making the call takes as long as thousands of them.
PACKETS = 16_384
ROUNDS = 7
#: A filter that needs longer than this for a round is measured by the round that compares what it delivers.
SLOW_ROUND_NS = 1_500_000_000

Traffic = Mapping[str, Sequence[bytes]]
Told = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A filter that takes no part, and why."""

    peer: str
    reason: str


@dataclass(frozen=True, slots=True)
class PeerPrice:
    """`ns` a packet by traffic, sending and receiving included; `delivered` of PACKETS packets, as it has to be."""

    peer: str
    ns: dict[str, float]
    delivered: dict[str, int]


@dataclass(frozen=True, slots=True)
class Comparison:
    """`prices` begin with the XDP program that drops everything, against which the others are held.

    `sent` is how many different packets each traffic has, `aside` how many were
    not sent because the filters do not see them alike.
    """

    prices: tuple[PeerPrice, ...]
    left_out: tuple[LeftOut, ...]
    sent: dict[str, int]
    aside: dict[str, int]
    packets: int
    rounds: int

    def ratio(self, price: PeerPrice, traffic: str) -> float:
        """The price as a multiple of dropping everything."""
        return price.ns[traffic] / self.prices[0].ns[traffic]


@dataclass(frozen=True, slots=True)
class Policy:
    """What the peers are made from; `hand_written` is C, `plain` the rules, or why there are none."""

    rule_set: RuleSet
    elf: bytes
    hand_written: str | None = None


@dataclass(frozen=True, slots=True)
class Peer:
    """A filter: the programs it needs, and how to put the policy in place on a wire."""

    name: str
    programs: tuple[str, ...]
    place: Callable[[Policy, Wire], AbstractContextManager[None]]


DROP_ALL, PASS_ALL = "XDP, drops everything", "XDP, passes everything"
BY_HAND, NAIVE = "C by hand", "C, naive and linear"


def compare(
    rule_set: RuleSet,
    elf: bytes,
    traffic: Traffic,
    *,
    hand_written: str | None = None,
    peers: Sequence[Peer] | None = None,
    packets: int = PACKETS,
    rounds: int = ROUNDS,
    told: Told | None = None,
) -> Comparison:
    """Put the policy into every filter, check that they agree, and measure them with the first MOST_FRAMES packets.

    `peers` are all by default; penstock and the two programs that do nothing are
    always there.  `told` hears what is being done.

    Raises:
        KernelError: a wire cannot be made; PrivilegeError without CAP_NET_ADMIN and CAP_SYS_ADMIN.
        PenstockError: none of the traffic can be sent.
    """
    first = {name: affordable(rule_set, frames[:MOST_FRAMES]) for name, frames in traffic.items()}
    common = {name: [frame for frame in frames if _is_sendable(frame)] for name, frames in first.items()}
    sendable = _prepared({name: frames for name, frames in common.items() if frames})
    policy = Policy(rule_set, elf, hand_written)
    size = len(next(iter(sendable.values()))[0])
    with ExitStack() as held, on_one_processor():
        placed, left_out = _placed(policy, ALL if peers is None else peers, size, held, told or _silent)
        expected = {name: _passed(rule_set, frames, packets) for name, frames in sendable.items()}
        prices, disagreeing = _measured(placed, sendable, expected, packets, rounds, told or _silent)
    return Comparison(
        prices,
        (*left_out, *disagreeing),
        {name: len(frames) for name, frames in sendable.items()},
        {name: len(frames) - len(common[name]) for name, frames in first.items()},
        packets,
        rounds,
    )


def _silent(_sentence: str) -> None:
    """Nobody wants to know."""


def _is_sendable(frame: bytes) -> bool:
    """Whether a wire takes the frame (captures have such as no wire carries), and all filters see it alike."""
    return len(frame) <= LONGEST_FRAME and is_common(frame)


def _prepared(traffic: Mapping[str, Sequence[bytes]]) -> dict[str, list[bytes]]:
    """All frames of one length, whatever they belong to."""
    if not traffic:
        raise PenstockError(
            "none of the packets can be sent to the peers: they see whole untagged IP packets alike, no others"
        )
    every = iter(prepared([frame for frames in traffic.values() for frame in frames]))
    return {name: [next(every) for _ in frames] for name, frames in traffic.items()}


def _passed(rule_set: RuleSet, frames: Sequence[bytes], packets: int) -> int:
    """How many of `packets` packets that go round the frames the policy passes."""
    passes = [verdict is Verdict.PASS for verdict, _ in decisions_on(rule_set, frames)]
    whole, rest = divmod(packets, len(passes))
    return whole * sum(passes) + sum(passes[:rest])


def _placed(
    policy: Policy, peers: Sequence[Peer], size: int, held: ExitStack, told: Told
) -> tuple[dict[str, Wire], list[LeftOut]]:
    wires, left_out = dict[str, Wire](), list[LeftOut]()
    for peer in (*_ALWAYS, *peers):
        told(f"putting the rules into {peer.name}")
        reason = missing(*peer.programs)
        if reason is None:
            reason = _put(peer, policy, size, wires, held)
        if reason is not None:
            left_out.append(LeftOut(peer.name, reason))
    return wires, left_out


def _put(peer: Peer, policy: Policy, size: int, wires: dict[str, Wire], held: ExitStack) -> str | None:
    """Put the policy into a filter; why not, if it could not be."""
    with ExitStack() as own:
        wire = own.enter_context(Wire(size))
        try:
            own.enter_context(peer.place(policy, wire))
        except CannotSayError as error:
            return str(error)
        except PrivilegeError:
            raise
        except PenstockError as error:
            if peer in _ALWAYS:
                raise
            return error.message
        wires[peer.name] = wire
        held.push(own.pop_all())
    return None


def _measured(
    wires: dict[str, Wire],
    traffic: Mapping[str, Sequence[bytes]],
    expected: Mapping[str, int],
    packets: int,
    rounds: int,
    told: Told,
) -> tuple[tuple[PeerPrice, ...], list[LeftOut]]:
    samples = {peer: {name: list[float]() for name in traffic} for peer in wires}
    delivered = {peer: dict[str, int]() for peer in wires}
    wrong = list[LeftOut]()
    slow = set[tuple[str, str]]()
    for number in range(rounds + 1):
        told(f"round {number} of {rounds}" if number else "comparing what the filters deliver")
        for name, frames in traffic.items():
            for peer in [peer for peer in samples if (peer, name) not in slow]:
                wires[peer].load(frames)
                sent = wires[peer].send(packets)
                if number:
                    samples[peer][name].append(sent.ns)
                    continue
                delivered[peer][name] = sent.delivered
                if sent.ns * packets > SLOW_ROUND_NS:
                    slow.add((peer, name))
                    samples[peer][name].append(sent.ns)
                reason = _disagreement(peer, sent.delivered, expected[name], packets, name)
                if reason:
                    wrong.append(LeftOut(peer, reason))
                    del samples[peer]
    prices = [
        PeerPrice(peer, {name: median(found) for name, found in by_traffic.items()}, delivered[peer])
        for peer, by_traffic in samples.items()
    ]
    return tuple(prices), wrong


def _disagreement(peer: str, delivered: int, expected: int, packets: int, traffic: str) -> str | None:
    wanted = {DROP_ALL: 0, PASS_ALL: packets}.get(peer, expected)
    if delivered == wanted:
        return None
    return f"it delivers {delivered} of {packets} packets of {traffic!r}, where the policy passes {wanted}"


# ── the filters ──────────────────────────────────────────────────────────────


def _rules(policy: Policy) -> tuple[PlainRule, ...]:
    return plain_rules(policy.rule_set)


@contextmanager
def _drop_all(_policy: Policy, wire: Wire) -> Iterator[None]:
    wire.put(drops=True)
    yield


@contextmanager
def _pass_all(_policy: Policy, wire: Wire) -> Iterator[None]:
    wire.put()
    yield


@contextmanager
def _program(elf: bytes, name: str, wire: Wire) -> Iterator[None]:
    with load_object(elf, name) as loaded:
        found = [program for program in loaded.programs.values() if program.info.type == XDP]
        if len(found) != 1:
            raise KernelError("measure", name, 0, meaning=f"it has {len(found)} XDP programs, not one")
        wire.put(found[0])
        yield


def _penstock(policy: Policy, wire: Wire) -> AbstractContextManager[None]:
    return _program(policy.elf, policy.rule_set.name, wire)


@contextmanager
def _by_hand(policy: Policy, wire: Wire) -> Iterator[None]:
    if policy.hand_written is None:
        raise PenstockError("there is no file of the policy's name with .hand.bpf.c")
    with _program(compile_c(policy.hand_written), "hand", wire):
        yield


@contextmanager
def _naive(policy: Policy, wire: Wire) -> Iterator[None]:
    with _program(compile_c(naive_c.source(_rules(policy), policy.rule_set.default)), "naive", wire):
        yield


def _nft(hook: nft.Hook) -> Callable[[Policy, Wire], AbstractContextManager[None]]:
    @contextmanager
    def place(policy: Policy, wire: Wire) -> Iterator[None]:
        text = nft.script(_rules(policy), policy.rule_set.default, hook, wire.device)
        wire.put()
        with wire.inside():
            run("nft", "-f", "-", text=text)
        yield

    return place


def _iptables(kind: str) -> Callable[[Policy, Wire], AbstractContextManager[None]]:
    @contextmanager
    def place(policy: Policy, wire: Wire) -> Iterator[None]:
        found = iptables.tables(_rules(policy), policy.rule_set.default, wire.device)
        wire.put()
        with wire.inside():
            if found.sets:
                run("ipset", "restore", text=found.sets)
            run(f"iptables{kind}-restore", text=found.ipv4)
            run(f"ip6tables{kind}-restore", text=found.ipv6)
        yield

    return place


@contextmanager
def _xdp_filter(policy: Policy, wire: Wire) -> Iterator[None]:
    found = xdp_filter.listed(_rules(policy), policy.rule_set.default)
    features = ["-f", ",".join(found.features)] if found.features else []
    load = ["xdp-filter", "load", "-m", "native", "-p", found.policy, *features, wire.device]
    with wire.inside(), own_bpffs([load, *(["xdp-filter", *entry] for entry in found.entries)]):
        yield


_ALWAYS = (
    Peer(DROP_ALL, ("ip",), _drop_all),
    Peer(PASS_ALL, ("ip",), _pass_all),
    Peer("penstock", ("ip",), _penstock),
)
ALL = (
    Peer(BY_HAND, (), _by_hand),
    Peer(NAIVE, (), _naive),
    Peer("xdp-filter", ("xdp-filter", "unshare"), _xdp_filter),
    Peer("nft, netdev ingress", ("nft",), _nft("netdev")),
    Peer("nft, inet prerouting", ("nft",), _nft("inet")),
    Peer("iptables", ("iptables-restore", "ip6tables-restore", "ipset"), _iptables("")),
    Peer(
        "iptables-legacy",
        ("iptables-legacy-restore", "ip6tables-legacy-restore", "ipset"),
        _iptables("-legacy"),
    ),
)
