"""`penstock`: the group of commands.

A command is a module that is imported when it is called, so that `--help` and
completion stay quick.  What becomes of failures is in `edge`.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, NoReturn

import click

from penstock.cli import edge, output
from penstock.cli.options import complete_netns, enter_netns
from penstock.errors import PenstockError

if TYPE_CHECKING:
    from collections.abc import Sequence

#: command -> (module, one line of help), in the order of `--help`.  The line is repeated here
#: so that listing the commands imports none of them.
COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("demo", "See it work: namespaces, traffic and a policy of its own."),
    "check": ("check", "Check policies; needs no privilege."),
    "format": ("format", "Write policies in their canonical form."),
    "explain": ("explain", "Say which rule decides a packet, and why no rule before it did."),
    "test": ("test", "Run a policy's test blocks, or try it on a capture."),
    "coverage": ("coverage", "Say which rules and terms of a policy some traffic exercised."),
    "diff": ("diff", "Say for which packets two policies decide differently."),
    "match": ("match", "Count the packets of captures that an expression matches."),
    "build": ("build", "Compile a policy to an object file, or show a stage on the way."),
    "apply": ("apply", "Put a policy in place on an interface."),
    "confirm": ("confirm", "Let a policy on probation stay, or take it back."),
    "rollback": ("rollback", "Put an earlier policy of an interface in place again."),
    "history": ("history", "Show which policies were put on an interface, by whom and when."),
    "status": ("status", "Show what is in place: rules, counters, rates."),
    "rule": ("rule", "Add rules to a running policy, take them away, list them."),
    "daemon": ("daemon", "Keep policies in place as the settings say; reload and ask the daemon."),
    "set": ("set", "Change and show the sets that policies ask."),
    "why": ("why", "Say why an address is in a set, and what becomes of its packets."),
    "detach": ("detach", "Take the policy off an interface."),
    "drop": ("drop", "Drop what an expression matches, for a time."),
    "try": ("attempt", "Count what an expression would drop, for a time."),
    "undrop": ("undrop", "Take emergency rules back before their time."),
    "feed": ("feed", "Look at threat feeds, and fill sets from them."),
    "program": ("program", "Build, load, run and inspect eBPF programs written in C."),
    "map": ("map", "Look into the maps of any program, and change them."),
    "btf": ("btf", "Show types: of the kernel (vmlinux.h), of objects, of files."),
    "probe": ("probe", "Say what this kernel can do, each thing tried."),
    "doctor": ("doctor", "Say what on this machine or interface is in the way, and what mends it."),
    "bench": ("bench", "Measure what a policy costs a packet."),
    "completion": ("completion", "Print the completion script of a shell."),
    "version": ("version", "Print the version."),
}
#: Words that other tools have for it.
_MEANT = {
    "attach": ("apply",),
    "unload": ("detach",),
    "show": ("status",),
    "list": ("status",),
    "load": ("program load",),
    "run": ("program run",),
    "prog": ("program",),
    "dump": ("map dump",),
    "lint": ("check",),
}
HIDDEN: dict[str, tuple[str, str]] = {
    "_expire": ("expiry", "Remove emergency rules whose time is over."),
    "_fetch": ("fetcher", "Fetch feeds for the daemon."),
    "_revert": ("reverter", "Take a policy back that nobody has confirmed."),
}


# numpy's linear algebra, which nothing here uses, would start a thread for each processor (OpenBLAS).
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


class LateGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module, _ = {**COMMANDS, **HIDDEN}.get(cmd_name, ("", ""))
        if not module:
            return None
        command: click.Command = import_module(f"penstock.cli.{module}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = [*_MEANT.get(args[0], ()), *get_close_matches(args[0], COMMANDS, n=1, cutoff=0.6)][:1]
            hint = f"did you mean `penstock {near[0]}`?" if near else "`penstock --help` lists the commands"
            raise PenstockError(f"there is no command `{args[0]}`", hint=hint)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


def _quiet(_context: click.Context, _option: click.Parameter, value: bool) -> None:
    if value:
        output.be_quiet()


def _version(context: click.Context, _option: click.Parameter, value: bool) -> None:
    if value:
        from penstock import __version__

        output.answer(f"penstock {__version__}")
        context.exit()


@click.group(cls=LateGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--netns",
    metavar="NAME",
    callback=enter_netns,
    expose_value=False,
    shell_complete=complete_netns,
    help="Work in this network namespace.",
)
@click.option(
    "-q", "--quiet", is_flag=True, callback=_quiet, expose_value=False, help="No notices, no progress."
)
@click.option(
    "--version", is_flag=True, is_eager=True, callback=_version, expose_value=False, help="Print the version."
)
def commands() -> None:
    """Packet rules in tcpdump's language, run by the Linux kernel at XDP, at TC and on sockets;
    and eBPF programs of your own.

    Exit codes: 0 fine, 1 policy or usage, 2 toolchain, 3 kernel, 4 permission, 5 daemon unreachable, 7 taken back,
    8 partly done, 130 interrupted.

    Those of `diff` are diff(1)'s: 0 no difference, 1 a difference, 2 anything wrong.
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit with its code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    edge.end(lambda: run(words))


def run(arguments: list[str]) -> int:
    """Run one command; gives its exit code.  What fails otherwise than by how it was called is raised."""
    try:
        result = _dispatch(arguments or ["--help"])
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        output.answer(error.format_message())
        return 0
    except click.ClickException as error:
        return _usage(error)
    except click.Abort:
        return 130
    return result if isinstance(result, int) else 0


def _dispatch(arguments: list[str]) -> object:
    if "_PENSTOCK_COMPLETE" in os.environ:
        return commands.main(arguments, prog_name="penstock", standalone_mode=False)
    # Not `commands.main`: that takes a broken pipe for an error of its own.
    with commands.make_context("penstock", arguments) as context:
        return commands.invoke(context)


def _usage(error: click.ClickException) -> int:
    context = error.ctx if isinstance(error, click.UsageError) else None
    hint = f"`{context.command_path} --help` shows how it is called" if context else None
    output.fault(PenstockError(error.format_message().rstrip("."), hint=hint))
    return 1
