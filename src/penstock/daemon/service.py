"""The daemon as a process: one event loop, a thread that keeps policies, one that changes sets.

    serve(config_directory(), fetches=True)       until SIGTERM; what is in place stays in place

One daemon per run directory.  It begins by taking over what is pinned, tells
systemd that it is ready when the first round is done, and ends without touching
what it has put in place.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from penstock.control import server
from penstock.control.access import Access
from penstock.control.server import Door, Server
from penstock.daemon import links, state
from penstock.daemon.answers import Answers
from penstock.daemon.feeding import Feeding
from penstock.daemon.fetcher import Fetcher
from penstock.daemon.journal import Journal
from penstock.daemon.keep import Keeper
from penstock.daemon.notify import Notifier
from penstock.daemon.sets import OpenSets, Swept
from penstock.daemon.settings import Settings, accounts
from penstock.errors import PenstockError, SettingsError
from penstock.kernel.lock import open_lock
from penstock.model.moment import boot_id
from penstock.model.run_directory import CONTROL_SOCKET, READ_SOCKET, run_directory
from penstock.version import VERSION

_LINK_PAUSE_S = 0.1
_IDLE_S = 3600.0


def serve(directory: Path, *, fetches: bool = True, journal: Journal | None = None) -> None:
    """Be the daemon until a signal ends it.

    Raises:
        PenstockError: another daemon runs, or the run directory cannot be used.
    """
    told = journal or Journal()
    with only_one():
        asyncio.run(_Service(directory, told, fetches=fetches).run())


@contextmanager
def only_one() -> Iterator[None]:
    """Be the only daemon of the run directory for the block.

    Raises:
        PenstockError: there is one; or the directory cannot be made.
    """
    place = run_directory()
    try:
        place.mkdir(mode=0o755, parents=True, exist_ok=True)
        if place.stat().st_uid == os.geteuid():
            # Commands make it for their locks, and for themselves alone.
            place.chmod(0o755)
        fd = open_lock(f"{place}/daemon.lock")
    except OSError as error:
        raise PenstockError(f"{place} cannot be used: {error.strerror}") from error
    try:
        _lock(fd, place)
        yield
    finally:
        os.close(fd)


def _lock(fd: int, place: Path) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
        raise PenstockError(
            f"a daemon runs already in {place}: process {holder}", hint="`penstock daemon status` asks it"
        ) from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)


class _Service:
    """The parts of a running daemon, joined."""

    def __init__(self, directory: Path, journal: Journal, *, fetches: bool) -> None:
        self._directory, self._journal = directory, journal
        self._notifier = Notifier()
        self._memory = state.load()
        self._keeper = Keeper(directory, journal, self._memory)
        if not self._memory.is_over:
            self._keeper.counts.daemon += 1
            journal.warn(
                f"the daemon before this one, process {self._memory.pid}, did not end as it should; filters ran on"
            )
        _begin(self._memory)
        self._sets = OpenSets()
        self._feeding = Feeding(journal)
        self._fetcher = Fetcher(journal) if fetches else None
        self._keeping = ThreadPoolExecutor(1, "keep")
        self._changing = ThreadPoolExecutor(1, "sets")
        self._feeds = ThreadPoolExecutor(1, "feed")
        self._reading = ThreadPoolExecutor(2, "read")

    async def run(self) -> None:
        """Until SIGTERM or SIGINT."""
        self._loop = asyncio.get_running_loop()
        self._ending, self._waking = asyncio.Event(), asyncio.Event()
        self._are_feeds_wanted = asyncio.Event()
        self._is_asked = False
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._ending.set)
        self._loop.add_signal_handler(signal.SIGHUP, self._ask)
        self._journal.note(
            f"penstock {VERSION} begins, process {os.getpid()}, policies from {self._directory}"
        )
        with ExitStack() as held:
            channel = held.enter_context(links.heard())
            self._loop.add_reader(channel, self._hear, channel)
            held.callback(self._loop.remove_reader, channel)
            await self._round()
            await self._run_with_doors()
        await self._end()

    async def _run_with_doors(self) -> None:
        settings = self._keeper.settings or Settings()
        answers = Answers(
            self._keeper,
            self._sets,
            self._journal,
            self._in_thread,
            self._reload,
            self._feeding,
            self._fetcher,
        )
        async with Server(
            doors(settings), answers.answer, _limits(settings), answers.at_once
        ) as self._server:
            answers.tally = self._server.tally
            self._tell_ready()
            work = [self._keep(), self._sweep(), self._feed(), self._pet()]
            if self._fetcher is not None:
                work.append(self._fetcher.run(self._are_feeds_wanted))
            tasks = [asyncio.create_task(one) for one in work]
            ending = asyncio.create_task(self._ending.wait())
            try:
                done, _ = await asyncio.wait({ending, *tasks}, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    # One of the others ends by itself only by a bug: the service manager starts us again.
                    task.result()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _end(self) -> None:
        self._notifier.tell("STOPPING=1", "STATUS=ending; what is in place stays in place")
        self._journal.note("ending; what is in place stays in place")
        await self._in_thread("change", self._sets.close)
        self._memory.is_over = True
        await self._in_thread("keep", self._keeper.remember)
        for pool in (self._keeping, self._changing, self._feeds, self._reading):
            pool.shutdown()

    async def _in_thread(self, which: str, work: Callable[..., Any], *arguments: object) -> Any:
        pool = {"keep": self._keeping, "change": self._changing, "feed": self._feeds}.get(
            which, self._reading
        )
        return await self._loop.run_in_executor(pool, work, *arguments)

    # ── keeping ──────────────────────────────────────────────────────────────

    def _ask(self) -> None:
        self._is_asked = True
        self._waking.set()

    def _hear(self, channel: Any) -> None:
        links.drain(channel)
        # An interface that comes is told of several times in a row.
        self._loop.call_later(_LINK_PAUSE_S, self._waking.set)

    async def _reload(self) -> None:
        """A round in which everything is read again; its end is waited for."""
        self._notifier.reloading()
        self._journal.note("reloading")
        await self._round(is_asked=True)
        self._tell_ready()

    async def _keep(self) -> None:
        pause: float | None = None
        while True:
            settings = self._keeper.settings or Settings()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._waking.wait(), min(pause or settings.check_s, settings.check_s))
            self._waking.clear()
            if self._is_asked:
                self._is_asked = False
                await self._reload()
                pause = None
            else:
                pause = await self._round()

    async def _round(self, *, is_asked: bool = False) -> float | None:
        before = self._keeper.looks
        pause: float | None = None
        try:
            pause = await self._in_thread("keep", lambda: self._keeper.round(is_asked=is_asked))
        except PenstockError as error:
            self._journal.alarm("round", f"what is in place cannot be looked at: {error.message}")
        else:
            self._journal.settle("round", "what is in place can be looked at again")
        if self._keeper.looks != before:
            self._notifier.tell(f"STATUS={self._words()}")
        return pause

    async def _sweep(self) -> None:
        """Forget what has expired, one set after the other, for at most a twentieth of the time."""
        while True:
            settings, count = self._keeper.settings or Settings(), 1
            began = self._loop.time()
            try:
                swept = await self._in_thread("change", self._sets.sweep_next)
            except PenstockError as error:
                self._journal.alarm("sweep", f"expired entries cannot be forgotten: {error.message}")
            else:
                self._journal.settle("sweep")
                self._tell_swept(swept)
                count = swept.sets
            took = self._loop.time() - began
            await asyncio.sleep(max(settings.sweep_s / max(count, 1), 20 * took))

    def _tell_swept(self, swept: Swept) -> None:
        key = f"sweep @{swept.name}"
        if swept.fault is None:
            self._journal.settle(key)
        else:
            told = f"@{swept.name}: its expired entries cannot be forgotten: {swept.fault}"
            self._journal.alarm(key, told)

    async def _feed(self) -> None:
        """Bring sets up to date with their ledgers and feeds."""
        while True:
            settings = self._keeper.settings or Settings()
            began = self._loop.time()
            try:
                if await self._in_thread("feed", self._feeding.look):
                    self._are_feeds_wanted.set()
                else:
                    self._are_feeds_wanted.clear()
            except PenstockError as error:
                self._journal.alarm("feeding", f"sets cannot be filled: {error.message}")
            else:
                self._journal.settle("feeding")
            await asyncio.sleep(max(settings.check_s, 5 * (self._loop.time() - began)))

    async def _pet(self) -> None:
        every = self._notifier.watchdog_s
        while True:
            if every is not None:
                self._notifier.tell("WATCHDOG=1")
            await asyncio.sleep((every or _IDLE_S) / 2)

    def _tell_ready(self) -> None:
        self._notifier.tell("READY=1", f"STATUS={self._words()}")

    def _words(self) -> str:
        there = sum(one.state == "in place" for one in self._keeper.looks)
        alarms = len(self._journal.alarms)
        return f"{there} of {len(self._keeper.looks)} filters in place" + (
            f", {alarms} alarms" if alarms else ""
        )


def _begin(memory: state.Memory) -> None:
    """Remember that a daemon runs."""
    memory.boot, memory.pid, memory.is_over = boot_id(), os.getpid(), False
    memory.started_at = datetime.now(UTC).isoformat(timespec="seconds")


def doors(settings: Settings) -> tuple[Door, ...]:
    """The socket for changes and the one for questions."""
    try:
        users, groups = accounts(settings.access)
    except SettingsError:
        users, groups = frozenset(), frozenset()
    named = Access(users, groups)
    is_open = settings.access.readers == "everybody"
    # The file's mode decides who gets so far as to be asked who they are.
    first = min(groups) if len(groups) == 1 and not users else None
    mode = 0o660 if first is not None else 0o666 if users or groups else 0o600
    place = run_directory()
    return (
        Door(place / CONTROL_SOCKET, named, can_change=True, mode=mode, group=first),
        Door(place / READ_SOCKET, replace(named, everybody=is_open), can_change=False, mode=0o666),
    )


def _limits(settings: Settings) -> server.Limits:
    found = settings.limits
    return server.Limits(
        connections=found.connections,
        connections_of_user=max(1, found.connections * 3 // 4),
        longest_request=found.longest_request,
        patience_s=found.patience_s,
        idle_s=found.idle_s,
        reads_per_s=found.reads_per_s,
    )
