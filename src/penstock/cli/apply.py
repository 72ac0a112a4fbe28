"""`penstock apply FILE -i IF`: put a policy in place so that it outlives the command."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import click

from penstock.cli import output
from penstock.cli.confirm import report_overdue
from penstock.cli.options import (
    DURATION,
    duration_text,
    interface_option,
    json_option,
    mode_option,
    netns_option,
    netns_words,
)
from penstock.cli.policy_load import load_filters
from penstock.control.client import ask_if_there
from penstock.errors import PenstockError

if TYPE_CHECKING:
    from penstock.pipeline.identity import Probation
    from penstock.pipeline.placing import Wish
    from penstock.pipeline.policy import LoadedPolicy
    from penstock.pipeline.preview import Preview
    from penstock.pipeline.putting import Applied


@click.command("apply")
@click.argument("file", type=click.Path())
@interface_option()
@mode_option
@click.option(
    "--filter", "filter_name", metavar="NAME", help="Only this filter, when the policy has several."
)
@click.option("--replace", is_flag=True, help="Take over from an XDP program that is not penstock's.")
@click.option(
    "--order",
    metavar="PLACE",
    help="At TC, where among other programs: first, last, before:ID, after:ID (a program's id); "
    "with --mode clsact also a priority.  [default: last]",
)
@click.option(
    "--force", is_flag=True, help="Also if it drops what this host needs: SSH, gateway, resolvers, DHCP."
)
@click.option(
    "--confirm",
    "confirm_s",
    type=DURATION,
    metavar="TIME",
    help="Put back what was there after this time (60s), unless `penstock confirm` comes first.",
)
@click.option("--wait", is_flag=True, help="With --confirm: wait for it; exits with 7 if it does not come.")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Load and verify it, say what would change, and change nothing; exits with 1 if it would be refused.",
)
@netns_option
@json_option
def command(
    file: str,
    interface: str,
    mode: str,
    filter_name: str | None,
    replace: bool,
    order: str | None,
    force: bool,
    confirm_s: float | None,
    wait: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Put a policy in place on an interface.

    FILE is a policy, `-` for standard input, or what `penstock build` made.  A policy of penstock's that is there is
    replaced in one step, and rules that keep their label keep their counters.  Filters at several hooks are all put in
    place, or none of them.

    A policy that would drop this SSH connection, the default gateway, the resolvers or the renewal of a lease is
    refused.
    """
    if wait and confirm_s is None:
        raise click.UsageError("--wait goes with --confirm")
    policies = load_filters(file, filter_name)
    if dry_run:
        from penstock.kernel.order import read_order
        from penstock.pipeline.placing import Wish

        wish = Wish(mode, read_order(order) if order else None, replace)
        would_stay = _dry_run(policies, interface, wish, force, confirm_s is not None, as_json)
        return 0 if would_stay else 1
    return put_in_place(
        interface,
        policies,
        "apply",
        mode=mode,
        replace=replace,
        order=order,
        force=force,
        confirm_s=confirm_s,
        wait=wait,
        as_json=as_json,
    )


def put_in_place(
    interface: str,
    policies: tuple[LoadedPolicy, ...],
    how: str,
    *,
    mode: str = "auto",
    replace: bool = False,
    order: str | None = None,
    force: bool = False,
    confirm_s: float | None = None,
    wait: bool = False,
    as_json: bool = False,
) -> int:
    """Apply policies, remember and tell it; the exit code.  `how` is for the history."""
    from penstock.pipeline import history
    from penstock.pipeline.apply import apply_all

    report_overdue()
    with probation_of(confirm_s) as probation:
        every = apply_all(
            interface, policies, mode, replace=replace, order=order, force=force, probation=probation
        )
    try:
        how = f"{how} --confirm" if probation else how
        history.record(interface, policies, how=how, token=probation.token if probation else "")
    except PenstockError as error:
        output.warn(f"{error.message}; the policy is in place")
    for done, policy in zip(every, policies, strict=True):
        for notice in done.notices:
            output.warn(notice)
        _report(done, len(policy.rule_keys), confirm_s, as_json)
    _tell_of_the_daemon(every)
    return told_of(probation, confirm_s, interface, wait=wait)


def _tell_of_the_daemon(every: Sequence[Applied]) -> None:
    """Where a daemon has a policy for one of these places: how long it leaves this one there."""
    if netns_words():
        return
    with suppress(PenstockError):
        found = ask_if_there("Status", to_read=True) or {"filters": ()}
        places = {(done.interface, done.hook) for done in every}
        files = {one["file"] for one in found["filters"] if (one["interface"], one["hook"]) in places}
        for file in sorted(files):
            output.note(
                f"the daemon has {file} for this place: it leaves that out until the file changes, "
                "a `penstock daemon reload` or a reboot"
            )


