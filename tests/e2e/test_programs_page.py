"""docs/programs.md shows what really happens: its C is built, its commands are run on an interface, outputs compared.

Program ids, sizes of objects and nanoseconds differ from run to run: any number is taken in their place.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.netns import Namespace, veth

from penstock.kernel.advice_table import TABLE

TOP = Path(__file__).parents[2]
PAGE = (TOP / "docs/programs.md").read_text()
_C = re.compile(r"^```c\n(/\* (\S+) \*/\n.*?)^```$", re.MULTILINE | re.DOTALL)
_CONSOLE = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_VARYING = re.compile(r"\b\d+(?= (?:ns|bytes)\b)|(?<=program )\d+")
_ID = re.compile(r"program (\d+)$", re.MULTILINE)


def commands() -> list[tuple[str, str]]:
    """Every `$ command` of the page with the lines shown under it."""
    parts = [
        part for block in _CONSOLE.findall(PAGE) for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
    ]
    return [(command, shown) for command, _, shown in (part.partition("\n") for part in parts)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the page's programs and the examples in it."""
    for text, name in _C.findall(PAGE):
        (tmp_path / name).write_text(text)
    for example in (TOP / "examples/programs").glob("*.bpf.c"):
        shutil.copy(example, tmp_path)
    return tmp_path


@pytest.fixture
def host(bpffs: Path) -> Iterator[tuple[list[str], dict[str, str]]]:
    """What runs a command where there is an eth0, and the environment for it."""
    with Namespace("page-host") as own, Namespace("page-peer") as other:
        veth(own, "eth0", other, "eth0")
        yield (
            own.command(sys.executable, "-m", "penstock"),
            {**os.environ, "PENSTOCK_BPFFS": str(bpffs / "penstock")},
        )


@pytest.mark.privileged
def test_every_command_prints_what_the_page_shows(
    folder: Path, host: tuple[list[str], dict[str, str]], bpffs: Path
) -> None:
    (prefix, environment), number = host, "0"
    assert len(commands()) >= 8
    for command, shown in commands():
        words = ["penstock", *(number if word == "42" else word for word in shlex.split(command)[1:])]
        words = [word.replace("/sys/fs/bpf", str(bpffs)) for word in words]
        done = subprocess.run(
            [*prefix, *words[1:]], cwd=folder, env=environment, capture_output=True, text=True
        )
        printed = done.stdout or done.stderr
        assert _VARYING.sub("N", printed) == _VARYING.sub("N", shown), (
            f"{command}\n{done.stdout}{done.stderr}"
        )
        number = found[1] if (found := _ID.search(printed)) else number
    left = subprocess.run(
        [*prefix, "program", "list", "--json"], env=environment, capture_output=True, text=True
    )
    assert not [
        one for one in json.loads(left.stdout)["programs"] if (one["loaded_from"] or "").endswith(".c")
    ]


def test_every_mistake_that_is_known_is_on_the_page() -> None:
    listed = set(re.findall(r"^\| ([a-zA-Z -]+) \| ", PAGE, re.MULTILINE))
    assert {known.mistake for known in TABLE} <= listed
