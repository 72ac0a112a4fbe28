"""Every feed format on a fixture of its exact shape, with every trap that is known of it."""

from __future__ import annotations

import gzip
import math
from ipaddress import ip_network
from pathlib import Path

import pytest

from penstock.errors import FeedError
from penstock.feeds.crowdsec import Book, seconds_of
from penstock.feeds.formats import FORMATS, parse
from penstock.feeds.lines import parse_list
from penstock.feeds.presets import PRESETS
from penstock.feeds.protected import SPECIAL
from penstock.feeds.result import MOST_REJECTS, Parsed
from penstock.feeds.stix_pattern import NotAddressesError, addresses_of
from penstock.feeds.unpack import unpacked
from penstock.model.feeds import PRESET_RHYTHMS
from penstock.model.prefixes import Prefixes

FEEDS = Path(__file__).parents[1] / "cases/feeds"
#: 2026-09-22, between the ends of the fixtures' entries.
NOW = 1790072042.0
_FIREHOL = "192.0.2.0/24 192.168.0.0/16 198.51.100.7 203.0.113.0/26"

#: fixture -> format, what it lists, the numbers of its rejects, how many entries are marked as none
EXPECTED: dict[str, tuple[str, str, list[int], int]] = {
    "drop.json": ("drop-json", "192.0.2.0/25 198.51.100.0/24", [], 0),
    "drop.txt": ("drop-txt", "192.0.2.0/25 198.51.100.0/24", [], 0),
    "firehol.netset": (
        "netset",
        f"0.0.0.0/8 10.0.0.0/8 127.0.0.0/8 172.16.0.0/12 {_FIREHOL} 224.0.0.0/3",
        [],
        0,
    ),
    "firehol.ipset": ("netset", "198.51.100.7 198.51.100.9", [], 0),
    "dshield.txt": ("dshield", "192.0.2.0/24 198.51.100.0/24", [8], 0),
    "et.txt": ("et", "192.0.2.0/25 198.51.100.0/24 198.51.100.7 203.0.113.0/24", [], 0),
    "feodo.json": ("feodo-json", "192.0.2.61 198.51.100.14", [], 0),
    "feodo.csv": ("feodo-csv", "192.0.2.61 198.51.100.14", [], 0),
    "feodo.txt": ("feodo-txt", "192.0.2.61 198.51.100.14", [], 0),
    "tor-exits.txt": ("tor", "192.0.2.200 198.51.100.43 198.51.100.44", [], 0),
    "crowdsec.json": ("crowdsec", "192.0.2.4 198.51.100.0/24 2001:db8::9", [], 2),
    "abuseipdb.json": ("abuseipdb", "192.0.2.64 2001:db8::bad", [], 0),
    "misp.json": ("misp-json", "198.51.100.7 198.51.100.8 2001:db8::7", [], 3),
    "misp-event.json": ("misp-json", "192.0.2.1 192.0.2.2", [], 1),
    "misp.txt": ("misp-txt", "198.51.100.7 198.51.100.8 2001:db8::7", [], 0),
    "stix.json": (
        "stix",
        "192.0.2.1 192.0.2.2 192.0.2.3 192.0.2.4 198.51.100.3 203.0.113.0/24 2001:db8::1",
        [5, 6],
        3,
    ),
    "taxii.ndjson": ("stix", "198.51.100.3 198.51.100.4", [], 0),
    "aws.json": ("aws", "192.0.2.0/24 2001:db8::/40", [], 0),
    "gcp.json": ("gcp", "192.0.2.0/24 2001:db8::/40", [], 0),
    "azure.json": ("azure", "192.0.2.0/28 2001:db8::/56", [], 0),
    "cloudflare.txt": ("list", "192.0.2.0/24 198.51.100.0/24", [], 0),
    "columns.csv": ("csv:2", "192.0.2.1 2001:db8::/32", [4], 0),
    "lists.json": ("json:/lists/*/ips", "192.0.2.1 192.0.2.2 2001:db8::1", [], 0),
    "keys.ndjson": ("ndjson:ip", "192.0.2.1 192.0.2.2", [4, 5], 0),
}


def parsed(fixture: str) -> Parsed:
    return parse(EXPECTED[fixture][0], (FEEDS / fixture).read_bytes(), now=NOW)


def texts(found: Parsed) -> str:
    return " ".join(found.prefixes.unique().texts())


@pytest.mark.parametrize("fixture", EXPECTED)
def test_fixture(fixture: str) -> None:
    _, listed, rejects, skipped = EXPECTED[fixture]
    found = parsed(fixture)
    assert texts(found) == listed
    assert ([bad.line for bad in found.rejects], found.skipped) == (rejects, skipped)
    assert found.rejected == len(rejects)


