"""What a layer is: its arguments, its number in the layers that can carry it, and its builder.

A builder takes the arguments that were given, the finished bytes of everything
that follows the layer, and its place; it gives the layer's bytes followed by
that payload.  Packets are therefore built from the last layer to the first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from penstock.model.layers.arguments import Converter, MisfitError

# RFC 3692: for experiments, so that no parser takes an unknown payload for a protocol it knows.
EXPERIMENTAL_PROTOCOL = 253
# IEEE 802: local experimental ethertype 1.
EXPERIMENTAL_ETHERTYPE = 0x88B5


@dataclass(frozen=True, slots=True)
class Given:
    """The arguments of one layer, converted; each has a default where it is asked for."""

    values: Mapping[str, int | bytes]

    def number(self, name: str, default: int) -> int:
        """The number given as `name`, or else `default`."""
        value = self.values.get(name, default)
        assert isinstance(value, int), name
        return value

    def octets(self, name: str, default: bytes = b"") -> bytes:
        """The bytes given as `name`, or else `default`."""
        value = self.values.get(name, default)
        assert isinstance(value, bytes), name
        return value

    def computed(self, name: str, value: int, bits: int) -> int:
        """The number given as `name`, or else `value` when a field of `bits` bits holds it.

        Raises:
            MisfitError: it does not; the writer can give the field a value or make the packet smaller.
        """
        if name in self.values or value < 1 << bits:
            return self.number(name, value)
        raise MisfitError(
            f"the field `{name}` cannot hold {value}", f"make the payload smaller, or give {name}="
        )


@dataclass(frozen=True, slots=True)
class Place:
    """Where a layer stands: the layer that follows it, and the addresses of the IP header around it."""

    inner: Layer | None
    source: bytes = b""
    destination: bytes = b""

    def protocol(self, nothing: int = EXPERIMENTAL_PROTOCOL) -> int:
        """The IP protocol number of what follows; `nothing` when nothing does."""
        if self.inner is None:
            return nothing
        return EXPERIMENTAL_PROTOCOL if self.inner.protocol is None else self.inner.protocol

    def ethertype(self) -> int:
        """The ethertype of what follows."""
        if self.inner is None or self.inner.ethertype is None:
            return EXPERIMENTAL_ETHERTYPE
        return self.inner.ethertype

    def pseudo_header(self, protocol: int, length: int) -> bytes:
        """What transport checksums cover besides the segment (RFC 9293 section 3.1, RFC 8200 section 8.1)."""
        addresses = self.source + self.destination
        if len(self.source) == 16:
            return addresses + length.to_bytes(4, "big") + bytes((0, 0, 0, protocol))
        return addresses + bytes((0, protocol)) + (length & 0xFFFF).to_bytes(2, "big")


Build = Callable[[Given, bytes, Place], bytes]


@dataclass(frozen=True, slots=True)
class Layer:
    """One kind of header.

    `ethertype`, `protocol` and `ppp` are its numbers after an Ethernet, an IP
    and a PPP header, `port` the UDP port its packets go to.  `aliases` are other
    names of arguments, `positional` the argument that needs no name.  `inside`
    is put before it when it is missing, `carries` after it.  `addresses` are an
    IP header's source and destination when none are given.
    """

    name: str
    build: Build
    arguments: Mapping[str, Converter]
    ethertype: int | None = None
    protocol: int | None = None
    ppp: int | None = None
    port: int | None = None
    aliases: Mapping[str, str] = field(default_factory=dict)
    positional: str | None = None
    inside: str | None = None
    carries: str | None = None
    addresses: tuple[bytes, bytes] | None = None

    def argument(self, name: str) -> str | None:
        """The argument that `name` is or stands for; None when the layer has no such argument."""
        canonical = self.aliases.get(name, name)
        return canonical if canonical in self.arguments else None


def zero_padded(octets: bytes, multiple: int) -> bytes:
    """`octets`, filled with zeros to a multiple of `multiple` bytes."""
    return octets + bytes(-len(octets) % multiple)
