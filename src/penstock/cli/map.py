"""`penstock map list|dump|lookup|update|delete|pin`: maps of any program, with their types."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from penstock.cli import output
from penstock.cli.options import Group, json_option
from penstock.errors import PenstockError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from penstock.observe.typed.notation import Plain
    from penstock.pipeline.map_overview import Overview
    from penstock.pipeline.typed_map import Entry, TypedMap

_FLAGS = {"any": 0, "noexist": 1, "exist": 2}


@click.group("map", cls=Group)
def command() -> None:
    """Look into maps and change them.

    MAP is an id, a name, or a path under which it is pinned.  Keys and values are written as `penstock map dump`
    prints them: 42, 10.0.0.0/8, a constant's name, "text", [1, 2], {packets: 3, from: 10.0.0.1}, or hex:00ff.
    """


def _reading_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--per-cpu", is_flag=True, help="The value of each CPU, not their sum."),
        click.option("--addresses", is_flag=True, help="Show integers of 4 bytes in keys as IPv4 addresses."),
        click.option("--raw", "is_raw", is_flag=True, help="Bytes, whatever the types are."),
        json_option,
    ):
        function = option(function)
    return function


@command.command("list")
@click.option("--count", is_flag=True, help="Count the entries of large maps too.")
@json_option
def list_(count: bool, as_json: bool) -> None:
    """List the maps in the kernel: type, sizes, entries, users.

    Of each its type, sizes, entries in use, memory, the programs that use it and where it is pinned.
    """
    from penstock.pipeline.map_overview import overviews

    found = overviews(count_all=count)
    if as_json:
        for one in found:
            output.record("penstock.map/1", one.record())
        return
    titles = ("ID", "NAME", "TYPE", "KEY", "VALUE", "ENTRIES", "BYTES", "PROGRAMS", "PINNED")
    output.table(titles, [_row(one) for one in found], right=(0, 3, 4, 5, 6))


def _row(one: Overview) -> tuple[str, ...]:
    info = one.info
    used = "" if one.used is None else f"{one.used}/"
    kind = one.kind + (" frozen" if one.is_frozen else "")
    memory = "" if one.memory is None else str(one.memory)
    programs = ", ".join(f"{name} {number}" for number, name in one.programs)
    shown = (str(info.id), info.name, kind, str(info.key_size), str(info.value_size))
    return (*shown, f"{used}{info.max_entries}", memory, programs, " ".join(one.pins))


@command.command("dump")
@click.argument("map_", metavar="MAP", type=click.Path())
@click.option("--nonzero", is_flag=True, help="Leave out entries that are all zero.")
@_reading_options
def dump(map_: str, nonzero: bool, **options: bool) -> None:
    """Print all entries of MAP, those of all CPUs added up."""
    from penstock.kernel.map_entries import WITHOUT_ENTRIES
    from penstock.pipeline.typed_map import kind_name

    with _opened(map_, options) as table:
        if table.table.info.type in WITHOUT_ENTRIES:
            kind = kind_name(table.table.info.type)
            output.note(f"{table.table.name} is a {kind}: it has no entries that could be listed")
            return
        _tell_what_is_shown(table)
        for entry in table.entries():
            if not (nonzero and entry.is_zero):
                _show(table, entry, options)


def _tell_what_is_shown(table: TypedMap) -> None:
    from penstock.kernel.map_entries import WITHOUT_KEYS
    from penstock.pipeline.typed_map import kind_name

    if table.table.info.type in WITHOUT_KEYS:
        output.note(
            f"{table.table.name} is a {kind_name(table.table.info.type)}: only its next value can be seen"
        )


@command.command("lookup", context_settings={"ignore_unknown_options": True})
@click.argument("map_", metavar="MAP", type=click.Path())
@click.argument("key")
@_reading_options
def lookup(map_: str, key: str, **options: bool) -> int:
    """Print the value of KEY in MAP.

    Exits with 1 if there is none.
    """
    with _opened(map_, options) as table:
        entry = table.lookup(key)
        if entry is None:
            raise PenstockError(f"map {table.table.name} has no entry {key}")
        _show(table, entry, options)
    return 0


@command.command("update", context_settings={"ignore_unknown_options": True})
@click.argument("map_", metavar="MAP", type=click.Path())
@click.argument("key")
@click.argument("value", required=False)
@click.option(
    "--flag",
    type=click.Choice(list(_FLAGS)),
    default="any",
    show_default=True,
    help="Whether KEY must exist.",
)
@click.option("--per-cpu", is_flag=True, help="VALUE is a list of the values of all CPUs.")
@json_option
def update(map_: str, key: str, value: str | None, flag: str, per_cpu: bool, as_json: bool) -> None:
    """Set the value of KEY in MAP.

    A queue or stack takes a VALUE alone.  What VALUE does not name of a struct or array stays as it is, or is zero
    in a new entry.  In a map with a value for each CPU, a number is what the sum will be.
    """
    from penstock.kernel.map_entries import WITHOUT_KEYS

    with _opened(map_) as table:
        is_keyless = table.table.info.type in WITHOUT_KEYS
        if is_keyless == (value is not None):
            wants = "takes one VALUE and no KEY" if is_keyless else "takes a KEY and a VALUE"
            raise click.UsageError(f"map {table.table.name} {wants}")
        table.update(
            None if is_keyless else key, key if value is None else value, _FLAGS[flag], per_cpu=per_cpu
        )
        entry = None if is_keyless or per_cpu else table.lookup(key)
        if as_json:
            shown = _record(table, entry) if entry else {"map": table.table.info.id, "name": table.table.name}
            output.record("penstock.map.update/1", shown)
        elif entry:
            output.note(f"{table.table.name}: {_line(table, entry)}")


@command.command("delete", context_settings={"ignore_unknown_options": True})
@click.argument("map_", metavar="MAP", type=click.Path())
@click.argument("key", required=False)
@json_option
def delete(map_: str, key: str | None, as_json: bool) -> None:
    """Remove KEY from MAP.

    From a queue or stack, without a KEY, the next value, which is printed.
    """
    from penstock.kernel.map_entries import WITHOUT_KEYS

    with _opened(map_) as table:
        if (table.table.info.type in WITHOUT_KEYS) == (key is not None):
            wants = "a KEY" if key is None else "no KEY"
            raise click.UsageError(f"map {table.table.name} takes {wants}")
        content: dict[str, object] = {"map": table.table.info.id, "name": table.table.name}
        if key is None:
            content["value"] = _popped(table, as_json=as_json)
        elif table.delete(key):
            content["key"] = key
        else:
            raise PenstockError(f"map {table.table.name} has no entry {key}")
        if as_json:
            output.record("penstock.map.delete/1", content)


def _popped(table: TypedMap, *, as_json: bool) -> Plain:
    from penstock.observe.typed.notation import render

    found = table.pop()
    if found is None:
        raise PenstockError(f"map {table.table.name} is empty")
    if not as_json:
        output.answer(render(found))
    return found


@command.command("pin")
@click.argument("map_", metavar="MAP", type=click.Path())
@click.argument("path")
@json_option
def pin(map_: str, path: str, as_json: bool) -> None:
    """Keep MAP under a PATH when its program has gone.

    PATH is in a BPF file system; `rm PATH` takes the name away.
    """
    with _opened(map_) as table:
        table.pin(path)
        if as_json:
            content = {"map": table.table.info.id, "name": table.table.name, "path": path}
            output.record("penstock.map.pin/1", content)


def _opened(wanted: str, options: dict[str, bool] | None = None) -> TypedMap:
    from penstock.pipeline.map_names import map_called
    from penstock.pipeline.typed_map import TypedMap

    chosen = options or {}
    return TypedMap(
        map_called(wanted), addresses=chosen.get("addresses", False), is_raw=chosen.get("is_raw", False)
    )


def _show(table: TypedMap, entry: Entry, options: dict[str, bool]) -> None:
    if options["as_json"]:
        output.record("penstock.map.entry/1", _record(table, entry, per_cpu=options["per_cpu"]))
    elif options["per_cpu"] and len(entry.values) > 1:
        for cpu in range(len(entry.values)):
            output.answer(f"{_line(table, entry, cpu)}")
    else:
        output.answer(_line(table, entry))


def _line(table: TypedMap, entry: Entry, cpu: int | None = None) -> str:
    from penstock.observe.typed.notation import render

    key = "" if entry.key is None else render(entry.key)
    if not entry.values:
        return f"{key} = (the kernel does not hand it out)"
    value = table.combined(entry) if cpu is None else entry.values[cpu]
    where = "" if cpu is None else f" cpu {cpu}"
    return f"{key}{where} = {render(value)}" if key else render(value)


def _record(table: TypedMap, entry: Entry, *, per_cpu: bool = False) -> dict[str, object]:
    content: dict[str, object] = {"map": table.table.info.id, "name": table.table.name, "key": entry.key}
    if per_cpu and len(entry.values) > 1:
        return {**content, "values": list(entry.values)}
    return {**content, "value": table.combined(entry) if entry.values else None}
