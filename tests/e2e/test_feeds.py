"""Feeds from a real local HTTP server, with every fault that a source may have.  Needs no privilege."""

from __future__ import annotations

import asyncio
import fcntl
import gzip
import json
import os
import pty
import resource
import ssl
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from random import Random

import pytest
from tests.e2e.conftest import Cli, write
from tests.feedserver import BOMB, Answer, FeedServer, body, endless, redirect, serving, silent, truncated

from penstock.errors import FeedError
from penstock.feeds.fetch import Manners, is_public
from penstock.feeds.judge import Limits
from penstock.feeds.protected import SPECIAL
from penstock.feeds.refresh import Feed, Outcome, Status, refresh
from penstock.feeds.schedule import after_failure, after_success
from penstock.feeds.sources import Command, File, Source, Url, run_command, source_of
from penstock.feeds.store import FeedState, Store, digest
from penstock.feeds.taxii import all_pages
from penstock.model.prefixes import Prefixes
from penstock.pipeline.surroundings import surroundings

NOW = 1_790_072_042.0
#: The tests' server is on loopback and has no certificate.
LOCAL = Manners(allow_http=True, longest_s=20)


def drop(count: int, declared: int | None = None) -> bytes:
    """A DROP list of so many prefixes."""
    lines = [
        f'{{"cidr":"198.51.{at >> 8}.{at & 255}/32","sblid":"SBL{at}","rir":"x"}}\n' for at in range(count)
    ]
    return f'{"".join(lines)}{{"type":"metadata","records":{count if declared is None else declared}}}\n'.encode()


GOOD = drop(40)


@pytest.fixture(scope="module")
def running() -> Iterator[FeedServer]:
    with serving() as server:
        yield server


@pytest.fixture
def server(running: FeedServer) -> FeedServer:
    running.answer = body(GOOD, etag='"one"', Last_Modified="Tue, 22 Sep 2026 10:14:02 GMT")
    running.requests.clear()
    return running


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def feed_of(source: Source, **changed: object) -> Feed:
    feed = Feed("drop", source, "drop-json", interval_s=7200, min_interval_s=3600)
    return replace(feed, **changed)  # type: ignore[arg-type]


def asked(feed: Feed, store: Store, now: float = NOW, manners: Manners = LOCAL) -> Outcome:
    return asyncio.run(refresh(feed, store, now=now, manners=manners, random=Random(1)))


def listed(outcome: Outcome) -> Prefixes:
    assert outcome.copy is not None
    return outcome.copy.listed.prefixes


def test_the_first_answer(server: FeedServer, store: Store) -> None:
    outcome = asked(feed_of(Url(server.url())), store)
    assert (outcome.status, outcome.is_changed, len(listed(outcome))) == (Status.OK, True, 40)
    assert server.requests[0]["User-Agent"].startswith("penstock/")
    assert "If-None-Match" not in server.requests[0]
    state = store.state("drop")
    assert (state.entries, state.fetched_at, state.etag, state.reason) == (40, NOW, '"one"', None)
    assert store.body("drop", state) == GOOD
    assert store.names() == ["drop"]


@pytest.mark.check(28)
def test_not_modified_is_success_and_no_change(server: FeedServer, store: Store) -> None:
    feed = feed_of(Url(server.url()))
    asked(feed, store)
    before = {path.name: path.stat().st_mtime_ns for path in (store.directory / "drop").glob("*.body")}
    again = asked(feed, store, NOW + 3600)
    assert (again.status, again.is_changed, len(listed(again))) == (Status.OK, False, 40)
    assert server.requests[1]["If-None-Match"] == '"one"'
    assert server.requests[1]["If-Modified-Since"] == "Tue, 22 Sep 2026 10:14:02 GMT"
    assert (again.state.fetched_at, again.state.checked_at) == (NOW, NOW + 3600)
    assert before == {
        path.name: path.stat().st_mtime_ns for path in (store.directory / "drop").glob("*.body")
    }


