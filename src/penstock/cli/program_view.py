"""`penstock program list` and `show`: what is in the kernel, and one program of it in full."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from penstock.cli import output
from penstock.cli.options import json_option, netns_option

if TYPE_CHECKING:
    from penstock.kernel.program_details import Details, SourceLine
    from penstock.pipeline.program_listing import Listed

_STATISTICS_OFF = "not counted: `sysctl -w kernel.bpf_stats_enabled=1` switches it on"
_TITLES = ("ID", "KIND", "NAME", "ATTACHED", "LOADED FROM")


@click.command("list")
@netns_option
@json_option
def list_(as_json: bool) -> None:
    """List the programs in the kernel: where they are, and whose.

    Of each its kind, where it is attached, and who loaded it if penstock did.
    """
    from penstock.kernel.capability import SYS_ADMIN, missing
    from penstock.kernel.object_programs import kind_name
    from penstock.pipeline.program_listing import listing

    found = listing()
    if missing(SYS_ADMIN):
        output.note("these are penstock's own: CAP_SYS_ADMIN is needed to list the others")
    if as_json:
        output.record("penstock.program.list/1", {"programs": [_record(one) for one in found]})
        return
    if not found:
        output.answer("the kernel holds no program")
        return
    rows = [
        (
            str(one.info.id),
            kind_name(one.info.type),
            one.info.name,
            ", ".join(one.places) or "-",
            one.owner or "-",
        )
        for one in found
    ]
    output.table(_TITLES, rows, right=(0,))


@click.command("show")
@click.argument("program", metavar="ID|PATH", type=click.Path())
@click.option("--source/--no-source", default=True, help="With the source lines, where it has them.")
@netns_option
@json_option
def show(program: str, source: bool, as_json: bool) -> None:
    """Show one program: sizes, run time, maps, source lines.

    It is named by its ID, or by the path where it is pinned.
    """
    from penstock.kernel.program_details import are_statistics_on, details, source_lines
    from penstock.pipeline.program_listing import listed
    from penstock.pipeline.program_run import open_loaded

    with open_loaded(program) as opened:
        known, more = listed(opened.id), details(opened)
        lines = source_lines(opened) if source else ()
    if as_json:
        _show_record(known, more, lines, are_statistics_on())
        return
    for name, value in _facts(known, more, are_statistics_on()):
        output.answer(f"{name + ':':<14}{value}")
    shown = _each_line_once(lines)
    if shown:
        output.answer("source:")
    for file, numbered in shown.items():
        output.answer(f"  {file}")
        for number, text in numbered:
            output.answer(f"  {number:>6}  {text}".rstrip())


def _facts(known: Listed, more: Details, counted: bool) -> list[tuple[str, str]]:
    from penstock.kernel.object_programs import kind_name

    info = known.info
    facts = [
        ("program", f"{info.id} {info.name}".rstrip()),
        ("kind", kind_name(info.type)),
        ("tag", info.tag),
        ("loaded", f"{_when(more.loaded_at)} by uid {info.uid}"),
        ("loaded from", known.owner or "unknown: penstock did not load it"),
        ("attached", ", ".join(known.places) or "nowhere"),
        ("xlated", f"{info.xlated_size} bytes, {info.xlated_size // 8} instructions"),
        ("jited", f"{info.jited_size} bytes" if info.jited_size else "not jited"),
        ("verified", f"{info.verified_insns} instructions followed"),
        ("memory", f"{more.memory} bytes" if more.memory is not None else "unknown"),
        ("runs", _runs(known, counted)),
        ("btf", f"id {info.btf_id}" if info.btf_id else "none"),
    ]
    if not more.maps:
        return [*facts, ("maps", "none")]
    maps = [f"{one.name} (id {one.id}, {_map_word(one.type)}, {_sizes(one)})" for one in more.maps]
    return [*facts, *(("maps" if at == 0 else "", text) for at, text in enumerate(maps))]


def _runs(known: Listed, counted: bool) -> str:
    info = known.info
    if not info.run_count:
        return "none counted" if counted else _STATISTICS_OFF
    mean = info.run_time_ns / info.run_count
    still = "" if counted else f"; {_STATISTICS_OFF}"
    return f"{info.run_count}, {info.run_time_ns} ns in all, {mean:.0f} ns each{still}"


def _map_word(kind: int) -> str:
    from penstock.kernel.maps import MapType

    return MapType(kind).name.lower() if kind in set(MapType) else f"type {kind}"


def _sizes(one: object) -> str:
    from penstock.kernel.maps import MapInfo

    assert isinstance(one, MapInfo)
    return f"key {one.key_size}, value {one.value_size} bytes, at most {one.max_entries}"


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _each_line_once(lines: tuple[SourceLine, ...]) -> dict[str, list[tuple[int, str]]]:
    """Lines by file, in the order of the file, without those that clang has no text for."""
    found: dict[str, dict[int, str]] = {}
    for one in lines:
        if one.text:
            found.setdefault(one.file.removeprefix("./"), {})[one.line] = one.text
    return {file: sorted(numbered.items()) for file, numbered in found.items()}


def _record(one: Listed) -> dict[str, object]:
    from penstock.kernel.object_programs import kind_name

    info = one.info
    return {
        "id": info.id,
        "kind": kind_name(info.type),
        "name": info.name,
        "tag": info.tag,
        "attached": list(one.places),
        "loaded_from": one.owner or None,
    }


def _show_record(known: Listed, more: Details, lines: tuple[SourceLine, ...], counted: bool) -> None:
    info = known.info
    content = {
        **_record(known),
        "loaded_at": _when(more.loaded_at),
        "uid": info.uid,
        "xlated_bytes": info.xlated_size,
        "jited_bytes": info.jited_size,
        "verified_instructions": info.verified_insns,
        "memory_bytes": more.memory,
        "statistics_on": counted,
        "run_count": info.run_count,
        "run_time_ns": info.run_time_ns,
        "btf_id": info.btf_id or None,
        "maps": [
            {
                "id": one.id,
                "name": one.name,
                "type": _map_word(one.type),
                "key_bytes": one.key_size,
                "value_bytes": one.value_size,
                "max_entries": one.max_entries,
            }
            for one in more.maps
        ],
        "source": [
            {"file": one.file, "line": one.line, "text": one.text, "instruction": one.instruction}
            for one in lines
        ],
    }
    output.record("penstock.program.show/1", content)