@contextmanager
def probation_of(seconds: float | None) -> Iterator[Probation | None]:
    """A probation, and the process that ends it, which goes if the block fails; None without a time."""
    if seconds is None:
        yield None
        return
    from penstock.cli.reverter import start_reverter, tell
    from penstock.pipeline.probation import begin

    probation = begin(seconds)
    process = start_reverter(probation)
    try:
        yield probation
    except BaseException:
        process.terminate()
        process.wait()
        raise
    tell(process)


def told_of(probation: Probation | None, seconds: float | None, interface: str, *, wait: bool) -> int:
    """Say how a probation is confirmed, and with `wait` how it has ended; the exit code."""
    if probation is None:
        return 0
    words = f"`penstock confirm -i {interface}{netns_words()}`"
    output.note(f"{words} lets it stay; it is taken back in {duration_text(seconds or 0)}")
    if not wait:
        return 0
    from penstock.pipeline.probation import outcome, waiting

    for pause_s in waiting(probation.token, probation.until_ns, interface):
        time.sleep(pause_s)
    if outcome(probation.token):
        output.note("it was confirmed")
        return 0
    output.warn(f"nobody has confirmed it: what was there before is on {interface} again")
    return 7


def _dry_run(
    policies: tuple[LoadedPolicy, ...],
    interface: str,
    wanted: Wish,
    force: bool,
    is_on_probation: bool,
    as_json: bool,
) -> bool:
    """Say what would change; False if `apply` would refuse it for what it cuts off."""
    from penstock.model.hook import Hook
    from penstock.pipeline.placing import wishes
    from penstock.pipeline.preview import preview, replaced

    hooks = [Hook(policy.identity.hook) for policy in policies]
    wishes(hooks, wanted)
    programs = replaced(interface, hooks)
    is_taken = True
    for policy in policies:
        found = preview(interface, policy, programs=programs, is_on_probation=is_on_probation)
        is_taken &= force or not found.losses
        if as_json:
            _record_preview(interface, policy, found)
        else:
            _tell_preview(interface, policy, found, force)
    return is_taken


def _tell_preview(interface: str, policy: LoadedPolicy, found: Preview, force: bool) -> None:
    output.answer(f"{policy.name}: the kernel accepts it; nothing was changed on {interface}")
    if found.replaces is not None:
        for change in found.changes:
            before = f"   (now: {change.before})" if change.before else ""
            output.answer(
                f"  {change.what:8}{change.rule}: {change.text.removeprefix(f'{change.rule}: ')}{before}"
            )
        lost = f", lost: {', '.join(found.lost)}" if found.lost else ""
        output.answer(f"  in the place of {found.replaces}; {found.kept} counters go on{lost}")
    else:
        output.answer(f"  nothing of penstock's is there; {_rules(len(found.changes))} would come")
    for notice in found.notices:
        output.warn(notice)
    for loss in found.losses:
        would = "cut off, as --force asks for" if force else "refused, as it cuts off"
        output.warn(f"it would be {would}: {loss.lifeline.what}: {loss.decider}")


def _record_preview(interface: str, policy: LoadedPolicy, found: Preview) -> None:
    content = {
        "interface": interface,
        "hook": policy.identity.hook,
        "policy": policy.name,
        "applied": False,
        "verified_instructions": found.verified_instructions,
        "replaces": found.replaces,
        "rules": [
            {"change": one.what, "rule": one.rule, "text": one.text, "before": one.before}
            for one in found.changes
        ],
        "counters_kept": found.kept,
        "counters_lost": list(found.lost),
        "notices": list(found.notices),
        "would_cut_off": [loss.lifeline.what for loss in found.losses],
    }
    output.record("penstock.apply/1", content)


def _report(done: Applied, rules: int, confirm_s: float | None, as_json: bool) -> None:
    if as_json:
        content = {
            "interface": done.interface,
            "hook": done.hook,
            "policy": done.name,
            "applied": True,
            "mode": done.mode,
            "program_id": done.program_id,
            "replaced": done.replaced,
            "kept_counters": done.kept,
            "confirm_within_s": confirm_s,
            "notices": list(done.notices),
        }
        output.record("penstock.apply/1", content)
        return
    word = f"in the place of {done.replaced} on" if done.replaced else "attached to"
    where = f"{done.interface} at {done.hook}"
    output.answer(
        f"{done.name}: {word} {where}, {_rules(rules)}, {done.mode} mode, program {done.program_id}"
    )


def _rules(count: int) -> str:
    return f"{count} rule" if count == 1 else f"{count} rules"
