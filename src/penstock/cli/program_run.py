"""`penstock program run`: what a program answers to packets, tried in the kernel without an interface."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from penstock.cli import output
from penstock.cli.options import json_option
from penstock.errors import PenstockError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from penstock.kernel.program import Program
    from penstock.pipeline.program_run import Answer

_SHOWN = 24


@click.command("run")
@click.argument("program", metavar="ID|PATH|FILE", type=click.Path())
@click.option("--packet", multiple=True, metavar="PACKET", help="In penstock's notation, or in hexadecimal.")
@click.option("--pcap", type=click.Path(), metavar="CAPTURE", help="Every packet of a capture.")
@click.option(
    "--repeat", type=click.IntRange(1, 1_000_000), default=1, show_default=True, help="Runs of each."
)
@click.option("--section", metavar="NAME", help="Which program of a file, by its section or its own name.")
@click.option(
    "--set", "settings", multiple=True, metavar="VAR=VALUE", help="A global variable's first value."
)
@click.option(
    "--vmlinux", is_flag=True, help="Make vmlinux.h of the running kernel's BTF for the file to include."
)
@click.option("--log", is_flag=True, help="Show the whole of the verifier's log if it refuses.")
@json_option
def run(
    program: str,
    packet: tuple[str, ...],
    pcap: str | None,
    repeat: int,
    section: str | None,
    settings: tuple[str, ...],
    vmlinux: bool,
    log: bool,
    as_json: bool,
) -> None:
    """Hand packets to a program and show its answers.

    The program is a loaded one, by its ID or pin, or one in a file, C or an object.  Nothing is attached and nothing
    is sent.  Durations are means of --repeat runs.
    """
    if not packet and not pcap:
        raise click.UsageError("give it a packet: --packet 'IPv4/UDP(dport=53)', or --pcap FILE")
    output.show_logs(log)
    with ExitStack() as held:
        opened = _opened(program, section, settings, vmlinux, held)
        if pcap:
            _run_capture(opened, pcap, repeat, as_json)
        for text in packet:
            _run_packet(opened, text, repeat, as_json)


def _opened(
    program: str, section: str | None, settings: tuple[str, ...], vmlinux: bool, held: ExitStack
) -> Program:
    from penstock.cli.program import opened, read_settings
    from penstock.pipeline.program_object import choose, hook_of, load
    from penstock.pipeline.program_run import is_loaded, open_loaded

    if is_loaded(program):
        if section or settings or vmlinux:
            raise click.UsageError(
                "--section, --set and --vmlinux are for a program in a file, not one that is loaded"
            )
        return held.enter_context(open_loaded(program))
    found = held.enter_context(opened(program, vmlinux=vmlinux))
    chosen = choose(found, None, section)
    loaded = held.enter_context(load(found, chosen, hook_of(chosen), read_settings(settings), pinned=False))
    return loaded.programs[chosen.name]


def _run_packet(program: Program, text: str, repeat: int, as_json: bool) -> None:
    from penstock.model.packet import read_packet
    from penstock.pipeline.program_run import try_packet

    frame = read_packet(text)
    got = try_packet(program, frame, repeat)
    if as_json:
        changes = [
            {"offset": one.offset, "before": one.before.hex(), "after": one.after.hex()}
            for one in got.changes
        ]
        content = {
            "program": program.name,
            "packet": frame.hex(),
            "value": got.value,
            "name": got.name,
            "duration_ns": got.duration_ns,
            "repeat": repeat,
            "changes": changes,
        }
        output.record("penstock.program.run/1", {**content, "packet_out": got.frame.hex()})
        return
    output.answer(f"{got.name}, {got.duration_ns} ns" + (f" (mean of {repeat})" if repeat > 1 else ""))
    for line in _change_lines(got):
        output.answer(f"  {line}")


def _change_lines(got: Answer) -> Iterator[str]:
    if got.grown:
        yield f"the packet is {abs(got.grown)} bytes {'longer' if got.grown > 0 else 'shorter'}"
    for one in got.changes:
        yield f"bytes from {one.offset}: {_hex(one.before)} -> {_hex(one.after)}"


def _hex(data: bytes) -> str:
    shown = data[:_SHOWN].hex(" ")
    return (shown + (" …" if len(data) > _SHOWN else "")) or "nothing"


def _run_capture(program: Program, path: str, repeat: int, as_json: bool) -> None:
    from penstock.observe.capture import ethernet_frames
    from penstock.pipeline.program_run import try_packet

    warnings: list[str] = []
    frames = (frame.data for frame in ethernet_frames(path, warnings))
    answers: dict[str, tuple[int, int]] = {}
    total = 0
    for got in (try_packet(program, frame, repeat) for frame in frames):
        count, spent = answers.get(got.name, (0, 0))
        answers[got.name] = count + 1, spent + got.duration_ns
        total += 1
    for warning in warnings:
        output.warn(warning)
    if not total:
        raise PenstockError(f"{path} has no packet")
    _report_capture(program, path, total, answers.items(), as_json)


def _report_capture(
    program: Program,
    path: str,
    total: int,
    answers: Iterable[tuple[str, tuple[int, int]]],
    as_json: bool,
) -> None:
    found = sorted(answers, key=lambda one: -one[1][0])
    if as_json:
        rows = [
            {"name": name, "packets": count, "mean_ns": round(spent / count)}
            for name, (count, spent) in found
        ]
        content = {"program": program.name, "capture": path, "packets": total, "answers": rows}
        output.record("penstock.program.run.capture/1", content)
        return
    table = [(name, str(count), str(round(spent / count))) for name, (count, spent) in found]
    output.table(("ANSWER", "PACKETS", "NS"), table, right=(1, 2))
