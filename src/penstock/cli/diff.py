"""`penstock diff OLD NEW`: for which packets do two policies decide differently?

Exit codes are diff(1)'s: 0 every packet has the same verdict, 1 some do not (with
`--fail-on`, some that the expression matches), 2 something is wrong with the call,
a policy or a capture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from penstock.cli import output
from penstock.cli.options import json_option
from penstock.errors import PenstockError
from penstock.pipeline.policy_file import read_policy

if TYPE_CHECKING:
    from penstock.compiler.ir.ops import Predicate, RuleSet
    from penstock.engine.comparison import Comparison, Decider, Found

SAME, DIFFERENT, TROUBLE = 0, 1, 2
LIMIT, JSON_LIMIT = 20, 1000
#: Characters of a condition; JSON has all.
LONGEST = 400
#: Classes that `--fail-on` shows a packet of.
CONCERNED = 5


class _TroubleError(PenstockError):
    """A fault, with the code that tells it from a difference."""

    exit_code = TROUBLE


class _Command(click.Command):
    """A command whose faults, those of its call too, exit with TROUBLE."""

    def make_context(self, *args: object, **kwargs: object) -> click.Context:
        try:
            return super().make_context(*args, **kwargs)  # type: ignore[arg-type]
        except click.UsageError as error:
            hint = "`penstock diff --help` shows how it is called"
            raise _TroubleError(error.format_message().rstrip("."), hint=hint) from error

    def invoke(self, ctx: click.Context) -> object:
        from penstock.cli.edge import show

        try:
            return super().invoke(ctx)
        except _TroubleError:
            raise
        except PenstockError as error:
            show(error)
            return TROUBLE


@click.command("diff", cls=_Command)
@click.argument("old", type=click.Path())
@click.argument("new", type=click.Path())
@click.option("--filter", "filter_name", metavar="NAME", help="Which filter, when a policy has several.")
@click.option(
    "--pcap",
    "captures",
    type=click.Path(),
    metavar="CAPTURE",
    multiple=True,
    help="Weigh by this traffic; repeatable.",
)
@click.option(
    "--fail-on",
    "fail_on",
    metavar="EXPR",
    help="Exit with 1 only if packets that EXPR matches are concerned.",
)
@click.option("--limit", type=click.IntRange(0), metavar="N", help="Show this many classes (20; JSON 1000).")
@json_option
def command(
    old: str,
    new: str,
    filter_name: str | None,
    captures: tuple[str, ...],
    fail_on: str | None,
    limit: int | None,
    as_json: bool,
) -> int:
    """Say for which packets the policies OLD and NEW decide differently, exactly, with a packet for each class.

    Exits with 0 if every packet has the same verdict, 1 if not, 2 if something is wrong.
    """
    from penstock.engine.comparison import compare, shown, weigh
    from penstock.pipeline.policy import check_expression

    wanted = check_expression(fail_on) if fail_on is not None else None
    before, after = _rules(old, filter_name), _rules(new, filter_name)
    found = compare(before, after)
    if captures:
        found = weigh(found, before, after, captures)
    for warning in found.warnings:
        output.warn(warning)
    most = limit if limit is not None else JSON_LIMIT if as_json else LIMIT
    classes = [shown(one, before, after) for one in found.classes[:most]]
    concerned = None if fail_on is None or wanted is None else _concerned(before, after, fail_on, wanted)
    if as_json:
        output.record("penstock.diff/1", _record(before, after, found, classes, concerned))
    else:
        _report(before, after, found, classes)
        if concerned is not None:
            _report_concerned(concerned)
    different = bool(concerned.count) if concerned is not None else not found.same_verdicts
    return DIFFERENT if different else SAME


def _rules(path: str, filter_name: str | None) -> RuleSet:
    from penstock.pipeline.policy import rule_set_of

    source = read_policy(path)
    return rule_set_of(source.text, name=source.name, filter=filter_name)


@dataclass(frozen=True, slots=True)
class _Concerned:
    """How many classes packets that `expression` matches may be in, undecided ones too; `shown` are the first.

    An example among `shown` is matched by the expression.
    """

    expression: str
    count: int
    shown: tuple[Found, ...]


def _concerned(old: RuleSet, new: RuleSet, expression: str, wanted: Predicate) -> _Concerned:
    from penstock.engine.comparison import shown, touching

    found = touching(old, new, wanted)
    first = tuple(shown(one, old, new, wanted) for one in found.classes[:CONCERNED])
    return _Concerned(expression, len(found.classes) + len(found.undecided), first)


# ── text ─────────────────────────────────────────────────────────────────────


def _report(old: RuleSet, new: RuleSet, found: Comparison, classes: list[Found]) -> None:
    from penstock.engine.comparison import evidence

    for setting in found.settings:
        output.answer(f"{setting.name}: {setting.old} -> {setting.new}")
    for one in classes:
        _report_class(one, old, new, found)
    if len(found.classes) > len(classes):
        more = len(found.classes) - len(classes)
        output.answer(f"… and {more} more class{'es' * (more != 1)} (--limit)")
    for condition, example in zip(found.undecided, evidence(found, old, new), strict=True):
        output.answer(f"not decided: {condition or 'every packet'}")
        output.answer(f"    changes: {example.text}" if example else "    no packet was found that changes")
    _report_effects(found)
    _report_counters(found)
    _report_traffic(found)
    output.answer(_summary(found))


def _report_concerned(concerned: _Concerned) -> None:
    """A line for each class with a packet that the expression matches, where one was found."""
    if not concerned.count:
        output.answer(f"--fail-on {concerned.expression}: no packet that it matches is concerned")
        return
    classes = f"{concerned.count} class{'es' * (concerned.count != 1)} of packets that it may match"
    output.answer(f"--fail-on {concerned.expression}: {classes} change{'s' * (concerned.count == 1)} verdict")
    for one in concerned.shown:
        if one.example is not None:
            output.answer(f"    {_verdicts(one)}  {one.example.text}")


def _verdicts(one: Found) -> str:
    return f"{output.verdict_word(one.change.old.value)} -> {output.verdict_word(one.change.new.value)}"


def _summary(found: Comparison) -> str:
    count = len(found.classes)
    if found.same_verdicts:
        kinds = dict.fromkeys(kind for one in found.effects for kind in one.kinds)
        rest = f"what rules do differs: {', '.join(kinds)}" if kinds else ""
        rest = rest or ("rules that do something stand in another order" if found.reordered else "")
        rest = rest or ("counters differ" if found.counters else "settings differ" if found.settings else "")
        return "same verdict for every packet" + (f"; {rest}" if rest else "")
    told = f"{count} class{'es' * (count != 1)} of packets change{'s' * (count == 1)} verdict"
    return told + ("; not everything could be decided" if found.undecided else "")


def _report_class(one: Found, old: RuleSet, new: RuleSet, found: Comparison) -> None:
    condition = one.condition or "every packet"
    shown = condition if len(condition) <= LONGEST else f"{condition[:LONGEST]}…"
    parts = f"  ({one.change.parts} parts of it)" if one.change.parts > 1 else ""
    output.answer(f"{_verdicts(one)}  {shown}{parts}")
    output.answer(f"    {_places(old, one.old)}  ->  {_places(new, one.new)}")
    if one.example is not None:
        output.answer(f"    e.g. {one.example.text}")
    else:
        asks_sets = " in @" in condition
        told = "which packets these are depends on what the set holds" if asks_sets else "there may be none"
        output.answer(f"    no packet found: {told}")
    if one.traffic is not None and found.total is not None:
        share = 100 * one.traffic.packets / found.total.packets if found.total.packets else 0.0
        packets = f"{one.traffic.packets} packet{'s' * (one.traffic.packets != 1)}"
        output.answer(f"    {packets} ({share:.3g}%), {one.traffic.size} bytes")


def _places(rules: RuleSet, deciders: tuple[Decider, ...]) -> str:
    named = [
        one.name if one.line is None else f"{rules.source.name}:{one.line} {one.name}" for one in deciders[:3]
    ]
    more = len(deciders) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")


def _report_effects(found: Comparison) -> None:
    for one in found.effects:
        if one.old is None or one.new is None:
            side = "old" if one.new is None else "new"
            output.answer(f"only in the {side}  {one.name}: {one.old or one.new}")
        else:
            output.answer(f"{one.name}: {one.old}  ->  {one.new}")
    if found.reordered:
        output.answer(f"in another order: {', '.join(found.reordered)}")


def _report_counters(found: Comparison) -> None:
    kinds = (("only in the old", found.counters.gone), ("only in the new", found.counters.come))
    for title, names in (*kinds, ("different", found.counters.changed)):
        if names:
            rest = f" and {len(names) - 10} more" if len(names) > 10 else ""
            output.answer(f"counters {title}: {', '.join(names[:10])}{rest}")


def _report_traffic(found: Comparison) -> None:
    if found.total is None or found.unaffected is None:
        return
    share = 100 * found.unaffected.packets / found.total.packets if found.total.packets else 100.0
    output.answer(
        f"unaffected: {found.unaffected.packets} of {found.total.packets} packets ({share:.4g}%), "
        f"{found.unaffected.size} of {found.total.size} bytes"
    )


# ── JSON ─────────────────────────────────────────────────────────────────────


def _record(
    old: RuleSet,
    new: RuleSet,
    found: Comparison,
    classes: list[Found],
    concerned: _Concerned | None,
) -> dict[str, object]:
    from penstock.engine.comparison import evidence

    record: dict[str, object] = {
        "old": {"file": old.source.name, "filter": old.name},
        "new": {"file": new.source.name, "filter": new.name},
        "same_verdicts": found.same_verdicts,
        "settings": [{"name": one.name, "old": one.old, "new": one.new} for one in found.settings],
        "counters": {
            "old_only": list(found.counters.gone),
            "new_only": list(found.counters.come),
            "changed": list(found.counters.changed),
        },
        "effects": {
            "changed": [{"name": one.name, "old": one.old, "new": one.new} for one in found.effects],
            "reordered": list(found.reordered),
        },
        "classes": [_class_record(one) for one in classes],
        "more_classes": len(found.classes) - len(classes),
        "undecided": [
            {"condition": condition, "example": example.text if example else None}
            for condition, example in zip(found.undecided, evidence(found, old, new), strict=True)
        ],
    }
    return record | _traffic_record(found) | _concerned_record(concerned)


def _traffic_record(found: Comparison) -> dict[str, object]:
    if found.total is None or found.unaffected is None:
        return {}
    total, rest = found.total, found.unaffected
    parts = {
        "packets": total.packets,
        "bytes": total.size,
        "unaffected_packets": rest.packets,
        "unaffected_bytes": rest.size,
    }
    return {"traffic": parts}


def _concerned_record(concerned: _Concerned | None) -> dict[str, object]:
    if concerned is None:
        return {}
    parts = {
        "expression": concerned.expression,
        "classes": concerned.count,
        "examples": [one.example.text for one in concerned.shown if one.example is not None],
    }
    return {"fail_on": parts}


def _class_record(one: Found) -> dict[str, object]:
    record: dict[str, object] = {
        "condition": one.condition,
        "is_expression": one.exact,
        "parts": one.change.parts,
        "old": _side_record(one.change.old.value, one.old),
        "new": _side_record(one.change.new.value, one.new),
        "example": one.example.text if one.example else None,
        "frame": one.example.frame.hex() if one.example else None,
    }
    if one.traffic is not None:
        record["packets"], record["bytes"] = one.traffic.packets, one.traffic.size
    return record


def _side_record(verdict: str, deciders: tuple[Decider, ...]) -> dict[str, object]:
    return {"verdict": verdict, "by": [{"name": one.name, "line": one.line} for one in deciders]}
