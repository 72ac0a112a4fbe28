"""Command lines that are understood without click: as click understands them, or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import click
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.cli.main import commands
from penstock.cli.plain import GRAMMARS, contradiction, plain_of
from penstock.cli.set import command as set_group

LINES = {
    "set add banned 203.0.113.9": ("add", {"entries": ("203.0.113.9",), "timeout": None, "comment": None}),
    "-q set add --timeout 1.5h banned a b --json": ("add", {"entries": ("a", "b"), "timeout": 5400.0}),
    "set add @b a --ttl=2s --comment=": ("add", {"name": "@b", "timeout": 2.0, "comment": ""}),
    "set add b a --comment --json": ("add", {"comment": "--json", "as_json": False}),
    "set remove b a - c": ("remove", {"entries": ("a", "-", "c")}),
    "set import b -": ("import", {"file": "-", "forever": False}),
    "set import --forever b ./x//y": ("import", {"file": "./x//y", "forever": True}),
    "--quiet set replace b x --timeout 1m --timeout 2m": ("replace", {"timeout": 120.0}),
    "set update b --add x": ("update", {"come": "x", "gone": None}),
    "set update --remove - b --add=x": ("update", {"come": "x", "gone": "-"}),
    "set sweep b": ("sweep", {"as_json": False}),
    "set test b 192.0.2.1 192.0.2.2 --json": ("test", {"entries": ("192.0.2.1", "192.0.2.2")}),
    "set flush b --json": ("flush", {"name": "b", "as_json": True}),
}
#: What click has something to say about, and other commands.
OTHERS = (
    "", "set", "set add", "set add b", "set add b a --help", "set add b a -h", "set add b a --timeout",
    "set add b a --timeout soon", "set add b a --timeout 0", "set add b a --timeout 101000d", "set add b -x a",
    "set add b a --timeout 1m --forever", "set add b -- a", "set add b a --timeou 1m", "set add b a --json=1",
    "set import b", "set import b x y", "set remove b a --timeout 1m", "set update b", "set update b --add",
    "set update b --add x --remove x", "set update b x --add y", "set flush", "set flush b c", "set sweep",
    "set test b",
    "set add b a -q", "-q -q set add b a", "--netns x set add b a", "set list", "set delete b", "why 192.0.2.1",
)  # fmt: skip
WORDS = (
    "set", "add", "remove", "import", "replace", "update", "flush", "sweep", "test", "list", "b", "-", "--", "",
    "192.0.2.1",
    "--json", "--forever", "--timeout", "--ttl", "--comment", "--add", "--remove", "1m", "soon", "-1", "--timeout=2h",
    "--comment=why", "--add=x", "--remove=x", "--remove=y", "--json=", "-h", "--help", "-q", "--quiet", "\udc80", " 5 ",
)  # fmt: skip


def by_click(words: list[str]) -> tuple[str, dict[str, Any]] | None:
    """The command and its parameters as click has them; None for other commands and what is wrong."""
    try:
        with commands.make_context("penstock", list(words)) as outer:
            rest = [*outer._protected_args, *outer.args]
            if rest[:1] != ["set"]:
                return None
            with set_group.make_context("set", rest[1:], parent=outer) as middle:
                name, command, rest = set_group.resolve_command(
                    middle, [*middle._protected_args, *middle.args]
                )
                assert command is not None
                assert name is not None
                with command.make_context(name, rest, parent=middle) as inner:
                    return None if contradiction(inner.params) else (name, inner.params)
    except (click.ClickException, click.exceptions.Exit):
        return None


@pytest.mark.parametrize("line", LINES)
def test_plain_lines_are_what_they_are_to_click(line: str) -> None:
    plain = plain_of(line.split(" "))
    assert plain is not None
    command, some = LINES[line]
    assert (plain.command, {**plain.parameters, **some}) == (command, plain.parameters)
    assert by_click(line.split(" ")) == (plain.command, plain.parameters)
    assert plain.is_quiet == line.startswith("-")


@pytest.mark.parametrize("line", OTHERS)
def test_what_is_not_plain_is_clicks(line: str) -> None:
    assert plain_of(line.split(" ") if line else []) is None


@given(
    st.lists(st.sampled_from(WORDS), max_size=4),
    st.sampled_from(sorted(GRAMMARS)),
    st.lists(st.sampled_from(WORDS), max_size=6),
)
@settings(max_examples=400, deadline=None)
def test_no_line_is_understood_otherwise_than_by_click(
    before: list[str], name: str, behind: list[str]
) -> None:
    for words in (["set", name, *behind], [*before, *behind], ["-q", "set", name, "b", *behind]):
        plain = plain_of(words)
        if plain is not None:
            assert by_click(words) == (plain.command, plain.parameters)


@pytest.mark.parametrize("name", GRAMMARS)
def test_every_option_is_known(name: str) -> None:
    declared = set_group.commands[name].params
    grammar = GRAMMARS[name]
    options = {text: one.name for one in declared if isinstance(one, click.Option) for text in one.opts}
    assert options == {**grammar.flags, **grammar.values}
    assert grammar.words == tuple(one.name for one in declared if isinstance(one, click.Argument))


def test_what_asks_the_daemon_imports_little() -> None:
    """What takes longest to import of all that is not needed."""
    script = "import sys; import penstock.cli.start; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=os.environ
    )
    there = set(done.stdout.split())
    dear = {
        "click",
        "typing",
        "pathlib",
        "dataclasses",
        "inspect",
        "numpy",
        "msgspec",
        "asyncio",
        "ctypes",
        "rich",
    }
    # A file of the environment's own (`.pth`) may have imported some before.
    bare = subprocess.run(
        [sys.executable, "-c", "import sys; print(*sys.modules)"], capture_output=True, text=True
    )
    assert not there & dear - set(bare.stdout.split())
