"""MISP: the text export, and attributes as JSON.

    {"response":{"Attribute":[{"type":"ip-dst","to_ids":true,"value":"192.0.2.7"}]}}

Events (`{"response":[{"Event":{…}}]}`, `{"Event":{…}}`) have attributes of their own
and in objects.  A value of type `ip-dst|port` has the port behind a bar.  What is not
for detection (to_ids) or deleted is no entry.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from penstock.feeds.gather import Gather, decoded
from penstock.feeds.lines import parse_list
from penstock.feeds.result import Parsed

_PORT = re.compile(rb"\|\d{1,5}(?=\r?$)", re.MULTILINE)
_TYPES = frozenset({"ip-src", "ip-dst", "ip-src|port", "ip-dst|port"})


class _Attribute(msgspec.Struct, gc=False):
    type: object = None
    value: object = None
    to_ids: object = False
    deleted: object = False


class _Object(msgspec.Struct, rename={"attributes": "Attribute"}):
    attributes: list[_Attribute] = []


class _Event(msgspec.Struct, rename={"attributes": "Attribute", "objects": "Object"}):
    attributes: list[_Attribute] = []
    objects: list[_Object] = []


class _Wrapped(msgspec.Struct, rename={"event": "Event"}):
    event: _Event


class _Answer(msgspec.Struct, rename={"event": "Event"}):
    response: _Event | list[_Wrapped] | None = None
    event: _Event | None = None


def parse_txt(data: bytes) -> Parsed:
    """The addresses of a text export, with or without ports."""
    return parse_list(_PORT.sub(b"", data))


def parse_json(data: bytes) -> Parsed:
    """The addresses among the attributes of a search, of its events, or of one event."""
    entries = Gather()
    for number, attribute in enumerate(_attributes(decoded(data, _Answer)), 1):
        _add(entries, attribute, number)
    return entries.parsed()


def _attributes(answer: _Answer) -> Iterator[_Attribute]:
    for event in _events(answer):
        yield from event.attributes
        for inner in event.objects:
            yield from inner.attributes


def _events(answer: _Answer) -> list[_Event]:
    found = [] if answer.event is None else [answer.event]
    if isinstance(answer.response, _Event):
        found.append(answer.response)
    else:
        found.extend(wrapped.event for wrapped in answer.response or ())
    return found


def _add(entries: Gather, attribute: _Attribute, number: int) -> None:
    # Older exports write flags as "1" and "0".
    is_wanted = attribute.to_ids in (True, "1", "true") and attribute.deleted in (False, None, "0", "false")
    if not (is_wanted and attribute.type in _TYPES):
        entries.skip()
    elif isinstance(attribute.value, str):
        entries.add(attribute.value.partition("|")[0], number)
    else:
        entries.add(attribute.value, number)