def test_what_a_fetcher_that_was_taken_over_leaves_harms_no_reader(store: Store, tmp_path: Path) -> None:
    """The daemon and root read where the fetcher writes: pipes, links to what it may not read, and no end."""
    state = FeedState(digest(GOOD), fetched_at=NOW, checked_at=NOW)
    store.write("drop", state, GOOD)
    place = store.directory / "drop"
    for file, heard in (("state.json", FeedState()), (f"{state.body}.body", None)):
        kept = (place / file).read_bytes()
        for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero")):
            (place / file).unlink()
            make(place / file)
            if heard is None:
                assert store.body("drop", state) is None
            else:
                with pytest.raises(FeedError, match="read"):
                    store.state("drop")
        (place / file).unlink()
        (place / file).write_bytes(kept)
    assert store.body("drop", store.state("drop")) == GOOD
    with (place / f"{state.body}.body").open("ab") as file:
        file.truncate(1 << 40)
    assert store.body("drop", state) is None
    (elsewhere := tmp_path / "etc").mkdir()
    (elsewhere / "a.body").touch()
    (store.directory / "linked").symlink_to(elsewhere)
    with pytest.raises(FeedError, match="write"):
        store.write("linked", state, GOOD)
    with pytest.raises(FeedError, match="remove"):
        store.forget("linked")
    assert [path.name for path in elsewhere.iterdir()] == ["a.body"]


def test_the_same_bytes_again_are_no_change(server: FeedServer, store: Store) -> None:
    server.answer = body(GOOD)
    feed = feed_of(Url(server.url()))
    assert asked(feed, store).is_changed
    assert not asked(feed, store, NOW + 1).is_changed
    server.answer = body(drop(41))
    changed = asked(feed, store, NOW + 2)
    assert (changed.is_changed, len(listed(changed))) == (True, 41)
    assert len(list((store.directory / "drop").glob("*.body"))) == 1


#: What the source does -> what is said of it.  The server is on loopback, so that every redirect leads there;
#: odd spellings of an address are refused by some versions of aiohttp and resolved by others.
FAULTS: dict[str, tuple[Callable[[FeedServer], Answer], str]] = {
    "truncated": (lambda _: truncated, "cut off"),
    "truncated without a length": (lambda _: body(GOOD[:1000]), "cut off"),
    "wrong count": (lambda _: body(drop(40, 41)), "says that it has 41 entries and has 40"),
    "HTML": (lambda _: body(b"<!doctype html><html><body>Sign in"), "web page"),
    "empty": (lambda _: body(b""), "cut off"),
    "gzip bomb": (lambda _: body(BOMB, Content_Encoding="gzip"), "larger than 32 MiB"),
    "a bomb in a file": (lambda _: body(gzip.compress(BOMB)), "larger than 32 MiB"),
    "damaged gzip": (lambda _: body(gzip.compress(GOOD)[:-9], Content_Encoding="gzip"), "cut off"),
    "endless": (lambda _: endless, "larger than 32 MiB"),
    "unasked encoding": (lambda _: body(b"\x0b\x02", Content_Encoding="br"), "not asked for"),
    "500": (lambda _: body(b"oops", status=500), "answers 500 Internal Server Error"),
    "503": (lambda _: body(GOOD, status=503), "answers 503"),
    "404": (lambda _: body(GOOD, status=404), "answers 404"),
    "401": (lambda _: body(b"{}", status=401), "answers 401"),
    "206": (lambda _: body(GOOD, status=206), "answers 206"),
    "redirect to loopback": (
        lambda server: redirect(server.url()),
        "redirects to 127.0.0.1, which is not public",
    ),
    "by name": (lambda server: redirect(server.url(host="localhost")), "redirects to localhost, which is "),
    "by an odd spelling": (lambda server: redirect(server.url(host="127.1")), ""),
    "by a number": (lambda server: redirect(server.url(host="2130706433")), ""),
    "mapped": (lambda server: redirect(server.url(host="[::ffff:127.0.0.1]")), "not public"),
    "redirect to a file": (lambda _: redirect("file:///etc/passwd"), "file is not taken"),
    "shrunk": (lambda _: body(drop(19)), "19 entries, 52 % fewer than the 40 before"),
    "grown": (lambda _: body(drop(401)), "401 entries, 10.0 times the 40 before"),
    "nothing left": (lambda _: body(drop(0)), "no entries, where there were 40"),
    "everything": (
        lambda _: body(drop(40).replace(b"198.51.0.0/32", b"0.0.0.0/0")),
        "0.0.0.0/0 is wider than /8",
    ),
    "not a list": (lambda _: body(drop(40).replace(b"198.51.0.", b"198.51.0")), "are no addresses"),
}


