"""A command imports what it needs: a fifth of a second of imports is what one waits for, most of all in a loop."""

from __future__ import annotations

import subprocess
import sys

import pytest

_SCRIPT = """\
import atexit, sys
atexit.register(lambda: print("\\n" + " ".join(sys.modules)))
from penstock.cli.start import main
main()
"""
_HEAVY = ("numpy", "pyroute2", "asyncio", "ssl", "email")
_COMPILER = ("codegen", "clang", "driver", "diagram", "analysis", "classifier", "libpcap", "lang.parser")
#: What looks at what runs: no numbers by the thousand, no compiler, no netlink beyond our own.
_COMMANDS = (
    "--help",
    "status",
    "status --json",
    "map list",
    "program list",
    "btf list",
    "probe --help",
    "rule list lo",
)


@pytest.mark.parametrize("command", _COMMANDS)
def test_what_is_not_needed_is_not_imported(command: str) -> None:
    done = subprocess.run([sys.executable, "-c", _SCRIPT, *command.split()], capture_output=True, text=True)
    imported = done.stdout.splitlines()[-1].split()
    assert "penstock.cli.main" in imported
    unwanted = (*_HEAVY, *(f"penstock.compiler.{name}" for name in _COMPILER))
    assert [name for name in unwanted if name in imported] == []
