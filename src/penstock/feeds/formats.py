"""The formats by name: `parse("drop-json", data, now=…)`.

A name may have an argument: `csv:2`, `json:/prefixes/*/ip_prefix`, `ndjson:cidr`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from penstock.errors import FeedError
from penstock.feeds import (
    abuseipdb,
    clouds,
    crowdsec,
    dshield,
    feodo,
    firehol,
    generic,
    lines,
    misp,
    spamhaus,
    stix,
    tor,
)
from penstock.feeds.result import Parsed
from penstock.model.feeds import FORMAT_NAMES, format_fault


@dataclass(frozen=True, slots=True)
class Format:
    """A format: what it is in a few words, and its parser, which gets the bytes, the time and the argument."""

    text: str
    parser: Callable[[bytes, float, str], Parsed]


def _plain(parser: Callable[[bytes], Parsed]) -> Callable[[bytes, float, str], Parsed]:
    return lambda data, _now, _argument: parser(data)


def _timed(parser: Callable[[bytes, float], Parsed]) -> Callable[[bytes, float, str], Parsed]:
    return lambda data, now, _argument: parser(data, now)


def _csv(data: bytes, _now: float, argument: str) -> Parsed:
    column = argument.rstrip(",;|\t")
    separator = argument[len(column) :] or ","
    return generic.parse_csv(data, int(column), separator)


FORMATS: dict[str, Format] = {
    "list": Format("one address, prefix or range a line", _plain(lines.parse_list)),
    "csv": Format("csv:N: column N, from 1; `csv:N;` with another separator", _csv),
    "json": Format(
        "json:/a/*/b: a JSON pointer, `*` for every element",
        lambda data, _now, pointer: generic.parse_pointer(data, pointer),
    ),
    "ndjson": Format(
        "ndjson:KEY: a key of the object on each line",
        lambda data, _now, key: generic.parse_ndjson(data, key),
    ),
    "drop-json": Format("Spamhaus DROP, NDJSON", _plain(spamhaus.parse_json)),
    "drop-txt": Format("Spamhaus DROP, text", _plain(spamhaus.parse_txt)),
    "netset": Format("FireHOL netset or ipset", _plain(firehol.parse_netset)),
    "dshield": Format("DShield block list", _plain(dshield.parse_block)),
    "et": Format("Emerging Threats block list", _plain(lines.parse_list)),
    "feodo-json": Format("abuse.ch Feodo Tracker, JSON", _plain(feodo.parse_json)),
    "feodo-csv": Format("abuse.ch Feodo Tracker, CSV", _plain(feodo.parse_csv)),
    "feodo-txt": Format("abuse.ch Feodo Tracker, text", _plain(feodo.parse_txt)),
    "tor": Format("Tor exits, as addresses or as blocks", _plain(tor.parse_exits)),
    "crowdsec": Format("CrowdSec's stream of decisions", _timed(crowdsec.parse_stream)),
    "abuseipdb": Format("AbuseIPDB's blacklist, JSON", _plain(abuseipdb.parse_blacklist)),
    "misp-txt": Format("MISP's text export", _plain(misp.parse_txt)),
    "misp-json": Format("MISP attributes and events, JSON", _plain(misp.parse_json)),
    "stix": Format("STIX 2.1 bundle or TAXII 2.1 pages", _timed(stix.parse_stix)),
    "aws": Format("ip-ranges.json of AWS", _plain(clouds.parse_aws)),
    "gcp": Format("cloud.json or goog.json of Google", _plain(clouds.parse_gcp)),
    "azure": Format("a ServiceTags file of Azure", _plain(clouds.parse_azure)),
}
assert tuple(FORMATS) == FORMAT_NAMES


def check_format(name: str) -> tuple[Format, str]:
    """The format of that name, and its argument.

    Raises:
        FeedError: there is none, or its argument is wrong; the hint says what is meant.
    """
    fault = format_fault(name)
    if fault is not None:
        raise FeedError(fault[0], hint=fault[1])
    kind, _, argument = name.partition(":")
    return FORMATS[kind], argument


_HTML = (b"<!doctype", b"<html", b"<head", b"<body", b"<?xml", b"<script")


def parse(name: str, data: bytes, *, now: float) -> Parsed:
    """What a feed of that format says; `now` is the time in seconds since 1970, for entries that end.

    Raises:
        FeedError: it is a web page, or nothing that the format could be.
    """
    found, argument = check_format(name)
    head = data.removeprefix(b"\xef\xbb\xbf")[:4096].lstrip().lower()
    if head.startswith(_HTML):
        raise FeedError("it is a web page (HTML), no list")
    return found.parser(data, now, argument)
