"""Command lines that are understood without click, whose import is most of what a short command takes.

    plain_of(["set", "add", "banned", "203.0.113.9", "--json"])
        ->  Plain("add", {"name": "banned", "entries": ("203.0.113.9",), "as_json": True, …}, is_quiet=False)

In: the words of a command.  Out: the command and its parameters, named and valued as
click has them; None for whatever is not plain, wrong command lines and `--help` among
them, which click then says all about.  Promised: what is understood here click
understands in the same way (tests/unit/test_plain.py compares both).
"""

from __future__ import annotations

from penstock.cli.duration import LONGEST_STAY_S, STAY_WORDS, seconds_of

TYPE_CHECKING = False  # `typing` takes long to import
if TYPE_CHECKING:
    from typing import Any

_JSON = {"--json": "as_json"}
_FLAGS = {**_JSON, "--forever": "forever"}
_VALUES = {"--timeout": "timeout", "--ttl": "timeout", "--comment": "comment"}
_FILES = {"--add": "come", "--remove": "gone"}


class Plain:
    """A command of `penstock set`, and its parameters."""

    __slots__ = ("command", "is_quiet", "parameters")

    def __init__(self, command: str, parameters: dict[str, Any], *, is_quiet: bool) -> None:
        self.command, self.parameters, self.is_quiet = command, parameters, is_quiet


class Grammar:
    """What follows a command's name: `words` that stand alone, the last as often as one likes if it is `entries`."""

    __slots__ = ("flags", "values", "words")

    def __init__(self, words: tuple[str, ...], flags: dict[str, str], values: dict[str, str]) -> None:
        self.words, self.flags, self.values = words, flags, values


GRAMMARS = {
    "add": Grammar(("name", "entries"), _FLAGS, _VALUES),
    "remove": Grammar(("name", "entries"), _JSON, {}),
    "import": Grammar(("name", "file"), _FLAGS, _VALUES),
    "replace": Grammar(("name", "file"), _FLAGS, _VALUES),
    "update": Grammar(("name",), _FLAGS, {**_VALUES, **_FILES}),
    "flush": Grammar(("name",), _JSON, {}),
    "sweep": Grammar(("name",), _JSON, {}),
    "test": Grammar(("name", "entries"), _JSON, {}),
}


def plain_of(words: list[str]) -> Plain | None:
    """A command line that is understood here."""
    rest = list(words)
    is_quiet = rest[:1] in (["-q"], ["--quiet"])
    del rest[: int(is_quiet)]
    if len(rest) < 2 or rest[0] != "set" or rest[1] not in GRAMMARS:
        return None
    parameters = _parameters(GRAMMARS[rest[1]], rest[2:])
    return None if parameters is None else Plain(rest[1], parameters, is_quiet=is_quiet)


def _parameters(grammar: Grammar, words: list[str]) -> dict[str, Any] | None:
    given: dict[str, Any] = {}
    alone: list[str] = []
    left = iter(words)
    for word in left:
        option, has_value, value = word.partition("=")
        if not word.startswith("-") or word == "-":
            alone.append(word)
        elif word in grammar.flags:
            given[grammar.flags[word]] = True
        elif option in grammar.values and (text := value if has_value else next(left, None)) is not None:
            given[grammar.values[option]] = text
        else:
            return None
    return _valued(grammar, alone, given)


def _valued(grammar: Grammar, alone: list[str], given: dict[str, Any]) -> dict[str, Any] | None:
    """Every parameter with its value, those that were not given too; None where click has something to say."""
    count = len(grammar.words)
    if len(alone) < count or (len(alone) > count and grammar.words[-1] != "entries"):
        return None
    if given.get("timeout") is not None:
        try:
            given["timeout"] = seconds_of(given["timeout"], LONGEST_STAY_S, STAY_WORDS)
        except ValueError:
            return None
    found: dict[str, Any] = dict.fromkeys(grammar.values.values())
    found |= dict.fromkeys(grammar.flags.values(), False)
    found |= dict(zip(grammar.words, alone, strict=False))
    if grammar.words[-1] == "entries":
        found["entries"] = tuple(alone[count - 1 :])
    found |= given
    return None if contradiction(found) else found


def contradiction(parameters: dict[str, Any]) -> str | None:
    """What is wrong with a change of a set that is otherwise well written."""
    if parameters.get("forever") and parameters.get("timeout") is not None:
        return "--timeout and --forever exclude one another"
    if "come" in parameters and parameters["come"] == parameters["gone"]:
        return "give --add FILE, --remove FILE, or both of different files"
    return None
