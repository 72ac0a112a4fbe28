"""What iptables itself would decide, for many packets at once: the reference for translated rule sets.

In: chains as they were saved, and packets as columns.  Out: for each packet
the step of the translated policy that should decide it, found by walking the
chains as netfilter does and not by reading the policy.  Rules that the
translation leaves out are left out here too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import reduce
from ipaddress import IPv4Network
from operator import and_, or_
from typing import assert_never

import numpy as np

from bench.iptables_policy import carried
from bench.iptables_save import (
    Address,
    Chain,
    Flags,
    IcmpType,
    Interface,
    Ports,
    Protocol,
    Test,
)
from bench.reference import NO_RULE, Mask, Numbers
from bench.rulesets import Column

_TCP, _ICMP = 6, 1


def deciding_steps(
    chains: Mapping[str, Chain], chain: str, interface: str, packets: Mapping[str, Column]
) -> Numbers:
    """The number of the step that decides each packet, from 0; NO_RULE where the chain's policy does."""
    walk = _Walk(chains, interface, packets)
    walk.through(chain, np.ones(len(packets["proto"]), bool))
    return walk.found


class _Walk:
    def __init__(self, chains: Mapping[str, Chain], interface: str, packets: Mapping[str, Column]) -> None:
        self._chains = chains
        self._interface = interface
        self._packets = packets
        self._steps = 0
        self.found = np.full(len(packets["proto"]), NO_RULE, np.int64)

    def through(self, name: str, here: Mask) -> None:
        """Take the packets of `here` that nothing has decided through a chain."""
        is_base = self._chains[name].policy is not None
        for rule in self._chains[name].rules:
            tests = carried(rule, self._chains, self._interface)
            if tests is None:
                continue
            matched = self._matching(tests) & here & (self.found == NO_RULE)
            if rule.target in ("ACCEPT", "DROP", "REJECT") or (rule.target == "RETURN" and is_base):
                self.found[matched] = self._steps
                self._steps += 1
            elif rule.target == "RETURN":
                here = here & ~matched
                if not tests:
                    return
            else:
                self.through(rule.target, matched)

    def _matching(self, tests: Iterable[Test]) -> Mask:
        everything = np.ones(len(self.found), bool)
        return reduce(and_, (holds(test, self._packets) for test in tests), everything)


def holds(test: Test, packets: Mapping[str, Column]) -> Mask:
    """Which packets pass a test."""
    found = _positive(test, packets)
    return ~found if test.negated else found


def _positive(test: Test, packets: Mapping[str, Column]) -> Mask:
    match test:
        case Address(side, networks):
            return reduce(or_, (_within(IPv4Network(network), packets[side]) for network in networks))
        case Protocol(number):
            return np.equal(packets["proto"], number)
        case Ports("either", ranges):
            return _in_ranges(ranges, packets["sport"]) | _in_ranges(ranges, packets["dport"])
        case Ports(side, ranges):
            return _in_ranges(ranges, packets["sport" if side == "src" else "dport"])
        case IcmpType(kind, code):
            right = np.equal(packets["proto"], _ICMP) & np.equal(packets["icmp_type"], kind)
            return right if code is None else right & np.equal(packets["icmp_code"], code)
        case Flags(mask, value):
            right = np.equal(packets["proto"], _TCP)
            flags: Column = packets["flags"] & np.uint64(mask)
            return right & np.equal(flags, np.uint64(value))
        case Interface():
            raise AssertionError("interfaces are decided before")
        case _:
            assert_never(test)


def _within(network: IPv4Network, column: Column) -> Mask:
    first, last = int(network.network_address), int(network.broadcast_address)
    return (column >= first) & (column <= last)


def _in_ranges(ranges: tuple[tuple[int, int], ...], column: Column) -> Mask:
    """Packets without ports have 65536 there, which is in no range."""
    return reduce(or_, ((column >= low) & (column <= high) for low, high in ranges))
