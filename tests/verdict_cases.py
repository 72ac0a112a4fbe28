"""Cases of `tests/cases/verdicts`: a policy, packets, and what becomes of each.

A file is the policy's text, a line of dashes, and a packet a line:

    filter edge at xdp {
        dns: drop if udp dst port 53
    }
    ----
    # RFC 1035
    packet IPv4()/UDP(dport=53)               -> drop by dns
    packet hex "02 00 …"                      -> pass by default [conditions: malformed] [hits: seen]
    packet IPv4()/UDP(dport=53) wire 1500     -> …         the frame was 1500 bytes before a capture cut it

`by` names a rule, `default`, or a condition.  `conditions` and `hits` are all
that the packet must have: nothing where they are not given.

A back end turns a rule set and frames into outcomes.  Every one of `BACK_ENDS`
is asked; one that needs privilege says so by `privileged`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.compiler.diagram.boxes import NO_RULE
from penstock.compiler.diagram.build import build
from penstock.compiler.diagram.convert import Run, Single, blocks
from penstock.compiler.diagram.evaluate import decide, terminal_of
from penstock.compiler.diagram.order import axis_order
from penstock.compiler.diagram.reduce import reduce
from penstock.compiler.ir.evaluate import Packet as Headers
from penstock.compiler.ir.evaluate import evaluate, evaluate_packet, holds, matches
from penstock.compiler.ir.lower import lower_filter
from penstock.compiler.ir.ops import DEFAULT_SLOT, FIRST_RULE_SLOT, RuleSet, counter_names
from penstock.compiler.ir.outcome import Outcome
from penstock.compiler.lang.parser import parse_policy
from penstock.compiler.lang.source import Source
from penstock.model.packet import build_packet, parse_packet
from penstock.model.verdict import CONDITION_WORDS, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

FOLDER = Path(__file__).parent / "cases" / "verdicts"

#: A frame with its length on the wire, None if it was not cut.
Frame = tuple[bytes, int | None]

_LINE = re.compile(
    r"""packet \s+ (?: hex \s+ "(?P<hex>[^"]*)" | (?P<notation>.*?) )
        (?: \s+ wire \s+ (?P<wire>\d+) )?
        \s* -> \s* (?P<verdict>\w+) \s+ by \s+ (?P<by>\S+)
        (?: \s* \[conditions: (?P<conditions>[^]]*)\] )?
        (?: \s* \[hits: (?P<hits>[^]]*)\] )? \s*""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class Packet:
    """One packet line: the frame, and the outcome in words."""

    line: int
    text: str
    frame: bytes
    wire_length: int | None
    verdict: Verdict
    by: str
    conditions: tuple[str, ...]
    hits: tuple[str, ...]


@dataclass(frozen=True)
class Case:
    """One file."""

    path: Path
    policy: str
    packets: tuple[Packet, ...]

    @property
    def name(self) -> str:
        return self.path.stem

    def rule_set(self) -> RuleSet:
        """The policy's first filter."""
        policy = parse_policy(Source(self.path.name, self.policy))
        return lower_filter(policy, policy.filters[0])


def load(path: Path) -> Case:
    """The case of one file; a line that is none is an error with its place."""
    policy, dashes, rest = path.read_text().partition("\n----\n")
    assert dashes, f"{path}: no line of four dashes"
    first = policy.count("\n") + 3
    packets = [
        _packet(path, number, line.strip())
        for number, line in enumerate(rest.splitlines(), first)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    return Case(path, policy + "\n", tuple(packets))


def _packet(path: Path, number: int, line: str) -> Packet:
    found = _LINE.fullmatch(line)
    assert found, f"{path}:{number}: {line}"
    notation = found["notation"]
    frame = bytes.fromhex(found["hex"]) if notation is None else build_packet(parse_packet(notation))
    return Packet(
        number,
        line.partition("->")[0].strip(),
        frame,
        int(found["wire"]) if found["wire"] else None,
        Verdict(found["verdict"]),
        found["by"],
        _words(found["conditions"]),
        _words(found["hits"]),
    )


def _words(text: str | None) -> tuple[str, ...]:
    return tuple((text or "").replace(",", " ").split())


def cases() -> list[Case]:
    """Every case, by name."""
    return [load(path) for path in sorted(FOLDER.glob("*.case"))]


def wanted(rule_set: RuleSet, packet: Packet) -> Outcome:
    """The outcome that a packet's line asks for."""
    names = counter_names(rule_set)
    by = f"on {packet.by}" if packet.by in CONDITION_WORDS else packet.by
    hits = tuple(names.index(name) for name in packet.hits)
    conditions = frozenset(CONDITION_WORDS[word] for word in packet.conditions)
    return Outcome(packet.verdict, names.index(by), hits, conditions)


def in_words(rule_set: RuleSet, outcome: Outcome) -> str:
    """An outcome as a packet's line would have it."""
    names = counter_names(rule_set)
    conditions = ", ".join(condition.word for condition in sorted(outcome.conditions))
    hits = ", ".join(names[slot] for slot in outcome.hits)
    text = f"{outcome.verdict.value} by {names[outcome.slot].removeprefix('on ')}"
    return (
        text + (f" [conditions: {conditions}]" if conditions else "") + (f" [hits: {hits}]" if hits else "")
    )


# ── back ends ────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class BackEnd:
    """Something that decides packets.  `outcomes` is given one rule set and all frames of a case."""

    name: str
    outcomes: Callable[[RuleSet, Sequence[Frame]], list[Outcome]]
    privileged: bool = False


def _reference(rule_set: RuleSet, frames: Sequence[Frame]) -> list[Outcome]:
    return [evaluate(rule_set, frame, wire_length) for frame, wire_length in frames]


def _diagrams(rule_set: RuleSet, frames: Sequence[Frame]) -> list[Outcome]:
    """Stretches of rules that decide by their diagrams, the others on their own; odd packets by the reference."""
    stages = [_decider(block) for block in blocks(rule_set)]
    return [_by_stages(rule_set, stages, Headers(*frame)) for frame in frames]


Decider = Callable[[RuleSet, Headers], int]


def _by_stages(rule_set: RuleSet, stages: Sequence[Decider], packet: Headers) -> Outcome:
    judged = evaluate_packet(replace(rule_set, rules=()), packet)
    if judged.slot != DEFAULT_SLOT:
        return judged
    hits: list[int] = []
    for stage in stages:
        found = stage(rule_set, packet)
        action = rule_set.rules[found].action if found != NO_RULE else None
        if isinstance(action, Verdict):
            return Outcome(action, FIRST_RULE_SLOT + found, tuple(hits), judged.conditions)
        hits += [FIRST_RULE_SLOT + found] * (action is not None)
    return Outcome(rule_set.default, DEFAULT_SLOT, tuple(hits), judged.conditions)


def _decider(block: Run | Single) -> Decider:
    """The rule of the block that matches first, NO_RULE if none does."""
    if isinstance(block, Single):
        at = block.rule
        return lambda rule_set, packet: at if matches(rule_set.rules[at], packet) else NO_RULE
    diagram = reduce(build(block.boxes, axis_order(block.boxes).all))

    def decided(_: RuleSet, packet: Headers) -> int:
        terminal = terminal_of(diagram, {axis.ref: packet.value(axis.ref) for axis in diagram.axes})
        found = decide(terminal, lambda number: holds(block.opaque[number - 1], packet))
        return found if found == NO_RULE else block.first + found

    return decided


BACK_ENDS = [BackEnd("reference", _reference), BackEnd("diagrams", _diagrams)]
