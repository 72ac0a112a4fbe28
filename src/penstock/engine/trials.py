"""A policy's test blocks, run; and a policy run over captures.

    for result in run_tests(policy, "kernel", folder):
        result.title, result.text, result.passed, result.got

A packet step passes if the verdict is the expected one, by the expected rule
where it names one.  A capture step passes if every selected packet complies, or
the stated share of them does; a step that selects no packet fails, because it
has tested nothing.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from penstock.compiler.ir.evaluate import Packet, holds
from penstock.compiler.ir.lower import lower_expression, lower_filter
from penstock.compiler.ir.ops import RuleSet, counter_names
from penstock.compiler.ir.outcome import Outcome
from penstock.compiler.lang import ast
from penstock.engine.policy import Engine, EngineName, open_engine
from penstock.errors import CaptureError, PenstockError
from penstock.model.packet import build_packet
from penstock.model.verdict import Verdict
from penstock.observe.capture import ethernet_frames
from penstock.pipeline.policy import choose_filter
from penstock.pipeline.set_contents import Contents, of_entries, of_file

_COMPARE = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}


@dataclass(frozen=True, slots=True)
class Result:
    """One step of a test block: what it asks (`text`, at `line`), and what came out."""

    title: str
    text: str
    line: int
    passed: bool
    got: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Tally:
    """A policy on a capture: packets, and how often each counter moved, by name."""

    packets: int
    verdicts: dict[str, int]
    deciders: dict[str, int]
    warnings: tuple[str, ...] = ()


def run_tests(
    policy: ast.Policy, engine: EngineName, folder: Path, contents: Contents | None = None
) -> Iterator[Result]:
    """The result of each step of each test block; captures and lists of entries are looked for in `folder`.

    At the beginning of a test sets contain `contents`.

    Raises:
        PenstockError: a filter cannot be compiled or loaded, or a file cannot be read.
    """
    with ExitStack() as opened:
        engines: dict[str, tuple[RuleSet, Engine]] = {}
        for test in policy.tests:
            wanted = choose_filter(policy, None, test.filter or policy.filters[0].name)
            if wanted.name not in engines:
                rules = lower_filter(policy, wanted)
                engines[wanted.name] = rules, opened.enter_context(open_engine(engine, rules, contents))
            rules, running = engines[wanted.name]
            running.start_afresh()
            for step in test.steps:
                if isinstance(step, ast.Given):
                    running.give(contents_of(step, rules, folder))
                else:
                    yield _result(policy, test, step, rules, running, folder)


def _result(
    policy: ast.Policy,
    test: ast.Test,
    step: ast.PacketTest | ast.CaptureTest,
    rules: RuleSet,
    engine: Engine,
    folder: Path,
) -> Result:
    line = policy.source.position(step.span.start)[0]
    text = " ".join(policy.source.text[step.span.start : step.span.end].split())
    match step:
        case ast.PacketTest():
            data = build_packet(step.layers)
            outcome = engine.outcome(data, len(data))
            return Result(
                test.title, text, line, _complies(outcome, step.expect, rules), _told(outcome, rules)
            )
        case ast.CaptureTest():
            try:
                passed, got, warnings = _run_capture(policy, step, rules, engine, folder)
            except CaptureError as error:
                passed, got, warnings = False, error.message, ()
            return Result(test.title, text, line, passed, got, warnings)


def contents_of(step: ast.Given, rules: RuleSet, folder: Path) -> Contents:
    """The entries that a line of a test gives a set; none if the filter asks no such set.

    Raises:
        PenstockError: its file cannot be read, or has lines that are no entries.
    """
    spec = next((one for one in rules.sets if one.name == step.set), None)
    if spec is None:
        return {}
    entries = of_file(spec, folder / step.path) if step.path is not None else of_entries(spec, step.entries)
    return {spec.name: entries}


def _run_capture(
    policy: ast.Policy, step: ast.CaptureTest, rules: RuleSet, engine: Engine, folder: Path
) -> tuple[bool, str, tuple[str, ...]]:
    wanted = None
    if step.condition is not None:
        wanted = lower_expression(step.condition, policy.source, policy.constants, sets=policy.sets)
    warnings: list[str] = []
    selected = complying = 0
    first_other = ""
    for number, frame in enumerate(ethernet_frames(folder / step.path, warnings), 1):
        if wanted is not None and not holds(wanted, Packet(frame.data, frame.wire_length)):
            continue
        selected += 1
        outcome = engine.outcome(frame.data, frame.wire_length, frame.timestamp_ns)
        if _complies(outcome, step.expect, rules):
            complying += 1
        elif not first_other:
            first_other = f"; packet {number}: {_told(outcome, rules)}"
    if not selected:
        return False, "no packet of the capture was selected", tuple(warnings)
    share = 100 * complying / selected
    compare, percent = step.expect.comparison, step.expect.percent
    if compare is None or percent is None:
        passed, tail = complying == selected, first_other
    else:
        passed, tail = bool(_COMPARE[compare](share, percent)), ""
    return passed, f"{complying} of {selected} packets ({share:.4g}%){tail}", tuple(warnings)


def _complies(outcome: Outcome, expect: ast.Expectation, rules: RuleSet) -> bool:
    decider = decider_name(outcome, rules)
    return outcome.verdict is expect.verdict and expect.rule in (None, decider, decider.removeprefix("on "))


def decider_name(outcome: Outcome, rules: RuleSet) -> str:
    """What decided: a rule's name, ``default``, or ``on malformed`` and the like."""
    return counter_names(rules)[outcome.slot]


def _told(outcome: Outcome, rules: RuleSet) -> str:
    return f"{outcome.verdict.value} by {decider_name(outcome, rules).removeprefix('on ')}"


def run_over_capture(
    rules: RuleSet, engine: EngineName, path: str, contents: Contents | None = None
) -> Tally:
    """What a filter does with the packets of a capture; its sets contain `contents` at first.

    Raises:
        PenstockError: the filter cannot be loaded, or the capture cannot be read.
    """
    verdicts = dict.fromkeys((verdict.value for verdict in Verdict), 0)
    deciders: dict[str, int] = {}
    warnings: list[str] = []
    packets = 0
    names = counter_names(rules)
    with open_engine(engine, rules, contents) as running:
        for frame in ethernet_frames(path, warnings):
            outcome = running.outcome(frame.data, frame.wire_length, frame.timestamp_ns)
            packets += 1
            verdicts[outcome.verdict.value] += 1
            for slot in (outcome.slot, *outcome.hits):
                deciders[names[slot]] = deciders.get(names[slot], 0) + 1
    return Tally(packets, verdicts, deciders, tuple(warnings))


def frame_of_capture(path: str, number: int) -> tuple[bytes, int]:
    """Bytes and wire length of one packet of a capture, counted from 1 as tcpdump and Wireshark do.

    Raises:
        CaptureError: the file cannot be read.
        PenstockError: it has fewer packets.
    """
    count = 0
    for count, frame in enumerate(ethernet_frames(path), 1):
        if count == number:
            return frame.data, frame.wire_length
    raise PenstockError(f"{path} has {count} packets, there is no packet {number}")
