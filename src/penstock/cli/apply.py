"""`penstock apply FILE -i IF`: put a policy in place so that it outlives the command."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from penstock.cli import output
from penstock.cli.options import interface_option, json_option, mode_option, netns_option
from penstock.cli.policy_load import load_file

if TYPE_CHECKING:
    from penstock.pipeline.apply import Applied
    from penstock.pipeline.policy import LoadedPolicy


@click.command("apply")
@click.argument("file", type=click.Path())
@interface_option()
@mode_option
@click.option("--filter", "filter_name", metavar="NAME", help="Which filter, when the policy has several.")
@click.option("--replace", is_flag=True, help="Take over from a program that is not penstock's.")
@click.option("--dry-run", is_flag=True, help="Compile, load and verify, but change nothing.")
@netns_option
@json_option
def command(
    file: str, interface: str, mode: str, filter_name: str | None, replace: bool, dry_run: bool, as_json: bool
) -> None:
    """Put a policy in place on an interface.

    FILE is a policy, `-` for standard input, or what `penstock build` made.  A policy of penstock's that is there is
    replaced in one step, and rules that keep their label keep their counters.
    """
    policy = load_file(file, filter_name, trusted=True)
    if dry_run:
        _dry_run(policy, interface, as_json)
        return
    from penstock.pipeline.apply import apply

    done = apply(interface, policy, mode, replace=replace)
    for notice in done.notices:
        output.warn(notice)
    _report(done, len(policy.rule_keys), as_json)


def _dry_run(policy: LoadedPolicy, interface: str, as_json: bool) -> None:
    from penstock.pipeline.attach import dry_run

    program = dry_run(interface, policy)
    if as_json:
        content = {"interface": interface, "policy": policy.name, "applied": False}
        output.record("penstock.apply/1", {**content, "verified_instructions": program.verified_insns})
        return
    output.answer(f"{policy.name}: the kernel accepts it; nothing was changed on {interface}")


def _report(done: Applied, rules: int, as_json: bool) -> None:
    if as_json:
        content = {
            "interface": done.interface,
            "policy": done.name,
            "applied": True,
            "mode": done.mode,
            "program_id": done.program_id,
            "replaced": done.replaced,
            "kept_counters": done.kept,
            "notices": list(done.notices),
        }
        output.record("penstock.apply/1", content)
        return
    word = f"in the place of {done.replaced}" if done.replaced else "attached"
    plural = "rule" if rules == 1 else "rules"
    output.answer(
        f"{done.name}: {word} on {done.interface}, {rules} {plural}, {done.mode} mode, program {done.program_id}"
    )
