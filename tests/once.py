"""One change of a set, as a command makes it: opened, changed and let go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock.pipeline.set_commands import SetCommands

if TYPE_CHECKING:
    from penstock.pipeline.live_set import Text
    from penstock.pipeline.set_commands import Changed


def add(name: str, entries: Text, **how: Any) -> Changed:
    with SetCommands() as commands:
        return commands.add(name, entries, **how)


def remove(name: str, entries: Text, **how: Any) -> Changed:
    with SetCommands() as commands:
        return commands.remove(name, entries, **how)


def replace(name: str, entries: Text, **how: Any) -> Changed:
    with SetCommands() as commands:
        return commands.replace(name, entries, **how)


def flush(name: str, *, by: str) -> Changed:
    with SetCommands() as commands:
        return commands.flush(name, by=by)