@pytest.mark.check(29)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_keeps_the_last_good_copy(server: FeedServer, store: Store, fault: str) -> None:
    feed = feed_of(Url(server.url()))
    good = asked(feed, store)
    answer, reason = FAULTS[fault]
    server.answer = answer(server)
    outcome = asked(feed, store, NOW + 3600)
    assert outcome.status is Status.STALE
    assert reason in str(outcome.reason)
    assert len(server.requests) == 2
    assert not outcome.is_changed
    assert listed(outcome) == listed(good)
    state = store.state("drop")
    assert (state.reason, state.failures, state.fetched_at) == (outcome.reason, 1, NOW)
    assert store.body("drop", state) == GOOD
    assert state.next_at is not None
    assert NOW + 7200 <= state.next_at <= NOW + 3600 + 7200
    server.answer = body(GOOD)
    mended = asked(feed, store, NOW + 7200)
    assert (mended.status, mended.state.failures, mended.reason) == (Status.OK, 0, None)


@pytest.mark.check(29)
def test_without_a_last_good_copy_a_feed_is_refused(server: FeedServer, store: Store) -> None:
    server.answer = body(b"<html>")
    outcome = asked(feed_of(Url(server.url())), store)
    assert (outcome.status, outcome.copy) == (Status.REFUSED, None)
    assert "web page" in str(store.state("drop").reason)


def test_a_feed_whose_source_never_answered_is_not_called_refused(server: FeedServer, store: Store) -> None:
    feed = feed_of(Url(server.url()))
    server.answer = body(b"", status=404)
    outcome = asked(feed, store)
    assert (outcome.status, store.state("drop").status) == (Status.NEVER_FETCHED, "never fetched")
    assert "404" in str(store.state("drop").reason)
    server.answer = body(b"<html>")
    outcome = asked(feed, store, NOW + 1)
    assert (outcome.status, store.state("drop").status) == (Status.REFUSED, "refused")
    server.answer = body(GOOD)
    assert asked(feed, store, NOW + 2).status is Status.OK
    server.answer = body(b"", status=404)
    assert (asked(feed, store, NOW + 3).status, store.state("drop").status) == (Status.STALE, "stale")


