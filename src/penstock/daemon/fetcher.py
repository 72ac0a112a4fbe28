"""The process that fetches feeds, started and watched; it has no capabilities and outlives nothing.

    fetcher = Fetcher(journal)
    await fetcher.run(are_wanted)      until cancelled; starts it when a set wants a feed

What it fetches lies in STATE/feeds, where `feeding` finds it: the two share
nothing else.  When it ends it is started again, after a pause that doubles.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from penstock.daemon.journal import Journal
from penstock.daemon.patience import Patience
from penstock.errors import FeedError

_PATIENCE_S, _LONGEST_LINE = 5.0, 1 << 14
_LONGEST_S = 300.0


class Fetcher:
    """`starts` counts them, `pid` is the one that runs."""

    def __init__(self, journal: Journal) -> None:
        self.starts = 0
        self.pid: int | None = None
        self._journal = journal
        self._patience = Patience()

    async def run(self, are_wanted: asyncio.Event) -> None:
        """Keep it running once feeds are wanted."""
        loop = asyncio.get_running_loop()
        while True:
            await are_wanted.wait()
            try:
                told = f"has ended with {await self._one()}"
            except OSError as error:
                told = f"cannot be started: {error.strerror}"
            pause = self._patience.wait("", loop.time())
            self._journal.alarm("fetcher", f"the process that fetches feeds {told}; it is started again")
            await asyncio.sleep(pause)

    async def _one(self) -> int | None:
        """Start it and wait for its end; end it if this is cancelled."""
        process = await asyncio.create_subprocess_exec(
            *_ours(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            limit=_LONGEST_LINE,
        )
        self.starts, self.pid = self.starts + 1, process.pid
        self._journal.note(f"the process that fetches feeds begins, process {process.pid}")
        telling = asyncio.create_task(self._tell(process))
        try:
            return await process.wait()
        finally:
            self.pid = None
            telling.cancel()
            if process.returncode is None:
                await _end(process)

    async def _tell(self, process: asyncio.subprocess.Process) -> None:
        """What it says goes to our log."""
        assert process.stderr is not None
        while True:
            try:
                line = await process.stderr.readline()
            except ValueError:
                continue  # longer than a line may be: passed over
            if not line:
                return
            self._journal.settle("fetcher")
            self._journal.note(f"feeds: {line.decode(errors='replace').strip()}")


async def fetch_now(names: Sequence[str]) -> list[dict[str, Any]]:
    """Ask these feeds once, by a process without capabilities; gives what each came to, as `fetched_record` says.

    Raises:
        FeedError: it has ended otherwise, or takes too long.
    """
    pipe, nothing = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        *_ours(), "--", *names, stdin=nothing, stdout=pipe, stderr=nothing
    )
    try:
        told, _ = await asyncio.wait_for(process.communicate(), _LONGEST_S)
    except TimeoutError:
        raise FeedError(f"the feeds have not all answered within {_LONGEST_S:.0f} s") from None
    finally:
        if process.returncode is None:
            await _end(process)
    if process.returncode:
        raise FeedError(f"the process that fetches feeds has ended with {process.returncode}")
    return [json.loads(line) for line in told.splitlines()]


def _ours() -> tuple[str, ...]:
    """The command of such a process; -P, for Python would look for penstock in whatever directory this is."""
    return sys.executable, "-P", "-m", "penstock", "_fetch", str(os.getpid())


async def _end(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), _PATIENCE_S)
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
