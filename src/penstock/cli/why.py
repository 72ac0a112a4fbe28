"""`penstock why ADDRESS`: which sets hold it, who put it there, and what becomes of its packets."""

from __future__ import annotations

import dataclasses
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from penstock.cli import output
from penstock.cli.options import duration_text, json_option
from penstock.control.client import ask_if_there

if TYPE_CHECKING:
    from penstock.pipeline.why import Asked, Held, Reason, Why

_PARTLY = 8


@click.command("why")
@click.argument("address")
@json_option
def command(address: str, as_json: bool) -> int:
    """Say why ADDRESS is in a set: every source with its times, and what running policies do with its packets.

    Without root it asks the daemon; where none runs it says what the ledger and the feeds know.  Exit code 8
    if something of a set is damaged.
    """
    found = _found(address)
    if as_json:
        output.record("penstock.why/1", {**dataclasses.asdict(found), "known": found.is_known})
    else:
        _show(found)
    return _PARTLY if found.damaged else 0


def _found(address: str) -> Why:
    """What this process knows, or the daemon where that may see more."""
    from penstock.pipeline.why import Why, why

    found = why(address)
    if found.unseen and (told := ask_if_there("Why", to_read=True, address=address)) is not None:
        import msgspec

        return msgspec.convert(told, Why)
    return found


def _show(found: Why) -> None:
    if not found.held:
        output.answer(f"{found.address}: no set holds it")
    for held in found.held:
        output.answer(_head(found, held))
        for reason in held.reasons:
            output.answer(f"  {_reason(reason)}")
        for rule in found.asked:
            if rule.set == held.set:
                output.answer(f"  {_asked(rule)}")
    for fate in found.fates:
        packets = "its packets" if fate.packet == "every" else fate.packet
        output.answer(f"on {fate.interface} ({fate.hook}): {packets}: {fate.verdict} by {fate.rule}")
    if found.protected:
        output.answer(f"protected: no feed may list it ({found.protected})")
    for words in found.unseen:
        output.note(f"not looked at: {words}")
    for words in found.damaged:
        output.warn(f"not known: {words}")


def _asked(rule: Asked) -> str:
    """What a rule has to do with the set: it asks, or it only adds to it or removes from it."""
    named = re.compile(rf"@{re.escape(rule.set)}(?![A-Za-z0-9_-])")
    is_changed = len(named.findall(rule.text)) == len(named.findall(rule.action))
    done = "changed" if is_changed else "asked"
    place = f"on {rule.interface} ({rule.hook})"
    return f"{done} {place} by rule {rule.rule} of {rule.filter}: {one_line(rule.text)}"


def _head(found: Why, held: Held) -> str:
    if held.is_in is False:
        return f"{found.address} was put in @{held.set}, which does not hold it now"
    return f"{found.address} is in @{held.set}"


def _reason(reason: Reason) -> str:
    if reason.source == "rule":
        return f"{reason.entry}  added by a rule or a program: no command and no feed has listed it"
    who = f"feed {reason.source}" if reason.is_feed else f"{reason.source} by {reason.by}"
    parts = [one_line(reason.entry), one_line(who)]
    if reason.at is not None:
        parts.append(f"since {_time(reason.at)}")
    if reason.left_s is not None:
        left = reason.left_s
        parts.append(f"expires in {duration_text(round(left))}" if left > 0 else "is over")
    if reason.comment:
        parts.append(f"“{one_line(reason.comment)}”")
    return "  ".join(parts)


def _time(wall: float) -> str:
    return (
        datetime.fromtimestamp(wall, UTC).isoformat(sep=" ", timespec="seconds").removesuffix("+00:00")
        + " UTC"
    )


def one_line(text: str) -> str:
    """A text of somebody's on one line; what else cannot be shown is escaped where it is printed."""
    return text.replace("\n", "\\n").replace("\t", "\\t")
