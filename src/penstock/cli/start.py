"""Where the command `penstock` begins: what the daemon can do is asked of it at once, all else is click's.

    main(["set", "add", "banned", "203.0.113.9"])

Imports no more than that takes: starting Python is 12 ms of the 30 that the line above needs, and
click would be 30 on top of them (`typing`, `pathlib` and `dataclasses` 5 to 10 each).  Modules that are
imported here say `TYPE_CHECKING = False` for that reason; type checkers know the name.
"""

from __future__ import annotations

import os
import sys

from penstock.cli import edge, output
from penstock.cli.plain import plain_of
from penstock.cli.set_asking import answered

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit with its code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    edge.end(lambda: _run(words))


def _run(words: list[str]) -> int:
    plain = None if "_PENSTOCK_COMPLETE" in os.environ else plain_of(words)
    if plain is not None:
        if plain.is_quiet:
            output.be_quiet()
        if (code := answered(plain.command, plain.parameters)) is not None:
            return code
    from penstock.cli.main import run

    return run(words)
