"""The network interfaces that a filter names, found in the namespace where it is loaded.

    found = located(policy.identity.devices)     ->  (DeviceAt("eth1", 7),)
    with load(policy, place) as loaded: …        knows eth1 as 7
    astray(found)                                ->  "eth1 is gone: …", None while all is well

A filter knows a device by its index from the time it is loaded.  A device that
goes away, or comes back under another index, gets nothing any more: what would
go there is dropped, and `status` says so until the policy is applied again.
"""

from __future__ import annotations

import errno
import struct
from dataclasses import replace
from typing import TYPE_CHECKING

from msgspec import structs

from penstock.errors import KernelError
from penstock.kernel.netlink import interface, interfaces
from penstock.model.device import DEVICES_VARIABLE, DEVMAP, indexes
from penstock.pipeline.identity import DeviceAt

if TYPE_CHECKING:
    from penstock.kernel.bpf_object import BpfObject
    from penstock.pipeline.policy import LoadedPolicy

_ENTRY = struct.Struct("=I")


def with_devices(policy: LoadedPolicy) -> LoadedPolicy:
    """The policy with the indexes that its devices have in this network namespace.

    Raises:
        KernelError: one of them does not exist.
    """
    if not policy.identity.devices:
        return policy
    found = tuple(DeviceAt(one.name, _index(one.name)) for one in policy.identity.devices)
    return replace(policy, identity=structs.replace(policy.identity, devices=found))


def located(devices: tuple[DeviceAt, ...]) -> tuple[DeviceAt, ...]:
    """The devices, with the indexes they have here where none is known.

    Raises:
        KernelError: one of them does not exist.
    """
    return tuple(one if one.ifindex else DeviceAt(one.name, _index(one.name)) for one in devices)


def _index(name: str) -> int:
    try:
        return interface(name).index
    except KernelError as error:
        if error.errno != errno.ENODEV:
            raise
        meaning = "the policy names it, and there is no such interface in this network namespace"
        raise KernelError("find", name, errno.ENODEV, meaning=meaning, hint=error.hint) from error


def values(devices: tuple[DeviceAt, ...]) -> dict[str, bytes]:
    """The constants of a program that knows these devices."""
    return {DEVICES_VARIABLE: indexes([one.ifindex for one in devices])} if devices else {}


def fill(loaded: BpfObject, devices: tuple[DeviceAt, ...]) -> None:
    """Tell a loaded program's redirections where to go.

    Raises:
        KernelError: a device is gone meanwhile.
    """
    if DEVMAP in loaded.maps:
        for number, one in enumerate(devices):
            loaded.maps[DEVMAP].update(_ENTRY.pack(number), _ENTRY.pack(one.ifindex))


def astray(devices: tuple[DeviceAt, ...]) -> str | None:
    """A sentence about the first device that is not where the running filter knows it."""
    if not devices:
        return None
    here = {found.name: found.index for found in interfaces()}
    for one in devices:
        if here.get(one.name) == one.ifindex or one.ifindex in here.values():
            continue
        what = "is another interface now" if one.name in here else "is gone"
        return f"{one.name} {what}: what the policy sends there is dropped until it is applied again"
    return None