def test_all_formats_have_a_fixture() -> None:
    assert {name.partition(":")[0] for name, *_ in EXPECTED.values()} == set(FORMATS)


def test_all_fixtures_are_used() -> None:
    assert {path.name for path in FEEDS.iterdir()} == {*EXPECTED, "plain.txt"}


def test_fixtures_have_documentation_addresses_only() -> None:
    """RFC 5737 and RFC 3849; special ones on purpose."""
    documentation = [ip_network(text) for text in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")]
    documentation.append(ip_network("2001:db8::/32"))
    allowed = [*documentation, *(one.network for one in SPECIAL)]
    for fixture in EXPECTED:
        for network in parsed(fixture).prefixes.networks():
            assert any(network.version == one.version and network.subnet_of(one) for one in allowed), fixture


@pytest.mark.parametrize(
    "fixture", [name for name in EXPECTED if not name.startswith(("tor", "stix", "cloud"))]
)
def test_crlf_and_a_byte_order_mark_change_nothing(fixture: str) -> None:
    data = (FEEDS / fixture).read_bytes()
    changed = b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n")
    assert texts(parse(EXPECTED[fixture][0], changed, now=NOW)) == EXPECTED[fixture][1]


def test_the_plain_list() -> None:
    found = parse_list((FEEDS / "plain.txt").read_bytes())
    assert texts(found).split() == [
        "192.0.2.0/24",
        "192.0.2.1",
        "192.0.2.2",
        "198.51.100.7",
        "198.51.100.32/27",
        "198.51.100.250/31",
        "198.51.100.252/30",
        "203.0.113.0/24",
        "203.0.113.9",
        "2001:db8::1",
        "2001:db8::2",
        "2001:db8::7",
        "2001:db8:1::/48",
        "2001:db8:2::/64",
    ]
    assert (found.normalised, found.mapped, found.entries, found.rejected) == (2, 1, 19, 8)
    assert {bad.line: bad.reason for bad in found.rejects} == {
        7: "leading zeros: octal to some programs, decimal to others",
        14: "a number of an IPv4 address is above 255",
        15: "an IPv4 address has four numbers, not 3",
        16: "the prefix length is above 32",
        17: "`/` is no prefix length",
        18: "an address with a zone",
        19: "not an address",
        20: "a range that ends before it begins",
    }


@pytest.mark.parametrize(
    "text",
    [
        "1.2.3.4/08", "1.2.3.4/032", "1.2.3.4/-1", "1.2.3.4 5.6.7.8", "1.2.3.4:80", ".1.2.3", "1..2.3", "1.2.3.4.5",
        "1.2.3.", "1.2.3.0400", "1.2.3.4/24/8", "1/2.3.4.5", "1.2/3.4.5", "0x7f.0.0.1", "2130706433", "١.2.3.4",
        "1.2.3.4\x00", "::1/129", ":::", "1:2:3:4:5:6:7:8:9", "::ffff:010.1.1.1", "1.2.3.4-::5", "-", "/", "1.2.3.4-",
    ],
)  # fmt: skip
def test_what_is_no_address_is_rejected_and_hides_nothing(text: str) -> None:
    found = parse_list(f"192.0.2.1\n{text}\n192.0.2.2\n".encode())
    assert (texts(found), [bad.line for bad in found.rejects]) == ("192.0.2.1 192.0.2.2", [2])
    assert texts(parse_list(text.encode())) == ""


def test_the_quick_way_and_the_exact_one_agree() -> None:
    """A tab and a range of one address send the same text the other way."""
    every = [f"{a}.{b}.{255 - a}.{b}" for a in range(0, 256, 5) for b in (0, 1, 9, 10, 99, 100, 199, 255)]
    quick = parse_list("\n".join(every).encode())
    exact = parse_list("\n".join(f"{text}-{text}" for text in every).encode())
    assert quick.prefixes == exact.prefixes == Prefixes.of(every)
    lengths = [f"203.0.113.255/{length}" for length in range(33)]
    assert parse_list("\n".join(lengths).encode()).prefixes == Prefixes.of(lengths)
    long = [f"2001:db8:ffff:ffff:ffff:ffff:ffff:ffff/{length}" for length in range(129)]
    found = parse_list("\n".join(long).encode())
    assert (found.prefixes, found.normalised) == (Prefixes.of(long), 128)


def test_lists_longer_than_a_piece() -> None:
    every = [f"198.51.{at >> 8}.{at & 255}" for at in range(60_000)]
    every[30_000] = "030.0.0.1"
    found = parse_list("\n".join(every).encode())
    assert len(found.prefixes) == 59_999
    assert [bad.line for bad in found.rejects] == [30_001]


def test_what_is_no_list_at_all_ends_soon() -> None:
    with pytest.raises(FeedError, match="longer than 1 MiB"):
        parse_list(b"x" * (2 << 20))
    with pytest.raises(FeedError, match=f"more than {MOST_REJECTS}"):
        parse_list(b"x\n" * (MOST_REJECTS + 300_000))
    with pytest.raises(FeedError, match="web page"):
        parse("list", b"\n <!DOCTYPE html><html>192.0.2.1\n", now=NOW)


def test_counts_that_a_feed_declares() -> None:
    declared = {"drop.json": 3, "firehol.netset": 9, "firehol.ipset": 2, "feodo.csv": 2, "feodo.txt": 2}
    for fixture, count in declared.items():
        found = parsed(fixture)
        assert (found.declared, found.entries) == (count, count), fixture


@pytest.mark.parametrize("fixture", ["drop.json", "feodo.csv", "feodo.txt"])
def test_without_its_last_line_a_feed_is_cut_off(fixture: str) -> None:
    data = (FEEDS / fixture).read_bytes()
    with pytest.raises(FeedError, match="cut off"):
        parse(EXPECTED[fixture][0], data[: data.rindex(b"\n", 0, -1) + 1], now=NOW)


@pytest.mark.parametrize(
    "fixture", [name for name in EXPECTED if name.endswith(".json") and name != "drop.json"]
)
def test_json_that_is_cut_off_or_of_another_shape(fixture: str) -> None:
    name = EXPECTED[fixture][0]
    data = (FEEDS / fixture).read_bytes()
    for wrong in (data[: len(data) // 2], b"[1, 2]", b'{"message":"go away"}', b"[" * 100_000, b""):
        if name.startswith("json:") and wrong == b"[1, 2]":
            continue
        assert says_nothing(name, wrong), wrong[:20]


def says_nothing(name: str, data: bytes) -> bool:
    """A FeedError, or no prefix at all."""
    try:
        return not len(parse(name, data, now=NOW).prefixes)
    except FeedError:
        return True


def test_keys_that_are_no_utf8() -> None:
    """In a key msgspec tells this in another way than in a value."""
    assert [bad.line for bad in parse("ndjson:ip", b'{"\xff":1}\n{"ip":"192.0.2.1"}\n', now=NOW).rejects] == [
        1
    ]
    with pytest.raises(FeedError, match="no JSON"):
        parse("json:/a", b'{"\xff":1}', now=NOW)


def test_crowdsec_counts_the_decisions_for_a_value() -> None:
    book = Book()
    book.take((FEEDS / "crowdsec.json").read_bytes(), NOW)
    assert {value: len(held) for value, held in book.decisions.items()} == {
        "192.0.2.4": 2,
        "198.51.100.0/24": 1,
        "2001:db8::9": 1,
    }
    gone = (
        b'{"new":null,"deleted":[{"duration":"-1m2s","id":%d,"scope":"Ip","type":"ban","value":"192.0.2.4"}]}'
    )
    book.take(gone % 5, NOW)
    book.take(gone % 5, NOW)
    book.take(gone % 99, NOW)
    assert len(book.decisions["192.0.2.4"]) == 1
    book.take(gone % 4, NOW)
    assert "192.0.2.4" not in book.decisions
    assert texts(book.parsed(NOW)) == "198.51.100.0/24 2001:db8::9"


def test_crowdsec_entries_end_with_their_last_decision() -> None:
    found = parsed("crowdsec.json")
    assert found.until is not None
    ends = dict(zip(found.prefixes.v4.tolist(), (found.until.v4 - NOW).round(3).tolist(), strict=True))
    assert ends == {0xC0000204: 14395.7, 0xC6336400: 601201.0}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1h", 3600), ("1.5h", 5400), ("-2m3s", -123), ("300ms", 0.3), ("5µs", 5e-6), ("0", 0), ("0s", 0)],
)
def test_durations_of_go(text: str, seconds: float) -> None:
    assert seconds_of(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "-", "1", "h", "1h ", "1d", "1h-2m", "٣h", "1e3s"])
def test_what_is_no_duration(text: str) -> None:
    assert seconds_of(text) is None


def test_stix_ends_and_versions() -> None:
    found = parsed("stix.json")
    assert found.until is not None
    ends = dict(zip(found.prefixes.texts(), [*found.until.v4, *found.until.v6], strict=True))
    assert ends.pop("203.0.113.0/24") == 1798761600
    assert set(ends.values()) == {math.inf}
    assert "AND" in found.rejects[0].reason
    assert "FOLLOWEDBY" in found.rejects[1].reason


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("[ipv4-addr:value='192.0.2.1']", ["192.0.2.1"]),
        (
            "([(ipv4-addr:value = '192.0.2.1' OR (ipv4-addr:value = '192.0.2.2'))])",
            ["192.0.2.1", "192.0.2.2"],
        ),
        ("[network-traffic:dst_ref.value = '192.0.2.1']", ["192.0.2.1"]),
        ("[domain-name:value LIKE '%.example']", []),
    ],
)
def test_stix_patterns(pattern: str, found: list[str]) -> None:
    assert addresses_of(pattern) == found


