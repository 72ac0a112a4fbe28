"""README.md says what is there: its policies check, its commands exist, its tables are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from penstock.cli.main import commands
from penstock.compiler.lang.diagnostic import Severity
from penstock.compiler.lang.source import Source
from penstock.model.hook import ACTION_HOOKS, Hook
from penstock.pipeline.policy import check_text

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = [text for _, text in re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)]
POLICIES = [block for block in BLOCKS if re.search(r"^filter .*\{$", block, re.MULTILINE)]
CALLS = [
    line for block in BLOCKS for line in block.splitlines() if re.match(r"(\$ )?(sudo )?penstock ", line)
]


@pytest.mark.parametrize("text", POLICIES)
def test_policies_are_right(text: str) -> None:
    found = check_text(Source("README.md", text))
    assert [one.message for one in found if one.severity is Severity.ERROR] == []


@pytest.mark.parametrize("line", CALLS)
def test_commands_and_options_exist(line: str) -> None:
    words = line.partition("penstock ")[2].partition(" #")[0].split()
    command = commands.get_command(click.Context(commands), words[0])
    assert command is not None
    if isinstance(command, click.Group) and not (command.invoke_without_command and len(words) == 1):
        command = command.get_command(click.Context(command), words[1])
        assert command is not None
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if re.fullmatch(r"--?[a-z-]+", word)} <= known


@pytest.mark.parametrize("hook", Hook)
def test_each_hook_has_its_actions(hook: Hook) -> None:
    (row,) = [line for line in README.splitlines() if line.startswith(f"| `{hook.value}` |")]
    told = set(row.split("|")[3].strip(" `").split())
    assert told == {word for word, hooks in ACTION_HOOKS.items() if hook in hooks} - {"count", "audit"}


def test_files_that_it_names_are_there() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert {"docs/programs.md", "docs/sockets.md", "docs/kernels.md"} <= set(links)
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_page_is_linked() -> None:
    assert [page.name for page in (ROOT / "docs").glob("*.md") if f"(docs/{page.name})" not in README] == []


def test_there_is_something_to_test() -> None:
    assert len(POLICIES) == 3
    named = {line.split("penstock ")[1].split()[0] for line in CALLS}
    assert {
        "program",
        "map",
        "btf",
        "doctor",
        "apply",
        "check",
        "set",
        "feed",
        "why",
        "daemon",
        "confirm",
        "rollback",
    } <= named
