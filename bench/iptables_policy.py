"""Say in penstock's language what the chains of iptables say.

In: chains as they were saved, one of them, and the interface that the filter is
to sit on.  Out: `Translated`: a policy, and a report of every rule that it does
not carry.

    translate(read(text), "INPUT", interface="eth0").left_out   ->  (Notice(12, "…", "-m conntrack"), …)

Chains that are jumped to are written out where they are jumped to; RETURN
becomes a condition that the rest of its chain does not hold for.  What needs
state, or knows what XDP cannot know, is left out and listed: the policy is then
*not* the same firewall, and is meant for measuring, or as a beginning.  A rule
for another interface is no loss: its packets never meet this filter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import assert_never

from bench.iptables_save import (
    Address,
    Chain,
    Flags,
    IcmpType,
    Interface,
    Ports,
    Protocol,
    Saved,
    SavedRule,
    Test,
)
from penstock.errors import PenstockError

_WITHOUT_EFFECT = {"LOG", "NFLOG", "ULOG", "TRACE"}
#: Steps of one policy: chains are written out wherever they are jumped to.
MAX_STEPS = 200_000


@dataclass(frozen=True, slots=True)
class Notice:
    """A rule that the policy does not carry, or not wholly, and why."""

    line: int
    text: str
    reason: str


@dataclass(frozen=True, slots=True)
class Step:
    """One rule of the policy: where it comes from, its verdict, all that has to hold, and all that must not."""

    line: int
    drops: bool
    tests: tuple[Test, ...]
    returned: tuple[tuple[Test, ...], ...]


@dataclass(frozen=True, slots=True)
class Translated:
    """`text` tries first whether a packet is IPv4 at all, then `steps` in order.

    `left_out` rules are missing, `changed` ones say something a little different.
    """

    text: str
    steps: tuple[Step, ...]
    left_out: tuple[Notice, ...]
    changed: tuple[Notice, ...]
    drops_by_default: bool


def translate(saved: Saved, chain: str, *, interface: str, name: str = "saved") -> Translated:
    """The policy of one built-in chain, for a filter on `interface`.

    Raises:
        PenstockError: there is no such chain, or written out it is too long.
    """
    if chain not in saved.chains or saved.chains[chain].policy is None:
        raise PenstockError(f"{chain} is no built-in chain of the table")
    walk = _Flattening(saved.chains, interface)
    walk.chain(chain, (), ())
    drops = saved.chains[chain].policy == "DROP"
    lines = [f"    {_line(step)}" for step in walk.steps]
    head = [f"filter {name} at xdp {{", f"    default {'drop' if drops else 'pass'}", "    pass if not ip"]
    text = "\n".join([*head, *lines, "}", ""])
    return Translated(text, tuple(walk.steps), _sorted(walk.left_out), _sorted(walk.changed), drops)


def _sorted(notices: Mapping[int, Notice]) -> tuple[Notice, ...]:
    return tuple(notices[line] for line in sorted(notices))


class _Flattening:
    """Chains written out into steps, in the order in which netfilter would come by them."""

    def __init__(self, chains: Mapping[str, Chain], interface: str) -> None:
        self._chains = chains
        self._interface = interface
        self.steps: list[Step] = []
        self.left_out: dict[int, Notice] = {}
        self.changed: dict[int, Notice] = {}

    def chain(self, name: str, path: tuple[Test, ...], returned: tuple[tuple[Test, ...], ...]) -> None:
        is_base = self._chains[name].policy is not None
        for rule in self._chains[name].rules:
            tests = carried(rule, self._chains, self._interface)
            if tests is None:
                self._leave(rule)
                continue
            whole = (*path, *tests)
            match rule.target:
                case "ACCEPT" | "DROP" | "REJECT":
                    self._step(rule, rule.target != "ACCEPT", whole, returned)
                case "RETURN" if is_base:
                    self._step(rule, self._chains[name].policy == "DROP", whole, returned)
                case "RETURN" if not tests:
                    return
                case "RETURN":
                    returned = (*returned, tests)
                case _:
                    self.chain(rule.target, whole, returned)

    def _step(
        self, rule: SavedRule, drops: bool, tests: tuple[Test, ...], returned: tuple[tuple[Test, ...], ...]
    ) -> None:
        if rule.target == "REJECT":
            self.changed[rule.line] = Notice(rule.line, rule.text, "REJECT: dropped, and nobody is told")
        if len(self.steps) == MAX_STEPS:
            raise PenstockError(f"written out, the chains have more than {MAX_STEPS} rules")
        self.steps.append(Step(rule.line, drops, tests, returned))

    def _leave(self, rule: SavedRule) -> None:
        reason = reason_to_leave(rule, self._chains)
        if reason:
            self.left_out[rule.line] = Notice(rule.line, rule.text, reason)


def carried(rule: SavedRule, chains: Mapping[str, Chain], interface: str) -> tuple[Test, ...] | None:
    """The rule's tests but for those of interfaces; None if it is left out or is for another interface."""
    if reason_to_leave(rule, chains):
        return None
    named = [test for test in rule.tests if isinstance(test, Interface)]
    if not all(test.is_of(interface) for test in named) or rule.target in _WITHOUT_EFFECT or not rule.target:
        return None
    return tuple(test for test in rule.tests if not isinstance(test, Interface))


def reason_to_leave(rule: SavedRule, chains: Mapping[str, Chain]) -> str:
    """Why a rule is not carried; '' if it is."""
    if rule.unsupported:
        return rule.unsupported
    known = {"ACCEPT", "DROP", "REJECT", "RETURN", "", *chains}
    if rule.target in _WITHOUT_EFFECT:
        return f"-j {rule.target}"
    return "" if rule.target in known else f"-j {rule.target}"


def _line(step: Step) -> str:
    parts = [_expression(test) for test in step.tests]
    parts += ["not (" + " and ".join(map(_expression, tests)) + ")" for tests in step.returned]
    return ("drop" if step.drops else "pass") + (" if " + " and ".join(parts) if parts else "")


def _expression(test: Test) -> str:
    text = _positive(test)
    return f"not ({text})" if test.negated else text


def _positive(test: Test) -> str:
    match test:
        case Address(side, networks):
            return _any(f"{side} net {network}" for network in networks)
        case Protocol(number):
            return {6: "tcp", 17: "udp", 1: "icmp"}.get(number, f"ip proto {number}")
        case Ports(side, ranges):
            direction = "" if side == "either" else f"{side} "
            words = (f"port {a}" if a == b else f"portrange {a}-{b}" for a, b in ranges)
            return _any(direction + word for word in words)
        case IcmpType(kind, code):
            return f"icmp.type == {kind}" + ("" if code is None else f" and icmp.code == {code}")
        case Flags(mask, value):
            return f"tcp.flags & {mask:#x} == {value:#x}"
        case Interface():
            raise AssertionError("interfaces are decided before")
        case _:
            assert_never(test)


def _any(parts: Iterator[str]) -> str:
    found = list(parts)
    return found[0] if len(found) == 1 else "(" + " or ".join(found) + ")"
