"""`penstock rule add|remove|list -i IF`: rules added to the policy while it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from penstock.cli import output
from penstock.cli.confirm import report_overdue
from penstock.cli.options import Group, hook_option, interface_option, json_option, netns_option

if TYPE_CHECKING:
    from penstock.pipeline.rules import Change

_hook_option = hook_option("At which hook; else xdp, or the only one with a policy.")
_rebuild_option = click.option(
    "--rebuild", is_flag=True, help="Compile the policy again, with all added rules."
)


@click.group("rule", cls=Group)
def command() -> None:
    """Add rules to the policy on an interface while it runs, and take them away.

    They are gone when a policy is applied from a file.
    """


@command.command("add")
@click.argument("rule")
@interface_option()
@click.option("--before", metavar="RULE", help="Before this rule, named as `penstock status` names it.")
@click.option("--first", "place", flag_value="first", help="Before all rules of the policy.")
@click.option(
    "--last", "place", flag_value="last", help="Behind all rules, before the default (the default)."
)
@click.option("--label", metavar="NAME", help="The rule's name.")
@_hook_option
@_rebuild_option
@netns_option
@json_option
def add(
    rule: str,
    interface: str,
    before: str | None,
    place: str | None,
    label: str | None,
    hook: str | None,
    rebuild: bool,
    as_json: bool,
) -> None:
    """Add a rule.

    RULE is one as in a policy, such as 'drop if src host 192.0.2.1'; it may use the policy's constants.  A large
    policy takes it while it runs, in milliseconds, and any other is compiled again with it and replaced in one step.
    """
    from penstock.pipeline.rules import add_rule

    report_overdue()
    if place and before:
        raise click.UsageError("--before, --first and --last exclude one another")
    is_first = place == "first"
    done = add_rule(interface, rule, before=before, first=is_first, label=label, rebuild=rebuild, hook=hook)
    where = f"before {done.before}" if done.before else "before the default"
    _report(done, "penstock.rule.add/1", f"added {where}", as_json)


@command.command("remove")
@click.argument("name")
@interface_option()
@_hook_option
@_rebuild_option
@netns_option
@json_option
def remove(name: str, interface: str, hook: str | None, rebuild: bool, as_json: bool) -> None:
    """Take an added rule away; rules of the policy's own text stay."""
    from penstock.pipeline.rules import remove_rule

    report_overdue()
    done = remove_rule(interface, name, rebuild=rebuild, hook=hook)
    _report(done, "penstock.rule.remove/1", "removed", as_json)


@command.command("list")
@interface_option()
@_hook_option
@netns_option
@json_option
def list_(interface: str, hook: str | None, as_json: bool) -> None:
    """Show the added rules as they are tried, with their counters."""
    from penstock.pipeline.rules import added_rules

    found = added_rules(interface, hook=hook)
    if as_json:
        rules = [
            {
                "rule": one.name,
                "text": one.text,
                "before": one.before,
                "how": one.how,
                "packets": one.packets,
                "bytes": one.bytes,
            }
            for one in found
        ]
        output.record("penstock.rule.list/1", {"interface": interface, "rules": rules})
        return
    if not found:
        output.answer(f"no rule was added on {interface}")
        return
    rows = [
        (one.name, one.before or "default", one.how, str(one.packets), str(one.bytes), one.text)
        for one in found
    ]
    output.table(("RULE", "BEFORE", "HOW", "PACKETS", "BYTES", "TEXT"), rows, right=(3, 4))


def _report(done: Change, schema: str, what: str, as_json: bool) -> None:
    if done.warnings:
        from penstock.cli.diagnostics import show_diagnostics

        show_diagnostics(done.warnings)
    for notice in done.notices:
        output.warn(notice)
    milliseconds = done.seconds * 1e3
    if as_json:
        content = {
            "interface": done.interface,
            "rule": done.name,
            "text": done.text,
            "before": done.before,
            "how": done.how,
            "why": done.why,
            "milliseconds": round(milliseconds, 1),
            "notices": list(done.notices),
        }
        output.record(schema, content)
        return
    if done.why:
        output.note(f"the policy was compiled again: {done.why}")
    took = f"{milliseconds:.0f} ms" if milliseconds < 1000 else f"{done.seconds:.1f} s"
    how = "by the overlay" if done.how == "overlay" else "by compiling again"
    output.answer(f"{done.name}: {what} on {done.interface}, {how}, in {took}: {done.text}")
