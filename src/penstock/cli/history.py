"""`penstock history -i IF`: which policies were put on an interface, by whom and when."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from penstock.cli import output
from penstock.cli.confirm import report_overdue
from penstock.cli.options import interface_option, json_option, netns_option

if TYPE_CHECKING:
    from penstock.pipeline.history import Entry


@click.command("history")
@interface_option()
@click.option("--show", metavar="N|ID", help="Print that policy's text.")
@netns_option
@json_option
def command(interface: str, show: str | None, as_json: bool) -> None:
    """Show the last ten policies of an interface, newest first.

    `penstock rollback` puts one of them in place again.
    """
    from penstock.pipeline import history

    report_overdue()
    if show is not None:
        output.raw(_text(history.chosen(interface, show)))
        return
    every = history.entries(interface)
    if as_json:
        output.record(
            "penstock.history/1", {"interface": interface, "entries": [_record(one) for one in every]}
        )
        return
    rows = [(one.id, one.applied_at, who(one), _how(one), _filters(one), one.path) for one in every]
    output.table(("ID", "WHEN", "WHO", "HOW", "FILTERS", "FROM"), rows)


def _text(entry: Entry) -> bytes:
    """The policy's text; of a built file the one that it holds, and not its machine code."""
    from penstock.pipeline.history import text_of
    from penstock.pipeline.policy import load_built

    content = text_of(entry)
    return load_built(content, entry.path).identity.text.encode() if entry.is_built else content


def who(entry: Entry) -> str:
    """The user as people know them: through sudo, or by the number of the account."""
    import pwd

    if entry.sudo_user:
        return entry.sudo_user
    number = entry.uid if entry.login_uid is None else entry.login_uid
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"uid {number}"


def _how(entry: Entry) -> str:
    return f"{entry.how}, {entry.outcome}" if entry.outcome else entry.how


def _filters(entry: Entry) -> str:
    return ", ".join(f"{one.name} at {one.hook}" for one in entry.filters)


def _record(entry: Entry) -> dict[str, object]:
    return {
        "id": entry.id,
        "digest": entry.digest,
        "filters": [{"name": one.name, "hook": one.hook} for one in entry.filters],
        "path": entry.path,
        "applied_at": entry.applied_at,
        "uid": entry.uid,
        "login_uid": entry.login_uid,
        "sudo_user": entry.sudo_user,
        "how": entry.how,
        "outcome": entry.outcome or None,
        "built": entry.is_built,
    }
