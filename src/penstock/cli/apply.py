"""`penstock apply FILE -i IF`: put a policy in place so that it outlives the command."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from penstock.cli import output
from penstock.cli.options import interface_option, json_option, mode_option, netns_option
from penstock.cli.policy_load import load_filters

if TYPE_CHECKING:
    from penstock.pipeline.placing import Wish
    from penstock.pipeline.policy import LoadedPolicy
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
@click.option("--dry-run", is_flag=True, help="Compile, load and verify, but change nothing.")
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
    dry_run: bool,
    as_json: bool,
) -> None:
    """Put a policy in place on an interface.

    FILE is a policy, `-` for standard input, or what `penstock build` made.  A policy of penstock's that is there is
    replaced in one step, and rules that keep their label keep their counters.  Filters at several hooks are all put in
    place, or none of them.

    A policy that would drop this SSH connection, the default gateway, the resolvers or the renewal of a lease is
    refused.
    """
    policies = load_filters(file, filter_name)
    if dry_run:
        from penstock.kernel.order import read_order
        from penstock.pipeline.placing import Wish

        _dry_run(policies, interface, Wish(mode, read_order(order) if order else None, replace), as_json)
        return
    from penstock.pipeline.apply import apply_all

    for done, policy in zip(
        apply_all(interface, policies, mode, replace=replace, order=order, force=force), policies, strict=True
    ):
        for notice in done.notices:
            output.warn(notice)
        _report(done, len(policy.rule_keys), as_json)


def _dry_run(policies: tuple[LoadedPolicy, ...], interface: str, wanted: Wish, as_json: bool) -> None:
    from penstock.model.hook import Hook
    from penstock.pipeline.attach import dry_run
    from penstock.pipeline.placing import wishes

    wishes([Hook(policy.identity.hook) for policy in policies], wanted)
    for policy in policies:
        program = dry_run(interface, policy)
        if not as_json:
            output.answer(f"{policy.name}: the kernel accepts it; nothing was changed on {interface}")
            continue
        content = {
            "interface": interface,
            "hook": policy.identity.hook,
            "policy": policy.name,
            "applied": False,
            "verified_instructions": program.verified_insns,
        }
        output.record("penstock.apply/1", content)


def _report(done: Applied, rules: int, as_json: bool) -> None:
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
            "notices": list(done.notices),
        }
        output.record("penstock.apply/1", content)
        return
    word = f"in the place of {done.replaced} on" if done.replaced else "attached to"
    plural = "rule" if rules == 1 else "rules"
    where = f"{done.interface} at {done.hook}"
    output.answer(
        f"{done.name}: {word} {where}, {rules} {plural}, {done.mode} mode, program {done.program_id}"
    )
