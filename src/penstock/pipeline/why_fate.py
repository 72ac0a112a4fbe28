"""What a running policy decides of packets from an address, without sending it one.

In: the identity of the policy, the address, the sets that hold it.  Out: verdict and rule for a few
usual packets, or for all of them at once where they fare alike.  The reference evaluator decides,
with sets that hold this address alone: no counter moves and no rule changes a set.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING

from penstock.compiler.ir.evaluate import evaluate
from penstock.compiler.ir.ops import counter_names
from penstock.compiler.ir.stores import SetContent, Stores
from penstock.kernel.routes import addresses
from penstock.model.packet import build_packet, parse_packet
from penstock.pipeline.added import with_added
from penstock.pipeline.policy import rule_set_of, with_emergencies

if TYPE_CHECKING:
    from penstock.compiler.ir.ops import RuleSet
    from penstock.model.sets import SetSpec
    from penstock.pipeline.identity import Identity

_TRIED = (
    ("TCP to 22", "TCP(dport=22)"),
    ("TCP to 80", "TCP(dport=80)"),
    ("TCP to 443", "TCP(dport=443)"),
    ("UDP to 53", "UDP(dport=53)"),
    ("a ping", "{icmp}"),
)


def fates(
    identity: Identity, network: IPv4Network | IPv6Network, there: set[str]
) -> Iterator[tuple[str, str, str]]:
    """What becomes of which packet, and by which rule; `there` are the sets that hold the address.

    Raises:
        PenstockError: the policy's text cannot be read by this version.
    """
    rules = rule_set_of(identity.text, name=identity.path, filter=identity.name, hook=identity.hook)
    rules = with_emergencies(with_added(rules, identity.added, identity.text), identity.emergencies)
    stores = Stores({spec.name: _content(spec, network) for spec in identity.sets if spec.name in there})
    decided = [(words, *_decided(rules, frame, stores)) for words, frame in _frames(network)]
    if len({found[1:] for found in decided}) == 1:
        yield "every", *decided[0][1:]
    else:
        yield from decided


def _decided(rules: RuleSet, frame: bytes, stores: Stores) -> tuple[str, str]:
    found = evaluate(rules, frame, stores=stores)
    return found.verdict.value, counter_names(rules)[found.slot]


def _content(spec: SetSpec, network: IPv4Network | IPv6Network) -> SetContent:
    """A set of this address alone; one of composite keys is left empty."""
    bits, number = network.max_prefixlen, int(network.network_address)
    match spec.kind:
        case ("net",):
            return SetContent(spec.kind, {(number, network.prefixlen, bits): 0})
        case ("host",):
            return SetContent(spec.kind, {(number, bits): 0})
        case _:
            return SetContent(spec.kind)


def _frames(network: IPv4Network | IPv6Network) -> Iterator[tuple[str, bytes]]:
    """Packets from the address to this machine, or to an example where it has no address of the family."""
    version, source = network.version, network.network_address
    own = [one.address for each in addresses().values() for one in each if one.address.version == version]
    reachable = [one for one in own if not one.is_loopback and not one.is_link_local]
    target = reachable[0] if reachable else "192.0.2.1" if version == 4 else "2001:db8::1"
    for words, layer in _TRIED:
        inner = layer.format(icmp="ICMP" if version == 4 else "ICMPv6")
        text = f'IPv{version}(src="{source}", dst="{target}")/{inner}'
        yield words, build_packet(parse_packet(text))
