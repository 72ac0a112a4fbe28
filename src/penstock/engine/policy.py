"""Engines that give a filter's outcome for one frame.

    with open_engine("kernel", rules) as engine:
        engine.outcome(frame, len(frame))       ->  Outcome(verdict=DROP, slot=6, …)

Both engines mean the same; the reference says what is right and the kernel what
is so.  The kernel's test run takes no frame of less than 14 bytes, which no hook
sees either, nor at TC and sockets half an IP header or more than fits a page: for
those the kernel engine asks the reference.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable
from dataclasses import replace
from random import Random
from types import TracebackType
from typing import Literal, Protocol, Self

from penstock.compiler.ir.buckets import Buckets
from penstock.compiler.ir.evaluate import evaluate
from penstock.compiler.ir.ops import FIRST_RULE_SLOT, RuleSet
from penstock.compiler.ir.outcome import Outcome
from penstock.compiler.ir.stores import Stores
from penstock.kernel.bpf_object import load_object
from penstock.model.closing import Closing
from penstock.model.limiter import MOST_BURST_NS
from penstock.model.sets import control_map, set_map
from penstock.model.spec import COUNTERS_MAP, PROBE_MAP, PROGRAM, ProbeLayout
from penstock.model.verdict import DECISION_CODES, Condition
from penstock.observe.frame import Frame
from penstock.pipeline.set_contents import Contents, joined, modelled, require_room

EngineName = Literal["reference", "kernel"]

_WORD = struct.Struct("=I")
_MOMENT = struct.Struct("=QI")
#: No bucket takes longer to be full again (model/limiter.py).
_LONG_NS = MOST_BURST_NS


class Engine(Protocol):
    """What runs a filter on frames.  Use it as a context, or close it."""

    name: EngineName

    def outcome(self, data: bytes, wire_length: int, time_ns: int | None = None) -> Outcome:
        """What the filter does with a frame that had `wire_length` bytes before a capture cut it.

        `time_ns` is when a capture saw it; a frame without a time comes at that of the last one.
        """
        ...

    def give(self, contents: Contents) -> None:
        """Let sets contain these too, until `start_afresh`.

        Raises:
            LimitError: a set would have more entries than it takes.
        """
        ...

    def start_afresh(self) -> None:
        """Take what comes next to come much later: buckets are full, and sets contain what they did at first."""
        ...

    def close(self) -> None:
        """Give back what the engine holds."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...


class Clock:
    """The time of packets that have come already, and chance that is the same each time it is asked in turn."""

    def __init__(self) -> None:
        self._now = self._start = _LONG_NS
        self._first: int | None = None
        self._random = Random(1)  # noqa: S311 - the same each time, on purpose

    def at(self, time_ns: int | None) -> int:
        """The boot clock for a packet of a capture's time; it never goes back."""
        if time_ns is not None:
            self._first = time_ns if self._first is None else self._first
            self._now = max(self._now, self._start + time_ns - self._first)
        return self._now

    def chance(self) -> int:
        """32 random bits."""
        return self._random.getrandbits(32)

    def start_afresh(self) -> None:
        """Let time pass, and let the next capture's first packet come then."""
        self._now = self._start = self._now + _LONG_NS
        self._first = None


class ReferenceEngine(Closing):
    """The reference evaluator: needs nothing and defines what is right."""

    name: EngineName = "reference"

    def __init__(self, rules: RuleSet, contents: Contents | None = None) -> None:
        self._rules = rules
        self._clock = Clock()
        self._buckets = Buckets()
        self._first = self._given = contents or {}
        self._sets = modelled(rules.sets, self._first)

    def outcome(self, data: bytes, wire_length: int, time_ns: int | None = None) -> Outcome:
        """What the rule set's definition says of the frame."""
        self._buckets.now_ns = self._clock.at(time_ns)
        self._buckets.chance = self._clock.chance()
        stores = Stores(self._sets, self._buckets.now_ns, self._buckets)
        return evaluate(self._rules, data, wire_length, stores=stores)

    def give(self, contents: Contents) -> None:
        """Let sets contain these too; what rules have added stays."""
        self._given = joined(self._given, contents)
        for name, content in modelled(self._rules.sets, self._given).items():
            self._sets[name] = replace(self._sets[name], entries=content.entries)

    def start_afresh(self) -> None:
        """What comes next comes much later, and sets are as they were at first."""
        self._clock.start_afresh()
        self._given = self._first
        self._sets = modelled(self._rules.sets, self._first)

    def close(self) -> None:
        """Nothing is held."""


