"""Ask a server for a feed, once, with good manners and without trust.

In: a URL and what its last answer said of itself (ETag, Last-Modified).  Out: the body,
unpacked, or that nothing has changed.  Promised: at most 60 seconds and 32 MiB, packed
or not; https, also behind redirects, unless plain http is allowed; no redirect to an
address that is not public, whatever name it hides behind; headers with keys go to the
first server alone.  One request a call: when to ask again is `schedule`'s.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from socket import AF_UNSPEC, AddressFamily
from typing import TYPE_CHECKING, TypeAlias

from penstock.errors import FeedError
from penstock.feeds.sources import LONGEST_S, Url
from penstock.feeds.unpack import MOST_BYTES, inflated, unpacked
from penstock.version import VERSION

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession
    from aiohttp.abc import AbstractResolver, ResolveResult
    from yarl import URL

_MOST_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_CHUNK = 1 << 16
_LONGEST_RETRY_S = 86400.0
#: RFC 6052, RFC 8215, and RFC 4291, section 2.5.5.1.
_TRANSLATED, _LOCAL_TRANSLATION = IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48")
_COMPATIBLE = IPv6Network("::/96")


@dataclass(frozen=True, slots=True)
class Validators:
    """What an answer said of itself, to be sent back: RFC 9110, section 8.8."""

    etag: str | None = None
    last_modified: str | None = None


@dataclass(frozen=True, slots=True)
class Manners:
    """How to ask.  `contact` goes into the User-Agent; `tls` trusts other authorities than the system's."""

    allow_http: bool = False
    allow_private: bool = False
    contact: str | None = None
    longest_s: float = LONGEST_S
    tls: ssl.SSLContext | None = None

    @property
    def user_agent(self) -> str:
        """Who asks."""
        return f"penstock/{VERSION} ({self.contact or 'feed fetcher'})"


POLITE = Manners()


@dataclass(frozen=True, slots=True)
class Fetched:
    """A body, unpacked, and its validators."""

    body: bytes
    validators: Validators = Validators()


@dataclass(frozen=True, slots=True)
class NotModified:
    """The server says that the last body is still the one."""


Answer: TypeAlias = Fetched | NotModified


async def fetch(source: Url, known: Validators, manners: Manners) -> Answer:
    """The feed behind a URL, or that it is as it was.

    Raises:
        FeedError: there is no whole answer, or one that is not wanted; `retry_after_s` if the server says when.
    """
    with _told(manners):
        async with asyncio.timeout(manners.longest_s):
            return await _follow(source, known, manners)


async def _follow(source: Url, known: Validators, manners: Manners) -> Answer:
    from aiohttp import ClientSession, DummyCookieJar, TCPConnector
    from yarl import URL

    guard = _guarded_resolver()
    # No connection is used twice, and no name remembered: each redirect is resolved and judged anew.
    connector = TCPConnector(
        resolver=guard,
        use_dns_cache=False,
        force_close=True,
        ssl=True if manners.tls is None else manners.tls,
    )
    url = first = URL(source.url)
    async with ClientSession(
        connector=connector,
        auto_decompress=False,
        cookie_jar=DummyCookieJar(),
        headers=_headers(known, manners),
    ) as session:
        for _ in range(_MOST_REDIRECTS + 1):
            _judge_scheme(url, manners)
            target = await _ask(session, url, source.headers if url.origin() == first.origin() else {}, known)
            if not isinstance(target, str):
                return target
            url = url.join(URL(target))
            if not manners.allow_private:
                guard.refuses_private = True  # type: ignore[attr-defined]
                _judge_host(url.host or "")
    raise FeedError(f"more than {_MOST_REDIRECTS} redirects")


def _headers(known: Validators, manners: Manners) -> dict[str, str]:
    headers = {"User-Agent": manners.user_agent, "Accept-Encoding": "gzip, deflate"}
    if known.etag:
        headers["If-None-Match"] = known.etag
    if known.last_modified:
        headers["If-Modified-Since"] = known.last_modified
    return headers


