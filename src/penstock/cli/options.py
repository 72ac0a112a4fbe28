"""Options that several commands share, and values that are written with a unit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from penstock.cli.duration import LONGEST_S, LONGEST_STAY_S, STAY_WORDS, seconds_of
from penstock.errors import PenstockError

F = TypeVar("F", bound=Callable[..., object])

_NETNS = "penstock.netns"
#: More than the first sentence of any help.
_SENTENCE = 400


class Duration(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """`30s`, `10m`, `2h`, `1.5h`, `1d`; a bare number is seconds.  Gives seconds as a float."""

    name = "time"

    def __init__(self, longest_s: float = LONGEST_S, words: str = "a year") -> None:
        self._longest_s, self._words = longest_s, words

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        try:
            return seconds_of(str(value), self._longest_s, self._words)
        except ValueError as error:
            self.fail(str(error), param, ctx)


DURATION = Duration()
#: How long an entry of a set stays.
STAY = Duration(LONGEST_STAY_S, STAY_WORDS)


def _interfaces(_context: click.Context, _parameter: click.Parameter, start: str) -> list[str]:
    """For completion: asked of the network namespace, as /sys may be another's."""
    import socket

    return [name for _, name in socket.if_nameindex() if name.startswith(start)]


def complete_netns(_context: click.Context, _parameter: click.Parameter, start: str) -> list[str]:
    """For completion: the network namespaces that have names."""
    from glob import escape

    named = Path("/run/netns")
    return sorted(entry.name for entry in named.glob(f"{escape(start)}*")) if named.is_dir() else []


def enter_netns(context: click.Context, _option: click.Parameter, name: str | None) -> None:
    """Enter the network namespace that an option names."""
    if name:
        from penstock.kernel import netns

        netns.enter(name)
        context.meta[_NETNS] = name


def netns_words() -> str:
    """What a command to be typed next needs to mean the same network namespace: ` --netns blue`, or nothing."""
    name = click.get_current_context().meta.get(_NETNS)
    return f" --netns {name}" if name else ""


def netns_option(function: F) -> F:
    """`--netns NAME`: the command works in that network namespace."""
    option = click.option(
        "--netns",
        metavar="NAME",
        callback=enter_netns,
        expose_value=False,
        is_eager=True,
        shell_complete=complete_netns,
        help="In this network namespace.",
    )
    return option(function)


def interface_option(*, required: bool = True) -> Callable[[F], F]:
    """`-i, --interface IF`."""
    return click.option(
        "-i",
        "--interface",
        metavar="IF",
        required=required,
        shell_complete=_interfaces,
        help="The interface.",
    )


def json_option(function: F) -> F:
    """`--json`."""
    return click.option("--json", "as_json", is_flag=True, help="JSON, one record a line.")(function)


def mode_option(function: F) -> F:
    """`--mode native|generic|tcx|clsact|auto`."""
    choice = click.Choice(["auto", "native", "generic", "tcx", "clsact"])
    text = (
        "At XDP: native in the driver, generic in the stack; at TC: by a tcx link, or a filter on clsact; "
        "auto: the first that can be."
    )
    return click.option("--mode", type=choice, default="auto", show_default=True, help=text)(function)


class Group(click.Group):
    """A group whose help has the whole first sentence of each command."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        commands = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, one.get_short_help_str(_SENTENCE)) for name, one in commands if one is not None]
            )


class Hinting(Group):
    """A group that knows what is meant by commands which it does not have."""

    def __init__(self, *arguments: Any, meant: Mapping[str, str], **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._meant = meant

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Raises PenstockError: there is no such command, and it is known what is meant."""
        if args and args[0] in self._meant and self.get_command(ctx, args[0]) is None:
            raise PenstockError(
                f"there is no command `{ctx.command_path} {args[0]}`", hint=self._meant[args[0]]
            )
        return super().resolve_command(ctx, args)


class HookWord(click.Choice):  # type: ignore[type-arg,unused-ignore]
    """A hook as every command takes it, `tc-ingress` or `tc ingress`; gives the word as policies spell it."""

    def __init__(self, words: Sequence[str]) -> None:
        super().__init__(words, case_sensitive=False)

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        word: str = super().convert(str(value).strip().replace(" ", "-"), param, ctx)
        return word.replace("-", " ")


#: The hooks of an interface, and those and a socket's.
INTERFACE_HOOKS = HookWord(("xdp", "tc-ingress", "tc-egress"))
ALL_HOOKS = HookWord((*INTERFACE_HOOKS.choices, "socket"))


def hook_option(text: str, hooks: HookWord = INTERFACE_HOOKS) -> Callable[[F], F]:
    """`--hook xdp|tc-ingress|tc-egress`; gives the hook as policies spell it (`tc ingress`)."""
    return click.option("--hook", type=hooks, help=text)


def hook_words(hook: str) -> str:
    """What a command to be typed next needs to mean the same hook: ` --hook tc-egress`, or nothing for XDP."""
    return "" if hook == "xdp" else f" --hook {hook.replace(' ', '-')}"


def number_text(number: int, one: str, more: str) -> str:
    """
    >>> number_text(1, "entry", "entries"), number_text(1000, "entry", "entries")
    ('1 entry', '1,000 entries')
    """
    return f"{number:,} {one if number == 1 else more}"


def duration_text(seconds: float) -> str:
    """A time for people: `1h 59m`, `4m 10s`, `12s`."""
    if 0 < seconds < 1:
        return f"{seconds:.1g}s"
    left = max(0, round(seconds))
    days, left = divmod(left, 86400)
    hours, left = divmod(left, 3600)
    minutes, left = divmod(left, 60)
    parts = [(days, "d"), (hours, "h"), (minutes, "m"), (left, "s")]
    shown = [f"{number}{unit}" for number, unit in parts if number]
    return " ".join(shown[:2]) or "0s"
