"""Entries of a set as text and as keys, one at a time.

    read_lines(spec, "192.0.2.0/24\\n2001:db8::/32 timeout 1h", 0, now)   ->  {"v4": {key: 0}, "v6": {key: …}}
    text_of(spec, "v4", key)                                              ->  "192.0.2.0/24"

An entry a line; `#` and `;` begin comments, `timeout TIME` says how long it
stays.  A range of ports is so many entries, a range of addresses in a set of
networks those prefixes that are exactly it.  Everything wrong with a text is told with its line, and nothing of it is
taken then.  What is here needs no numpy, so that a command of one entry is quick;
`set_keys` reads texts of a million.
"""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from socket import AF_INET, AF_INET6, inet_pton

from penstock.errors import PenstockError
from penstock.model.address_range import pieces_of
from penstock.model.sets import GRAIN, LONGEST_S, TIME_UNITS, SetSpec

PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "gre": 47, "esp": 50, "ah": 51, "icmp6": 58, "sctp": 132}
PROTOCOL_NAMES = {number: word for word, number in PROTOCOLS.items()}
_LINE = re.compile(r"\s*(?P<entry>[^#;]*?)(?:\s+timeout\s+(?P<time>\S+))?\s*(?:[#;].*)?")
_TIME = re.compile(r"([0-9]{1,9})([smhd])")
_MAC = re.compile(r"[0-9A-Fa-f]{2}(?:[:-][0-9A-Fa-f]{2}){5}")
_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
#: Digits of ASCII: `str.isdecimal` takes those of other scripts for numbers, too.
_NUMBER = re.compile(r"[0-9]{1,3}")
_SECOND = 1_000_000_000
_MAPPED = bytes(10) + b"\xff\xff"
_LENGTHS = tuple(struct.pack("=I", length) for length in range(129))


Keys = dict[str, dict[bytes, int]]
"""Keys of each family of a set, with their expiries; 0 is never."""