async def _ask(session: ClientSession, url: URL, headers: dict[str, str], known: Validators) -> Answer | str:
    """The answer, or where it redirects to."""
    async with session.get(url, headers=headers, allow_redirects=False) as response:
        if response.status in _REDIRECTS and (target := response.headers.get("Location")):
            return target
        if response.status == HTTPStatus.NOT_MODIFIED and known != Validators():
            return NotModified()
        if response.status != HTTPStatus.OK:
            raise FeedError(_status_words(response), retry_after_s=_retry_after(response))
        body = await asyncio.to_thread(
            _decoded, await _body(response), response.headers.get("Content-Encoding", "")
        )
        found = response.headers
        return Fetched(body, Validators(found.get("ETag"), found.get("Last-Modified")))


def _status_words(response: ClientResponse) -> str:
    try:
        words = f" {HTTPStatus(response.status).phrase}"
    except ValueError:
        words = ""
    return f"the server answers {response.status}{words}"


async def _body(response: ClientResponse) -> bytes:
    parts, left = [], MOST_BYTES
    async for part in response.content.iter_chunked(_CHUNK):
        left -= len(part)
        if left < 0:
            raise FeedError(f"larger than {MOST_BYTES >> 20} MiB")
        parts.append(part)
    return b"".join(parts)


def _decoded(body: bytes, encoding: str) -> bytes:
    match encoding.strip().lower():
        case "" | "identity" | "gzip" | "x-gzip":
            return unpacked(body)
        case "deflate":
            return unpacked(inflated(body))
        case other:
            raise FeedError(f"packed in a way that was not asked for: {other[:40]}")


def _retry_after(response: ClientResponse) -> float | None:
    """RFC 9110, section 10.2.3: seconds or a date; at most a day."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), _LONGEST_RETRY_S)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    left = (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return min(max(left, 0.0), _LONGEST_RETRY_S)


def _judge_scheme(url: URL, manners: Manners) -> None:
    if url.scheme == "https" or (url.scheme == "http" and manners.allow_http):
        return
    hint = "`--allow-http`, if the list may be changed on its way" if url.scheme == "http" else None
    raise FeedError(f"{url.scheme} is not taken: https is", hint=hint)


def _judge_host(host: str) -> None:
    """Refuse an address that is not public.  Names, and odd ways to write addresses, meet the resolver."""
    try:
        address = ip_address(host)
    except ValueError:
        return
    if not is_public(host):
        raise FeedError(f"it redirects to {address}, which is not public")


def is_public(text: str) -> bool:
    """Whether an address is one of the public Internet."""
    address = ip_address(text.partition("%")[0])
    if isinstance(address, IPv6Address):
        if address in _LOCAL_TRANSLATION:
            return False
        address = _behind(address) or address
    return address.is_global and not address.is_multicast


def _behind(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that packets to this one reach in the end."""
    if address in _TRANSLATED or address in _COMPATIBLE:
        return IPv4Address(address.packed[12:])
    return address.ipv4_mapped or address.sixtofour


def _guarded_resolver() -> AbstractResolver:
    """A resolver that can be told to refuse names of addresses that are not public."""
    from aiohttp.resolver import ThreadedResolver

    class Guarded(ThreadedResolver):
        refuses_private = False

        async def resolve(
            self, host: str, port: int = 0, family: AddressFamily = AF_UNSPEC
        ) -> list[ResolveResult]:
            found = await super().resolve(host, port, family)
            private = [one["host"] for one in found if not is_public(one["host"])]
            if self.refuses_private and private:
                raise FeedError(f"it redirects to {host}, which is {private[0]} and not public")
            return found

    return Guarded()


@contextmanager
def _told(manners: Manners) -> Iterator[None]:
    """What goes wrong on the way, in a sentence."""
    try:
        import aiohttp
    except ImportError as error:
        raise FeedError("aiohttp cannot be imported", hint="`pip install aiohttp`") from error
    try:
        yield
    except TimeoutError as error:
        raise FeedError(f"no whole answer within {manners.longest_s:g} s") from error
    except aiohttp.ClientSSLError as error:
        raise FeedError(f"TLS with {error.host} fails: {error}") from error
    except aiohttp.ClientPayloadError as error:
        raise FeedError("the answer is cut off") from error
    except aiohttp.ClientConnectorError as error:
        raise FeedError(f"no answer: {error.host}:{error.port}: {_reason(error.os_error)}") from error
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise FeedError(f"no answer: {str(error) or type(error).__name__}") from error


def _reason(error: OSError) -> str:
    """What the system says; names that are not found have numbers of their own, below 0."""
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return error.strerror or str(error)
