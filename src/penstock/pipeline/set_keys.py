"""Entries of a set as text, and as the keys that its maps have.

    read_entries(spec, b"192.0.2.0/24\\n2001:db8::/32 timeout 1h\\n", 0, now)   ->  {"v4": Entries, "v6": Entries}
    text_of(spec, "v4", key)                                                  ->  "192.0.2.0/24"

An entry a line; `#` and `;` begin comments, `timeout TIME` says how long it
stays.  Everything wrong with a text is told with its line, and nothing of it is
taken then.  A million IPv4 lines are read in a fifth of a second.
"""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, Any

import numpy as np

from penstock.errors import PenstockError
from penstock.model.sets import REST, TIME_UNITS, SetSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "gre": 47, "esp": 50, "ah": 51, "icmp6": 58, "sctp": 132}
_PROTOCOL_WORDS = {number: word for word, number in PROTOCOLS.items()}
_LINE = re.compile(r"\s*(?P<entry>[^#;]*?)(?:\s+timeout\s+(?P<time>\S+))?\s*(?:[#;].*)?")
_TIME = re.compile(r"(\d{1,9})([smhd])")
_MAC = re.compile(r"[0-9A-Fa-f]{2}(?:[:-][0-9A-Fa-f]{2}){5}")
_PORTS = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")
_SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Entries:
    """Keys as the kernel has them, shape (n, key bytes) uint8, and their expiries, uint64, 0 for never."""

    keys: NDArray[np.uint8]
    expiry: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.keys)


Content = dict[str, Entries]
"""Entries of each family of a set."""


def nothing(spec: SetSpec) -> Content:
    """The content of an empty set."""
    return {family: _entries(spec, family, [], []) for family in spec.families}


def size(content: Content) -> int:
    """How many entries there are, of all families."""
    return sum(len(entries) for entries in content.values())


def expiry_after(seconds: float | None, now_ns: int) -> int:
    """The expiry of an entry that stays so long from now on; 0 without a time."""
    return 0 if seconds is None else max(now_ns + int(seconds * _SECOND) & ~REST, REST + 1)


# ── reading ──────────────────────────────────────────────────────────────────


def read_entries(spec: SetSpec, text: bytes, expiry: int, now_ns: int, name: str = "entry") -> Content:
    """The entries of a text; those without a time of their own get `expiry`.

    Raises:
        PenstockError: with the first few faults and how many there are; `name` is what the text is called.
    """
    if spec.kind in (("host",), ("net",)):
        plain = _plain_ipv4(text)
        if plain is not None and (found := _of_numbers(spec, *plain, expiry)) is not None:
            return {**nothing(spec), "v4": found}
    return _read_lines(spec, text.decode("utf-8-sig", "replace"), expiry, now_ns, name)


def _read_lines(spec: SetSpec, text: str, expiry: int, now_ns: int, name: str) -> Content:
    keys: dict[str, list[bytes]] = {family: [] for family in spec.families}
    ends: dict[str, list[int]] = {family: [] for family in spec.families}
    faults: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        found = _LINE.fullmatch(line)
        try:
            if found is None or not found["entry"]:
                if line.strip() and line.strip()[0] not in "#;":
                    raise ValueError(f"`{line.strip()[:40]}` is no entry")
                continue
            end = expiry_after(_seconds(found["time"]), now_ns) if found["time"] else expiry
            for family, key in keys_of(spec, found["entry"]):
                keys[family].append(key)
                ends[family].append(end)
        except ValueError as fault:
            faults.append(f"{name}:{number}: {fault}")
    if faults:
        more = f" (and {len(faults) - 3} more)" if len(faults) > 3 else ""
        raise PenstockError(
            "; ".join(faults[:3]) + more, hint=f"@{spec.name} is a set of {' . '.join(spec.kind)}"
        )
    return {family: _entries(spec, family, keys[family], ends[family]) for family in spec.families}


def _entries(spec: SetSpec, family: str, keys: list[bytes], ends: list[int]) -> Entries:
    flat = np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), spec.key_bytes(family))
    return Entries(flat, np.array(ends, np.uint64))


def _seconds(text: str) -> float:
    found = _TIME.fullmatch(text)
    if not found or not int(found[1]):
        raise ValueError(f"`{text}` is no time; write 30s, 10m, 2h or 7d")
    return float(int(found[1]) * TIME_UNITS[found[2]])


def keys_of(spec: SetSpec, text: str) -> Iterator[tuple[str, bytes]]:
    """The keys that an entry is, with the family of each; a range of ports is many.

    Raises:
        ValueError: it is no entry of such a set; the message is a sentence.
    """
    parts = [part.strip() for part in re.split(r"\s+\.\s+", text.strip())]
    if len(parts) != len(spec.kind):
        raise ValueError(f"`{text[:60]}` has {len(parts)} parts, and a key has {len(spec.kind)}: A . B")
    if spec.kind == ("port",):
        yield from (("all", _padded(struct.pack("!H", port))) for port in _ports(parts[0]))
        return
    packed = [_packed(kind, part) for kind, part in zip(spec.kind, parts, strict=True)]
    bits = {len(one) for kind, one in zip(spec.kind, packed, strict=True) if kind == "host"}
    if len(bits) > 1:
        raise ValueError(f"`{text[:60]}` has addresses of both families")
    family = spec.families[0]
    if len(spec.families) > 1:
        family = "v6" if (bits or {len(packed[0]) - 4}) == {16} else "v4"
    yield family, _padded(b"".join(packed))


def _padded(key: bytes) -> bytes:
    return key.ljust(len(key) + 3 & ~3, b"\0")


