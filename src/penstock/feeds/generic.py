"""Formats without a name: a column of a CSV file, a JSON pointer, a key of NDJSON.

csv:2              the second column, quoted or not; `csv:2;` with that separator
json:/prefixes/*/ip_prefix     RFC 6901, and `*` for every element of an array
ndjson:cidr        that key of the object on each line
"""

from __future__ import annotations

import csv
from collections.abc import Iterator

import msgspec

from penstock.errors import FeedError
from penstock.feeds.addresses import prefixes_of
from penstock.feeds.gather import Gather, decoded, text_of
from penstock.feeds.result import Parsed

_COMMENTS = ("#", ";", "//")


def parse_csv(data: bytes, column: int, separator: str = ",") -> Parsed:
    """The addresses in a column, counted from 1; a first row that names the columns is left out.

    Raises:
        FeedError: it is no CSV.
    """
    entries = Gather()
    is_first = True
    for number, row in rows(data, separator):
        value = row[column - 1].strip() if len(row) >= column else None
        if not (is_first and value and isinstance(prefixes_of(value), str) and value[0].isalpha()):
            entries.add(value or None, number)
        is_first = False
    return entries.parsed()


def rows(data: bytes, separator: str) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV file with the number of their line; comments and blank lines are left out.

    Raises:
        FeedError: a quoted field does not end, or is longer than any address is.
    """
    lines = text_of(data).replace("\0", "�").split("\n")
    kept = [(number, line) for number, line in enumerate(lines, 1) if _is_row(line)]
    reader = csv.reader((line for _, line in kept), delimiter=separator, strict=False)
    try:
        for row in reader:
            yield kept[reader.line_num - 1][0], row
    except csv.Error as error:
        raise FeedError(f"no CSV: {error}", line=kept[max(reader.line_num - 1, 0)][0]) from error


def _is_row(line: str) -> bool:
    stripped = line.strip()
    return bool(stripped) and not stripped.startswith(_COMMENTS)


def parse_pointer(data: bytes, pointer: str) -> Parsed:
    """The addresses to which a JSON pointer leads: strings, or arrays of them.

    Raises:
        FeedError: it is no JSON, or the pointer leads nowhere.
    """
    document = decoded(data, object)
    found = [document]
    for step in _steps(pointer):
        found = [below for value in found for below in _below(value, step)]
    if not found and document not in ([], {}):
        raise FeedError(f"`{pointer}` leads nowhere in this document")
    entries = Gather()
    number = 0
    for value in found:
        for one in value if isinstance(value, list) else [value]:
            number += 1
            entries.add(one, number)
    return entries.parsed()


def _steps(pointer: str) -> list[str]:
    # RFC 6901, section 4: ~1 first, so that ~01 becomes ~1.
    return [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]


def _below(value: object, step: str) -> list[object]:
    match value:
        case dict() if step in value:
            return [value[step]]
        case list() if step == "*":
            return list(value)
        case list() if step.isascii() and step.isdigit() and len(step) < 10 and int(step) < len(value):
            return [value[int(step)]]
        case _:
            return []


def parse_ndjson(data: bytes, key: str) -> Parsed:
    """The addresses under a key of each line's object.

    Raises:
        FeedError: hardly a line is an object.
    """
    entries = Gather()
    for number, line in json_lines(data, entries):
        entries.add(line.get(key), number)
    return entries.parsed()


def json_lines(data: bytes, entries: Gather) -> Iterator[tuple[int, dict[str, object]]]:
    """The objects of NDJSON with the number of their line; what is none is rejected."""
    decoder = msgspec.json.Decoder(dict[str, object])
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            found = decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            entries.reject(number, line.decode("utf-8", "replace"), "not a JSON object")
            continue
        yield number, found
