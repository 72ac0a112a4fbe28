"""What a policy may cost, for CI: limits, which of them are crossed, and by which rule.

    parse_budget("ns=40,insns=2000,load=50ms")   ->  (Limit("ns", 40.0), Limit("insns", 2000.0), …)
    crossed(limits, price, None)                 ->  [Crossing(Limit("insns", 2000.0), 2139.0)]

    ns        nanoseconds a packet above the empty program, of the dearest class of traffic
    insns     instructions that the kernel runs from
    verified  instructions that its verifier followed
    states    states that the verifier kept in all
    stack     bytes of stack, with the deepest function
    memory    bytes that maps and tables take in the kernel      4096, 64KiB, 2MiB
    table     bytes of look-up tables                            likewise
    load      milliseconds from object to loaded program         50, 50ms, 1.5s
    compile   milliseconds from text to object                   likewise

The rule that crosses a limit is the first with which the policy's rules up to
it do, found by halving.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache

from penstock.compiler.driver import compile_rule_set
from penstock.compiler.ir.ops import Rule, RuleSet
from penstock.errors import PenstockError
from penstock.kernel.bpf_object import load_object
from penstock.price.feed import times
from penstock.price.figures import Figures, loaded_figures, only_program
from penstock.price.report import EMPTY, Price, program_of
from penstock.price.rules import first

_BYTES = {
    "": 1,
    "B": 1,
    "K": 1 << 10,
    "KiB": 1 << 10,
    "M": 1 << 20,
    "MiB": 1 << 20,
    "G": 1 << 30,
    "GiB": 1 << 30,
}
_TIMES = {"": 1.0, "us": 0.001, "ms": 1.0, "s": 1000.0}
_UNITS: dict[str, dict[str, float]] = {
    "ns": {"": 1, "ns": 1},
    "insns": {"": 1},
    "verified": {"": 1},
    "states": {"": 1},
    "stack": {"": 1, "B": 1},
    "memory": {name: float(factor) for name, factor in _BYTES.items()},
    "table": {name: float(factor) for name, factor in _BYTES.items()},
    "load": _TIMES,
    "compile": _TIMES,
}
KEYS = tuple(_UNITS)
_NAMES = {
    "ns": ("the dearest class of traffic costs", "ns a packet above the empty program"),
    "insns": ("the program has", "instructions"),
    "verified": ("the verifier follows", "instructions"),
    "states": ("the verifier keeps", "states"),
    "stack": ("the program needs", "bytes of stack"),
    "memory": ("maps and tables take", "bytes"),
    "table": ("the tables have", "bytes"),
    "load": ("loading takes", "ms"),
    "compile": ("compiling takes", "ms"),
}
_ENTRY = re.compile(r"\s*(\w+)\s*=\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")
_ROUNDS = 15

Told = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Limit:
    """The most that a figure may be, in the figure's own unit (nanoseconds, milliseconds, bytes, or a number)."""

    key: str
    most: float


@dataclass(frozen=True, slots=True)
class Crossing:
    """A limit that is crossed; `rule` the one that does, None where none can be named, `why` then says why."""

    limit: Limit
    found: float
    rule: Rule | None = None
    why: str = ""

    def __str__(self) -> str:
        begin, unit = _NAMES[self.limit.key]
        sentence = f"{begin} {_number(self.found)} {unit}, the budget is {_number(self.limit.most)}"
        if self.rule is not None:
            return f"{sentence}; rule {self.rule.name} (line {self.rule.line}) crosses it"
        return f"{sentence}; {self.why}" if self.why else sentence


def parse_budget(text: str) -> tuple[Limit, ...]:
    """The limits of ``ns=40,insns=2000``.

    Raises:
        PenstockError: it is no list of limits; the hint says what there is.
    """
    limits: dict[str, Limit] = {}
    for part in text.split(","):
        limit = _limit(part)
        if limit.key in limits:
            raise PenstockError(f"the budget has two limits for {limit.key}")
        limits[limit.key] = limit
    return tuple(limits.values())


def _limit(part: str) -> Limit:
    found = _ENTRY.fullmatch(part)
    key = found[1] if found else part.partition("=")[0].strip()
    if key not in _UNITS:
        near = get_close_matches(key, KEYS, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(KEYS)}"
        raise PenstockError(f"a budget has no limit {key!r}", hint=hint)
    if found is None:
        raise PenstockError(f"{part.strip()!r} is no limit of a budget", hint=f"write {key}=40")
    units = _UNITS[key]
    if found[3] not in units:
        known = ", ".join(unit for unit in units if unit) or "none"
        raise PenstockError(f"{key} is not counted in {found[3]!r}", hint=f"its units are: {known}")
    return Limit(key, float(found[2]) * units[found[3]])


def crossed(limits: tuple[Limit, ...], price: Price, compile_s: float | None) -> list[Crossing]:
    """The limits that the price crosses; a figure that is not known crosses none, `unknown` names it."""
    found = figures(price, compile_s)
    values = [(limit, found[limit.key]) for limit in limits]
    return [Crossing(limit, value) for limit, value in values if value is not None and value > limit.most]


def unknown(limits: tuple[Limit, ...], price: Price, compile_s: float | None) -> list[str]:
    """Limits of which nothing can be said: of a built file the time that compiling took, for example."""
    found = figures(price, compile_s)
    return [limit.key for limit in limits if found[limit.key] is None]


def figures(price: Price, compile_s: float | None) -> dict[str, float | None]:
    """What the limits are held against."""
    return {
        **_static(price.figures),
        "ns": price.worst.above_empty_ns,
        "table": price.object.table_bytes,
        "load": price.figures.load_s * 1000,
        "compile": None if compile_s is None else compile_s * 1000,
    }


def _static(found: Figures) -> dict[str, float | None]:
    return {
        "insns": found.instructions,
        "verified": found.verified,
        "states": found.states,
        "stack": found.stack_bytes,
        "memory": found.memory_bytes,
    }


def blamed(crossing: Crossing, rules: RuleSet, frames: Sequence[bytes], told: Told | None = None) -> Crossing:
    """The crossing with the rule that crosses the limit, found by compiling the rules up to some of them.

    `frames` are those of the dearest class of traffic.  Raises PenstockError as compiling and loading do.
    """
    key = crossing.limit.key

    @cache
    def value(count: int) -> float | None:
        if told:
            told(f"looking for the rule that crosses {key}: the first {count} of {len(rules.rules)}")
        return _measured(first(rules, count), key, frames)

    def is_over(count: int) -> bool:
        found = value(count)
        return found is not None and found > crossing.limit.most

    if is_over(0):
        without = f"{_number(value(0) or 0)} without any rule"
        return Crossing(crossing.limit, crossing.found, None, f"it is {without}, so none of them is to blame")
    low, high = 0, len(rules.rules)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_over(middle) else (middle, high)
    return Crossing(crossing.limit, crossing.found, rules.rules[high - 1] if high else None)


def can_be_blamed(key: str) -> bool:
    """Whether it makes sense to look for a rule; times of one compilation or load are too uncertain for that."""
    return key not in ("load", "compile", "table")


def _measured(rules: RuleSet, key: str, frames: Sequence[bytes]) -> float | None:
    elf = compile_rule_set(rules).elf
    with ExitStack() as held:
        loaded = held.enter_context(load_object(elf, rules.name, statistics=True))
        if key != "ns":
            return _static(loaded_figures(loaded, 0.0))[key]
        programs = {"policy": only_program(loaded), "empty": program_of(EMPTY, "empty", held)}
        found = times(programs, frames, _ROUNDS)
        return found["policy"] - found["empty"]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
