"""`penstock status`: what is in place, its rules, counters and rates."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING

import click

from penstock.cli import keeping, output
from penstock.cli.confirm import report_overdue
from penstock.cli.options import DURATION, duration_text, interface_option, json_option, netns_option
from penstock.control.client import ask_if_there
from penstock.errors import PrivilegeError

if TYPE_CHECKING:
    from penstock.kernel.link import AttachedProgram
    from penstock.pipeline.counters import Counter
    from penstock.pipeline.limiters import Usage
    from penstock.pipeline.status import Status

_TITLES = ("RULE", "ACTION", "PACKETS", "BYTES", "IF")
_TITLES_WITH_RATES = (*_TITLES[:4], "PPS", "BIT/S", "IF")
_NUMBERS = range(2, 6)
_LEAST_WIDTH = 60


@click.command("status")
@interface_option(required=False)
@click.option("--interval", type=DURATION, help="Measure rates over this time.")
@click.option("--watch", is_flag=True, help="Go on until interrupted, every --interval (1s).")
@click.option("--all", "show_all", is_flag=True, help="Also conditions that were never met.")
@netns_option
@json_option
def command(interface: str | None, interval: float | None, watch: bool, show_all: bool, as_json: bool) -> int:
    """Show the policies in place: rules, counters, rates.

    Exits with 3 if something is wrong with one of them.
    """
    with suppress(PrivilegeError):
        # Who may not is shown what the daemon sees, which ends them, too.
        report_overdue()
    if watch:
        return _watch(interface, interval or 1.0, show_all, as_json)
    before = _status(interface)
    if interval and before:
        time.sleep(interval)
        found = _status(interface)
    else:
        before, found = (), before
    _show(found, before, interface, show_all, as_json)
    return 3 if any(one.trouble for one in found) else 0


def _watch(interface: str | None, interval: float, show_all: bool, as_json: bool) -> int:
    before: tuple[Status, ...] = ()
    for _ in count():
        found = _status(interface)
        if as_json:
            _show(found, before, interface, show_all, as_json=True)
        else:
            output.live(list(_lines(found, before, interface, show_all)))
        before = found
        time.sleep(interval)
    return 0


def _status(interface: str | None) -> tuple[Status, ...]:
    """What this process sees, or the daemon where that may see more."""
    from penstock.pipeline.status import Status, status

    try:
        return status(interface)
    except PrivilegeError:
        from penstock.kernel import netns

        told = ask_if_there("Filters", to_read=True, netns=netns.inode(), interface=interface)
        if told is None:
            raise
        import msgspec

        return msgspec.convert(told["filters"], tuple[Status, ...])


def _show(
    found: tuple[Status, ...],
    before: tuple[Status, ...],
    interface: str | None,
    show_all: bool,
    as_json: bool,
) -> None:
    if as_json:
        earlier = {(one.interface, one.hook): one for one in before}
        filters = [_record(one, earlier.get((one.interface, one.hook))) for one in found]
        output.record("penstock.status/1", {"filters": filters, **keeping.record(found)})
        return
    for line in _lines(found, before, interface, show_all):
        output.answer(line)
    if interface is None:
        for line in keeping.lines(found):
            output.answer(line)


def _lines(
    found: tuple[Status, ...], before: tuple[Status, ...], interface: str | None, show_all: bool
) -> Iterator[str]:
    earlier = {(one.interface, one.hook): one for one in before}
    if not found:
        yield (
            f"penstock has put no filter on {interface}"
            if interface
            else "penstock has put no filter in place"
        )
    for number, one in enumerate(found):
        if number:
            yield ""
        yield _headline(one)
        if one.trouble:
            yield f"  ! {one.trouble}"
        left = one.probation_left_s
        if left is not None:
            back = "what was there before" if one.has_before else "nothing, as before,"
            yield f"  on probation: {duration_text(left)} left to `penstock confirm`, or {back} is there again"
        if one.refusals:
            yield f"  reject: {one.refusals.answered} answered, {one.refusals.suppressed} dropped without an answer"
        yield from map(_limiter, one.limiters)
        yield from _others(one)
        for rule, left in one.emergencies:
            yield f"  {rule.name}: {rule.action} if {rule.expression}, {duration_text(left)} left"
        yield from _table(one, earlier.get((one.interface, one.hook)), show_all)


def _table(one: Status, before: Status | None, show_all: bool) -> list[str]:
    """The counters; rates only where they were measured, no line wider than the terminal."""
    titles = _TITLES_WITH_RATES if before else _TITLES
    rows = list(_rows(one, before, show_all))
    lines = output.table_lines(titles, rows, right=[at for at in _NUMBERS if at < len(titles) - 1])
    return [_shortened(line) for line in lines]


def _headline(one: Status) -> str:
    mode = f"{one.mode} mode" if one.mode else "does not run here"
    mode = f"at {one.identity.hook}, {mode}"
    if not one.identity.program:
        return f"{one.interface}: {one.identity.name}"
    origin = f" from {one.identity.path}" if one.identity.path else ""
    since = f"program {one.identity.program}, since {one.identity.applied_at}"
    return f"{one.interface}: {one.identity.name}{origin}, {mode}, {since}"


def _limiter(usage: Usage) -> str:
    """How full a limiter's table is, and what a full one has done."""
    limiter = usage.limiter
    if not usage.places:
        return f"  {limiter.name}: over {limiter.text}, one bucket"
    held = f"{usage.held:,} of {usage.places:,} buckets count, {usage.given:,} places given to other keys"
    refused = f", {usage.refused:,} packets found none" if usage.refused else ""
    return f"  {limiter.name}: over {limiter.text}: {held}{refused}"


