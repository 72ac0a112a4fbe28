"""The programs that keep sets, as processes: penstock alone and through its daemon, ipset, nft; and penstock in Python.

    for name, tool in tools(folder, "host", 100_000):
        tool.empty(); tool.load(entries); tool.add(["203.0.113.9"])      ->  Took(wall=0.03, cpu=0.03, memory=0)

`penstock set …` does what users do, with its ledger.  What is done through the daemon is done
by one that has the set open; its own processor time is not in `cpu`.  In Python it is what a program does that
has the set open, ledger and all, with its lists of texts: no process starts, and no file is read.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bench.serving import serving
from penstock.model.sets import SetSpec
from penstock.pipeline.set_store import delete, names, shared
from penstock.pipeline.shared_set import SharedSet, open_set

LIMIT_S = 120.0
#: nft keeps networks as intervals, and takes minutes and a gigabyte for a million.
NFT_NETWORKS = 100_000
#: What is through the daemon what it is without: the command does it itself.
ITS_OWN = ("load", "replace")
#: Who has the set open, and has it loaded by a process.
OPEN = ("daemon", "python")
_WARMING = {"host": "203.0.113.10", "net": "203.0.113.10/32"}


@dataclass(frozen=True, slots=True)
class Took:
    """Seconds by the clock and of processors, and by how many bytes the kernel's own memory has grown."""

    wall: float
    cpu: float
    memory: int


@dataclass(frozen=True, slots=True)
class Update:
    """Entries that go, entries that come, and what there is then."""

    gone: list[str]
    come: list[str]
    whole: list[str]


class Tool(Protocol):
    """What keeps a set; entries are texts."""

    def load(self, entries: list[str]) -> Took: ...
    def update(self, update: Update) -> Took: ...
    def add(self, entries: list[str]) -> Took: ...
    def replace(self, entries: list[str]) -> Took: ...
    def empty(self) -> None: ...


def tools(folder: Path, kind: str, size: int) -> Iterator[tuple[str, Tool]]:
    yield "penstock", Penstock(folder, kind, size)
    yield "daemon", ByDaemon(folder, kind, size)
    yield "python", InPython(folder, kind, size)
    yield "ipset", Ipset(kind, size)
    if kind == "host" or size <= NFT_NETWORKS:
        yield "nft", Nft(folder, kind, size)


class Penstock:
    """`penstock set`; the set is made anew for each turn."""

    def __init__(self, folder: Path, kind: str, size: int) -> None:
        self.spec = SetSpec(f"{kind}{size}", (kind,), 2 * size)
        self._file = folder / "entries.txt"

    def load(self, entries: list[str]) -> Took:
        return self._of_file("replace", entries)

    def update(self, update: Update) -> Took:
        self._file.write_text("\n".join([*update.come, ""]))
        gone = self._file.with_name("gone.txt")
        gone.write_text("\n".join([*update.gone, ""]))
        return took(
            [*COMMAND, "set", "update", self.spec.name, "--add", str(self._file), "--remove", str(gone)]
        )

    def replace(self, entries: list[str]) -> Took:
        return self._of_file("replace", entries)

    def add(self, entries: list[str]) -> Took:
        if len(entries) == 1:
            return took([*COMMAND, "set", "add", self.spec.name, *entries])
        return self._of_file("import", entries)

    def empty(self) -> None:
        if self.spec.name in names():
            delete(self.spec.name)
        with shared([self.spec]):
            pass

    def _of_file(self, command: str, entries: list[str]) -> Took:
        self._file.write_text("\n".join([*entries, ""]))
        return took([*COMMAND, "set", command, self.spec.name, str(self._file)])


class ByDaemon(Penstock):
    """The same, with a daemon that is started behind loading and ends where the set does."""

    def __init__(self, folder: Path, kind: str, size: int) -> None:
        super().__init__(folder, kind, size)
        self._folder, self._held = folder, ExitStack()

    def load(self, entries: list[str]) -> Took:
        loading = super().load(entries)
        self._held.enter_context(serving(self._folder))
        for command in ("add", "remove"):
            # By way of a file, so that it has imported all that a change of many takes.
            self._file.write_text(_WARMING[self.spec.kind[0]] + "\n")
            took([*COMMAND, "set", "update", self.spec.name, f"--{command}", str(self._file)])
        return loading

    def empty(self) -> None:
        self._held.close()
        super().empty()


