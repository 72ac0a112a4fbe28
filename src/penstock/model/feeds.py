"""Feeds as a policy names them: which are known by name, how they are written, how often they may be asked.

    set threats : net feed spamhaus-drop feed "https://feeds.example/ips.csv" format csv:2 every 1h
        ->  SetFeed("threats", "spamhaus-drop"), SetFeed("threats", "https://…", "csv:2", 3600.0)

The language and the fetcher share these tables; addresses, terms and parsers are the fetcher's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches

_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86400.0
#: Sources that say nothing of it are asked no more often than this, and by themselves every hour.
LEAST_INTERVAL_S, USUAL_INTERVAL_S = _MINUTE, _HOUR
#: A kind of set that can hold what feeds list.
FED_KINDS = (("host",), ("net",))


@dataclass(frozen=True, slots=True)
class SetFeed:
    """A feed of a set; `format` and `every_s` are None where the policy leaves them to the source.

    One that is private may list private addresses.
    """

    set: str
    source: str
    format: str | None = None
    every_s: float | None = None
    is_private: bool = False


@dataclass(frozen=True, slots=True)
class Rhythm:
    """A preset's format, how often it is asked, and how often it may be at most."""

    format: str
    interval_s: float
    min_interval_s: float


#: The feeds that are known by name.
PRESET_RHYTHMS: dict[str, Rhythm] = {
    "spamhaus-drop": Rhythm("drop-json", 12 * _HOUR, _HOUR),
    "spamhaus-drop-v6": Rhythm("drop-json", 12 * _HOUR, _HOUR),
    "spamhaus-drop-txt": Rhythm("drop-txt", 12 * _HOUR, _HOUR),
    "firehol-level1": Rhythm("netset", 4 * _HOUR, _HOUR),
    "firehol-level2": Rhythm("netset", 4 * _HOUR, _HOUR),
    "dshield": Rhythm("dshield", 6 * _HOUR, _HOUR),
    "et-block": Rhythm("et", _DAY, _DAY),
    "feodo": Rhythm("feodo-json", _HOUR, 5 * _MINUTE),
    "feodo-csv": Rhythm("feodo-csv", _HOUR, 5 * _MINUTE),
    "feodo-txt": Rhythm("feodo-txt", _HOUR, 5 * _MINUTE),
    "tor-exits": Rhythm("tor", _HOUR, 30 * _MINUTE),
    "tor-exit-addresses": Rhythm("tor", _HOUR, 30 * _MINUTE),
    "abuseipdb": Rhythm("abuseipdb", _DAY, 6 * _HOUR),
    "aws": Rhythm("aws", _DAY, _HOUR),
    "gcp": Rhythm("gcp", _DAY, _HOUR),
    "cloudflare-v4": Rhythm("list", _DAY, _HOUR),
    "cloudflare-v6": Rhythm("list", _DAY, _HOUR),
}

#: The formats; those of `_ARGUMENTS` have an argument behind a colon.
FORMAT_NAMES = (
    "list", "csv", "json", "ndjson", "drop-json", "drop-txt", "netset", "dshield", "et", "feodo-json", "feodo-csv",
    "feodo-txt", "tor", "crowdsec", "abuseipdb", "misp-txt", "misp-json", "stix", "aws", "gcp", "azure",
)  # fmt: skip
_ARGUMENTS: dict[str, tuple[str, Callable[[str], bool]]] = {
    "csv": ("csv:2", lambda text: (column := text.rstrip(",;|\t")).isdecimal() and 0 < int(column) < 10_000),
    "json": ("json:/prefixes/*/ip_prefix", lambda text: text.startswith("/")),
    "ndjson": ("ndjson:cidr", bool),
}


def format_fault(name: str) -> tuple[str, str] | None:
    """What is wrong with the name of a format, and what is meant; None for a good one."""
    kind, _, argument = name.partition(":")
    if kind not in FORMAT_NAMES:
        near = get_close_matches(kind, FORMAT_NAMES, n=1)
        hint = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(FORMAT_NAMES)}"
        return f"there is no feed format `{kind}`", hint
    example, is_good = _ARGUMENTS.get(kind, (kind, lambda text: not text))
    if not is_good(argument) or (kind not in _ARGUMENTS and ":" in name):
        return f"`{name}` is no feed format", f"it is written `{example}`"
    return None


def source_fault(source: str) -> str | None:
    """What is wrong with a source that nobody could ever ask; None for a good one.

    >>> source_fault("https://[::1"), source_fault("https://feeds.example/ips.csv")
    ('`https://[::1` is no URL', None)
    """
    if not source.isprintable():
        return "the source of a feed is one line of text"
    if not source.strip():
        return "a feed has a source"
    if source.startswith("exec:"):
        return _command_fault(source)
    if source.lower().startswith(("http://", "https://")) and not _is_url(source):
        return f"`{source[:60]}` is no URL"
    return None


def _command_fault(source: str) -> str | None:
    import shlex

    try:
        return None if shlex.split(source.removeprefix("exec:")) else "`exec:` names no command"
    except ValueError as error:
        return f"`{source[:60]}`: {error}"


def _is_url(source: str) -> bool:
    from urllib.parse import urlsplit

    try:
        found = urlsplit(source)
        return bool(found.hostname) and (found.port is None or found.port > 0)
    except ValueError:
        return False


def preset_hint(name: str) -> str:
    """What to say to whoever names a preset that there is none of."""
    near = get_close_matches(name, PRESET_RHYTHMS, n=1)
    return f"did you mean `{near[0]}`?" if near else "`penstock feed presets` lists them"


def least_interval_s(source: str) -> float:
    """How often a source may be asked at most: seconds between two requests."""
    rhythm = PRESET_RHYTHMS.get(source)
    if rhythm is not None:
        return rhythm.min_interval_s
    # What costs nobody else anything may be looked at as often as one likes.
    return LEAST_INTERVAL_S if source.lower().startswith(("http://", "https://")) else 0.0


def is_open_http(source: str) -> bool:
    """Whether others are on the way of what a source lists, who can read and change it.

    >>> is_open_http("http://feeds.example/"), is_open_http("http://[::1]/"), is_open_http("https://feeds.example/")
    (True, False, False)
    """
    return source.lower().startswith("http://") and not is_loopback(source)


def is_loopback(source: str) -> bool:
    """Whether a URL names this machine itself, where nobody is on the way.

    >>> is_loopback("http://127.0.0.1:8080/v1"), is_loopback("http://feeds.example/")
    (True, False)
    """
    from ipaddress import ip_address
    from urllib.parse import urlsplit

    try:
        host = urlsplit(source).hostname or ""
    except ValueError:
        return False
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