def expiry_after(seconds: float | None, now_ns: int) -> int:
    """The expiry of an entry that stays so long from now on; 0 without a time."""
    return 0 if seconds is None else max((now_ns + int(seconds * _SECOND)) // GRAIN * GRAIN, GRAIN)


def later(one: int, other: int) -> int:
    """The later of two expiries."""
    return max(one, other) if one and other else 0


# ── reading ──────────────────────────────────────────────────────────────────


def read_lines(spec: SetSpec, text: str, expiry: int, now_ns: int, name: str = "entry") -> Keys:
    """The entries of a text; those without a time of their own get `expiry`, of one that comes twice the later counts.

    Raises:
        PenstockError: with the first few faults and how many there are; `name` is what the text is called.
    """
    found: Keys = {family: {} for family in spec.families}
    faults: list[str] = []
    quick = plain_reader(spec)
    for number, line in enumerate(text.split("\n"), 1):
        if (plain := quick(line)) is not None:
            ends = found[plain[0]]
            ends[plain[1]] = later(expiry, ends.get(plain[1], expiry))
            continue
        try:
            for family, key, end in entries_of(spec, line, expiry, now_ns):
                ends = found[family]
                ends[key] = later(end, ends.get(key, end))
        except ValueError as fault:
            faults.append(placed(name, number, line, fault))
    if faults:
        raise wrong_entries(spec, faults[:3], len(faults))
    return found


def placed(name: str, number: int, line: str, fault: ValueError) -> str:
    """A fault with its place: file and line; arguments of a command have none and are shown themselves.

    >>> placed("list.txt", 7, "x", ValueError("`x` is no port")), placed("entry", 1, "x", ValueError("`x` is no port"))
    ('list.txt:7: `x` is no port', '`x` is no port')
    """
    if name != "entry":
        return f"{name}:{number}: {fault}"
    shown = line.strip()[:60]
    return str(fault) if f"`{shown}" in str(fault) else f"`{shown}`: {fault}"


def plain_host(line: str) -> tuple[str, bytes] | None:
    """Family and key of a line that is an address and nothing else; None of all others, right or wrong."""
    try:
        if ":" not in line:
            return "v4", inet_pton(AF_INET, line)
        key = inet_pton(AF_INET6, line)
    except (OSError, ValueError):
        return None
    return None if key.startswith(_MAPPED) else ("v6", key)


def plain_network(line: str) -> tuple[str, bytes] | None:
    """As `plain_host`, of a line that is a network."""
    address, slash, length = line.partition("/")
    host = plain_host(address)
    if host is None:
        return None
    family, packed = host
    bits = 8 * len(packed)
    if not slash:
        return family, _LENGTHS[bits] + packed
    if not (_NUMBER.fullmatch(length) and (count := int(length)) <= bits):
        return None
    if int.from_bytes(packed, "big") & (1 << bits - count) - 1:
        return None
    return family, _LENGTHS[count] + packed


def _nothing_plain(_line: str) -> tuple[str, bytes] | None:
    """Of other kinds every line is looked at closely."""
    return None


_QUICK = {"host": plain_host, "net": plain_network}


def plain_reader(spec: SetSpec) -> Callable[[str], tuple[str, bytes] | None]:
    """What reads the plain lines of a set."""
    return _QUICK.get(" . ".join(spec.kind), _nothing_plain)


def wrong_entries(spec: SetSpec, faults: list[str], count: int) -> PenstockError:
    """What is said of a text with so many faults, of which the first are told."""
    more = f" (and {count - len(faults)} more)" if count > len(faults) else ""
    return PenstockError("; ".join(faults) + more, hint=what_it_takes(spec))


def what_it_takes(spec: SetSpec) -> str:
    """For those who wrote something else."""
    more = ": single addresses; networks are for a set of net" if spec.kind == ("host",) else ""
    return f"@{spec.name} is a set of {' . '.join(spec.kind)}{more}"


def entries_of(spec: SetSpec, line: str, expiry: int, now_ns: int) -> Iterator[tuple[str, bytes, int]]:
    """The keys that a line of a text is, with family and expiry of each; none of an empty one.

    Raises:
        ValueError: it is no entry of such a set; the message is a sentence.
    """
    found = _LINE.fullmatch(line)
    if found is None or not found["entry"]:
        if line.strip() and line.strip()[0] not in "#;":
            raise ValueError(f"`{line.strip()[:40]}` is no entry")
        return
    end = expiry_after(_seconds(found["time"]), now_ns) if found["time"] else expiry
    for family, key in keys_of(spec, found["entry"]):
        yield family, key, end


def _seconds(text: str) -> float:
    found = _TIME.fullmatch(text)
    if not found or not int(found[1]):
        raise ValueError(f"`{text}` is no time; write 30s, 10m, 2h or 7d")
    seconds = int(found[1]) * TIME_UNITS[found[2]]
    if seconds > LONGEST_S:
        raise ValueError(f"`{text}` is longer than an entry can stay, a hundred years")
    return float(seconds)


_EXAMPLES = {
    "host": "192.0.2.7",
    "port": "443",
    "mac": "02:00:00:00:00:07",
    "proto": "tcp",
    "net": "192.0.2.0/24",
}


def _parts_fault(spec: SetSpec, text: str, count: int) -> str:
    if len(spec.kind) == 1:
        return f"`{text[:60]}` is a key of {count} parts, and @{spec.name} holds single values"
    example = " . ".join(_EXAMPLES[kind] for kind in spec.kind)
    parts = "1 part" if count == 1 else f"{count} parts"
    return f"`{text[:60]}` has {parts}, and a key of @{spec.name} has {len(spec.kind)}, as in '{example}'"


def keys_of(spec: SetSpec, text: str) -> Iterator[tuple[str, bytes]]:
    """The keys that an entry is, with the family of each; a range is many.

    Raises:
        ValueError: it is no entry of such a set; the message is a sentence.
    """
    parts = [part.strip() for part in re.split(r"\s+\.\s+", text.strip())]
    if len(parts) != len(spec.kind):
        raise ValueError(_parts_fault(spec, text, len(parts)))
    if spec.kind == ("port",):
        yield from (("all", _padded(struct.pack("!H", port))) for port in _ports(parts[0]))
        return
    if spec.kind == ("net",) and "-" in parts[0]:
        yield from _range(parts[0])
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
            # Many lists write an address as the network that it is alone in.
            bare = text.removesuffix("/128" if ":" in text else "/32")
            if "-" in text:
                raise ValueError(f"`{text[:90]}` is no address; a set of `net` takes ranges")
            return _address(bare if "/" not in bare else text).packed
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
            number = PROTOCOLS.get(text) or (int(text) if _NUMBER.fullmatch(text) else 256)
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
    if slash and not (_NUMBER.fullmatch(length) and int(length) <= bits):
        raise ValueError(f"`{text[:60]}` is no network: a prefix has at most {bits} bits")
    count = int(length) if slash else bits
    network = ip_network((found, count), strict=False)
    if network.network_address != found:
        raise ValueError(f"`{text[:60]}` has bits set beyond its prefix; {network} is the network it lies in")
    return struct.pack("=I", count) + found.packed


def _range(text: str) -> Iterator[tuple[str, bytes]]:
    """The keys of the fewest networks that are exactly a range of addresses."""
    low, high = (_address(end.strip()) for end in text.split("-", 1))
    if low.version != high.version:
        raise ValueError(f"`{text[:90]}` is a range from one family to the other")
    bits, first, last = low.max_prefixlen, int(low), int(high)
    if first > last:
        raise ValueError(f"`{text[:90]}` is a range that ends before it begins")
    for address, length in pieces_of(first, last, bits):
        yield f"v{low.version}", _LENGTHS[length] + address.to_bytes(bits // 8, "big")


# ── writing ──────────────────────────────────────────────────────────────────


def text_of(spec: SetSpec, family: str, key: bytes) -> str:
    """An entry as it is written."""
    if spec.kind == ("net",):
        return f"{_address_text(key[4:])}/{int.from_bytes(key[:4], sys.byteorder)}"
    if spec.kind == ("host",):
        return _address_text(key)
    at, shown = 0, []
    for kind, count in zip(spec.kind, spec.part_bytes(family), strict=True):
        shown.append(_part_text(kind, key[at : at + count]))
        at += count
    return " . ".join(shown)


def _part_text(kind: str, part: bytes) -> str:
    match kind:
        case "host":
            return _address_text(part)
        case "mac":
            return part.hex(":")
        case "proto":
            return PROTOCOL_NAMES.get(part[0], str(part[0]))
        case _:
            return str(int.from_bytes(part, "big"))


def _address_text(packed: bytes) -> str:
    if len(packed) == 4:
        return "%d.%d.%d.%d" % tuple(packed)  # noqa: UP031 - half the time of an f-string of four parts
    return str(ip_address(packed))