@pytest.mark.parametrize(
    "pattern",
    [
        "[ipv4-addr:value != '192.0.2.1']",
        "[NOT ipv4-addr:value = '192.0.2.1']",
        "[ipv4-addr:value NOT = '192.0.2.1']",
        "[ipv4-addr:value LIKE '192.0.2.%']",
        "[ipv4-addr:value = '192.0.2.1'] WITHIN 5 SECONDS",
        "[ipv4-addr:value = '192.0.2.1'] AND [domain-name:value = 'example.com']",
        "[ipv4-addr:value = '192.0.2.1'",
        "([ipv4-addr:value = '192.0.2.1']",
        "[ipv4-addr:value = '192.0.2.1']]",
        "[ipv4-addr:value IN ('192.0.2.1'",
        "[ipv4-addr:value = ipv4-addr:value]",
        "[domain-name:value",
        "ipv4-addr:value",
    ],
)
def test_stix_patterns_that_are_refused_whole(pattern: str) -> None:
    if "ipv4" in pattern:
        with pytest.raises(NotAddressesError):
            addresses_of(pattern)
    else:
        assert addresses_of(pattern) == []


def test_abuseipdb_says_why_it_refuses() -> None:
    answer = b'{"errors":[{"detail":"Authentication failed. Your API key is either missing, incorrect.","status":401}]}'
    with pytest.raises(FeedError, match="refuses with 401: Authentication failed"):
        parse("abuseipdb", answer, now=NOW)


