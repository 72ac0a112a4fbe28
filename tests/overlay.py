"""A loaded program with added rules in its overlay, beside the rule set that has them at their places."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

from tests.property.dataplane import DataPlane

from penstock.compiler.codegen.emit import emit
from penstock.compiler.codegen.overlay import UnsayableError, conjunctions
from penstock.compiler.codegen.plan import Wish
from penstock.compiler.codegen.weigh import Form
from penstock.compiler.driver import object_of
from penstock.compiler.ir.evaluate import evaluate
from penstock.compiler.ir.ops import FIRST_CONDITION_SLOT, FIRST_RULE_SLOT, Rule, RuleSet
from penstock.compiler.ir.outcome import Outcome
from penstock.kernel.elf import initial_value
from penstock.model.hook import TRAITS
from penstock.model.overlay import BANKS_MAP, END, OFFSETS_VARIABLE, SWITCH_MAP, Record
from penstock.model.spec import COUNTERS_MAP
from penstock.model.verdict import Verdict
from penstock.pipeline.counters import read_total
from penstock.pipeline.identity import CounterKey
from penstock.pipeline.overlay import Content, Held, Overlay

#: Whatever the plan would choose.
TABLES = Wish(Form.TABLES, inline=False)

#: A rule, and the number of the rule of the set before which it stands; the set's length is behind all.
Addition = tuple[int, Rule]


@dataclass
class Overlaid:
    """A probe build of a rule set; `put` adds rules to it as it runs."""

    rules: RuleSet
    plane: DataPlane
    places: dict[str, int]
    overlay: Overlay
    #: How many packets added rules have decided and counted.
    decided: int = 0
    hits: int = 0

    @classmethod
    def of(cls, rules: RuleSet) -> Self:
        source = emit(rules, probe=True, wish=TABLES)
        offsets = memoryview(initial_value(object_of(source), OFFSETS_VARIABLE) or b"").cast("H")
        plane = DataPlane(source)
        maps = plane.maps
        places = dict(zip(source.spec.overlay, offsets, strict=True))
        return cls(rules, plane, places, Overlay(maps[SWITCH_MAP], maps[BANKS_MAP]))

    def records_of(self, rule: Rule, position: int, number: int) -> list[bytes]:
        code = TRAITS[self.rules.hook].codes[rule.action] if isinstance(rule.action, Verdict) else 0
        found = conjunctions(rule.condition, self.places, self.rules.depth)
        return [Record(one, position, number, code, rule.until_ns or 0).packed() for one in found]

    def put(self, additions: Sequence[Addition]) -> None:
        """Have these rules, in order of their places, and no others."""
        held, records = [], []
        for number, (before, rule) in enumerate(additions):
            position = END if before == len(self.rules.rules) else FIRST_RULE_SLOT + before
            held.append(Held(CounterKey(rule.name, ""), number, position))
            records += self.records_of(rule, position, number)
        self.overlay.change(self.overlay.read(), records, Content(held=tuple(held)))

    def sayable(self, additions: Sequence[Addition], room: int = 64) -> list[Addition]:
        """Those of the rules that the overlay can say, as many as fit."""
        found: list[Addition] = []
        for before, rule in additions:
            try:
                size = len(self.records_of(rule, 0, 0))
            except UnsayableError:
                continue
            if size <= room:
                room -= size
                found.append((before, rule))
        return found

    def disagreements(self, additions: Sequence[Addition], frames: Sequence[bytes]) -> list[str]:
        """Where the program differs from the rule set that has the rules inserted; counters included."""
        whole = inserted(self.rules, additions)
        names = [*_slot_names(self.rules), *(rule.name for _, rule in additions)]
        wanted_names = _slot_names(whole)
        before = self._counted(names)
        found, packets, octets = [], Counter[str](), Counter[str]()
        own = {rule.name for _, rule in additions}
        for frame in frames:
            expected, got = evaluate(whole, frame), self.plane.outcome(frame)
            if _named(expected, wanted_names) != _named(got, names):
                found.append(f"{frame.hex()}\n  {_named(expected, wanted_names)}\n  {_named(got, names)}")
            counted = [*expected.hits, *(FIRST_CONDITION_SLOT + at for at in expected.conditions)]
            hit = {wanted_names[slot] for slot in counted}
            decided = wanted_names[expected.slot]
            packets.update({decided, *hit})
            octets.update(dict.fromkeys({decided, *hit}, len(frame)))
            self.decided += decided in own
            self.hits += len(hit & own)
        after = self._counted(names)
        moved = {
            name: (after[name][0] - packed, after[name][1] - size) for name, (packed, size) in before.items()
        }
        wanted = {name: (packets[name], octets[name]) for name in names}
        if not found and wanted != moved:
            found.append(f"counters: {[(n, wanted[n], moved[n]) for n in names if wanted[n] != moved[n]]}")
        return found

    def _counted(self, names: Sequence[str]) -> dict[str, tuple[int, int]]:
        counters = self.plane.maps[COUNTERS_MAP]
        totals = (read_total(counters, slot) for slot in range(len(names)))
        return {name: (one.packets, one.bytes) for name, one in zip(names, totals, strict=True)}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.plane.__exit__()


def inserted(rules: RuleSet, additions: Sequence[Addition]) -> RuleSet:
    """The rule set with the rules at their places."""
    return replace(rules, rules=tuple(_woven(rules.rules, additions)))


def _woven(rules: Sequence[Rule], additions: Sequence[Addition]) -> Iterator[Rule]:
    for at in range(len(rules) + 1):
        yield from (rule for before, rule in additions if before == at)
        yield from rules[at : at + 1]


def at_random_places(rules: RuleSet, added: Sequence[Rule], seed: int) -> list[Addition]:
    """The rules at random places: every kind of place turns up, and several at one."""
    draw = random.Random(seed)
    last = len(rules.rules)
    places = [draw.choice((0, 1, 2, draw.randrange(12), draw.randrange(last + 1), last)) for _ in added]
    named = [replace(rule, name=f"added:{number}") for number, rule in enumerate(added)]
    return sorted(zip(places, named, strict=True), key=lambda addition: addition[0])


def _slot_names(rules: RuleSet) -> list[str]:
    from penstock.compiler.ir.ops import counter_names

    return list(counter_names(rules))


def _named(outcome: Outcome, names: Sequence[str]) -> tuple[object, ...]:
    hits = sorted(names[slot] for slot in outcome.hits)
    return outcome.verdict.value, names[outcome.slot], hits, sorted(outcome.conditions)
