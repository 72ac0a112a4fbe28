"""Whatever bytes a feed has: prefixes or a FeedError, and soon."""

from __future__ import annotations

import gzip
from contextlib import suppress
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fuzz.effort import often, within

from penstock.errors import FeedError
from penstock.feeds.formats import FORMATS, parse
from penstock.feeds.judge import Limits, judge
from penstock.feeds.protected import SPECIAL, around, outside
from penstock.feeds.result import Listed
from penstock.feeds.unpack import inflated, unpacked
from penstock.model.prefixes import Prefixes

NOW = 1790072042.0
SEEDS = {
    path.name: path.read_bytes() for path in sorted((Path(__file__).parents[1] / "cases/feeds").iterdir())
}
ARGUMENTS = {"csv": "csv:2", "json": "json:/lists/*/ips/0", "ndjson": "ndjson:ip"}
NAMES = st.sampled_from([ARGUMENTS.get(name, name) for name in FORMATS])
TOKENS = st.sampled_from(
    [b"\n", b"\r\n", b"{", b"}", b"[", b"]", b'"', b"'", b"\\", b",", b"null", b"true", b"-1", b"1e999", b"0/0", b"::",
     b"/33", b"-", b"#", b";", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"999999999999999999999999", b"# END 9 entries\n",
     b'{"type":"metadata","records":1}\n', b"ExitNode x\n", b"Start\tEnd\tNetblock\n", b"(" * 50, b"\xf0\x9f\x98\x80"]
)  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A good feed with pieces cut out, repeated, exchanged for others."""
    content = bytearray(draw(st.sampled_from(list(SEEDS.values()))))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(content)))
        match draw(st.sampled_from(["byte", "token", "cut", "drop", "repeat"])):
            case "byte":
                content[at : at + 1] = draw(st.binary(max_size=2))
            case "token":
                content[at:at] = draw(TOKENS)
            case "cut":
                del content[at:]
            case "drop":
                del content[at : at + draw(st.integers(1, 40))]
            case "repeat":
                content[at:at] = content[at : at + draw(st.integers(1, 200))]
    return bytes(content)


def read_fully(name: str, data: bytes) -> None:
    try:
        found = parse(name, data, now=NOW)
    except FeedError:
        return
    prefixes = found.prefixes
    assert Prefixes.of(prefixes.networks()) == prefixes
    assert all(network.prefixlen <= network.max_prefixlen for network in prefixes.networks())
    assert 0 <= found.rejected <= found.entries
    assert len(found.rejects) == found.rejected
    assert all(bad.reason and len(bad.text) <= 80 for bad in found.rejects)
    if found.until is not None:
        assert (len(found.until.v4), len(found.until.v6)) == (len(prefixes.v4), len(prefixes.v6_high))
    left, _ = outside(Listed(prefixes, found.until), SPECIAL)
    judge(found, left.prefixes, 5, Limits())
    around(left, SPECIAL)


@settings(max_examples=often(300))
@given(NAMES, st.binary(max_size=300))
@within(2)
def test_arbitrary_bytes(name: str, content: bytes) -> None:
    read_fully(name, content)


@settings(max_examples=often(600))
@given(NAMES, mutated())
@within(2)
def test_mutated_feeds(name: str, content: bytes) -> None:
    read_fully(name, content)


@settings(max_examples=often(300))
@given(st.lists(st.text(alphabet="0123456789./:-abf %#;\t", max_size=24), max_size=12))
@within(2)
def test_lines_that_look_like_addresses(lines: list[str]) -> None:
    read_fully("list", "\n".join(lines).encode())


@settings(max_examples=often(200))
@given(st.binary(max_size=200), st.integers(0, 60), st.binary(max_size=8))
@within(2)
def test_compressed_bytes(content: bytes, at: int, other: bytes) -> None:
    packed = bytearray(gzip.compress(content))
    packed[at : at + len(other)] = other
    for undo in (unpacked, inflated):
        with suppress(FeedError):
            assert len(undo(bytes(packed), 4096)) <= 4096
