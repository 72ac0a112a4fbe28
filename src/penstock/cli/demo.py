"""`penstock demo`: see it work, without touching an interface of the host."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING

import click

from penstock.cli import output
from penstock.cli.interruption import Interruption
from penstock.errors import KernelError

if TYPE_CHECKING:
    from rich.console import Group

    from penstock.demo.rehearsal import Rehearsal
    from penstock.demo.scenes import Moment

LONGEST_S = 3600.0
_REMOVED = "everything the demo made is removed"


@click.command("demo")
@click.option(
    "--seconds",
    type=click.FloatRange(2, LONGEST_S),
    default=10.0,
    show_default=True,
    help="How long; the blocklist comes on top.",
)
def command(seconds: float) -> None:
    """Attach a policy between two network namespaces of its own while packets flow, and change it; then block and
    unblock the client by a list of a million addresses.

    Needs root for that; without it the reference engine runs over a capture that the demo generates.
    """
    from penstock.kernel.features import features

    Interruption().let_through()
    found = features()
    if found.missing or not found.bpf_permitted:
        reason = (
            " and ".join(found.missing) + " missing" if found.missing else "this kernel does not permit BPF"
        )
        _rehearse(f"{reason}: no packet can be dropped in the kernel here")
        return
    try:
        _play(seconds)
    except KernelError as error:
        output.fault(error)
        _rehearse("the kernel would not have it")


def _play(seconds: float) -> None:
    from penstock.demo.scenes import scenes

    try:
        with closing(scenes(seconds)) as moments:
            if output.has_cursor() and not output.is_quiet():
                _play_live(moments)
            else:
                _play_lines(moments)
    except KeyboardInterrupt:
        output.note(_REMOVED)
        raise
    output.answer(_REMOVED)


def _play_lines(moments: Iterator[Moment]) -> None:
    """One line for what is done, one for what each second shows."""
    for moment in moments:
        if moment.news:
            output.answer(f"{moment.elapsed_s:4.1f}s  {moment.news}")
        else:
            output.answer(f"{moment.elapsed_s:4.1f}s    {_one_line(moment)}")


def _one_line(moment: Moment) -> str:
    from penstock.demo.traffic import SERVICES

    flows = (f"{SERVICES[port]} {flow.echoed}/{flow.sent}" for port, flow in moment.flows.items())
    dropping = [(name, counted) for name, counted in moment.counters.items() if name in ("dns", "blocked")]
    tail = "".join(
        f"   rule {name}: {found.packets} packets, {found.bytes} bytes" for name, found in dropping
    )
    return f"answered: {', '.join(flows)}{tail}"


def _play_live(moments: Iterator[Moment]) -> None:
    from rich.live import Live

    news: list[str] = []
    with Live(console=output.console(), refresh_per_second=8) as live:
        for moment in moments:
            if moment.news:
                news.append(f"{moment.elapsed_s:4.1f}s  {moment.news}")
            live.update(_picture(moment, news))


def _picture(moment: Moment, news: list[str]) -> Group:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from penstock.demo.traffic import SERVICES

    flows = Table(
        "service", "port", "sent", "answered", title=f"client ── veth ── [XDP] server: {moment.scene}"
    )
    for port, flow in moment.flows.items():
        style = "green" if flow.echoed * 2 > flow.sent or not flow.sent else "red"
        flows.add_row(SERVICES[port], str(port), str(flow.sent), Text(str(flow.echoed), style=style))
    counters = Table("counter", "packets", "bytes", title="in the kernel")
    for name, counted in moment.counters.items():
        if counted.packets or not name.startswith("on "):
            counters.add_row(name, str(counted.packets), str(counted.bytes))
    told = Text("\n".join(news))
    return Group(told, flows, counters) if moment.counters else Group(told, flows)


def _rehearse(reason: str) -> None:
    from penstock.demo.rehearsal import rehearse

    output.answer(f"{reason}.")
    output.answer("So the reference engine runs the same policy over a capture generated for it:")
    done: Rehearsal = rehearse()
    output.table(("RULE", "PACKETS", "BYTES"), done.rows, right=(1, 2))
    output.answer(f"{done.dropped} of {done.packets} packets would have been dropped.")
