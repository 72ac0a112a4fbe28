"""Who wins where a block and a pass overlap: the class, by the order of rules, and never the longer prefix."""

from __future__ import annotations

import random
from ipaddress import IPv4Address, IPv4Network

import pytest
from tests.packets import UDP, Ether, IPv4
from tests.property.dataplane import DataPlane

from penstock.compiler.ir.lower import lower_filter
from penstock.compiler.lang.parser import parse_policy
from penstock.compiler.lang.source import Source
from penstock.model.sets import control_map, set_map
from penstock.model.verdict import Verdict
from penstock.pipeline.live_set import LiveSet

pytestmark = pytest.mark.privileged

POLICY = """set allowed : net size 4000
set threats : net size 4000
filter edge at xdp {
    default bounce
    pass if src in @allowed
    drop if src in @threats
}
"""
ROUNDS, PAIRS = 10, 1000


def pair(chance: random.Random, octet: int) -> tuple[IPv4Network, IPv4Network]:
    """A block and a pass that overlap, of which either is the wider, in a /8 of their own."""
    around = IPv4Address(octet << 24 | chance.getrandbits(24))
    block, let = (chance.randint(8, 30), chance.randint(8, 30)) if chance.random() < 0.7 else (8, 24)
    return IPv4Network((around, block), strict=False), IPv4Network((around, let), strict=False)


def somewhere(chance: random.Random, network: IPv4Network) -> IPv4Address:
    """An address in the network, or beside it."""
    wider = network.supernet(1) if chance.random() < 0.3 and network.prefixlen > 8 else network
    return wider[chance.randrange(wider.num_addresses)]


def model(address: IPv4Address, blocks: list[IPv4Network], passes: list[IPv4Network]) -> Verdict:
    if any(address in one for one in passes):
        return Verdict.PASS
    return Verdict.DROP if any(address in one for one in blocks) else Verdict.BOUNCE


def frame(address: IPv4Address) -> bytes:
    return bytes(Ether() / IPv4(src=str(address)) / UDP())


@pytest.mark.check(33)
def test_check_33_a_pass_wins_over_a_block_whichever_is_longer() -> None:
    policy = parse_policy(Source("edge.policy", POLICY))
    rules, chance = lower_filter(policy, policy.filters[0]), random.Random(33)
    template, tried = frame(IPv4Address("192.0.2.1")), 0
    with DataPlane.of(rules) as plane:
        allowed, threats = (
            LiveSet(
                spec,
                {family: plane.maps[set_map(number, family)].duplicate() for family in spec.families},
                plane.maps[control_map(number)].duplicate(),
            )
            for number, spec in enumerate(rules.sets)
        )
        with allowed, threats:
            for _ in range(ROUNDS):
                # Each pair lies in a /8, so that only the pairs of its own /8 can say anything of an address.
                blocks: dict[int, list[IPv4Network]] = {octet: [] for octet in range(256)}
                passes: dict[int, list[IPv4Network]] = {octet: [] for octet in range(256)}
                octets = [chance.randrange(1, 224) for _ in range(PAIRS)]
                for octet in octets:
                    block, let = pair(chance, octet)
                    blocks[octet].append(block)
                    passes[octet].append(let)
                threats.replace(sorted({str(one) for each in blocks.values() for one in each}))
                allowed.replace(sorted({str(one) for each in passes.values() for one in each}))
                for octet in octets:
                    address = somewhere(chance, chance.choice([blocks[octet][0], passes[octet][0]]))
                    packet = template[:26] + address.packed + template[30:]
                    (found,) = plane.verdicts([packet])
                    assert found is model(address, blocks[octet], passes[octet]), str(address)
                    tried += 1
    assert tried == ROUNDS * PAIRS == 10_000
