"""`penstock probe`: what the running kernel can do; with `--for`, what a policy needs of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping
from typing import TYPE_CHECKING

import click

from penstock.cli import output
from penstock.cli.options import json_option

if TYPE_CHECKING:
    from penstock.kernel.probe.kinds import Found
    from penstock.kernel.probe.survey import Survey
    from penstock.kernel.probe.tables import Known

_SECTIONS = ("behaviours", "programs", "maps", "attach", "helpers")
#: A reason for `?` that this many behaviours have is told once.
_OFTEN = 4
_TITLES = {"programs": "program types", "maps": "map types", "attach": "attach types"}


@click.command("probe")
@click.argument("sections", nargs=-1, type=click.Choice(_SECTIONS), metavar="[SECTION]...")
@click.option(
    "--for", "policy", type=click.Path(), metavar="FILE", help="What this policy needs of the kernel."
)
@click.option(
    "--full", is_flag=True, help="Ask also for helpers that make the kernel write a warning into its log."
)
@json_option
def command(sections: tuple[str, ...], policy: str | None, full: bool, as_json: bool) -> None:
    """What the running kernel can do: each thing is tried, nothing is changed.

    SECTION is one of behaviours, programs, maps, attach, helpers; all of them if none is named.

    `?` stands for what cannot be told, mostly for want of a capability.
    """
    if policy is not None:
        from penstock.cli.probe_needs import show_needs

        show_needs(policy, as_json=as_json)
        return
    from penstock.kernel.probe.survey import survey_kernel

    found = survey_kernel(sections or _SECTIONS, full=full)
    if as_json:
        output.record("penstock.probe/1", _record(found))
        return
    _show(found, everything=bool(sections))


# ── text ─────────────────────────────────────────────────────────────────────


def mark(has: bool | None) -> str:
    """`yes`, `no` or `?`."""
    return "?" if has is None else "yes" if has else "no"


def _show(found: Survey, *, everything: bool) -> None:
    output.answer(f"Linux {found.kernel}, {found.machine}")
    if found.behaviours:
        output.answer()
        _show_behaviours(found.behaviours)
    for section, title in _TITLES.items():
        answers: Mapping[str, Found] = getattr(found, section)
        if answers:
            output.answer()
            _show_types(title, answers, _known(section), everything=everything)
    if found.helpers:
        output.answer()
        _show_helpers(found.helpers, everything=everything)


def _show_behaviours(answers: Mapping[str, Found]) -> None:
    """A table; a reason that many of them have is told once, below it."""
    from penstock.kernel.probe.behaviours import BEHAVIOURS, WATCHED_HELPERS

    reasons = Counter(found.why for found in answers.values() if found.has is None)
    often = {why: count for why, count in reasons.items() if count >= _OFTEN}
    rows = [
        (mark(answers[one.name].has), one.since, one.name, _told(one.title, answers[one.name], often))
        for one in (*BEHAVIOURS, *WATCHED_HELPERS)
    ]
    output.table(("HERE", "SINCE", "BEHAVIOUR", "WHAT"), rows)
    for why, count in often.items():
        output.answer(f"{count} times `?`: {why}")


def _told(title: str, found: Found, often: Container[str]) -> str:
    return f"{title} ({found.why})" if found.has is None and found.why not in often else title


def _show_types(
    title: str, answers: Mapping[str, Found], known: Mapping[str, Known], *, everything: bool
) -> None:
    if everything:
        rows = ((mark(found.has), known[name].since, name, found.why) for name, found in answers.items())
        output.table(("HERE", "SINCE", title.upper(), "TOLD"), rows)
        return
    here = sum(found.has is True for found in answers.values())
    output.answer(f"{title}: {here} of {len(answers)}")
    for name, found in answers.items():
        if not found.has:
            why = (
                found.why
                if found.has is None
                else f"not in this kernel; Linux may have it since {known[name].since}"
            )
            output.answer(f"  {mark(found.has):<3}  {name}: {why}")


def _show_helpers(answers: Mapping[str, frozenset[str] | None], *, everything: bool) -> None:
    from penstock.kernel.probe.tables import HELPERS

    if not everything:
        counts = (f"{name} {len(found)}" for name, found in answers.items() if found is not None)
        output.answer(f"helpers: {', '.join(counts)}")
        return
    for name, found in answers.items():
        told = "cannot be told" if found is None else f"{len(found)} helpers"
        output.answer(f"{name}: {told}")
        for helper in _in_order(found or (), HELPERS):
            output.answer(f"  {HELPERS[helper].since:<5} bpf_{helper}")


# ── JSON ─────────────────────────────────────────────────────────────────────


def _record(found: Survey) -> dict[str, object]:
    from penstock.kernel.probe.behaviours import BEHAVIOURS, WATCHED_HELPERS
    from penstock.kernel.probe.tables import HELPERS

    behaviours = [
        {
            "name": one.name,
            "title": one.title,
            "since": one.since,
            **_answer(found.behaviours[one.name]),
            "need": one.need.value,
            "without": one.without,
        }
        for one in (*BEHAVIOURS, *WATCHED_HELPERS)
        if one.name in found.behaviours
    ]
    types = {
        title.replace(" ", "_"): [
            {"name": name, "since": _known(section)[name].since, **_answer(answer)}
            for name, answer in getattr(found, section).items()
        ]
        for section, title in _TITLES.items()
    }
    helpers = [
        {"program_type": name, "helpers": None if names is None else _in_order(names, HELPERS)}
        for name, names in found.helpers.items()
    ]
    return {
        "kernel": found.kernel,
        "machine": found.machine,
        "behaviours": behaviours,
        **types,
        "helpers": helpers,
    }


def _answer(found: Found) -> dict[str, object]:
    return {"available": found.has, "why": found.why or None}


def _known(section: str) -> Mapping[str, Known]:
    from penstock.kernel.probe import tables

    return {"programs": tables.PROGRAM_TYPES, "maps": tables.MAP_TYPES, "attach": tables.ATTACH_TYPES}[
        section
    ]


def _in_order(names: Iterable[str], order: Mapping[str, Known]) -> list[str]:
    return sorted(names, key=lambda name: order[name].number)
