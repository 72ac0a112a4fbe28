"""`penstock check FILE…`: is it a policy, and does it mean what it seems to?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from penstock.cli import output
from penstock.cli.diagnostics import count, show_diagnostics
from penstock.cli.options import HookWord, hook_option, json_option
from penstock.compiler.lang.diagnostic import Diagnostic, Severity
from penstock.compiler.lang.source import Source
from penstock.errors import PenstockError
from penstock.model.hook import Hook
from penstock.pipeline.policy_file import read_policy

if TYPE_CHECKING:
    from penstock.pipeline.elsewhere import Elsewhere
    from penstock.pipeline.policy import Checked

_TC = (Hook.TC_INGRESS, Hook.TC_EGRESS)
_HOOKS: dict[str, tuple[Hook, ...]] = {
    "xdp": (Hook.XDP,),
    "tc": _TC,
    "tc ingress": (Hook.TC_INGRESS,),
    "tc egress": (Hook.TC_EGRESS,),
    "socket": (Hook.SOCKET,),
    "all": tuple(Hook),
}


@click.command("check")
@click.argument("files", nargs=-1, required=True, metavar="FILE…", type=click.Path())
@click.option("--strict", is_flag=True, help="Warnings count as faults.")
@click.option("--notes", is_flag=True, help="Show notes as fully as warnings, with the text they speak of.")
@hook_option(
    "What would change if the filters ran there.", HookWord([word.replace(" ", "-") for word in _HOOKS])
)
@json_option
def command(files: tuple[str, ...], strict: bool, notes: bool, hook: str | None, as_json: bool) -> int:
    """Check policies; needs no privilege and no kernel.  `-` reads standard input.

    Exits with 1 if a policy is wrong (with --strict also if it gets a warning),
    or cannot run at the hook that is asked about.
    """
    hooks = _HOOKS[hook] if hook else ()
    wrong = [_check(path, strict, notes, hooks, as_json) for path in files]
    return 1 if any(wrong) else 0


def _check(path: str, strict: bool, notes: bool, hooks: tuple[Hook, ...], as_json: bool) -> bool:
    """Whether the file is at fault; one that is unreadable or too large is, and the others are still checked."""
    from penstock.pipeline.policy import checked_text

    try:
        source = read_policy(path)
        checked = checked_text(source)
    except PenstockError as error:
        _report_unreadable(path, error, as_json)
        return True
    places = _elsewhere(source, hooks)
    diagnostics = (*checked.diagnostics, *(found for place in places for found in place.diagnostics))
    if as_json:
        _report_json(source, checked, places if hooks else None)
    else:
        _report(source, checked.diagnostics, notes)
        for place in places:
            _report_place(place)
    errors, warnings = (count(diagnostics, severity) for severity in (Severity.ERROR, Severity.WARNING))
    return bool(errors or (strict and warnings))


def _report(source: Source, diagnostics: tuple[Diagnostic, ...], notes: bool) -> None:
    show_diagnostics(diagnostics, in_full=notes)
    output.answer(f"{source.name}: {_counted(diagnostics) or 'fine'}")


def _elsewhere(source: Source, hooks: tuple[Hook, ...]) -> tuple[Elsewhere, ...]:
    if not hooks:
        return ()
    from penstock.pipeline.elsewhere import elsewhere

    return elsewhere(source, hooks)


def _report_place(place: Elsewhere) -> None:
    show_diagnostics(place.diagnostics)
    output.answer(f"{place.filter} at {place.hook.value}: {_counted(place.diagnostics) or 'the same'}")


def _counted(diagnostics: tuple[Diagnostic, ...]) -> str:
    errors, warnings = (count(diagnostics, severity) for severity in (Severity.ERROR, Severity.WARNING))
    counted = [_plural(errors, "error")] if errors else []
    counted += [_plural(warnings, "warning")] if warnings else []
    return ", ".join(counted)


def _report_json(source: Source, checked: Checked, places: tuple[Elsewhere, ...] | None) -> None:
    from penstock.compiler.lang.render import as_record

    diagnostics = checked.diagnostics
    content: dict[str, object] = {
        "file": source.name,
        "errors": count(diagnostics, Severity.ERROR),
        "warnings": count(diagnostics, Severity.WARNING),
        "notes": count(diagnostics, Severity.NOTE),
        "diagnostics": [as_record(diagnostic) for diagnostic in diagnostics],
        "filters": [analysis.record() for analysis in checked.analyses],
    }
    if places is not None:
        content["hooks"] = [
            {
                "filter": place.filter,
                "hook": place.hook.value,
                "errors": count(place.diagnostics, Severity.ERROR),
                "warnings": count(place.diagnostics, Severity.WARNING),
                "diagnostics": [as_record(diagnostic) for diagnostic in place.diagnostics],
            }
            for place in places
        ]
    output.record("penstock.check/1", content)


def _report_unreadable(path: str, error: PenstockError, as_json: bool) -> None:
    if as_json:
        output.record("penstock.check/1", {"file": path, "error": error.message, "hint": error.hint})
    else:
        output.fault(error)


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
