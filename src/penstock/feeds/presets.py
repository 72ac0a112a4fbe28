"""Known feeds: where they are, how they are read, how often they may be asked, on what terms.

Addresses and terms are those that the sources publish; no data of theirs is shipped.
`min_interval_s` is what the source asks for or what it changes in, whichever is longer: it
is kept whatever a configuration says.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import get_close_matches

from penstock.errors import FeedError
from penstock.feeds.judge import Limits

_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86400.0


@dataclass(frozen=True, slots=True)
class Preset:
    """One source's feed.  `key_header` is the header in which it wants a key, `headers` go with every request."""

    url: str
    format: str
    interval_s: float
    min_interval_s: float
    licence: str
    limits: Limits = Limits()
    key_header: str | None = None
    headers: dict[str, str] = field(default_factory=dict)


_SPAMHAUS = "free of charge, with its copyright notice; see spamhaus.org/drop/terms"
_ABUSE_CH = "CC0"
#: A list that is near empty at times, so that any share may come and go.
_NEAR_EMPTY = Limits(shrink=None, growth=None, may_be_empty=True)
# Ranges of clouds are for `pass` and for rules, and have prefixes as wide as any.
_CLOUD = "published by the provider for use in filters"

PRESETS: dict[str, Preset] = {
    "spamhaus-drop": Preset(
        "https://www.spamhaus.org/drop/drop_v4.json", "drop-json", 12 * _HOUR, _HOUR, _SPAMHAUS
    ),
    "spamhaus-drop-v6": Preset(
        "https://www.spamhaus.org/drop/drop_v6.json", "drop-json", 12 * _HOUR, _HOUR, _SPAMHAUS
    ),
    "spamhaus-drop-txt": Preset(
        "https://www.spamhaus.org/drop/drop.txt", "drop-txt", 12 * _HOUR, _HOUR, _SPAMHAUS
    ),
    "firehol-level1": Preset(
        "https://iplists.firehol.org/files/firehol_level1.netset",
        "netset",
        4 * _HOUR,
        _HOUR,
        "each list in it has terms of its own; see iplists.firehol.org",
    ),
    "firehol-level2": Preset(
        "https://iplists.firehol.org/files/firehol_level2.netset",
        "netset",
        4 * _HOUR,
        _HOUR,
        "each list in it has terms of its own; see iplists.firehol.org",
    ),
    "dshield": Preset(
        "https://feeds.dshield.org/block.txt",
        "dshield",
        6 * _HOUR,
        _HOUR,
        "CC BY-NC-SA 4.0; not to be used commercially without asking",
        Limits(growth=None),
    ),
    "et-block": Preset(
        "https://rules.emergingthreats.net/fwrules/emerging-Block-IPs.txt",
        "et",
        _DAY,
        _DAY,
        "BSD; see rules.emergingthreats.net/OPEN_download_instructions.html",
    ),
    "feodo": Preset(
        "https://feodotracker.abuse.ch/downloads/ipblocklist.json",
        "feodo-json",
        _HOUR,
        5 * _MINUTE,
        _ABUSE_CH,
        _NEAR_EMPTY,
    ),
    "feodo-csv": Preset(
        "https://feodotracker.abuse.ch/downloads/ipblocklist.csv",
        "feodo-csv",
        _HOUR,
        5 * _MINUTE,
        _ABUSE_CH,
        _NEAR_EMPTY,
    ),
    "feodo-txt": Preset(
        "https://feodotracker.abuse.ch/downloads/ipblocklist.txt",
        "feodo-txt",
        _HOUR,
        5 * _MINUTE,
        _ABUSE_CH,
        _NEAR_EMPTY,
    ),
    "tor-exits": Preset(
        "https://check.torproject.org/torbulkexitlist", "tor", _HOUR, 30 * _MINUTE, "CC0, The Tor Project"
    ),
    "tor-exit-addresses": Preset(
        "https://check.torproject.org/exit-addresses", "tor", _HOUR, 30 * _MINUTE, "CC0, The Tor Project"
    ),
    "abuseipdb": Preset(
        "https://api.abuseipdb.com/api/v2/blacklist",
        "abuseipdb",
        _DAY,
        6 * _HOUR,
        "needs a key; five lists a day without charge; see abuseipdb.com/legal",
        key_header="Key",
        headers={"Accept": "application/json"},
    ),
    "aws": Preset("https://ip-ranges.amazonaws.com/ip-ranges.json", "aws", _DAY, _HOUR, _CLOUD),
    "gcp": Preset("https://www.gstatic.com/ipranges/cloud.json", "gcp", _DAY, _HOUR, _CLOUD),
    "cloudflare-v4": Preset("https://www.cloudflare.com/ips-v4", "list", _DAY, _HOUR, _CLOUD),
    "cloudflare-v6": Preset("https://www.cloudflare.com/ips-v6", "list", _DAY, _HOUR, _CLOUD),
}


def preset_named(name: str) -> Preset:
    """The preset of that name.

    Raises:
        FeedError: there is none.
    """
    if name not in PRESETS:
        near = get_close_matches(name, PRESETS, n=1)
        hint = f"did you mean `{near[0]}`?" if near else "`penstock feed presets` lists them"
        raise FeedError(f"there is no preset `{name}`", hint=hint)
    return PRESETS[name]
