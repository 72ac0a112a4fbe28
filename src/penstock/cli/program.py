"""`penstock program build|load|list|show|detach|run`: eBPF programs that the user wrote in C."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click

from penstock.cli import output
from penstock.cli.options import ALL_HOOKS, Group, hook_option, interface_option, json_option, netns_option
from penstock.cli.program_run import run
from penstock.cli.program_view import list_, show
from penstock.errors import PenstockError, ToolchainError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penstock.model.hook import Hook
    from penstock.pipeline.program_object import ProgramObject
    from penstock.pipeline.programs import Loaded


@click.group("program", cls=Group)
def command() -> None:
    """Build, load, run and inspect eBPF programs written in C by hand."""


@command.command("build")
@click.argument("file", type=click.Path())
@click.option(
    "-o", "--output", "target", type=click.Path(), metavar="PATH", help="Where to write the object."
)
@click.option(
    "--vmlinux", is_flag=True, help="Make vmlinux.h of the running kernel's BTF for the file to include."
)
@json_option
def build(file: str, target: str | None, vmlinux: bool, as_json: bool) -> None:
    """Compile a C file, with the headers that it needs in sight.

    clang -O2 -g -target bpf; needs no privilege.  What clang says is shown; headers that the file forgot are named
    and put in front.
    """
    with opened(file, vmlinux=vmlinux) as found:
        path = target or str(Path(file).with_suffix(".o"))
        _write(found.elf, path)
        programs = [{"name": one.name, "section": one.section} for one in found.contents.programs]
        if as_json:
            added = [{"name": one.name, "header": one.header} for one in found.added]
            content = {
                "file": file,
                "object": path,
                "bytes": len(found.elf),
                "programs": programs,
                "added": added,
            }
            output.record("penstock.program.build/1", content)
            return
        listed = ", ".join(f"{one['name']} (section {one['section']})" for one in programs) or "no program"
        output.answer(f"{path}: {len(found.elf)} bytes, {listed}")


@command.command("load")
@click.argument("file", type=click.Path())
@hook_option("Where it runs; as its section says if it does.", ALL_HOOKS)
@interface_option(required=False)
@click.option("--section", metavar="NAME", help="Which program, by its section or its own name.")
@click.option(
    "--set", "settings", multiple=True, metavar="VAR=VALUE", help="A global variable's first value."
)
@click.option(
    "--pin", "pin_at", type=click.Path(), metavar="PATH", help="Pin it and its maps there too, for others."
)
@click.option(
    "--mode",
    type=click.Choice(["auto", "native", "generic", "tcx", "clsact"]),
    default="auto",
    show_default=True,
    help="At XDP native or generic, at TC tcx or clsact; or what the kernel can.",
)
@click.option(
    "--order", metavar="PLACE", help="At TC, among other programs: first, last, before:ID, after:ID."
)
@click.option("--replace", is_flag=True, help="At XDP, take over from a program that is there.")
@click.option(
    "--vmlinux", is_flag=True, help="Make vmlinux.h of the running kernel's BTF for the file to include."
)
@click.option("--log", is_flag=True, help="Show the whole of the verifier's log if it refuses.")
@netns_option
@json_option
def load(
    file: str,
    hook: str | None,
    interface: str | None,
    section: str | None,
    settings: tuple[str, ...],
    pin_at: str | None,
    mode: str,
    order: str | None,
    replace: bool,
    vmlinux: bool,
    log: bool,
    as_json: bool,
) -> None:
    """Load a program and attach it to an interface.

    FILE is C, or an object of anybody's clang.  The program stays until `penstock program detach`, or a reboot.
    Without -i it is loaded and pinned only.
    """
    from penstock.kernel.order import read_order
    from penstock.pipeline.placing import Wish
    from penstock.pipeline.program_object import choose, hook_of
    from penstock.pipeline.programs import load_program

    output.show_logs(log)
    wanted_hook = read_hook(hook)
    with opened(file, vmlinux=vmlinux) as found:
        program = choose(found, wanted_hook, section)
        done = load_program(
            found,
            program,
            wanted_hook or hook_of(program),
            interface=interface,
            wanted=Wish(mode, read_order(order) if order else None, replace),
            values=read_settings(settings),
            pin_at=pin_at,
        )
    _report_load(done, as_json)


@command.command("detach")
@click.argument("number", metavar="[ID]", type=int, required=False)
@interface_option(required=False)
@hook_option("Only what runs there.", ALL_HOOKS)
@netns_option
@json_option
def detach(number: int | None, interface: str | None, hook: str | None, as_json: bool) -> None:
    """Take away what `penstock program load` has loaded.

    One by its ID, or all on an interface.
    """
    from penstock.pipeline.programs import detach_program, programs_on

    if (number is None) == (interface is None):
        raise click.UsageError("name a program by its id, or an interface by -i")
    if number is not None:
        numbers = [number]
    else:
        numbers = [one.program for one in programs_on(str(interface), read_hook(hook))]
        if not numbers:
            hint = "`penstock program list` shows what is attached, and by whom"
            raise PenstockError(f"penstock has loaded no program onto {interface}", hint=hint)
    for one in numbers:
        gone = detach_program(one)
        if as_json:
            content = {"program_id": gone.program, "name": gone.name, "interface": gone.interface or None}
            output.record("penstock.program.detach/1", {**content, "hook": gone.hook or None})
        else:
            where = f"{gone.interface} {gone.hook}" if gone.interface else "attached to nothing"
            output.answer(f"{gone.name}: program {gone.program} is gone ({where})")


command.add_command(list_)
command.add_command(show)
command.add_command(run)


@contextmanager
def opened(file: str, *, vmlinux: bool = False) -> Iterator[ProgramObject]:
    """The object of a file; what clang has said of it is shown, whether it compiles or not."""
    from penstock.compiler.handwritten import DoesNotCompileError
    from penstock.pipeline.program_object import open_program

    with _headers(vmlinux) as folders:
        try:
            found = open_program(file, folders=folders)
        except DoesNotCompileError as error:
            output.said(error.stderr)
            raise ToolchainError(error.message, hint=error.hint) from error
        show_messages(found)
        yield found


def show_messages(found: ProgramObject) -> None:
    """What clang said, and what had to be included for the file to compile."""
    from penstock.compiler.handwritten import include_hint

    output.said(found.messages)
    for warning in found.warnings():
        output.warn(warning)
    if found.added:
        output.warn(f"{found.path}: {include_hint(found.added)}; it was built with that in front")


@contextmanager
def _headers(vmlinux: bool) -> Iterator[tuple[str, ...]]:
    """Folders with headers made for this file."""
    if not vmlinux:
        yield ()
        return
    from penstock.kernel.btf_c import header
    from penstock.kernel.btf_source import kernel_btf

    with TemporaryDirectory(prefix="penstock-") as folder:
        Path(folder, "vmlinux.h").write_text(header(kernel_btf()))
        yield (folder,)


def read_hook(word: str | None) -> Hook | None:
    """The hook of an option's word."""
    from penstock.model.hook import Hook

    return Hook(word) if word else None


def read_settings(settings: tuple[str, ...]) -> dict[str, str]:
    """Variables and values of `--set NAME=VALUE`."""
    found: dict[str, str] = {}
    for text in settings:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise click.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="--set")
        found[name.strip()] = value
    return found


def _report_load(done: Loaded, as_json: bool) -> None:
    one = done.identity
    for notice in done.notices:
        output.warn(notice)
    if as_json:
        content = {
            "file": one.path,
            "program_id": one.program,
            "name": one.name,
            "section": one.section,
            "hook": one.hook or None,
            "interface": one.interface or None,
            "mode": one.mode or None,
            "pins": list(done.pins),
            "notices": list(done.notices),
        }
        output.record("penstock.program.load/1", content)
        return
    mode = f", {one.mode} mode" if one.mode else ""
    where = (
        f"attached to {one.interface} at {one.hook}{mode}" if one.interface else "loaded, attached to nothing"
    )
    output.answer(f"{one.name}: {where}, program {one.program}")
    for path in done.pins:
        output.note(f"pinned at {path}")


def _write(data: bytes, target: str) -> None:
    try:
        Path(target).write_bytes(data)
    except OSError as error:
        raise PenstockError(f"{target} cannot be written: {error.strerror}") from error