class KernelEngine(Closing):
    """The compiled program in the kernel, run by BPF_PROG_TEST_RUN; attached nowhere.

    Raises:
        KernelError: on making it, if the kernel refuses the program or a capability is missing.
    """

    name: EngineName = "kernel"

    def __init__(self, rules: RuleSet, contents: Contents | None = None) -> None:
        from penstock.compiler.driver import compile_rule_set

        self._rules = rules
        self._first = self._given = contents or {}
        self._object = load_object(compile_rule_set(rules, probe=True).elf, rules.name)
        self._program = self._object.programs[PROGRAM]
        self._answer = self._program.answering()
        self._layout = ProbeLayout(FIRST_RULE_SLOT + len(rules.rules))
        # A memoryview of the map itself: two system calls for each frame would be most of its time.
        self._probe = memoryview(self._object.maps[PROBE_MAP].view()[0])
        self._verdicts = {code: verdict for verdict, code in DECISION_CODES.items()}
        self._blank = bytes(len(self._probe))
        self._clock = Clock()
        self._write({spec.name: {} for spec in rules.sets if spec.name in self._first})

    def outcome(self, data: bytes, wire_length: int, time_ns: int | None = None) -> Outcome:
        """What the loaded program did with the frame."""
        if not self._program.takes(data):
            return evaluate(
                self._rules, data, wire_length, stores=Stores(modelled(self._rules.sets, self._given))
            )
        self._probe[:] = self._blank
        _MOMENT.pack_into(self._probe, self._layout.now_ns, self._clock.at(time_ns), self._clock.chance())
        _WORD.pack_into(self._probe, self._layout.wire_length, wire_length)
        self._answer(data)
        found = bytes(self._probe)
        (code,) = _WORD.unpack_from(found, self._layout.decided)
        (slot,) = _WORD.unpack_from(found, self._layout.slot)
        (conditions,) = _WORD.unpack_from(found, self._layout.conditions)
        odd = frozenset(condition for condition in Condition if conditions >> condition & 1)
        return Outcome(self._verdicts[code], slot, self._hits(found), odd)

    def give(self, contents: Contents) -> None:
        """Let sets contain these too; what rules have added stays."""
        before, self._given = self._given, joined(self._given, contents)
        self._write({name: before.get(name, {}) for name in contents})

    def _write(self, before: Contents) -> None:
        """Let these sets contain what they are given, of which this much was there before."""
        from penstock.pipeline.set_store import live

        require_room(self._rules.sets, self._given)
        for number, spec in enumerate(self._rules.sets):
            if spec.name not in before:
                continue
            maps = {table: self._object.maps[set_map(number, table)].duplicate() for table in spec.tables}
            added = {
                table: self._object.maps[set_map(number, table)].duplicate() for table in spec.added_tables
            }
            with live(spec, maps, self._object.maps[control_map(number)].duplicate(), added) as held:
                now = {family: self._given.get(spec.name, {}).get(family, {}) for family in spec.families}
                gone = {
                    family: dict.fromkeys(before[spec.name].get(family, {}).keys() - now[family].keys(), 0)
                    for family in spec.families
                }
                held.exchange_claims(gone, now)

    def start_afresh(self) -> None:
        """What comes next comes much later, and sets are as they were at first."""
        from penstock.pipeline.added_entries import AddedEntries

        before, self._given = self._given, self._first
        self._write({name: before[name] for name in before if before[name] != self._first.get(name)})

        self._clock.start_afresh()
        for number, spec in enumerate(self._rules.sets):
            if spec.dynamic:
                maps = {name: self._object.maps[set_map(number, name)] for name in spec.added_tables}
                AddedEntries(spec, maps).clear()

    def run(self, frames: Iterable[Frame]) -> None:
        """Let the program count frames that a test run takes; quicker than their outcomes."""
        probe, at, answer = self._probe, self._layout.wire_length, self._answer
        for data, wire_length, _, _ in frames:
            _WORD.pack_into(probe, at, wire_length)
            answer(data)

    def counted(self) -> list[int]:
        """How many packets each slot has counted since the program was loaded."""
        _, values = self._object.maps[COUNTERS_MAP].read_all()
        packets: list[int] = values[:, :, 0].sum(axis=1).tolist()
        return packets

    def _hits(self, probe: bytes) -> tuple[int, ...]:
        bits = int.from_bytes(probe[self._layout.hits : self._layout.size], sys.byteorder)
        if not bits:
            return ()
        return tuple(slot for slot in range(FIRST_RULE_SLOT, self._layout.slots) if bits >> slot & 1)

    def close(self) -> None:
        """Unload the program."""
        self._object.close()


def open_engine(name: EngineName, rules: RuleSet, contents: Contents | None = None) -> Engine:
    """The engine of that name, ready to run a filter; its sets contain `contents` at first.

    Raises:
        KernelError: only for the kernel engine.
        LimitError: a set would have more entries than it takes.
        ToolchainError: only for the kernel engine: clang is missing or failed.
    """
    made = ReferenceEngine if name == "reference" else KernelEngine
    return made(rules, contents)