def test_gzip_by_its_first_bytes() -> None:
    plain = (FEEDS / "drop.txt").read_bytes()
    assert unpacked(plain) == plain
    assert unpacked(gzip.compress(plain)) == plain
    assert unpacked(gzip.compress(gzip.compress(plain))) == plain
    assert unpacked(gzip.compress(plain[:50]) + gzip.compress(plain[50:]) + bytes(512)) == plain


@pytest.mark.check(29)
def test_a_gzip_bomb_is_stopped_at_the_limit() -> None:
    bomb = gzip.compress(bytes(64 << 20))
    for data in (bomb, gzip.compress(bomb), gzip.compress(b"a") * 3 + bomb):
        with pytest.raises(FeedError, match="larger than 32 MiB"):
            unpacked(data)
    with pytest.raises(FeedError, match="more than 2 times"):
        unpacked(gzip.compress(gzip.compress(gzip.compress(b"192.0.2.1"))))


def test_damaged_gzip() -> None:
    good = gzip.compress((FEEDS / "drop.txt").read_bytes())
    for cut in range(2, len(good)):
        with pytest.raises(FeedError, match="cut off"):
            unpacked(good[:cut])
    with pytest.raises(FeedError, match="follows"):
        unpacked(good + b"more")
    with pytest.raises(FeedError, match="damaged"):
        unpacked(good[:20] + b"\xff\xff\xff" + good[23:])


@pytest.mark.parametrize(
    "name", ["lst", "csv", "csv:0", "csv:x", "csv:", "json:a", "ndjson:", "list:1", "tor:"]
)
def test_names_that_are_no_format(name: str) -> None:
    with pytest.raises(FeedError) as caught:
        parse(name, b"", now=NOW)
    assert caught.value.hint


def test_presets_are_whole() -> None:
    for name, preset in PRESETS.items():
        assert preset.url.startswith("https://"), name
        rhythm = PRESET_RHYTHMS[name]
        assert rhythm.interval_s >= rhythm.min_interval_s >= 60, name
        assert preset.licence, name
        parse(rhythm.format, (FEEDS / _fixture(rhythm.format)).read_bytes(), now=NOW)


def _fixture(format_: str) -> str:
    return next(fixture for fixture, (name, *_) in EXPECTED.items() if name == format_)