class InPython(Penstock):
    """`penstock.open_set` in this process, opened behind loading."""

    def __init__(self, folder: Path, kind: str, size: int) -> None:
        super().__init__(folder, kind, size)
        self._held: SharedSet | None = None

    def load(self, entries: list[str]) -> Took:
        loading = super().load(entries)
        self._held = open_set(self.spec.name)
        # As of the daemon: what is imported for a change of many is not of this one.
        for change in (self._held.update, self._held.discard):
            change([_WARMING[self.spec.kind[0]]])
        return loading

    def update(self, update: Update) -> Took:
        assert self._held is not None
        held = self._held
        return _inside(lambda: held.exchange(update.gone, update.come))

    def add(self, entries: list[str]) -> Took:
        assert self._held is not None
        held = self._held
        return _inside(lambda: held.update(entries))

    def empty(self) -> None:
        if self._held is not None:
            self._held.close()
            self._held = None
        super().empty()


def _inside(change: Callable[[], object]) -> Took:
    memory, worked, begun = _kernel_memory(), time.process_time(), time.perf_counter()
    change()
    wall, cpu = time.perf_counter() - begun, time.process_time() - worked
    return Took(wall, cpu, _kernel_memory() - memory)


class Ipset:
    """`ipset restore`, and `ipset add` for one."""

    def __init__(self, kind: str, size: int) -> None:
        self._kind = f"hash:{'ip' if kind == 'host' else 'net'} hashsize {size} maxelem {2 * size}"
        self._is_there = False

    def load(self, entries: list[str]) -> Took:
        self._is_there = True
        return _restored(f"create bench {self._kind}\n" + _lines("add bench {}", entries))

    def replace(self, entries: list[str]) -> Took:
        made = f"create other {self._kind}\n" + _lines("add other {}", entries)
        return _restored(made + "swap bench other\ndestroy other\n")

    def update(self, update: Update) -> Took:
        return _restored(_lines("del bench {}", update.gone) + _lines("add bench {}", update.come))

    def add(self, entries: list[str]) -> Took:
        if len(entries) == 1:
            return took(["ipset", "add", "bench", *entries])
        return _restored(_lines("add bench {}", entries))

    def empty(self) -> None:
        if self._is_there:
            subprocess.run(["ipset", "destroy", "bench"], check=True)
            self._is_there = False


def _lines(form: str, entries: list[str]) -> str:
    return "".join(form.format(entry) + "\n" for entry in entries)


def _restored(text: str) -> Took:
    return took(["ipset", "-exist", "restore"], text)


class Nft:
    """`nft -f`, and `nft add element` for one; networks are intervals."""

    def __init__(self, folder: Path, kind: str, size: int) -> None:
        self._file = folder / "entries.nft"
        flags = "" if kind == "host" else "flags interval; auto-merge;"
        self._head = (
            f"add table ip bench\nadd set ip bench s {{ type ipv4_addr; size {4 * size}; {flags} }}\n"
        )
        self._is_interval = kind == "net"
        self._is_there = False

    def load(self, entries: list[str]) -> Took:
        self._is_there = True
        return self._of_file(self._head + _elements("add", entries))

    def update(self, update: Update) -> Took:
        # What was merged cannot be removed by its old bounds: the list is put in anew, in one step.
        if self._is_interval:
            return self._of_file("flush set ip bench s\n" + _elements("add", update.whole))
        return self._of_file(_elements("delete", update.gone) + _elements("add", update.come))

    def replace(self, entries: list[str]) -> Took:
        return self._of_file("flush set ip bench s\n" + _elements("add", entries))

    def add(self, entries: list[str]) -> Took:
        if len(entries) == 1:
            return took(["nft", "add", "element", "ip", "bench", "s", f"{{ {entries[0]} }}"])
        return self._of_file(_elements("add", entries))

    def empty(self) -> None:
        if self._is_there:
            subprocess.run(["nft", "delete", "table", "ip", "bench"], check=True)
            self._is_there = False

    def _of_file(self, text: str) -> Took:
        self._file.write_text(text)
        return took(["nft", "-f", str(self._file)])


def _elements(verb: str, entries: list[str]) -> str:
    return f"{verb} element ip bench s {{ {', '.join(entries)} }}\n"


COMMAND = (sys.executable, "-m", "penstock", "-q")


def took(command: list[str], text: str | None = None) -> Took:
    """Run a process to its end.

    Raises:
        subprocess.TimeoutExpired: it takes longer than LIMIT_S, and was ended.
        subprocess.CalledProcessError: it fails.
    """
    before, memory = resource.getrusage(resource.RUSAGE_CHILDREN), _kernel_memory()
    begun = time.perf_counter()
    subprocess.run(command, input=text, text=True, check=True, timeout=LIMIT_S, capture_output=True)
    wall = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Took(wall, cpu, _kernel_memory() - memory)


def _kernel_memory() -> int:
    """Bytes of objects that cannot be reclaimed, and of areas: sets are made of both."""
    with Path("/proc/meminfo").open() as lines:
        return sum(
            int(line.split()[1]) << 10 for line in lines if line.startswith(("SUnreclaim", "VmallocUsed"))
        )
