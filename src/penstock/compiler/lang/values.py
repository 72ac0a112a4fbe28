"""The values that tokens stand for: numbers, names, addresses, networks, ranges of ports.

192.168.0.0/16      Prefix(Address(192.168.0.0), 16)
10.1                PartialAddress((10, 1))
8000-8100           PortRange(Number(8000), Number(8100)), behind `portrange` and in a `let`
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from penstock.compiler.lang.ast import (
    Address,
    Constant,
    Kind,
    Mac,
    Name,
    Number,
    PartialAddress,
    PortRange,
    Prefix,
    Value,
)
from penstock.compiler.lang.lexer import Token
from penstock.compiler.lang.tokens import TokenStream

MAX_PORT = 0xFFFF
MAX_NAME = 255
#: Rules name the same addresses again and again.
_MOST_REMEMBERED = 1 << 14


class BadValue(ValueError):  # noqa: N818 - the sentence is what counts
    """A value that does not exist or does not fit its place; the message is a sentence."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


# ── reading values ───────────────────────────────────────────────────────────


def read_value(stream: TokenStream, kind: Kind | None, wanted: str) -> Value:
    """The value that comes next; `kind` is the qualifier it stands behind, `wanted` what to ask for.

    Raises:
        SyntaxFault: no value comes next, or none that exists.
    """
    token = stream.next
    try:
        return _value(stream, kind, wanted)
    except BadValue as fault:
        raise stream.faults.fail("PS104", str(fault), token.span, hint=fault.hint) from None


def _value(stream: TokenStream, kind: Kind | None, wanted: str) -> Value:
    token = stream.next
    match token.kind:
        case "name":
            return named_value(stream.take(), kind)
        case "escaped":
            return escaped_value(stream.take(), kind)
        case "ipv4":
            return _network(stream, dotted_value(stream.take()))
        case "ipv6":
            return _network(stream, ipv6_value(stream.take()))
        case "mac":
            return mac_value(stream.take())
        case "number" if stream.following.is_mark("/"):
            raise BadValue("a network of one number is not written like this", _short_prefix(token))
        case "number":
            return Number(token.value, token.text, stream.take().span)
        case "constant":
            return Constant(token.text, stream.take().span)
        case "word":
            hint = f"write `\\{token.text}` when the name is meant and not the keyword"
            raise stream.unexpected(wanted, hint=hint if kind else None)
        case _:
            raise stream.unexpected(wanted)


def read_listed(stream: TokenStream) -> Value:
    """A value of a `let`: as in an expression, and `10/8`, ranges of ports, and keywords as names.

    Raises:
        SyntaxFault: no value comes next, or none that exists.
    """
    token = stream.next
    if token.kind == "word":
        return Name(stream.take().text, token.span)
    if token.kind == "name" and port_like_range(token.text):
        return read_value(stream, "portrange", "a value")
    if token.kind == "number" and stream.following.is_mark("/") and token.value <= 255:
        stream.take()
        value = _network(stream, PartialAddress((token.value,), token.span))
    else:
        value = read_value(stream, None, "a value")
    return value


def _short_prefix(token: Token) -> str:
    return f"write it as {token.text}.0.0.0/…"


def _network(stream: TokenStream, address: Address | PartialAddress) -> Value:
    """The address itself, or the prefix when `/LENGTH` or `mask MASK` follows."""
    if stream.take_mark("/"):
        if stream.next.kind != "number":
            raise stream.unexpected("the length of the prefix")
        length = stream.take()
        return Prefix(address, length.value, None, address.span.to(length.span))
    if not stream.next.is_word("mask"):
        return address
    stream.take()
    token = stream.next
    if token.kind != "ipv4" or (isinstance(address, Address) and address.address.version != 4):
        raise stream.unexpected("an IPv4 netmask such as 255.255.0.0")
    mask = _padded(dotted_value(stream.take()))
    return Prefix(address, None, mask, address.span.to(token.span))


def _padded(value: Address | PartialAddress) -> IPv4Address:
    """The netmask that a full or partial address is; what is missing is zero."""
    if isinstance(value, PartialAddress):
        if max(value.octets) > 255:
            raise BadValue("the parts of a netmask go up to 255")
        return IPv4Address(bytes((*value.octets, 0, 0, 0)[:4]))
    assert isinstance(value.address, IPv4Address)
    return value.address


