"""Rules put in force beside a running policy: through its overlay if that can say them, else by compiling again.

In: the pins of a filter, and all emergency and added rules that shall be in
force on it.  Out: `Done`, which tells how it was done.

    put_rules(root, point, present, Wanted(added=(…,)))     ->  Done("overlay", None, …)

The overlay is that of a large policy's program (overlay.py): a rule is in force
in milliseconds, and nothing is compiled.  What it cannot say is compiled with
the policy's own rules, exactly, and takes the place of the running program.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from msgspec.structs import replace

from penstock.compiler.ir.ops import Effect
from penstock.errors import KernelError
from penstock.kernel.attach_point import AttachPoint
from penstock.model.field import Layer
from penstock.model.overlay import END, LAYOUT, RECORDS, RULES, Record
from penstock.model.verdict import DECISION_CODES, Condition, Verdict
from penstock.pipeline.added import asks_names, constants_of, ir_rule
from penstock.pipeline.apply import put
from penstock.pipeline.counters import clear
from penstock.pipeline.identity import Added, Emergency, Identity, rule_key
from penstock.pipeline.overlay import Content, Held
from penstock.pipeline.placing import AUTO, Wish
from penstock.pipeline.policy import compiled_again, emergency_rule, live
from penstock.pipeline.putting import Applied
from penstock.pipeline.slot import Slot

if TYPE_CHECKING:
    from penstock.compiler.ir.ops import Rule

How = Literal["overlay", "compiled"]
#: What a record's code can say: the others need a device, a number, or a part of the program that may not be there.
_IN_RECORDS = frozenset({Verdict.PASS, Verdict.DROP, Verdict.BOUNCE, Effect.COUNT, Effect.AUDIT})
#: The slot of the first rule: the default and the conditions have those before.
_FIRST = 1 + len(Condition)


@dataclass(frozen=True, slots=True)
class Wanted:
    """All the rules that shall be in force besides the policy's own."""

    added: tuple[Added, ...] = ()
    emergencies: tuple[Emergency, ...] = ()


@dataclass(frozen=True, slots=True)
class Done:
    """How rules were put in force; `why` says what the overlay could not do."""

    how: How
    why: str | None
    applied: Applied


class _CompileError(Exception):
    """The rules must be compiled; the message says why."""


def put_rules(
    root: Path,
    point: AttachPoint,
    present: Slot,
    wanted: Wanted,
    mode: str = AUTO,
    *,
    rebuild: str | None = None,
) -> Done:
    """Put these rules in force; `rebuild` is a reason to compile at any rate.  Hold the lock.

    Raises:
        PenstockError: they cannot be compiled, or the kernel refuses; what was in force is.
    """
    try:
        if rebuild:
            raise _CompileError(rebuild)
        return _by_overlay(point, present, wanted)
    except _CompileError as error:
        policy = compiled_again(present.identity, live(wanted.emergencies), wanted.added)
        return Done("compiled", str(error), put(root, point, policy, present, Wish(mode)))


def own_names(identity: Identity) -> list[str]:
    """The names of the policy's own rules, in order."""
    added = {rule.name for rule in identity.added}
    keys = identity.counters[_FIRST + len(identity.emergencies) :]
    return [key.name for key in keys if key.name not in added]


# ── by the overlay ───────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class _Place:
    """A rule for the overlay, and the slot of the compiled rule that it stands before."""

    rule: Added | Emergency
    position: int

    @property
    def text(self) -> str:
        return _text(self.rule)

    @property
    def until_ns(self) -> int | None:
        return self.rule.until_ns if isinstance(self.rule, Emergency) else None

    def is_of(self, held: Held) -> bool:
        """Whether the overlay holds it already."""
        return (held.key.name, held.key.text, held.key.until_ns, held.position) == (
            self.rule.name,
            self.text,
            self.until_ns,
            self.position,
        )


