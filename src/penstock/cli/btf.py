"""`penstock btf dump|list`: type information of the kernel, of loaded objects and of files."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

import click

from penstock.cli import output
from penstock.cli.options import Group, json_option
from penstock.errors import BtfError, KernelError, PenstockError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from penstock.kernel.btf import Btf

_KEYWORDS = ("struct", "union", "enum", "typedef")


@click.group("btf", cls=Group)
def command() -> None:
    """Show type information (BTF): of the running kernel, of loaded objects, of object files."""


@command.command("dump")
@click.argument("source", default="vmlinux", type=click.Path())
@click.option(
    "--format",
    "form",
    type=click.Choice(["c", "text", "json"]),
    default="c",
    show_default=True,
    help="A C header, a text, or JSON.",
)
@click.option(
    "--type", "names", metavar="NAME", multiple=True, help="Only this type; with C, also what it needs."
)
@click.option("--json", "form", flag_value="json", help="The same as --format json.")
def dump(source: str, form: str, names: tuple[str, ...]) -> None:
    """Print the types of SOURCE.

    SOURCE is vmlinux (the running kernel, the default), a kernel module, the id of a BTF, an object file,
    or the path under which a map or program is pinned.

    \b
    penstock btf dump > vmlinux.h
    penstock btf dump --type 'struct sk_buff' --format text
    penstock btf dump filter.o
    """
    found = _btf(source)
    chosen = [number for name in names for number in _called(found, name)] if names else None
    if form == "c":
        from penstock.kernel.btf_c import chunks

        for piece in chunks(found, chosen):
            output.text(piece)
        return
    _show_each(found, found.own if chosen is None else chosen, as_json=form == "json")


def _show_each(found: Btf, numbers: Iterable[int], *, as_json: bool) -> None:
    from penstock.kernel.btf_text import lines, record

    for number in numbers:
        if as_json:
            output.record("penstock.btf.type/1", record(found, number))
        else:
            output.answer("\n".join(lines(found, number)))


@command.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List what BTF the kernel holds.

    Its own, its modules', and that of loaded objects.
    """
    from penstock.kernel.btf_source import btf_infos

    found = list(btf_infos())
    if as_json:
        for one in found:
            content = {"id": one.id, "name": one.name, "size": one.size, "kernel": one.is_kernel}
            output.record("penstock.btf/1", content)
        return
    rows = [(str(one.id), str(one.size), one.name or "(a loaded object's)") for one in found]
    output.table(("ID", "BYTES", "NAME"), rows, right=(0, 1))


def _btf(source: str) -> Btf:
    from penstock.kernel.btf_source import btf_by_id, is_kernel_btf, kernel_btf

    if source == "vmlinux" or is_kernel_btf(source):
        return kernel_btf(source)
    if source.isascii() and source.isdigit():
        return btf_by_id(int(source) & 0xFFFFFFFF)
    if not Path(source).exists():
        hint = "vmlinux, a kernel module, the id of a BTF (`penstock btf list`), an object file or a pin"
        raise PenstockError(f"there is no {source}", hint=hint)
    return _btf_of_pin(source) if _is_pin(source) else _btf_of_file(source)


def _is_pin(path: str) -> bool:
    from penstock.kernel.libc import BPF_FS_MAGIC, filesystem_magic

    return filesystem_magic(path) == BPF_FS_MAGIC


def _btf_of_pin(path: str) -> Btf:
    from penstock.kernel.btf_source import btf_by_id
    from penstock.kernel.maps import Map
    from penstock.kernel.program import Program

    try:
        with Map.open(path) as held:
            number = held.info.btf_id
    except KernelError:
        with Program.open(path) as program:
            number = program.info.btf_id
    if not number:
        raise BtfError(f"{path}: it was loaded without BTF", hint="compile with -g")
    return btf_by_id(number)


def _btf_of_file(path: str) -> Btf:
    from penstock.kernel.btf import Btf
    from penstock.kernel.btf_source import btf_of_object

    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise PenstockError(f"read {path}: {error.strerror}") from error
    is_bare = data[:2] in {b"\x9f\xeb", b"\xeb\x9f"}
    return Btf(data, source=path) if is_bare else btf_of_object(data, source=path)


def _called(found: Btf, wanted: str) -> list[int]:
    """The types of a name; `struct name` asks for those of that kind."""
    keyword, _, name = wanted.rpartition(" ")
    numbers = found.find_all(name)
    if keyword in _KEYWORDS:
        numbers = [number for number in numbers if found.kind(number).name.lower().startswith(keyword)]
    if not numbers:
        names = (
            {found.name(number) for number in range(1, len(found))}
            if len(found) < 20_000
            else set(found.names())
        )
        near = get_close_matches(name, [one for one in names if one[:1] == name[:1]], n=1)
        raise PenstockError(
            f"there is no type `{wanted}`", hint=f"did you mean `{near[0]}`?" if near else None
        )
    return numbers
