"""What this machine must go on reaching, whatever a feed lists.

In: the network namespace of this thread, the resolver's files, the environment.  Out: addresses
with the reason of each: own ones, default gateways, resolvers, and the peer of the SSH
connection that this command was called over.

    surroundings()  ->  (Protected(192.0.2.1/32, "gateway"), …)

`lifelines` has the packets that a policy must let through; here are the addresses.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from ipaddress import ip_network

from penstock.feeds.protected import Protected
from penstock.kernel.routes import Address, addresses, devices, gateways
from penstock.pipeline.lifelines import resolvers, ssh_connection


def surroundings(environment: Mapping[str, str] = os.environ) -> tuple[Protected, ...]:
    """Each address once, with the first reason for it.

    Raises:
        KernelError: the kernel cannot be asked for addresses and routes.
    """
    first: dict[Address, str] = {}
    for address, reason in _found(environment):
        first.setdefault(address, reason)
    return tuple(Protected(ip_network(address), reason) for address, reason in first.items())


def _found(environment: Mapping[str, str]) -> Iterator[tuple[Address, str]]:
    for own in addresses().values():
        yield from ((one.address, "own address") for one in own)
    for index in devices():
        yield from ((gateway, "gateway") for gateway in gateways(index))
    yield from ((resolver, "resolver") for resolver in resolvers())
    connection = ssh_connection(environment)
    if connection is not None:
        yield connection.peer, "peer of this SSH connection"