def _by_overlay(point: AttachPoint, present: Slot, wanted: Wanted) -> Done:
    """Put the rules in force by the overlay.  Raises _CompileError: it cannot say them."""
    identity, overlay = present.identity, present.overlay
    if overlay is None or identity.offer is None:
        raise _CompileError("only a policy that is compiled to tables takes rules while it runs")
    if identity.offer.layout != LAYOUT:
        raise _CompileError("another version of penstock compiled the running program")
    _check_compiled(present, wanted)
    known = {held.key.name: held for held in present.held}
    free = iter(sorted(set(range(RULES)) - {held.number for held in present.held}))
    packed = _records_by_number(present)
    held, records, fresh = [], [], []
    for place in _places(identity, wanted):
        found = known.get(place.rule.name)
        if found is None or not place.is_of(found):
            found, made = _made(place, next(free, None), identity)
            packed[found.number] = made
            fresh.append(found.number)
        held.append(found)
        records += packed.get(found.number, [])
    if len(records) > RECORDS:
        raise _CompileError(f"the overlay is full: {len(records)} records, and it has room for {RECORDS}")
    emergencies = tuple(rule for rule in wanted.emergencies if rule not in identity.emergencies)
    state = overlay.settle(present.state)
    for number in fresh:
        clear(present.counters, len(identity.counters) + number)
    try:
        overlay.change(state, records, Content(_without_texts(wanted, identity), emergencies, tuple(held)))
    except KernelError as error:
        if error.errno != errno.E2BIG:
            raise
        raise _CompileError("the overlay is full: it has no room for so much text") from error
    kept = len(identity.counters) + len(held) - len(fresh)
    applied = Applied(
        point.ifname, identity.name, identity.mode, identity.program, replaced=identity.name, kept=kept
    )
    return Done("overlay", None, applied)


def _without_texts(wanted: Wanted, identity: Identity) -> tuple[Added, ...]:
    """The added rules; of those that are compiled in the identity has the texts."""
    return tuple(replace(rule, text="") if rule in identity.added else rule for rule in wanted.added)


def _check_compiled(present: Slot, wanted: Wanted) -> None:
    """Only what the overlay holds can be taken away by it.

    Emergency rules that have lapsed may stay compiled in while others are added.
    """
    identity = present.identity
    gone = [rule.name for rule in identity.added if rule not in wanted.added]
    lost = [rule for rule in identity.emergencies if rule not in wanted.emergencies]
    is_new = any(rule not in present.emergencies for rule in wanted.emergencies)
    gone += [rule.name for rule in (live(tuple(lost)) if is_new else lost)]
    if gone:
        raise _CompileError(f"{', '.join(gone)} is compiled in")


def _places(identity: Identity, wanted: Wanted) -> Iterator[_Place]:
    """The rules for the overlay in the order in which they are tried, with their positions."""
    slots = {key.name: slot for slot, key in enumerate(identity.counters)}
    first = _FIRST + len(identity.emergencies)
    for rule in wanted.emergencies:
        if rule not in identity.emergencies:
            yield _Place(rule, first if first < len(identity.counters) else END)
    behind: dict[str | None, int] = {}
    found: list[_Place] = []
    for one in reversed(wanted.added):
        if one in identity.added:
            behind[one.before] = slots[one.name]
            continue
        anchor = END if one.before is None else slots[one.before]
        found.append(_Place(one, behind.get(one.before, anchor)))
    found.reverse()
    yield from sorted(found, key=lambda place: place.position)


def _records_by_number(present: Slot) -> dict[int, list[bytes]]:
    found: dict[int, list[bytes]] = {}
    for number, record in present.state.records:
        found.setdefault(number, []).append(record)
    return found


def _made(place: _Place, number: int | None, identity: Identity) -> tuple[Held, list[bytes]]:
    """A rule that the overlay has not held so far, and its records.  Raises _CompileError."""
    from penstock.compiler.codegen.overlay import UnsayableError, conjunctions

    if number is None:
        raise _CompileError(f"the overlay is full: it has room for {RULES} rules")
    assert identity.offer is not None
    rule = _lowered(place.rule, identity)
    try:
        found = conjunctions(rule.condition, identity.offer.fields, Layer(identity.offer.depth))
    except UnsayableError as error:
        raise _CompileError(str(error)) from error
    if rule.action not in _IN_RECORDS:
        raise _CompileError(f"a record cannot say `{rule.action.value}`")
    code = DECISION_CODES[rule.action] if isinstance(rule.action, Verdict) else 0
    made = [Record(one, place.position, number, code, rule.until_ns or 0) for one in found]
    key = rule_key(rule, place.text)
    return Held(key, number, place.position), [record.packed() for record in made]


def _lowered(rule: Added | Emergency, identity: Identity) -> Rule:
    if isinstance(rule, Emergency):
        return emergency_rule(rule)
    constants = constants_of(identity.text) if asks_names(rule.text) else ""
    return ir_rule(rule, constants, identity.name, identity.hook)


def _text(rule: Added | Emergency) -> str:
    return f"{rule.action} if {rule.expression}" if isinstance(rule, Emergency) else rule.text
