"""A set driven through anything that may happen to it, beside a model in Python (issue 5, "Proof").

The rules below add, remove, replace, flush, sweep, refresh what a feed lists, let time pass, open the
set anew as a restart does, and kill writers in the middle.  The model is a dictionary from entries
to their ends.  Behind every step the compiled program is asked about every address of a small world
by BPF_PROG_TEST_RUN, and must answer as the model does; what is listed must be what the model has.

Time passes without waiting: the ends of all entries, in the kernel's maps and in the model, are moved
nearer.  Times are such that none is within half a minute of its end when it is asked.
"""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from ipaddress import ip_address, ip_network
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests.packets import UDP, Ether, IPv4, IPv6
from tests.property.dataplane import DataPlane

from penstock.compiler.ir.lower import lower_filter
from penstock.compiler.ir.ops import RuleSet
from penstock.compiler.lang.parser import parse_policy
from penstock.compiler.lang.source import Source
from penstock.errors import LimitError
from penstock.model.sets import EXPIRY_MASK, GRAIN, control_map, set_map
from penstock.model.verdict import Verdict
from penstock.pipeline import live_set, set_few, set_many
from penstock.pipeline.live_set import LiveSet
from penstock.pipeline.set_keys import arrays_of
from penstock.pipeline.set_maps import read_map
from penstock.pipeline.set_store import live

pytestmark = pytest.mark.privileged

SIZE = 12
FOREVER = math.inf
_SECONDS = 1_000_000_000
_FUZZ = float(os.environ.get("PENSTOCK_FUZZ_SECONDS", "0"))
#: In the suite always the same ones, by `make fuzz` others each time.
_SETTINGS = settings(
    max_examples=8 + int(_FUZZ * 6), stateful_step_count=20, deadline=None, derandomize=not _FUZZ
)

#: Where an entry may stay: of 100 s, an end is half of that away from every moment that is looked at.
TIMES = st.sampled_from([None, 50, 150, 350, 1050])
PASSING = st.sampled_from([100, 200, 500])

ADDRESSES = [f"10.0.0.{last}" for last in range(10)] + [f"2001:db8::{last:x}" for last in range(1, 7)]
NETWORKS = sorted(
    {
        str(ip_network((address, length), strict=False))
        for address in ADDRESSES
        for length in ((28, 29, 30, 31, 32) if "." in address else (124, 125, 126, 127, 128))
    }
)
PORTS = (53, 80)
FLOWS = [f"{address} . {port}" for address in ADDRESSES for port in PORTS]


def rule_set(text: str) -> RuleSet:
    policy = parse_policy(Source("machine.policy", text))
    return lower_filter(policy, policy.filters[0])


_programs: dict[str, tuple[RuleSet, DataPlane]] = {}


def program(definition: str, asked: str) -> tuple[RuleSet, DataPlane]:
    """A loaded program that drops what is in its set; one for all runs of a machine."""
    if definition not in _programs:
        kind, _, more = definition.partition(" timeout ")
        words = f"{kind} size {SIZE}{more and f' timeout {more}'}"
        rules = rule_set(f"set s : {words}\nfilter machine at xdp {{ drop if {asked} in @s }}\n")
        _programs[definition] = rules, DataPlane.of(rules)
    return _programs[definition]


def frame_of(address: str, port: int) -> bytes:
    return bytes(Ether() / (IPv6 if ":" in address else IPv4)(src=address) / UDP(dport=port))