def _packed(kind: str, text: str) -> bytes:
    match kind:
        case "host":
            return _address(text).packed
        case "net":
            return _network(text)
        case "mac":
            if not _MAC.fullmatch(text):
                raise ValueError(f"`{text[:40]}` is no Ethernet address")
            return bytes.fromhex(re.sub("[:-]", "", text))
        case "port":
            low, *others = _ports(text)
            if others:
                raise ValueError("a range of ports cannot be a part of a key")
            return struct.pack("!H", low)
        case _:
            number = PROTOCOLS.get(text) or (int(text) if text.isdecimal() else 256)
            if number > 255:
                raise ValueError(f"`{text[:40]}` is no protocol")
            return bytes((number,))


def _ports(text: str) -> range:
    found = _PORTS.fullmatch(text)
    low, high = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
    if not low <= high <= 0xFFFF:
        raise ValueError(f"`{text[:40]}` is no port")
    return range(low, high + 1)


def _address(text: str) -> IPv4Address | IPv6Address:
    try:
        found = ip_address(text)
    except ValueError:
        raise ValueError(f"`{text[:60]}` is no address") from None
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    if mapped is not None:
        raise ValueError(f"`{text[:60]}` is an IPv4 address in IPv6's clothes; write {mapped}")
    return found


def _network(text: str) -> bytes:
    """The key of a trie: the length in host order, the address."""
    address, slash, length = text.partition("/")
    found = _address(address)
    bits = found.max_prefixlen
    if slash and not (length.isdecimal() and len(length) < 4 and int(length) <= bits):
        raise ValueError(f"`{text[:60]}` is no network: a prefix has at most {bits} bits")
    count = int(length) if slash else bits
    network = ip_network((found, count), strict=False)
    if network.network_address != found:
        raise ValueError(f"`{text[:60]}` has bits set beyond its prefix; {network} is the network it lies in")
    return struct.pack("=I", count) + found.packed


# ── a million lines of IPv4 ──────────────────────────────────────────────────


def _plain_ipv4(text: bytes) -> tuple[NDArray[np.uint32], NDArray[np.uint32]] | None:
    """Addresses and prefix lengths of lines that are nothing but those; None for any other text."""
    data = np.frombuffer(text if text.endswith(b"\n") else text + b"\n", np.uint8)
    separators = np.flatnonzero((data < ord("0")) | (data > ord("9")))
    kinds = data[separators]
    ends = np.flatnonzero(kinds == ord("\n"))
    firsts = np.concatenate(([0], ends[:-1] + 1))
    has_length = ends - firsts == 4
    dots = kinds == ord(".")
    if not (has_length | (ends - firsts == 3)).all() or np.count_nonzero(dots) != 3 * len(ends):
        return None
    if not all(dots[firsts + at].all() for at in range(3)) or (kinds[ends[has_length] - 1] != ord("/")).any():
        return None
    numbers = _numbers(data, separators)
    if numbers is None:
        return None
    parts = [numbers[firsts + at] for at in range(4)]
    lengths = np.where(has_length, numbers[ends], 32)
    if max(int(part.max()) for part in parts) > 255 or int(lengths.max()) > 32:
        return None
    return (parts[0] << 24 | parts[1] << 16 | parts[2] << 8 | parts[3]).astype(np.uint32), lengths.astype(
        np.uint32
    )


def _numbers(data: NDArray[np.uint8], separators: NDArray[Any]) -> NDArray[np.int64] | None:
    """The decimal number before each separator; None if one is empty, long, or begins with a needless 0."""
    starts = np.concatenate(([0], separators[:-1] + 1))
    widths = separators - starts
    if widths.min() < 1 or widths.max() > 3 or ((data[starts] == ord("0")) & (widths > 1)).any():
        return None
    found: NDArray[np.int64] = data[separators - 1].astype(np.int64) - ord("0")
    for place, factor in ((2, 10), (3, 100)):
        wide = widths >= place
        found[wide] += factor * (data[separators[wide] - place].astype(np.int64) - ord("0"))
    return found


def _of_numbers(
    spec: SetSpec, address: NDArray[np.uint32], length: NDArray[np.uint32], expiry: int
) -> Entries | None:
    """As keys; None if one is a prefix where it may not be, or has bits beyond it: a slower reader says which."""
    ends = np.full(len(address), expiry, np.uint64)
    if spec.kind == ("host",):
        return (
            None
            if (length != 32).any()
            else Entries(address.astype(">u4").view(np.uint8).reshape(-1, 4), ends)
        )
    beyond = address.astype(np.uint64) & (np.uint64(0xFFFFFFFF) >> length.astype(np.uint64))
    if beyond.any():
        return None
    keys = np.empty((len(address), 2), np.uint32)
    keys[:, 0], keys[:, 1] = length, address.astype(">u4").view(np.uint32)
    return Entries(keys.view(np.uint8).reshape(-1, 8), ends)


# ── writing ──────────────────────────────────────────────────────────────────


def text_of(spec: SetSpec, family: str, key: bytes) -> str:
    """An entry as it is written."""
    if spec.kind == ("net",):
        length, address = int.from_bytes(key[:4], sys.byteorder), ip_address(key[4:])
        return f"{address}/{length}"
    at, shown = 0, []
    for kind, count in zip(spec.kind, spec.part_bytes(family), strict=True):
        shown.append(_part_text(kind, key[at : at + count]))
        at += count
    return " . ".join(shown)


def _part_text(kind: str, part: bytes) -> str:
    match kind:
        case "host":
            return str(ip_address(part))
        case "mac":
            return part.hex(":")
        case "proto":
            return _PROTOCOL_WORDS.get(part[0], str(part[0]))
        case _:
            return str(int.from_bytes(part, "big"))
