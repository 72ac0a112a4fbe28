"""Read the feeds of a set, and check what can be known of them without asking anybody.

set threats : net  feed spamhaus-drop every 6h  feed "https://feeds.example/ips.csv" format csv:2

A bare word is a preset.  A text in quotes is a URL, a file from the root, or `exec:COMMAND`.
A list that is `private` may name private addresses.
"""

from __future__ import annotations

import re

from penstock.compiler.lang.ast import FeedClause
from penstock.compiler.lang.cursor import Cursor
from penstock.compiler.lang.source import Span
from penstock.model.feeds import (
    FED_KINDS,
    PRESET_RHYTHMS,
    format_fault,
    is_open_http,
    least_interval_s,
    preset_hint,
    source_fault,
)
from penstock.model.sets import time_text

_FORMAT = re.compile(r"[A-Za-z][^\s#}\"']*")
_SECOND = 1_000_000_000


def read_feed(cursor: Cursor, kind: tuple[str, ...], before: list[FeedClause]) -> FeedClause:
    """`feed SOURCE [format F] [every TIME] [private]`, of a set of that kind that has those feeds `before`.

    Raises:
        SyntaxFault: it is not one, or nothing that can be asked.
    """
    start = cursor.advance(len("feed"))
    if kind not in FED_KINDS:
        message = f"feeds list addresses, and this is a set of {' . '.join(kind)}"
        raise cursor.faults.fail("PS105", message, start, hint="a set of `net` or `host` can have feeds")
    source, is_preset, end = _source(cursor)
    if any(one.source == source and one.is_preset == is_preset for one in before):
        raise cursor.faults.fail("PS112", "this feed is said twice of one set", end)
    format_: str | None = None
    every_ns: int | None = None
    said: set[str] = set()
    while (word := cursor.peek_word()) in ("format", "every", "private"):
        span = cursor.advance(len(word))
        if word in said:
            raise cursor.faults.fail("PS112", f"`{word}` is said twice of one feed", span)
        said.add(word)
        if word == "format":
            format_, end = _format(cursor)
        elif word == "every":
            every_ns, end = _every(cursor, source)
        else:
            end = span
    return FeedClause(source, is_preset, format_, every_ns, start.to(end), "private" in said)


def _source(cursor: Cursor) -> tuple[str, bool, Span]:
    word = cursor.peek_word()
    if word:
        span = cursor.advance(len(word))
        if word not in PRESET_RHYTHMS:
            hint = preset_hint(word)
            raise cursor.faults.fail("PS104", f"there is no feed that is known as `{word}`", span, hint=hint)
        return word, True, span
    source, span = cursor.string("the name of a preset, or a URL, file or `exec:COMMAND`")
    fault = _source_fault(source)
    if fault:
        raise cursor.faults.fail("PS104", fault[0], span, hint=fault[1])
    return source, False, span


def _source_fault(source: str) -> tuple[str, str | None] | None:
    """What is wrong with a source in quotes, and what to do."""
    if source in PRESET_RHYTHMS:
        return "a feed that is known by name is written without quotes", f"feed {source}"
    if fault := source_fault(source):
        return fault, 'as in: feed "exec:lister --all"' if source.startswith("exec:") else None
    if is_open_http(source):
        return (
            "whoever is on the way can change what comes by http, so a policy asks by https",
            f"https, or on the host `penstock feed add SET '{source[:60]}' --allow-http`",
        )
    if source.lower().startswith(("https://", "http://", "exec:")) or source.startswith(("/", "file:///")):
        return None
    hint = "a file begins with `/`: whoever fetches has another directory than this policy"
    return f"`{source[:60]}` is no URL, no file and no `exec:COMMAND`", hint


def _format(cursor: Cursor) -> tuple[str, Span]:
    cursor.skip_blanks()
    found = _FORMAT.match(cursor.text, cursor.at)
    if found:
        name, span = found.group(), cursor.advance(len(found.group()))
    else:
        name, span = cursor.string("the format of a feed, such as csv:2, or one")
    fault = format_fault(name)
    if fault:
        raise cursor.faults.fail("PS104", fault[0], span, hint=fault[1])
    return name, span


def _every(cursor: Cursor, source: str) -> tuple[int, Span]:
    from penstock.compiler.lang.sets import read_time

    every_ns, span = read_time(cursor)
    least_ns = int(least_interval_s(source) * _SECOND)
    if every_ns < least_ns:
        who = f"`{source}`" if source in PRESET_RHYTHMS else "a source of others"
        message = f"{who} is asked every {time_text(least_ns)} at most"
        raise cursor.faults.fail("PS104", message, span, hint=f"every {time_text(least_ns)}, or leave it out")
    return every_ns, span


def feed_words(clause: FeedClause) -> str:
    """The clause in canonical form."""
    words = [f"feed {clause.source if clause.is_preset else _quoted(clause.source)}"]
    if clause.format is not None:
        is_plain = _FORMAT.fullmatch(clause.format) is not None
        words.append(f"format {clause.format if is_plain else _quoted(clause.format)}")
    if clause.every_ns is not None:
        words.append(f"every {time_text(clause.every_ns)}")
    if clause.is_private:
        words.append("private")
    return " ".join(words)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
