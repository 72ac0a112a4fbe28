"""`penstock coverage FILE`: which rules and terms of a policy did some traffic exercise?

The listing is the filter's text with the packets and bytes of each line before
it, and below a rule what was not seen:

          3       162 |     ssh: drop if tcp dst port 22
                      |                  ^ never false: tcp dst port 22
          -         - |     dns: drop if udp dst port 53
                      |     never matched: tried on 3 packets
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import click

from penstock.cli import output
from penstock.cli.contents import chosen_contents, contents_options
from penstock.cli.options import json_option
from penstock.errors import PenstockError
from penstock.pipeline.policy_file import STDIN, read_policy

if TYPE_CHECKING:
    from penstock.compiler.lang.source import Source
    from penstock.engine.coverage import Coverage, RuleCoverage, Share, TermCoverage
    from penstock.model.sets import SetSpec
    from penstock.pipeline.set_contents import Contents

_WIDTH = 10
_NOTHING = ("", "")


@click.command("coverage")
@click.argument("file", type=click.Path())
@click.option(
    "--pcap",
    "captures",
    type=click.Path(),
    metavar="CAPTURE",
    multiple=True,
    help="This traffic; repeatable.",
)
@click.option("--filter", "filter_name", metavar="NAME", help="Which filter, when the policy has several.")
@click.option(
    "--fail-under",
    type=click.FloatRange(0, 100),
    metavar="PERCENT",
    help="Exit with 1 if less than this was seen.",
)
@contents_options
@json_option
def command(
    file: str,
    captures: tuple[str, ...],
    filter_name: str | None,
    fail_under: float | None,
    set_texts: tuple[str, ...],
    sets_are: str,
    as_json: bool,
) -> int:
    """Say which rules and terms of the policy FILE captures exercise, or without any its own tests.

    Of each rule it counts whether it matched, of each term in it whether it was true and whether it was false.
    Sets are empty unless --set, --sets or a test's `with @SET ENTRY, …` says otherwise.
    """
    source = read_policy(file)
    folder = Path() if file == STDIN else Path(file).parent

    def contents(specs: Iterable[SetSpec]) -> Contents:
        return chosen_contents(specs, set_texts, sets_are)

    found = _measured(source, filter_name, captures, folder, contents)
    for warning in found.warnings:
        output.warn(warning)
    reasons = _reasons(source, found)
    if as_json:
        output.record("penstock.coverage/1", _record(source, found, reasons))
    else:
        for line in _listing(source, found, reasons):
            output.answer(line)
        output.answer(_summary(found))
    missed = fail_under is not None and found.percent < fail_under
    if missed and not as_json:
        output.answer(f"that is less than {fail_under:g}%")
    return 1 if missed else 0


def _measured(
    source: Source,
    filter_name: str | None,
    captures: tuple[str, ...],
    folder: Path,
    contents: Callable[[Iterable[SetSpec]], Contents],
) -> Coverage:
    from penstock.compiler.lang.parser import parse_policy
    from penstock.engine.coverage import measure, of_captures, of_tests, start
    from penstock.pipeline.policy import rule_set_of

    rule_set_of(source.text, name=source.name, filter=filter_name)
    policy = parse_policy(source)
    found = start(policy, filter_name)
    if not captures and not policy.tests:
        hint = "name a capture with --pcap, or write a test block"
        raise PenstockError(f"{source.name} has no test block", hint=hint)
    warnings, first = found.warnings, contents(found.rule_set.sets)
    if captures:
        measure(found, of_captures(captures, warnings), first)
        return found
    packets = of_tests(policy, found.rule_set, folder, warnings, first)
    for known, some in groupby(packets, key=lambda one: one[0]):
        measure(found, (packet for _, packet in some), known.contents)
    return found


def _reasons(source: Source, found: Coverage) -> dict[str, str]:
    """For rules that did not match why, as far as that is known, by name."""
    from penstock.compiler.lang.diagnostic import Severity
    from penstock.pipeline.policy import check_text

    missed = [one for one in found.rules if not one.packets]
    told = [one for one in check_text(source) if one.severity is Severity.WARNING] if missed else []
    reasons = {}
    for one in missed:
        span = one.rule.span
        known = next((other.message for other in told if span.start <= other.span.start < span.end), None)
        reasons[one.rule.name] = known or _unmatched(one, found)
    return reasons


def _unmatched(one: RuleCoverage, found: Coverage) -> str:
    if not found.total.packets:
        return "there was no packet"
    if not one.tried:
        return "never tried: every packet was decided before"
    return f"never matched: tried on {_packets(one.tried)}"


# ── text ─────────────────────────────────────────────────────────────────────


def _listing(source: Source, found: Coverage, reasons: dict[str, str]) -> Iterator[str]:
    """The lines of the filter, each behind its packets, with what was not seen below the rules."""
    counts, notes = _by_line(source, found, reasons)
    first, last = (source.position(at)[0] for at in (found.filter.span.start, found.filter.span.end))
    for number in range(first, last + 1):
        yield _row(counts.get(number, _NOTHING), source.line(number))
        for note in notes.get(number, ()):
            yield _row(_NOTHING, note)


def _row(counts: tuple[str, str], text: str) -> str:
    packets, size = counts
    return f"{packets:>{_WIDTH}} {size:>{_WIDTH + 2}} | {text}".rstrip()


def _by_line(
    source: Source, found: Coverage, reasons: dict[str, str]
) -> tuple[dict[int, tuple[str, str]], dict[int, list[str]]]:
    counts: dict[int, tuple[str, str]] = {}
    if found.filter.default is not None:
        counts[source.position(found.filter.default_span.start)[0]] = _counted(found.default)
    for told in found.filter.conditions:
        counts[source.position(told.span.start)[0]] = _counted(found.conditions[told.condition])
    notes: dict[int, list[str]] = {}
    for one in found.rules:
        counts[one.rule.line] = _counted(one) if one.packets else ("-", "-")
        if one.rule.name in reasons:
            line = source.line(one.rule.line)
            margin = line[: len(line) - len(line.lstrip())]
            notes.setdefault(one.rule.line, []).append(f"{margin}{reasons[one.rule.name]}")
        for term in one.terms if one.tried else ():
            line_of_term = source.position(term.span.start)[0]
            notes.setdefault(line_of_term, []).extend(_missing(source, term))
    return counts, notes


def _counted(one: Share | RuleCoverage) -> tuple[str, str]:
    return str(one.packets), str(one.size)


def _missing(source: Source, term: TermCoverage) -> Iterator[str]:
    """A caret below a term of which one outcome was not seen."""
    if term.true and term.false:
        return
    _, column = source.position(term.span.start)
    yield f"{'':{column - 1}}^ never {'false' if term.true else 'true'}: {_text(source, term)}"


def _text(source: Source, term: TermCoverage) -> str:
    return " ".join(source.text[term.span.start : term.span.end].split())


def _summary(found: Coverage) -> str:
    seen, possible = found.outcomes
    matched = sum(bool(one.packets) for one in found.rules)
    odd = [
        f"on {condition.word} {share.packets}"
        for condition, share in found.conditions.items()
        if share.packets
    ]
    parts = [f"{_packets(found.total.packets)}", f"default {found.default.packets}", *odd]
    return (
        f"{', '.join(parts)}; {matched} of {len(found.rules)} rules matched, "
        f"{seen} of {possible} outcomes seen: {found.percent:.1f}%"
    )


def _packets(count: int) -> str:
    return f"{count} packet{'s' * (count != 1)}"


# ── JSON ─────────────────────────────────────────────────────────────────────


def _record(source: Source, found: Coverage, reasons: dict[str, str]) -> dict[str, object]:
    seen, possible = found.outcomes
    return {
        "file": source.name,
        "filter": found.rule_set.name,
        "packets": found.total.packets,
        "bytes": found.total.size,
        "seen": seen,
        "possible": possible,
        "percent": round(found.percent, 2),
        "default": {"packets": found.default.packets, "bytes": found.default.size},
        "conditions": [
            {
                "name": f"on {condition.word}",
                "packets": share.packets,
                "bytes": share.size,
                "decided": share.decided,
            }
            for condition, share in found.conditions.items()
        ],
        "rules": [_rule_record(source, one, reasons) for one in found.rules],
    }


def _rule_record(source: Source, one: RuleCoverage, reasons: dict[str, str]) -> dict[str, object]:
    return {
        "name": one.rule.name,
        "line": one.rule.line,
        "action": one.rule.doing,
        "tried": one.tried,
        "packets": one.packets,
        "bytes": one.size,
        "reason": reasons.get(one.rule.name),
        "terms": [_term_record(source, term) for term in one.terms],
    }


def _term_record(source: Source, term: TermCoverage) -> dict[str, object]:
    line, column = source.position(term.span.start)
    return {
        "text": _text(source, term),
        "line": line,
        "column": column,
        "true": term.true,
        "false": term.false,
    }