@pytest.mark.check(29)
def test_tls(store: Store, tmp_path: Path) -> None:
    """A certificate that nobody vouches for, a name that is not in it, and no TLS at all."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
         "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    trusting = replace(LOCAL, allow_http=False, tls=ssl.create_default_context(cafile=str(certificate)))
    with serving(context) as secure:
        secure.answer = body(GOOD)
        good = asked(feed_of(Url(secure.url(host="localhost"))), store, manners=trusting)
        assert good.status is Status.OK
        for url, manners in ((secure.url(host="localhost"), LOCAL), (secure.url(), trusting)):
            outcome = asked(feed_of(Url(url)), store, NOW + 1, manners)
            assert (outcome.status, len(listed(outcome))) == (Status.STALE, 40)
            assert "TLS" in str(outcome.reason)
    with serving() as plain:
        plain.answer = body(GOOD)
        outcome = asked(feed_of(Url(f"https://localhost:{plain.port}/")), store, NOW + 2, trusting)
        assert (outcome.status, "TLS" in str(outcome.reason)) == (Status.STALE, True)


def test_plain_http_is_asked_for(server: FeedServer, store: Store) -> None:
    outcome = asked(feed_of(Url(server.url())), store, manners=Manners())
    assert "http is not taken" in str(outcome.reason)
    assert not server.requests


def test_nobody_listens(server: FeedServer, store: Store) -> None:
    outcome = asked(feed_of(Url("http://127.0.0.1:1/")), store)
    assert outcome.reason == "no answer: 127.0.0.1:1: Connection refused"
    outcome = asked(feed_of(Url("http://[/")), store)
    assert "no answer" in str(outcome.reason)


def test_a_server_that_does_not_answer(server: FeedServer, store: Store) -> None:
    server.answer = silent
    outcome = asked(feed_of(Url(server.url())), store, manners=replace(LOCAL, longest_s=0.2))
    assert "no whole answer within 0.2 s" in str(outcome.reason)


def test_redirects_are_followed_a_few_times(server: FeedServer, store: Store) -> None:
    """A key goes to the first server alone, which another name is not."""
    allowing = replace(LOCAL, allow_private=True)
    good = server.answer
    assert good is not None

    async def once(request):  # type: ignore[no-untyped-def]
        target = redirect(server.url("/b", host="localhost"))
        return await (good if request.path == "/b" else target)(request)

    server.answer = once
    outcome = asked(feed_of(Url(server.url("/a"), {"X-Api-Key": "secret"})), store, manners=allowing)
    assert outcome.status is Status.OK
    assert [("X-Api-Key" in one, one["path"]) for one in server.requests] == [(True, "/a"), (False, "/b")]
    server.answer = redirect("/again")
    outcome = asked(feed_of(Url(server.url())), store, NOW + 1, allowing)
    assert "more than 5 redirects" in str(outcome.reason)


@pytest.mark.parametrize("text", ["300", "Fri, 01 Jan 2100 00:00:00 GMT"])
def test_retry_after_is_kept(server: FeedServer, store: Store, text: str) -> None:
    server.answer = body(b"", status=429, Retry_After=text)
    outcome = asked(feed_of(Url(server.url()), min_interval_s=0), store)
    assert outcome.state.next_at is not None
    wait = outcome.state.next_at - NOW
    assert wait >= 300 if text == "300" else wait == 86400


def test_schedules() -> None:
    draw = Random(1)
    assert {3240 <= after_success(3600, 60, draw) <= 3960 for _ in range(200)} == {True}
    assert min(after_success(3600, 3600, draw) for _ in range(200)) == 3600
    waits = [[after_failure(failures, 7200, 0, None, draw) for _ in range(300)] for failures in range(1, 12)]
    assert all(
        0 <= wait <= min(60 * 2**failures, 7200) for failures, some in enumerate(waits, 1) for wait in some
    )
    assert max(waits[-1]) > 6000 > 100 > min(waits[-1])
    assert after_failure(10**6, 7200, 86400, None, draw) >= 3600


@pytest.mark.parametrize(
    ("text", "public"),
    [("198.18.0.1", False), ("10.1.1.1", False), ("169.254.169.254", False), ("::1", False), ("fe80::1%eth0", False),
     ("64:ff9b::a00:1", False), ("64:ff9b::909:909", True), ("64:ff9b:1::909:909", False), ("2002:7f00:1::1", False),
     ("2002:909:909::1", True), ("::7f00:1", False), ("::ffff:10.0.0.1", False),
     ("224.0.0.1", False), ("100.64.0.1", False), ("9.9.9.9", True), ("2620:fe::9", True)],
)  # fmt: skip
def test_public_addresses(text: str, public: bool) -> None:
    assert is_public(text) == public


def test_taxii_pages(server: FeedServer, store: Store) -> None:
    pages = (Path(__file__).parents[1] / "cases/feeds/taxii.ndjson").read_bytes().splitlines()

    async def paged(request):  # type: ignore[no-untyped-def]
        indented = json.dumps(json.loads(pages[request.query.get("next") == "abc"]), indent=1).encode()
        return await body(indented)(request)

    server.answer = paged
    outcome = asked(feed_of(Url(server.url("/objects/?limit=1")), format="stix"), store)
    assert listed(outcome).texts() == ["198.51.100.3", "198.51.100.4"]
    assert [one["path"] for one in server.requests] == ["/objects/?limit=1", "/objects/?limit=1&next=abc"]
    assert server.requests[0]["Accept"].startswith("application/taxii+json;version=2.1")
    server.answer = body(pages[0])
    outcome = asked(feed_of(Url(server.url()), format="stix"), store, NOW + 1)
    assert "the pages do not end" in str(outcome.reason)
    assert len(listed(outcome)) == 2


def test_taxii_pages_that_are_always_new() -> None:
    count = 0

    async def another(_after: str) -> bytes:
        nonlocal count
        count += 1
        return b'{"more":true,"next":"%d"}' % count

    with pytest.raises(FeedError, match="after 1000"):
        asyncio.run(all_pages(b'{"more":true,"next":"x"}', another))


def test_durations_end_when_they_were_to_end(server: FeedServer, store: Store) -> None:
    """A 304 does not make a decision last longer; the same answer given anew does."""
    content = (
        b'{"new":[{"duration":"1h","id":1,"scope":"Ip","type":"ban","value":"198.51.100.7"}],"deleted":null}'
    )
    server.answer = body(content, etag='"x"')
    feed = feed_of(Url(server.url()), format="crowdsec")

    def end(outcome: Outcome) -> float:
        assert outcome.copy is not None
        return float(outcome.copy.listed.ends().v4[0])

    assert end(asked(feed, store)) == NOW + 3600
    unchanged = asked(feed, store, NOW + 60)
    assert (end(unchanged), unchanged.is_changed) == (NOW + 3600, False)
    server.answer = body(content)
    anew = asked(feed, store, NOW + 120)
    assert (end(anew), anew.is_changed) == (NOW + 3720, True)


# ── files, commands ──────────────────────────────────────────────────────────


def test_a_file(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "list.gz"
    path.write_bytes(gzip.compress(GOOD))
    feed = feed_of(File(path))
    assert len(listed(asked(feed, store))) == 40
    path.unlink()
    outcome = asked(feed, store, NOW + 1)
    assert (outcome.status, "No such file" in str(outcome.reason)) == (Status.STALE, True)
    outcome = asked(feed_of(File(tmp_path)), store, NOW + 1)
    assert "Is a directory" in str(outcome.reason)


def test_a_command(store: Store) -> None:
    assert (
        len(listed(asked(feed_of(Command(("printf", "192.0.2.1\\n192.0.2.2")), format="list"), store))) == 2
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("exec:sh -c 'echo 192.0.2.1; echo no luck >&2; exit 3'", "sh ended with 3: no luck"),
        ("exec:/no/such/program", "start /no/such/program: No such file"),
        ("exec:sh -c 'sleep 50 & echo 192.0.2.1; wait'", "has not ended within 0.5 s"),
        ("exec:head -c 40000000 /dev/zero", "prints more than 32 MiB"),
    ],
)
def test_commands_that_fail(text: str, reason: str) -> None:
    source = source_of(text)
    assert isinstance(source, Command)
    assert str(source) == text
    began = time.monotonic()
    with pytest.raises(FeedError, match=reason):
        asyncio.run(run_command(source, longest_s=0.5 if "sleep" in text else 20))
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("text", ["exec:", "exec:sh -c 'x"])
def test_commands_that_are_none(text: str) -> None:
    with pytest.raises(FeedError):
        source_of(text)


# ── the copies on disk ───────────────────────────────────────────────────────


@pytest.mark.check(26)
def test_a_state_that_cannot_be_written_leaves_the_old_one(store: Store, server: FeedServer) -> None:
    """A limit on the size of files fails a write half way, as a full disk does."""
    feed = feed_of(Url(server.url()))
    asked(feed, store)
    before = store.state("drop")
    server.answer = body(drop(300))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, hard))
    try:
        with pytest.raises(FeedError, match="File too large"):
            asked(replace(feed, limits=Limits(growth=None)), store, NOW + 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert store.state("drop") == before
    assert store.body("drop", before) == GOOD
    assert len(list((store.directory / "drop").iterdir())) == 2


def test_a_damaged_copy_is_none(store: Store, server: FeedServer) -> None:
    feed = feed_of(Url(server.url()))
    state = asked(feed, store).state
    (store.directory / "drop" / f"{state.body}.body").write_bytes(b"other")
    again = asked(feed, store, NOW + 1)
    assert "If-None-Match" not in server.requests[-1]
    assert (again.status, again.is_changed, len(listed(again))) == (Status.OK, True, 40)
    (store.directory / "drop" / "state.json").write_bytes(b'{"body": 7')
    assert store.state("drop") == FeedState()


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-x", "x" * 65, "a\n"])
def test_names_that_would_leave_the_directory(store: Store, name: str) -> None:
    with pytest.raises(FeedError, match="cannot be a feed's name"):
        store.write(name, FeedState(body=digest(b"")), b"")


# ── judging ──────────────────────────────────────────────────────────────────


@pytest.mark.check(30)
@pytest.mark.parametrize(
    ("lines", "limits", "reason"),
    [
        (["0.0.0.0/0"], Limits(), "0.0.0.0/0 is wider than /8"),
        (["::/0", "2001::/18"], Limits(), "::/0 and 1 more is wider than /19"),
        (["8.0.0.0/7"], Limits(), "8.0.0.0/7 is wider than /8"),
        (["198.51.100.1", "198.51.100.2"], Limits(max_entries=1), "2 entries, and there is room for 1"),
        (["x"] * 11 + ["198.51.100.1"] * 900, Limits(), "11 of 911 entries"),
    ],
)
def test_refused(tmp_path: Path, store: Store, lines: list[str], limits: Limits, reason: str) -> None:
    path = write(tmp_path / "list", "\n".join(lines))
    outcome = asked(feed_of(File(path), format="list", limits=limits), store)
    assert (outcome.status, reason in str(outcome.reason)) == (Status.REFUSED, True), outcome.reason


@pytest.mark.check(30)
def test_borne(tmp_path: Path, store: Store) -> None:
    """Ten bad lines, a share of a hundredth, special addresses however wide, and any change where that is normal."""
    lines = [*["x"] * 10, "224.0.0.0/3", "10.0.0.0/8", *[f"198.51.100.{at}" for at in range(50)]]
    path = write(tmp_path / "list", "\n".join(lines))
    feed = feed_of(File(path), format="list", protected=SPECIAL)
    outcome = asked(feed, store)
    assert (outcome.status, len(listed(outcome))) == (Status.OK, 50)
    assert outcome.copy is not None
    assert sorted(one.removed for one in outcome.copy.left_out) == [1, 1]
    write(path, "# nothing today\n")
    assert asked(feed, store, NOW + 1).status is Status.STALE
    any_change = replace(feed, limits=Limits(shrink=None, growth=None, may_be_empty=True))
    assert asked(any_change, store, NOW + 2).status is Status.OK


# ── the command line ─────────────────────────────────────────────────────────


def test_feed_check(cli: Cli, tmp_path: Path) -> None:
    path = write(tmp_path / "list", "203.0.113.0/24\n010.0.0.1\n10.0.0.0/8\n203.0.113.0/24\n")
    done = cli("feed", "check", str(path))
    assert done.code == 0
    assert "203.0.113.0/24\nprotected 10.0.0.0/8 (private): 1 left out, as 10.0.0.0/8\n" in done.out
    assert "1 occur more than once\n4 entries; 1 IPv4, 0 IPv6 prefixes would be used\n" in done.out
    assert "line 2: `010.0.0.1`: leading zeros" in done.err
    assert "(private)" not in cli("feed", "check", "--private", str(path)).out


def test_feed_check_refuses(cli: Cli, server: FeedServer, tmp_path: Path) -> None:
    done = cli(
        "feed",
        "check",
        server.url(),
        "--allow-http",
        "--preset",
        "spamhaus-drop",
        "--previous",
        "100",
        "--json",
    )
    assert done.code == 1
    assert done.record["refused"] == ["40 entries, 60 % fewer than the 100 before; 50 % is the limit"]
    server.answer = body(b"<html>")
    # Nobody is on the way from this machine to itself.
    assert "127.0.0.1" in server.url()
    done = cli("feed", "check", server.url())
    assert (done.code, "it is a web page" in done.err) == (1, True)
    done = cli("feed", "check", "http://feeds.example/ips.txt")
    assert (done.code, "https is" in done.err) == (1, True)


def test_feed_check_of_standard_input(cli: Cli) -> None:
    done = cli("feed", "check", "-", "--format", "drop-json", "--json", stdin=GOOD.decode())
    assert (done.code, done.record["v4"], done.record["declared"]) == (0, 40, 40)


@pytest.mark.check(44)
def test_what_a_feed_says_cannot_move_the_cursor(cli: Cli, tmp_path: Path) -> None:
    path = write(tmp_path / "list", "203.0.113.1\n\x1b[2Jgone\u202e\n")
    done = cli("feed", "check", str(path))
    assert "\x1b" not in done.out + done.err
    assert "\\x1b[2Jgone\\u202e" in done.err


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("x", "--format", "netst"), "did you mean `netset`?"),
        (("x", "--preset", "spamhaus-dorp"), "did you mean `spamhaus-drop`?"),
        (("x", "--format", "csv"), "it is written `csv:2`"),
        (("/no/such/file",), "No such file"),
    ],
)
def test_feed_check_of_mistakes(cli: Cli, arguments: tuple[str, ...], hint: str) -> None:
    done = cli("feed", "check", *arguments)
    assert (done.code, hint in done.err) == (1, True), done.err


def test_what_surrounds_this_machine() -> None:
    said = {"SSH_CONNECTION": "2001:db8::99 50000 2001:db8::1 22"}
    found = {str(one.network): one.reason for one in surroundings(said)}
    assert found["2001:db8::99/128"] == "peer of this SSH connection"
    own = json.loads(
        subprocess.run(["ip", "-j", "address"], capture_output=True, text=True, check=True).stdout
    )
    for address in (one["local"] for device in own for one in device["addr_info"]):
        assert found[str(ip_network(address))] == "own address"
    routes = json.loads(
        subprocess.run(["ip", "-j", "route"], capture_output=True, text=True, check=True).stdout
    )
    for route in routes:
        if route["dst"] == "default" and "gateway" in route:
            assert str(ip_network(route["gateway"])) in found


def test_presets(cli: Cli) -> None:
    done = cli("feed", "presets")
    assert done.code == 0
    assert "spamhaus-drop " in done.out
    assert "`penstock feed remove SET SOURCE`" in cli("feed", "delete", "x").err


def test_presets_fit_the_terminal() -> None:
    leader, follower = pty.openpty()
    fcntl.ioctl(leader, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    command = [sys.executable, "-m", "penstock", "feed", "presets"]
    with subprocess.Popen(command, stdout=follower, env={**os.environ, "NO_COLOR": "1"}) as running:
        os.close(follower)
        shown = b""
        with suppress(OSError):
            while block := os.read(leader, 1 << 16):
                shown += block
    os.close(leader)
    lines = shown.decode().split("\r\n")
    assert (running.returncode, max(map(len, lines)) <= 80) == (0, True)
    at = lines.index("    https://www.spamhaus.org/drop/drop_v4.json")
    assert lines[at - 1].split() == ["spamhaus-drop", "drop-json", "12", "h"]