class SetMachine(RuleBasedStateMachine):
    """What every kind of set goes through; the kinds say what their entries are and which packets they hold."""

    definition: ClassVar[str]
    asked: ClassVar[str]
    world: ClassVar[list[str]]
    default_timeout: ClassVar[float] = FOREVER

    def __init__(self) -> None:
        super().__init__()
        self.rules, self.plane = program(self.definition, self.asked)
        self.model: dict[str, float] = {}
        self.was_killed = False
        self.held = self._opened()

    def teardown(self) -> None:
        self.held.close()

    @initialize()
    def begins_as_it_was_made(self) -> None:
        """Nothing that an earlier run did is told by the maps."""
        self.held.clear()
        control = self.plane.maps[control_map(0)]
        control.update(bytes(4), bytes(len(control.lookup(bytes(4)) or b"")))
        self.restart()

    def _opened(self) -> LiveSet:
        (spec,) = self.rules.sets
        maps = {table: self.plane.maps[set_map(0, table)].duplicate() for table in spec.tables}
        return live(spec, maps, self.plane.maps[control_map(0)].duplicate(), {})

    def holds(self, model: dict[str, float], address: str, port: int) -> bool:
        """Whether the packet is in a set with that content: what the words of docs/sets.md say."""
        raise NotImplementedError

    # ── the model ────────────────────────────────────────────────────────────

    @staticmethod
    def _live(model: dict[str, float]) -> dict[str, float]:
        return {entry: left for entry, left in model.items() if left > 0}

    def _end(self, timeout: float | None, *, forever: bool) -> float:
        return FOREVER if forever else self.default_timeout if timeout is None else timeout

    def _try(self, change: Any, after: dict[str, float]) -> None:
        """The change is done and leads to `after`, or is refused because that is too much."""
        if self._is_too_much(after):
            with pytest.raises(LimitError):
                change()
            return
        change()
        self._is_now(after)

    def _is_now(self, model: dict[str, float]) -> None:
        self.model, self.was_killed = model, False

    @staticmethod
    def _is_too_much(model: dict[str, float]) -> bool:
        sixes = sum(":" in entry for entry in model)
        return max(sixes, len(model) - sixes) > SIZE

    # ── what happens ─────────────────────────────────────────────────────────

    @rule(data=st.data(), timeout=TIMES, forever=st.booleans(), many=st.booleans())
    def add(self, data: st.DataObject, timeout: float | None, forever: bool, many: bool) -> None:
        entries = self._some(data, 6 if many else 1)
        end = self._end(timeout, forever=forever)
        after = self._live(self.model)
        after |= {entry: max(end, after.get(entry, 0)) for entry in entries}
        self._try(lambda: self.held.update(entries, timeout, forever=forever), after)

    @rule(data=st.data(), many=st.booleans())
    def remove(self, data: st.DataObject, many: bool) -> None:
        entries = self._some(data, 6 if many else 1)
        self.held.discard(entries)
        self._is_now({entry: left for entry, left in self.model.items() if entry not in entries})

    @rule(data=st.data(), timeout=TIMES)
    def replace(self, data: st.DataObject, timeout: float | None) -> None:
        entries = self._some(data, SIZE + 2)
        end = self._end(timeout, forever=False)
        self._try(lambda: self.held.replace(entries, timeout), dict.fromkeys(entries, end))

    @rule()
    def flush(self) -> None:
        self.held.clear()
        self._is_now({})

    @rule()
    def sweep(self) -> None:
        self.held.sweep()
        self._is_now(self._live(self.model))

    @rule(data=st.data(), timeout=TIMES)
    def refresh(self, data: st.DataObject, timeout: float | None) -> None:
        """A feed comes again: some of its entries go and others come, in one step; and somebody adds more."""
        gone, come, more = self._some(data, 5), self._some(data, 5), self._some(data, 3)
        end = self._end(timeout, forever=False)
        live = self._live(self.model)
        after = {entry: left for entry, left in live.items() if entry not in (*gone, *come)}
        after |= {entry: max(end, live.get(entry, 0)) for entry in more}
        after |= dict.fromkeys(come, end)
        held = self.held
        ends = held.read(come, timeout), held.read(more, timeout)
        self._try(lambda: held.exchange(held.read(gone, forever=True), *ends), after)

    @precondition(lambda self: not self.was_killed)  # until somebody tidies up, ends are the later of two
    @rule(seconds=PASSING)
    def time_passes(self, seconds: int) -> None:
        for table in (self.held.maps[family] for family in self.held.spec.families):
            found = read_map(self.held.spec, table)
            if len(found.keys):
                table.update_all(found.keys, _nearer(found.values, seconds, self.held.spec.timed.structure))
        if self.held.state.expiring:
            self.held.state.will_expire([GRAIN])
        self.model = {entry: left - seconds for entry, left in self.model.items()}

    @rule()
    def restart(self) -> None:
        self.held.close()
        self.held = self._opened()

    @rule(
        data=st.data(),
        step=st.integers(0, 12),
        what=st.sampled_from(["update", "discard", "replace", "exchange"]),
    )
    def killed_writer(self, data: st.DataObject, step: int, what: str) -> None:
        """Whoever changes the content is killed: what is there is the old content or the new."""
        entries = self._some(data, SIZE)
        some = dict.fromkeys(entries, self._end(None, forever=False))
        old = self._live(self.model)
        match what:
            case "update":
                new = {**old, **{entry: max(end, old.get(entry, 0)) for entry, end in some.items()}}
            case "discard":
                new = {entry: left for entry, left in old.items() if entry not in some}
            case "exchange":
                left = {entry: end for entry, end in old.items() if entry not in entries[::2]}
                odd = {entry: some[entry] for entry in entries[1::2]}
                new = {**left, **{entry: max(end, old.get(entry, 0)) for entry, end in odd.items()}}
            case _:
                new = some
        if self._is_too_much(new):
            return
        changes = {"exchange": lambda: _exchanged(self.held, entries)}
        _killed_at(step, self.held, changes.get(what, lambda: getattr(self.held, what)(entries)))
        self.was_killed = True
        answers = self._answers()
        assert answers in [self._expected(model) for model in (old, new)]
        listed = {entry.text: entry.expires_in for entry in self.held}
        found = new if listed.keys() == new.keys() and answers == self._expected(new) else old
        assert listed.keys() == found.keys()
        assert answers == self._expected(found)
        # An entry that both have keeps its end, or has the new one already.
        self.model = {
            entry: next(
                end for end in (old.get(entry), new.get(entry)) if end and _is_told(end, listed[entry])
            )
            for entry in found
        }

    def _some(self, data: st.DataObject, most: int) -> list[str]:
        drawn = st.lists(st.sampled_from(self.world), min_size=1, max_size=most, unique=True)
        return data.draw(drawn, label="entries")

    # ── what must always be so ───────────────────────────────────────────────

    @invariant()
    def the_program_answers_as_the_model(self) -> None:
        assert self._answers() == self._expected(self._live(self.model))

    @invariant()
    def what_is_listed_is_what_is_there(self) -> None:
        live = self._live(self.model)
        listed = {entry.text: entry.expires_in for entry in self.held}
        assert listed.keys() == live.keys()
        assert [entry for entry, left in live.items() if not _is_told(left, listed[entry])] == []
        # What was killed is tidied up by the next change.
        assert self.was_killed or self.held.count >= len(live)

    def _answers(self) -> list[bool]:
        return [
            verdict is Verdict.DROP for verdict in self.plane.verdicts([frame_of(*one) for one in _probes()])
        ]

    def _expected(self, model: dict[str, float]) -> list[bool]:
        return [self.holds(model, *one) for one in _probes()]


