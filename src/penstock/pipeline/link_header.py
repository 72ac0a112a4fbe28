"""Whether an interface's packets have an Ethernet header, and what a policy there does if they have not.

    link_constants(policy, interface("eth0"))    ->  {}
    link_constants(policy, interface("wg0"))     ->  {"ps_is_bare": 1}, a constant of its program

Packets of tun, WireGuard, PPP and of tunnels of the IP layer begin with the IP
header.  At TC the program shows its rules an Ethernet header before that, with
addresses of 0 (tc.bpf.h).  At XDP a policy is refused there, and so is one that
sends packets from the one kind of interface to the other, where the kernel
would drop them or the receiver misread them.
"""

from __future__ import annotations

import errno

from penstock.errors import KernelError
from penstock.kernel.netlink import Interface, interface
from penstock.model.hook import Hook
from penstock.pipeline.policy import LoadedPolicy

# ARPHRD_* of <linux/if_arp.h>: Ethernet and what looks like it (ETHER, LOOPBACK).
_ETHERNET = frozenset({1, 772})
#: Those whose packets begin with the IP header: PPP, RAWIP, TUNNEL, TUNNEL6, SIT, IPGRE, IP6GRE, NONE.
BARE = frozenset({512, 519, 768, 769, 776, 778, 823, 65534})
_VARIABLE = "ps_is_bare"


def link_constants(policy: LoadedPolicy, place: Interface) -> dict[str, int]:
    """The constants of the policy's program that tell it what packets begin with at an interface.

    Raises:
        KernelError: a policy cannot read that interface's packets, or not at this hook; or a
            device that it names cannot be sent what comes from there.
    """
    hook = Hook(policy.identity.hook)
    bare = is_bare(place)
    if bare and hook is Hook.XDP:
        meaning = "its packets have no Ethernet header, which rules at xdp read"
        hint = "at TC they are shown one: filter NAME at tc ingress { … }"
        raise _refused("attach at xdp to", place.name, meaning, hint)
    if not bare and place.type not in _ETHERNET:
        meaning = f"its packets are neither Ethernet's nor IP's (link type {place.type} of <linux/if_arp.h>)"
        raise _refused("filter", place.name, meaning, None)
    for device in policy.identity.devices:
        _check_device(interface(device.name), place, hook, bare=bare)
    return {_VARIABLE: 1} if bare else {}


def is_bare(place: Interface) -> bool:
    """Whether packets begin with the IP header there."""
    return place.type in BARE


def _check_device(device: Interface, place: Interface, hook: Hook, *, bare: bool) -> None:
    if bare and not is_bare(device):
        meaning = (
            f"packets of {place.name} have no Ethernet header, without which {device.name} sends nothing"
        )
        raise _refused("send packets to", device.name, meaning, "let the kernel route them")
    if is_bare(device) and hook is Hook.XDP:
        meaning = "it takes packets without an Ethernet header, and at xdp they have one"
        hint = "at TC the kernel takes it off: filter NAME at tc ingress { … }"
        raise _refused("send packets to", device.name, meaning, hint)


def _refused(operation: str, subject: str, meaning: str, hint: str | None) -> KernelError:
    return KernelError(operation, subject, errno.EOPNOTSUPP, meaning=meaning, hint=hint)
