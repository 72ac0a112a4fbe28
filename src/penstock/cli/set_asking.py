"""Changes of sets by the daemon, where one answers; and what is told of a change.

    answered("add", {"name": "banned", "entries": ("203.0.113.9",), "timeout": None, …})     ->  0

In: a command of `penstock set` and its parameters.  Out: an exit code, once what was done has been told; None
where no daemon answers that could do it, so that the command does it itself.  So it does what is told
in FAR lines and more, if it may: it then has the memory, the processor and the terminal to itself.
"""

from __future__ import annotations

from penstock.cli import output
from penstock.control.client import ask_if_there
from penstock.model import entry_text

TYPE_CHECKING = False  # `typing` takes long to import (cli/start.py)
if TYPE_CHECKING:
    from typing import Any

#: From so many lines on a change has a progress bar, and is the command's own.
FAR = 100_000
#: A million entries, behind others.
_PATIENCE_S = 600.0


def answered(command: str, parameters: dict[str, Any], *, however_far: bool = False) -> int | None:
    """Let the daemon do what a command asks for, and tell it; with `however_far` also what is long.

    Raises:
        PenstockError: it is refused, or a file cannot be read.
    """
    as_json, entries = parameters["as_json"], parameters.get("entries", ())
    if command == "test":
        told = ask_if_there("SetTest", to_read=True, set=parameters["name"], entries=entries)
        if told is None:
            return None
        there = dict(zip(entries, told["is_in"], strict=True))
        return tell_whether(told["set"], there, as_json=as_json)
    done = _done(command, parameters, however_far=however_far)
    if done is None:
        return None
    tell(done, as_json=as_json)
    return 0


def _done(command: str, parameters: dict[str, Any], *, however_far: bool) -> dict[str, Any] | None:
    name = parameters["name"]
    told: dict[str, Any]
    times = {key: parameters[key] for key in ("timeout", "forever", "comment") if key in parameters}
    match command:
        case "add":
            return ask_if_there("SetAdd", set=name, entries=parameters["entries"], **times)
        case "remove":
            return ask_if_there("SetRemove", set=name, entries=parameters["entries"])
        case "flush" | "sweep":
            return ask_if_there(f"Set{command.title()}", patience_s=_PATIENCE_S, set=name)
        case "update":
            names = [parameters["come"], parameters["gone"]]
            told = {"names": names, "first": len(_text(names[0]))}
        case _:
            names = [parameters["file"]]
            told = {"source": names[0], "whole": command == "replace"}
    request = "SetUpdate" if command == "update" else "SetWrite"
    texts = [_text(one) for one in names]
    if not however_far and sum(text.count(b"\n") for text in texts) >= FAR:
        return None
    return ask_if_there(request, text=b"".join(texts), patience_s=_PATIENCE_S, set=name, **told, **times)


def _text(file: str | None) -> bytes:
    return b"" if file is None else content(file)


_gone_through: dict[str, bytes] = {}


def content(file: str) -> bytes:
    """What a file holds, `-` for standard input; a pipe, which tells it once, is asked once.

    Raises:
        PenstockError: it cannot be read.
    """
    if file in _gone_through:
        return _gone_through[file]
    is_told_once, text = entry_text.is_told_once(file), entry_text.read_entries(file)
    if is_told_once:
        _gone_through[file] = text
    return text


def tell_whether(name: str, there: dict[str, bool], *, as_json: bool) -> int:
    """Which entries a packet would find; gives 1 if one of them is not there."""
    for entry, is_in in there.items():
        if as_json:
            output.record("penstock.set.test/1", {"set": name, "entry": entry, "is_in": is_in})
        else:
            output.answer(f"{entry} is {'' if is_in else 'not '}in @{name}")
    return 0 if all(there.values()) else 1


def tell(done: dict[str, Any], *, as_json: bool) -> None:
    """What a change has done, by this process or by the daemon."""
    kept, count = done.pop("kept"), done.pop("kept_count")
    if as_json:
        output.record("penstock.set.change/1", {**done, **({"kept": count} if count else {})})
        return
    parts = [(done[word], word) for word in ("added", "changed", "removed")]
    told = ", ".join(f"{count:,} {word}" for count, word in parts if count) or "nothing changed"
    output.note(f"@{done['set']}: {told}")
    for one in kept:
        output.note(f"@{done['set']}: {one['entry']} stays: listed by {', '.join(one['feeds'])}")
    if count > len(kept):
        output.note(f"@{done['set']}: and {count - len(kept):,} more that feeds list")
