"""A real HTTP server on loopback whose answers a test chooses, faults and all."""

from __future__ import annotations

import asyncio
import gzip
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from aiohttp import web

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class FeedServer:
    """`answer` answers every request; `requests` are the headers of those that came."""

    port: int = 0
    scheme: str = "http"
    answer: Answer | None = None
    requests: list[dict[str, str]] = field(default_factory=list)

    def url(self, path: str = "/feed", host: str = "127.0.0.1") -> str:
        return f"{self.scheme}://{host}:{self.port}{path}"

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append({"path": request.path_qs, **request.headers})
        assert self.answer is not None
        return await self.answer(request)


@contextmanager
def serving(tls: ssl.SSLContext | None = None) -> Iterator[FeedServer]:
    """The server, in a thread of its own until the block ends."""
    server = FeedServer(scheme="https" if tls else "http")
    loop = asyncio.new_event_loop()
    ready = threading.Event()
    thread = threading.Thread(target=_serve, args=(server, loop, ready, tls), daemon=True)
    thread.start()
    assert ready.wait(20)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)


def _serve(
    server: FeedServer, loop: asyncio.AbstractEventLoop, ready: threading.Event, tls: ssl.SSLContext | None
) -> None:
    application = web.Application()
    application.router.add_get("/{path:.*}", server.handle)
    runner = web.AppRunner(application, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)

    async def start() -> None:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        server.port = runner.addresses[0][1]

    loop.run_until_complete(start())
    ready.set()
    loop.run_forever()
    loop.run_until_complete(runner.cleanup())
    loop.close()


def body(content: bytes, *, etag: str | None = None, status: int = 200, **headers: str) -> Answer:
    """Answers with these bytes; with an ETag as RFC 9110 has it for those who know it."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if etag is not None and request.headers.get("If-None-Match") == etag:
            return web.Response(status=304)
        shown = {name.replace("_", "-"): value for name, value in headers.items()}
        if etag is not None:
            shown["ETag"] = etag
        return web.Response(body=content, status=status, headers=shown)

    return answer


def redirect(target: str) -> Answer:
    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": target})

    return answer


async def truncated(request: web.Request) -> web.StreamResponse:
    """Promises more than it sends."""
    response = web.StreamResponse(headers={"Content-Length": "100000"})
    await response.prepare(request)
    await response.write(b'{"cidr":"192.0.2.0/25"}\n' * 10)
    assert request.transport is not None
    request.transport.close()
    return response


async def endless(request: web.Request) -> web.StreamResponse:
    """Sends lines for as long as somebody reads."""
    response = web.StreamResponse()
    await response.prepare(request)
    try:
        while True:
            await response.write(b"192.0.2.1\n" * 100_000)
    except ConnectionError:
        return response


async def silent(request: web.Request) -> web.StreamResponse:
    """Never answers; it ends with the connection."""
    await asyncio.Event().wait()
    return web.Response()


BOMB = gzip.compress(bytes(64 << 20))
