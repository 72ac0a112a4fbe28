"""The daemon's part of `penstock status`, and what is decided for the day on which something fails.

    record(filters)     ->  {"daemon": {…} or None, "failures": [{"event": "load", "count": 0, …}, …]}
    lines(filters)      ->  "daemon: process 4711, …", and a table

Settings and counts are read from their files where no daemon answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from penstock.cli import output
from penstock.control.client import ask_if_there
from penstock.errors import PenstockError

if TYPE_CHECKING:
    from penstock.daemon.failures import Decision
    from penstock.pipeline.status import Status

_PATIENCE_S = 3.0


def record(filters: Sequence[Status]) -> dict[str, object]:
    """For `--json`."""
    daemon = told()
    return {
        "daemon": daemon,
        "failures": [
            {
                "event": one.event,
                "decision": one.decision,
                "decided_by": one.decided_by,
                "count": one.count,
            }
            for one in _decisions(filters)
        ],
    }


def lines(filters: Sequence[Status]) -> list[str]:
    """For people."""
    daemon = told()
    rows = [
        (one.what, one.decision, "-" if one.count is None else str(one.count)) for one in _decisions(filters)
    ]
    table = output.table_lines(("WHEN", "THEN", "SO FAR"), rows, right=[2])
    head = daemon_lines(daemon) if daemon else ["no daemon runs"]
    return ["", *head, "", *table]


def told() -> dict[str, Any] | None:
    """What the daemon tells of itself; None where none answers, with a warning if it should."""
    try:
        return ask_if_there("Status", to_read=True, patience_s=_PATIENCE_S)
    except PenstockError as error:
        output.warn(error.message)
        return None


def daemon_lines(found: dict[str, Any]) -> list[str]:
    """A daemon's account of itself, for people."""
    told = [f"daemon: process {found['pid']}, penstock {found['version']}, since {found['started_at']}"]
    for one in found["filters"]:
        link = " " if one["state"] == "waiting" and one["why"].startswith("for ") else ": "
        why = f"{link}{one['why']}" if one["why"] and one["state"] != "in place" else ""
        told.append(
            f"  {one['interface']} at {one['hook']}: {one['policy']} of {one['file']}, {one['state']}{why}"
        )
    told += [f"  ! {one['message']} (since {one['since']})" for one in found["alarms"]]
    return told


def _decisions(filters: Sequence[Status]) -> tuple[Decision, ...]:
    from penstock.daemon import state
    from penstock.daemon.failures import decisions
    from penstock.daemon.settings import Settings, config_directory, read_settings

    try:
        settings = read_settings(config_directory())
    except PenstockError as error:
        output.warn(error.message)
        settings = Settings()
    return decisions(settings, state.counts(), filters)