def _exchanged(held: LiveSet, entries: list[str]) -> None:
    """Every other entry goes, and those between come."""
    held.exchange(held.read(entries[::2], forever=True), held.read([]), held.read(entries[1::2]))


def _is_told(left: float, told: float | None) -> bool:
    return left == FOREVER if told is None else left - 49 < told <= left


@cache
def _probes() -> list[tuple[str, int]]:
    beyond = ["10.0.0.200", "2001:db8::ff", "10.0.1.1"]
    return [(address, port) for address in (*ADDRESSES, *beyond) for port in PORTS]


def _nearer(values: Any, seconds: int, structure: str) -> Any:
    """The values with all ends so much nearer; in a trie the second word begins with the entry's own end."""
    moved = values.copy()
    least, passed = np.uint64(GRAIN), np.uint64(seconds * _SECONDS & EXPIRY_MASK)
    for word in range(2 if structure == "trie" else 1):
        ends, rest = moved[:, word] & np.uint64(EXPIRY_MASK), moved[:, word] & np.uint64(GRAIN - 1)
        sooner = np.where(ends > least + passed, ends - passed, least)
        moved[:, word] = np.where(ends == 0, ends, sooner) | rest
    return moved


def _killed_at(step: int, held: LiveSet, change: Callable[[], object]) -> None:
    """A change in a process that dies behind the n-th entry it has written."""
    child = os.fork()
    if not child:
        seen = 0

        def progress(_done: int, _total: int) -> None:
            nonlocal seen
            if seen == step:
                os.kill(os.getpid(), signal.SIGKILL)
            seen += 1

        live_set.PART = 1
        held.progress = progress
        with suppress(BaseException):
            change()
        os._exit(0)
    os.waitpid(child, 0)