# ── single tokens ────────────────────────────────────────────────────────────


def dotted_value(token: Token) -> Address | PartialAddress:
    """The address or network that two to four dotted numbers stand for; the numbers are decimal.

    Raises:
        BadValue: a part is above 255 (of a DECnet address, 65535) or not decimal.
    """
    found = _dotted(token.text)
    if isinstance(found, IPv4Address):
        return Address(found, token.span)
    return PartialAddress(found, token.span)


@lru_cache(_MOST_REMEMBERED)
def _dotted(text: str) -> IPv4Address | tuple[int, ...]:
    parts = text.split(".")
    if not all(part.isdecimal() and len(part) <= 5 and int(part) <= 0xFFFF for part in parts):
        raise BadValue(f"`{text[:64]}` is not an IPv4 address")
    octets = tuple(int(part) for part in parts)
    if len(octets) < 4:
        return octets
    if max(octets) > 255:
        raise BadValue(f"`{text}` is not an IPv4 address: its parts go up to 255")
    return IPv4Address(bytes(octets))


def ipv6_value(token: Token) -> Address:
    """Raises: BadValue: the text only looks like an IPv6 address."""
    try:
        return Address(_ipv6(token.text), token.span)
    except AddressValueError:
        raise BadValue(f"`{token.text[:64]}` is not an IPv6 address") from None


@lru_cache(_MOST_REMEMBERED)
def _ipv6(text: str) -> IPv6Address:
    return IPv6Address(text)


def mac_value(token: Token) -> Mac:
    """The Ethernet address in any of libpcap's spellings."""
    text = token.text
    for mark in ":-.":
        parts = text.split(mark)
        if len(parts) == 6:
            return Mac(bytes(int(part, 16) for part in parts), token.span)
    return Mac(bytes.fromhex(text.replace(".", "")), token.span)


def port_range(token: Token) -> PortRange | None:
    """`8000-8100` or `ftp-ssh`, cut at the first dash as libpcap does; None when there is no dash.

    Raises:
        BadValue: an end is not a port.
    """
    low, dash, high = token.text.partition("-")
    if not dash:
        return None
    return PortRange(_range_end(low, token), _range_end(high, token), token.span)


def _range_end(text: str, token: Token) -> Number | Name:
    if not text.isdecimal():
        return Name(text, token.span)
    if len(text) > 5 or int(text) > MAX_PORT:
        raise BadValue(f"there is no port {text[:20]}: ports go up to 65535")
    return Number(int(text), text, token.span)


def named_value(token: Token, kind: Kind | None) -> Name | PortRange:
    """The name, or behind `portrange` the range that it is when it has a dash.

    Raises:
        BadValue: the name is too long, or an end of the range is no port.
    """
    if len(token.text) > MAX_NAME:
        raise BadValue(f"a name has at most {MAX_NAME} characters")
    if kind == "portrange":
        found = port_range(token)
        if found is not None:
            return found
    return Name(token.text, token.span)


def escaped_value(token: Token, kind: Kind | None) -> Value:
    """`\\tcp`: what follows the backslash is a name; an address or a port written like that is one, too.

    Raises:
        BadValue: as `named_value`, or a protocol's number stands behind the backslash.
    """
    text = token.text[1:]
    if kind in {"port", "portrange"} and text.isdecimal() and text.isascii():
        if len(text) > 5 or int(text) > MAX_PORT:
            raise BadValue(f"there is no port {text[:20]}: ports go up to {MAX_PORT}")
        return Number(int(text), text.lstrip("0") or "0", token.span)
    if kind in {None, "host"}:
        address = _full_address(text)
        if address is not None:
            return Address(address, token.span)
    if kind in {"proto", "protochain"} and text.isdecimal():
        raise BadValue("a protocol's number is written without the backslash", f"write `{text[:10]}`")
    return named_value(Token("name", text, token.span), kind)


def _full_address(text: str) -> IPv4Address | IPv6Address | None:
    for family in (IPv4Address, IPv6Address):
        try:
            return family(text)
        except AddressValueError:
            continue
    return None


def port_like_range(text: str) -> bool:
    """Whether a name is two numbers with a dash between them."""
    low, _, high = text.partition("-")
    return low.isdecimal() and high.isdecimal()
