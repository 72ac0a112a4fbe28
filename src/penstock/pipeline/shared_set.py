"""A set that policies share, for Python programs: changed with its ledger, as commands change it.

    with penstock.open_set("threats") as threats:
        threats.update(prefixes, timeout=3600, comment="INC-4711")
        "192.0.2.9" in threats

What is added here is an entry of this user's, which `penstock why` tells and which outlives a reboot; what a
feed lists stays when it is taken back.  `running.sets` of a filter that lasts as long as its block are
`LiveSet`s: nobody else has them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.model.closing import Closing
from penstock.pipeline.set_commands import SetCommands, who

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penstock.model.sets import SetSpec
    from penstock.pipeline.live_set import Changed as Moved
    from penstock.pipeline.live_set import Entry, Text
    from penstock.pipeline.set_commands import Changed


def open_set(name: str) -> SharedSet:
    """The set of that name.  Close it, or use it as a context.

    Raises:
        PenstockError: there is none; the hint says how to come by one.
        KernelError: it cannot be opened.
    """
    return SharedSet(name)


class SharedSet(Closing):
    """An open set and its ledger."""

    def __init__(self, name: str) -> None:
        self.name = name.removeprefix("@")
        self._commands = SetCommands()
        self._by = who()
        self._commands.live(self.name)

    def close(self) -> None:
        """Let go of it."""
        self._commands.close()

    @property
    def spec(self) -> SetSpec:
        """What it is of."""
        return self._commands.live(self.name).spec

    @property
    def count(self) -> int:
        """How many entries there are, those among them that have expired and were not forgotten yet."""
        return self._commands.live(self.name).count

    def __contains__(self, text: object) -> bool:
        return text in self._commands.live(self.name)

    def __len__(self) -> int:
        return len(self._commands.live(self.name))

    def __iter__(self) -> Iterator[Entry]:
        """The entries that have not expired, whoever put them there."""
        return iter(self._commands.live(self.name))

    def update(
        self,
        entries: Text,
        timeout: float | None = None,
        *,
        forever: bool = False,
        comment: str | None = None,
    ) -> Changed:
        """Add entries: for `timeout` seconds, for ever, or as the policy says; `comment` is the reason.

        Raises:
            PenstockError: one is no entry of this set, or the ledger cannot be written; nothing was added.
            LimitError: the set would have more than its size; nothing was added.
            KernelError: the kernel refuses it; nothing was added.
        """
        return self._commands.add(
            self.name, entries, by=self._by, timeout=timeout, forever=forever, comment=comment
        )

    def discard(self, entries: Text) -> Changed:
        """Take entries back; those that are not there are passed over, what a feed lists stays.

        Raises: as `update`.
        """
        return self._commands.remove(self.name, entries, by=self._by)

    def exchange(
        self,
        gone: Text,
        come: Text,
        timeout: float | None = None,
        *,
        forever: bool = False,
        comment: str | None = None,
    ) -> Changed:
        """As `discard` and `update` in one step; what both name is added.  Raises: as `update`."""
        return self._commands.update(
            self.name, come, gone, by=self._by, timeout=timeout, forever=forever, comment=comment
        )

    def replace(
        self,
        entries: Text,
        timeout: float | None = None,
        *,
        forever: bool = False,
        comment: str | None = None,
    ) -> Changed:
        """Make these the only entries beside those of feeds, in one step.  Raises: as `update`."""
        return self._commands.replace(
            self.name, entries, by=self._by, timeout=timeout, forever=forever, comment=comment
        )

    def clear(self) -> Changed:
        """Remove every entry that no feed lists, in one step.  Raises: as `update`."""
        return self._commands.flush(self.name, by=self._by)

    def sweep(self) -> Moved:
        """Give back the memory of entries that have expired, which no packet meets any more.  Raises KernelError."""
        return self._commands.live(self.name).sweep()
