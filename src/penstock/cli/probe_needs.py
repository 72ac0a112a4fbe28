"""`penstock probe --for FILE`: what a policy needs of the kernel, what is there, and what is done without the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from penstock.cli import output
from penstock.cli.probe import mark

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penstock.pipeline.needs import Need
    from penstock.pipeline.policy import LoadedPolicy

_NOT_ON_THIS_KERNEL = 3


def show_needs(path: str, *, as_json: bool) -> None:
    """Print what every filter of a policy needs; exit code 3 if one of them cannot run here."""
    from penstock.pipeline.needs import Outcome, needs_of

    refused = False
    for policy in _filters(path):
        needs = needs_of(policy)
        refused |= any(need.outcome is Outcome.REFUSED for need in needs)
        if as_json:
            output.record("penstock.probe.needs/1", _record(path, policy, needs))
        else:
            _show(policy, needs)
    if refused:
        click.get_current_context().exit(_NOT_ON_THIS_KERNEL)


def _filters(path: str) -> Iterator[LoadedPolicy]:
    """Every filter of a policy file, compiled; the one filter of a built file."""
    from penstock.cli.policy_load import built_policy
    from penstock.pipeline.policy import checked, load_policy
    from penstock.pipeline.policy_file import read_policy

    built = built_policy(path)
    if built is not None:
        yield built
        return
    source = read_policy(path)
    policy, _ = checked(source)
    for one in policy.filters:
        yield load_policy(source.text, one.hook, name=source.name, filter=one.name)


def _show(policy: LoadedPolicy, needs: tuple[Need, ...]) -> None:
    from penstock.pipeline.needs import Outcome

    output.answer(f"{policy.name} at {policy.identity.hook}:")
    rows = [
        (mark(need.found.has), need.since, f"{need.kind} {need.name}", need.because, _without(need))
        for need in needs
    ]
    output.table(("HERE", "SINCE", "NEED", "BECAUSE", "WITHOUT IT"), rows)
    worst = {need.outcome for need in needs}
    if Outcome.REFUSED in worst:
        output.answer(f"{policy.name} does not run on this kernel")
    elif Outcome.UNKNOWN in worst:
        output.answer(f"{policy.name}: not everything can be told")
    elif Outcome.FALLBACK in worst:
        output.answer(f"{policy.name} runs on this kernel, with the fallbacks above")
    else:
        output.answer(f"{policy.name} runs on this kernel, without a fallback")


def _without(need: Need) -> str:
    return need.found.why if need.found.has is None else "" if need.found.has else need.otherwise


def _record(path: str, policy: LoadedPolicy, needs: tuple[Need, ...]) -> dict[str, object]:
    listed = [
        {
            "kind": need.kind,
            "name": need.name,
            "since": need.since,
            "because": need.because,
            "available": need.found.has,
            "why": need.found.why or None,
            "required": need.required,
            "outcome": need.outcome.value,
            "without": need.otherwise,
        }
        for need in needs
    ]
    return {"file": path, "filter": policy.name, "hook": policy.identity.hook, "needs": listed}
