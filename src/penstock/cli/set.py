"""`penstock set add|remove|import|update|replace|export|list|info|test|flush|sweep|delete`: the content of sets."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from penstock.cli import output, set_reading, set_view
from penstock.cli.options import STAY, Hinting, json_option
from penstock.cli.plain import contradiction
from penstock.cli.set_asking import FAR, answered, content, tell, tell_whether
from penstock.cli.whole_file import write_whole
from penstock.errors import LimitError, PenstockError, PrivilegeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from penstock.pipeline.live_set import LiveSet
    from penstock.pipeline.set_commands import Changed, SetCommands


_PARTLY = 8


class _Change(click.Command):
    """A command that the daemon does if one answers, and also if this process may not (`set_asking`)."""

    def invoke(self, ctx: click.Context) -> Any:
        assert self.name is not None
        if (words := contradiction(ctx.params)) is not None:
            raise click.UsageError(words, ctx)
        if (code := answered(self.name, ctx.params)) is not None:
            return code
        try:
            return super().invoke(ctx)
        except PrivilegeError:
            if (code := answered(self.name, ctx.params, however_far=True)) is None:
                raise
            return code


_TAKES_BACK = "`penstock set remove NAME ENTRY…` takes entries back, `penstock set delete NAME` the whole set"
_MEANT = {
    **dict.fromkeys(("del", "rm", "erase", "drop", "unset"), _TAKES_BACK),
    **dict.fromkeys(("show", "entries", "ls"), "`penstock set list [NAME]`"),
    **dict.fromkeys(
        ("load", "restore"),
        "`penstock set import NAME FILE` adds, `penstock set replace NAME FILE` exchanges",
    ),
    **dict.fromkeys(("clear", "empty"), "`penstock set flush NAME`"),
    **dict.fromkeys(("save", "dump"), "`penstock set export NAME [FILE]`"),
    **dict.fromkeys(("create", "new", "make"), "`penstock apply` makes the sets that a policy defines"),
    **dict.fromkeys(("destroy", "kill"), "`penstock set delete NAME`"),
}


@click.group("set", cls=Hinting, meant=_MEANT)
def command() -> None:
    """Change and show the sets that policies ask by `in @NAME`.

    A set is made when a policy that defines it is applied; all policies share it, and it outlives them.  Every
    change is whole: packets meet what was there or all that is new, and so does a set whose command was killed.
    """


def _timed(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--forever", is_flag=True, help="Whatever timeout the policy gives them."),
        click.option(
            "--timeout",
            "--ttl",
            "timeout",
            type=STAY,
            metavar="TIME",
            help="Forget them then: 30s, 10m, 2h, 7d.",
        ),
        click.option("--comment", metavar="TEXT", help="Why; `penstock why` shows it."),
        json_option,
    ):
        function = option(function)
    return function


def _complete(_context: click.Context, _parameter: click.Parameter, start: str) -> list[str]:
    from penstock.pipeline.set_store import names

    try:
        return [name for name in names() if name.startswith(start)]
    except PenstockError:
        return []


_name = click.argument("name", shell_complete=_complete)
_FILE = click.Path(allow_dash=True)


@command.command("add", cls=_Change, short_help="Add entries to NAME: addresses, networks, ports, keys.")
@_name
@click.argument("entries", nargs=-1, required=True, metavar="ENTRY…")
@_timed
def add(
    name: str,
    entries: tuple[str, ...],
    timeout: float | None,
    forever: bool,
    comment: str | None,
    as_json: bool,
) -> None:
    """Add entries to NAME: addresses, networks, ports, MAC addresses, or keys such as 'A . tcp . 22'.

    An entry that is there already stays longer if need be, never shorter.
    """
    with _commands() as commands:
        changed = commands.add(name, entries, by=_who(), timeout=timeout, forever=forever, comment=comment)
    _report(name, changed, as_json)


@command.command("remove", cls=_Change)
@_name
@click.argument("entries", nargs=-1, required=True, metavar="ENTRY…")
@json_option
def remove(name: str, entries: tuple[str, ...], as_json: bool) -> None:
    """Remove entries from NAME, written as they were added; those that are not there are passed over.

    What a feed lists too stays, and is named.
    """
    with _commands() as commands:
        _report(name, commands.remove(name, entries, by=_who()), as_json)


@command.command("import", cls=_Change)
@_name
@click.argument("file", type=_FILE)
@_timed
def import_(
    name: str, file: str, timeout: float | None, forever: bool, comment: str | None, as_json: bool
) -> None:
    """Add the entries in FILE, one a line; `-` is standard input.

    `#` and `;` begin comments, and a line may end with `timeout TIME`.
    """
    times = {"timeout": timeout, "forever": forever, "comment": comment}
    _write(name, file, times, as_json, whole=False)


@command.command("update", cls=_Change)
@_name
@click.option(
    "--add", "come", type=_FILE, metavar="FILE", help="Entries to add, one a line; `-` is standard input."
)
@click.option("--remove", "gone", type=_FILE, metavar="FILE", help="Entries to remove, one a line.")
@_timed
def update(
    name: str,
    come: str | None,
    gone: str | None,
    timeout: float | None,
    forever: bool,
    comment: str | None,
    as_json: bool,
) -> None:
    """Add the entries in one FILE to NAME and remove those in another, in one step.

    As `import` and `remove` do; what both files have is added.  Only these entries are looked at, so a few
    thousand changes of a million entries take a moment.
    """
    texts = [b"" if file is None else content(file) for file in (come, gone)]
    with _commands() as commands:
        done = commands.update(
            name,
            *texts,
            by=_who(),
            timeout=timeout,
            forever=forever,
            comment=comment,
            files=(come, gone),
        )
    _report(name, done, as_json)


@command.command("replace", cls=_Change)
@_name
@click.argument("file", type=_FILE)
@_timed
def replace(
    name: str, file: str, timeout: float | None, forever: bool, comment: str | None, as_json: bool
) -> None:
    """Make the entries in FILE the only ones of NAME, in one step; only what differs is written.

    What feeds list stays.
    """
    times = {"timeout": timeout, "forever": forever, "comment": comment}
    _write(name, file, times, as_json, whole=True)


@command.command("flush", cls=_Change)
@_name
@json_option
def flush(name: str, as_json: bool) -> None:
    """Remove every entry of NAME that no feed lists, in one step."""
    with _commands() as commands:
        _report(name, commands.flush(name, by=_who()), as_json)


@command.command("sweep", cls=_Change)
@_name
@json_option
def sweep(name: str, as_json: bool) -> None:
    """Give back the memory of entries of NAME that have expired; no packet meets them anyway."""
    from penstock.pipeline.set_commands import swept

    with _opened(name) as found:
        _report(name, swept(found), as_json)


@command.command("export")
@_name
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True), default="-")
def export(name: str, file: Path) -> None:
    """Write the entries of NAME to FILE, or to standard output, as `import` and `replace` read them."""
    lines = set_view.exported(set_reading.entries(name, whole=True))
    if str(file) == "-":
        for block in lines:
            output.text(block + "\n")
        return
    try:
        write_whole(file, (f"{block}\n" for block in lines))
    except OSError as error:
        raise PenstockError(f"write {file}: {error.strerror}") from error


@command.command("list")
@click.argument("name", required=False, shell_complete=_complete)
@json_option
def list_(name: str | None, as_json: bool) -> int:
    """List all sets, or the entries of NAME.

    Exit code 8 if some set cannot be opened.
    """
    if name is not None:
        _list_entries(set_view.in_order(set_reading.entries(name)), as_json)
        return 0
    records, faults = set_reading.records()
    if as_json:
        for content in records:
            output.record("penstock.set/1", content)
    elif records:
        output.table(set_view.TITLES, list(map(set_view.row, records)), right=set_view.RIGHT)
    elif not faults:
        output.note("there are no sets: `penstock apply` makes those that a policy defines")
    for error in faults:
        output.fault(error)
    return _PARTLY if faults else 0


def _list_entries(entries: Iterator[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        for content in entries:
            output.record("penstock.set.entry/1", content)
        return
    for block in set_view.listed(entries):
        output.answer(block)


@command.command("info")
@_name
@json_option
def info(name: str, as_json: bool) -> None:
    """Say what NAME is of, how full it is, and which programs ask it."""
    content = set_reading.record(name)
    if as_json:
        output.record("penstock.set/1", content)
        return
    for line in set_view.told(content):
        output.answer(line)


@command.command("test", cls=_Change)
@_name
@click.argument("entries", nargs=-1, required=True, metavar="ENTRY…")
@json_option
def test(name: str, entries: tuple[str, ...], as_json: bool) -> int:
    """Say whether a packet would find these entries in NAME; ends with 1 if one of them is not there.

    An address is in a set of networks if one of them covers it.  `penstock why` tells who put it there.
    """
    from penstock.pipeline.set_commands import holds

    with _opened(name) as found:
        there = [holds(found, entry) for entry in entries]
        return tell_whether(found.spec.name, dict(zip(entries, there, strict=True)), as_json=as_json)


@command.command("delete")
@_name
@click.argument("entries", nargs=-1, metavar="")
@click.option("--force", is_flag=True, help="Although a program uses it; that program keeps what it has.")
@json_option
def delete_(name: str, entries: tuple[str, ...], force: bool, as_json: bool) -> None:
    """Take NAME away with all its entries."""
    from penstock.pipeline.set_store import delete

    if entries:
        hint = f"`penstock set remove {name} {' '.join(entries)}` takes entries back"
        raise PenstockError("`set delete` takes a whole set away, and no entries", hint=hint)
    users = delete(name, force=force)
    if as_json:
        output.record("penstock.set.delete/1", {"set": name.removeprefix("@")})
        return
    output.note(f"@{name.removeprefix('@')}: taken away with all its entries")
    for user in users:
        output.warn(
            f"{user} goes on with what it held: no change reaches that before its policy is applied again"
        )


# ── how ──────────────────────────────────────────────────────────────────────


def _write(name: str, file: str, times: dict[str, Any], as_json: bool, *, whole: bool) -> None:
    """Add what is in a file, or make it the whole."""
    text = content(file)
    with _commands() as commands:
        change = commands.replace if whole else commands.add
        done = change(name, text, by=_who(), file=file, **times)
    _report(name, done, as_json)


def _opened(name: str) -> LiveSet:
    from penstock.pipeline.set_store import open_set

    found = open_set(name)
    found.progress = _progress
    return found


@contextmanager
def _commands() -> Iterator[SetCommands]:
    """What changes sets; that one was full is counted (`penstock status`)."""
    from penstock.pipeline.set_commands import SetCommands

    with SetCommands(_progress) as commands:
        try:
            yield commands
        except LimitError:
            from penstock.daemon.state import Counts, count

            with suppress(PenstockError):
                count(Counts(set_full=1))
            raise


def _who() -> str:
    from penstock.pipeline.set_commands import who

    return who()


def _progress(done: int, total: int) -> None:
    if total < FAR:
        return
    filled = 30 * done // total
    bar = f"[{'#' * filled}{'.' * (30 - filled)}] {done:,} of {total:,} entries" if done < total else ""
    output.progress(bar)


def _report(name: str, done: Changed, as_json: bool) -> None:
    counts = {"added": done.added, "changed": done.changed, "removed": done.removed, "entries": done.entries}
    kept = [{"entry": one.entry, "feeds": one.feeds} for one in done.kept]
    told = {"set": name.removeprefix("@"), **counts, "kept": kept, "kept_count": done.kept_count}
    tell(told, as_json=as_json)