def _others(one: Status) -> Iterator[str]:
    """The other programs on the hook, in the order in which packets meet them."""
    before, behind = one.others if one.mode else ((), ())
    for found in before:
        yield f"  before it: {found}"
    for found in behind:
        yield f"  behind it: {found}"


def _rows(one: Status, before: Status | None, show_all: bool) -> Iterator[tuple[str, ...]]:
    """Rules first, as they are tried, then the default; conditions that were never met only on request."""
    rows = list(one.rows)
    if not rows:
        return
    in_force = {rule.name for rule, _ in one.emergencies}
    lapsed = {rule.name for rule in one.emergency_rules} - in_force
    ordered = [*(row for row in rows if _is_condition(row[0].name)), *rows[_first_rule(one) :], rows[0]]
    for key, counter in ordered:
        if _is_condition(key.name) and not counter.packets and not show_all:
            continue
        rates = _rates(key.name, counter, one, before)
        shown = (_decimal(rates[0]), _decimal(rates[1])) if rates else ("-", "-") if before else ()
        condition = key.text.partition(" if ")[2]
        action = "lapsed" if key.name in lapsed else key.action
        yield key.name, action, str(counter.packets), str(counter.bytes), *shown, condition


def _first_rule(one: Status) -> int:
    return 1 + sum(_is_condition(key.name) for key in one.identity.counters)


def _is_condition(name: str) -> bool:
    return name.startswith("on ")


def _rates(name: str, counter: Counter, now: Status, before: Status | None) -> tuple[float, float] | None:
    """Packets and bits a second since `before`; None without it or when the program has changed meanwhile."""
    earlier = before.counters.get(name) if before else None
    if before is None or earlier is None or counter.packets < earlier.packets:
        return None
    seconds = (now.read_at_ns - before.read_at_ns) / 1e9
    if seconds <= 0:
        return None
    return (counter.packets - earlier.packets) / seconds, (counter.bytes - earlier.bytes) * 8 / seconds


def _record(one: Status, before: Status | None) -> dict[str, object]:
    rules = []
    for key, counter in one.rows:
        rates = _rates(key.name, counter, one, before)
        entry: dict[str, object] = {
            "name": key.name,
            "action": key.action,
            "line": key.line or None,
            "text": key.text or None,
            "packets": counter.packets,
            "bytes": counter.bytes,
        }
        if rates:
            entry |= {"packets_per_s": round(rates[0], 3), "bits_per_s": round(rates[1], 3)}
        rules.append(entry)
    emergencies = [
        {
            "name": rule.name,
            "action": rule.action,
            "expression": rule.expression,
            "seconds_left": round(left, 3),
        }
        for rule, left in one.emergencies
    ]
    return {
        "interface": one.interface,
        "policy": one.identity.name,
        "path": one.identity.path,
        "hook": one.identity.hook,
        "mode": one.mode or None,
        "program_id": one.identity.program,
        "programs": [_program(found) for found in one.programs],
        "applied_at": one.identity.applied_at,
        "trouble": one.trouble,
        "probation_left_s": None if one.probation_left_s is None else round(one.probation_left_s, 3),
        "refusals": _refusals(one),
        "limiters": [_limiter_record(usage) for usage in one.limiters],
        "emergencies": emergencies,
        "counters": rules,
    }


def _program(found: AttachedProgram) -> dict[str, object]:
    return {
        "program_id": found.program_id or None,
        "kind": found.kind,
        "mode": found.mode,
        "link_id": found.link_id,
        "priority": found.priority,
    }


def _limiter_record(usage: Usage) -> dict[str, object]:
    return {
        "name": usage.limiter.name,
        "rate": usage.limiter.text,
        "burst": usage.limiter.burst,
        "held": usage.held,
        "places": usage.places,
        "evictions": usage.given,
        "refused": usage.refused,
    }


def _refusals(one: Status) -> dict[str, int] | None:
    found = one.refusals
    return {"answered": found.answered, "suppressed": found.suppressed} if found else None


def _decimal(value: float) -> str:
    """A rate in three digits: `12.3k`, `4.56M`."""
    for unit in ("", "k", "M", "G"):
        if value < 1000:
            return f"{value:.3g}{unit}"
        value /= 1000
    return f"{value:.3g}T"


def _shortened(line: str) -> str:
    columns = output.width()
    if columns is None or len(line) <= max(columns, _LEAST_WIDTH):
        return line
    return line[: max(columns, _LEAST_WIDTH) - 1] + "…"
