"""Prefixes and arrays of numbers as entries of a set: what Python programs have, without a step for each.

    content_of(spec, prefixes, 0)                                   ->  {"v4": Entries, "v6": Entries}
    content_of(spec, np.array([0xC0000207], np.uint32), 0)          192.0.2.7
    content_of(spec_of_ports, np.array([80, 443]), 0)

In: `Prefixes`, IPv4 addresses in host order as uint32, IPv6 ones as two columns of uint64 (the higher
half first), or the numbers of ports.  Out: keys as the kernel has them, all with one expiry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from penstock.errors import PenstockError
from penstock.model.prefixes import Prefixes
from penstock.pipeline.set_keys import Content, Entries

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from penstock.model.sets import SetSpec

_U16 = 1 << 16


def content_of(spec: SetSpec, given: object, expiry: int) -> Content | None:
    """Entries of a set, all with `expiry`; None of what is neither `Prefixes` nor an array of numbers.

    Raises:
        PenstockError: the set holds nothing of the kind.
    """
    if isinstance(given, np.ndarray) and given.dtype.kind in "iuf":
        given = _ports(spec, given) if spec.kind == ("port",) else _prefixes(spec, given)
    if isinstance(given, Prefixes):
        v4, v6 = keys_of_prefixes(spec, given)
        given = {"v4": v4, "v6": v6}
    if not isinstance(given, dict):
        return None
    return {family: Entries(keys, np.full(len(keys), expiry, np.uint64)) for family, keys in given.items()}


def keys_of_prefixes(spec: SetSpec, prefixes: Prefixes) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The keys of IPv4 and of IPv6, in a set of networks or of addresses.

    Raises:
        PenstockError: it is a set of something else, or one of addresses, and there are networks among them.
    """
    v4, v6 = _networks(prefixes)
    match spec.kind:
        case ("net",):
            return v4, v6
        case ("host",):
            _require_addresses(spec, prefixes)
            return np.ascontiguousarray(v4[:, 4:]), np.ascontiguousarray(v6[:, 4:])
        case _:
            raise PenstockError(f"@{spec.name} is a set of {' . '.join(spec.kind)}, and these are addresses")


def _networks(p: Prefixes) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Keys of tries: the length in host order, the address."""
    v4 = np.empty((len(p.v4), 2), np.uint32)
    v4[:, 0], v4[:, 1] = p.v4_length, p.v4.astype(">u4").view(np.uint32)
    v6 = np.empty((len(p.v6_high), 20), np.uint8)
    v6[:, :4] = p.v6_length.astype(np.uint32).view(np.uint8).reshape(-1, 4)
    v6[:, 4:12] = p.v6_high.astype(">u8").view(np.uint8).reshape(-1, 8)
    v6[:, 12:] = p.v6_low.astype(">u8").view(np.uint8).reshape(-1, 8)
    return v4.view(np.uint8).reshape(-1, 8), v6


def _require_addresses(spec: SetSpec, p: Prefixes) -> None:
    if wide := int(np.count_nonzero(p.v4_length != 32) + np.count_nonzero(p.v6_length != 128)):
        raise PenstockError(
            f"it lists {wide} networks, and @{spec.name} is a set of addresses",
            hint=f"`set {spec.name} : net` holds both",
        )


def _prefixes(spec: SetSpec, numbers: NDArray[np.generic]) -> Prefixes:
    count = len(numbers)
    if numbers.dtype == np.uint32 and numbers.ndim == 1:
        return Prefixes(v4=numbers.astype(np.uint32), v4_length=np.full(count, 32, np.uint8))
    if numbers.dtype == np.uint64 and numbers.shape == (count, 2):
        high, low = (np.ascontiguousarray(numbers[:, at]).astype(np.uint64) for at in (0, 1))
        return Prefixes(v6_high=high, v6_low=low, v6_length=np.full(count, 128, np.uint8))
    raise PenstockError(
        f"an array of {numbers.dtype} in {numbers.ndim} dimensions holds no addresses for @{spec.name}",
        hint="IPv4 addresses are uint32 in host order, IPv6 ones two columns of uint64; networks are Prefixes",
    )


def _ports(spec: SetSpec, numbers: NDArray[np.generic]) -> dict[str, NDArray[np.uint8]]:
    whole = numbers.dtype.kind in "iu" and numbers.ndim == 1
    if not whole or not ((numbers >= 0) & (numbers < _U16)).all():  # type: ignore[operator]
        raise PenstockError(f"ports for @{spec.name} are whole numbers from 0 to 65535")
    keys = np.zeros((len(numbers), spec.key_bytes("all")), np.uint8)
    keys[:, :2] = numbers.astype(">u2").view(np.uint8).reshape(-1, 2)
    return {"all": keys}