class HostMachine(SetMachine):
    """Addresses that stay for ever unless told otherwise."""

    definition, asked, world = "host", "src", ADDRESSES

    def holds(self, model: dict[str, float], address: str, port: int) -> bool:
        return address in model


class TimedHostMachine(HostMachine):
    """Addresses that stay for as long as the policy says."""

    definition, default_timeout = "host timeout 250s", 250.0


class ManyHostMachine(HostMachine):
    """Whatever comes and goes is done as if it were thousands."""

    def _opened(self) -> LiveSet:
        held = super()._opened()
        read = held.read
        held.read = lambda *entries, **more: arrays_of(held.spec, read(*entries, **more))  # type: ignore[method-assign]
        return held


class ManyTimedHostMachine(ManyHostMachine):
    """The same, of entries that end."""

    definition, default_timeout = "host timeout 250s", 250.0


class NetMachine(SetMachine):
    """Networks that lie in each other."""

    definition, asked, world = "net as trie", "src", NETWORKS

    def holds(self, model: dict[str, float], address: str, port: int) -> bool:
        asked = ip_address(address)
        return any(asked in ip_network(entry) for entry in model if (":" in entry) == (asked.version == 6))


class TimedNetMachine(NetMachine):
    """Networks that lie in each other and end at different times."""

    definition, default_timeout = "net timeout 250s", 250.0


class FlatMachine(NetMachine):
    """The same, searched flat."""

    definition = "net as flat"


class FlowMachine(SetMachine):
    """Keys of two parts."""

    definition, asked, world = "host . port", "src . udp dst port", FLOWS

    def holds(self, model: dict[str, float], address: str, port: int) -> bool:
        return f"{address} . {port}" in model


MACHINES = [
    HostMachine,
    TimedHostMachine,
    ManyHostMachine,
    ManyTimedHostMachine,
    NetMachine,
    TimedNetMachine,
    FlatMachine,
    FlowMachine,
]


@pytest.fixture(autouse=True)
def _few_are_looked_at_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """What covers more than three entries has all of them read, so that both ways are taken."""
    monkeypatch.setattr(set_few, "MOST_BENEATH", 3)


@pytest.fixture
def _all_are_many(monkeypatch: pytest.MonkeyPatch, machine: type[SetMachine]) -> None:
    """Where entries come as arrays, one is enough for the way of thousands."""
    if issubclass(machine, ManyHostMachine):
        monkeypatch.setattr(live_set, "_FEW", 0)
        monkeypatch.setattr(set_many, "_RATHER_ALL", 0)


@pytest.mark.check(33)
@pytest.mark.check(34)
@pytest.mark.check(36)
@pytest.mark.usefixtures("_all_are_many")
@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.__name__)
def test_a_set_is_as_its_model(machine: type[SetMachine]) -> None:
    run_state_machine_as_test(machine, settings=_SETTINGS)


@pytest.fixture(scope="module", autouse=True)
def _closed() -> Iterator[None]:
    yield
    for _, plane in _programs.values():
        plane.__exit__()
    _programs.clear()
