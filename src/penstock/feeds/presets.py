"""Known feeds: where they are, on what terms, what is expected of them.

Addresses and terms are those that the sources publish; no data of theirs is shipped.  How they
are read and how often they may be asked is in `model/feeds.py`, by the same names: the least
interval is what the source asks for or what it changes in, whichever is longer, and is kept
whatever a configuration says.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from penstock.errors import FeedError
from penstock.feeds.judge import Limits
from penstock.model.feeds import PRESET_RHYTHMS, preset_hint


@dataclass(frozen=True, slots=True)
class Preset:
    """One source's feed.  `key_header` is the header in which it wants a key, `headers` go with every request."""

    url: str
    licence: str
    limits: Limits = Limits()
    key_header: str | None = None
    headers: dict[str, str] = field(default_factory=dict)


_SPAMHAUS = "free of charge, with its copyright notice; see spamhaus.org/drop/terms"
_FIREHOL = "each list in it has terms of its own; see iplists.firehol.org"
_ABUSE_CH = "CC0"
#: A list that is near empty at times, so that any share may come and go.
_NEAR_EMPTY = Limits(shrink=None, growth=None, may_be_empty=True)
# Ranges of clouds are for `pass` and for rules, and have prefixes as wide as any.
_CLOUD = "published by the provider for use in filters"

PRESETS: dict[str, Preset] = {
    "spamhaus-drop": Preset("https://www.spamhaus.org/drop/drop_v4.json", _SPAMHAUS),
    "spamhaus-drop-v6": Preset("https://www.spamhaus.org/drop/drop_v6.json", _SPAMHAUS),
    "spamhaus-drop-txt": Preset("https://www.spamhaus.org/drop/drop.txt", _SPAMHAUS),
    "firehol-level1": Preset("https://iplists.firehol.org/files/firehol_level1.netset", _FIREHOL),
    "firehol-level2": Preset("https://iplists.firehol.org/files/firehol_level2.netset", _FIREHOL),
    "dshield": Preset(
        "https://feeds.dshield.org/block.txt",
        "CC BY-NC-SA 4.0; not to be used commercially without asking",
        Limits(growth=None),
    ),
    "et-block": Preset(
        "https://rules.emergingthreats.net/fwrules/emerging-Block-IPs.txt",
        "BSD; see rules.emergingthreats.net/OPEN_download_instructions.html",
    ),
    "feodo": Preset("https://feodotracker.abuse.ch/downloads/ipblocklist.json", _ABUSE_CH, _NEAR_EMPTY),
    "feodo-csv": Preset("https://feodotracker.abuse.ch/downloads/ipblocklist.csv", _ABUSE_CH, _NEAR_EMPTY),
    "feodo-txt": Preset("https://feodotracker.abuse.ch/downloads/ipblocklist.txt", _ABUSE_CH, _NEAR_EMPTY),
    "tor-exits": Preset("https://check.torproject.org/torbulkexitlist", "CC0, The Tor Project"),
    "tor-exit-addresses": Preset("https://check.torproject.org/exit-addresses", "CC0, The Tor Project"),
    "abuseipdb": Preset(
        "https://api.abuseipdb.com/api/v2/blacklist",
        "needs a key; five lists a day without charge; see abuseipdb.com/legal",
        key_header="Key",
        headers={"Accept": "application/json"},
    ),
    "aws": Preset("https://ip-ranges.amazonaws.com/ip-ranges.json", _CLOUD),
    "gcp": Preset("https://www.gstatic.com/ipranges/cloud.json", _CLOUD),
    "cloudflare-v4": Preset("https://www.cloudflare.com/ips-v4", _CLOUD),
    "cloudflare-v6": Preset("https://www.cloudflare.com/ips-v6", _CLOUD),
}


assert PRESETS.keys() == PRESET_RHYTHMS.keys()


def preset_named(name: str) -> Preset:
    """The preset of that name.

    Raises:
        FeedError: there is none.
    """
    if name not in PRESETS:
        raise FeedError(f"there is no preset `{name}`", hint=preset_hint(name))
    return PRESETS[name]
