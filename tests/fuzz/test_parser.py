"""Nothing that anybody writes breaks the parser: a tree or a PolicyError, soon, and nothing else."""

from __future__ import annotations

import random
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.compiler.lang.check import check_policy
from penstock.compiler.lang.format import format_policy
from penstock.compiler.lang.parser import parse_expression, parse_policy
from penstock.compiler.lang.render import as_record, render
from penstock.compiler.lang.source import Source
from penstock.errors import PolicyError

ROOT = Path(__file__).parents[2]
SEEDS = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "examples").glob("*.policy"))]
WORDS = [
    "filter",
    "edge",
    "at",
    "xdp",
    "{",
    "}",
    "test",
    "let",
    "=",
    "if",
    "drop",
    "pass",
    "count",
    "on",
    "malformed",
    "default",
    "and",
    "or",
    "not",
    "xor",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    "->",
    "#",
    '"',
    "'",
    "\\",
    "$",
    "$office",
    "tcp",
    "udp",
    "inner",
    "pcap",
    "port",
    "53",
    "80-90",
    "src",
    "dst",
    "net",
    "host",
    "10.0.0.0/8",
    "2001:db8::/32",
    "ip[0]",
    "&",
    "0xf",
    "==",
    "!=",
    "<",
    ">>",
    "%",
    "^",
    "-",
    "|",
    "over",
    "in",
    "@set",
    "packet",
    "IPv4",
    "UDP(dport=53)",
    "pcap",
    "hex",
    "\n",
    "\t",
    "ether",
    "proto",
    "\\ip",
    "vlan",
    "mpls",
    "len",
    "ttl",
    "frag",
    "tcp-syn",
    "02:00:00:00:00:01",
    "0x",
    "1:2:3:",
    "::",
    "é",
    "日",
    "\x00",
]
MAX_SECONDS = 2.0
MAX_BYTES = 256 << 20


def _outcome(text: str) -> str:
    """What becomes of a text.  A tree must format, check and parse again; faults must be shown."""
    source = Source("fuzz.policy", text)
    try:
        policy = parse_policy(source)
    except PolicyError as error:
        return _refused(error, len(text))
    canonical = format_policy(policy)
    assert format_policy(parse_policy(Source("fuzz.policy", canonical))) == canonical
    for found in check_policy(policy):
        assert render(found)
    return "read"


def _refused(error: PolicyError, length: int) -> str:
    assert error.diagnostics
    for found in error.diagnostics:
        assert 0 <= found.span.start <= found.span.end <= length
        assert render(found)
        assert as_record(found)["line"]
    return "refused"


def _in_time(text: str, judge: Callable[[str], str] = _outcome) -> str:
    begin = time.process_time()
    result = judge(text)
    assert time.process_time() - begin < MAX_SECONDS
    return result


def _expression_outcome(text: str) -> str:
    try:
        parse_expression(Source("<expression>", text))
    except PolicyError as error:
        return _refused(error, len(text))
    return "read"


def _mutated(random_source: random.Random, text: str) -> str:
    for _ in range(random_source.randint(1, 4)):
        at = random_source.randrange(len(text) + 1)
        end = min(len(text), at + random_source.randint(0, 12))
        match random_source.randrange(7):
            case 0:
                text = text[:at] + text[end:]
            case 1:
                text = text[:at] + random_source.choice(WORDS) + text[at:]
            case 2:
                text = text[:at] + random_source.choice(WORDS) + text[end:]
            case 3:
                text = text[:at] + chr(random_source.randrange(0x250)) + text[at:]
            case 4:
                text = text[:at] + text[at:end] * random_source.randint(2, 20) + text[end:]
            case 5:
                other = random_source.choice(SEEDS)
                cut = random_source.randrange(len(other))
                text = text[:at] + other[cut : cut + 40] + text[end:]
            case _:
                text = text[:at]
    return text


@pytest.mark.check(2)
def test_check_02_random_bytes_are_refused_or_read() -> None:
    source = random.Random(2)
    for number in range(1_000):
        octets = source.randbytes(source.randint(0, 400))
        # The caller decodes; both ways in which it may are tried.
        text = octets.decode("latin-1") if number % 2 else octets.decode("utf-8", "surrogateescape")
        _in_time(text)
        _in_time(text, _expression_outcome)


@pytest.mark.check(2)
def test_check_02_random_words_are_refused_or_read() -> None:
    source = random.Random(22)
    for _ in range(1_000):
        words = [source.choice(WORDS) for _ in range(source.randint(1, 60))]
        _in_time(" ".join(words))
        _in_time(" ".join(words), _expression_outcome)


@pytest.mark.check(2)
@pytest.mark.timeout(600)
def test_check_02_mutated_policies_are_refused_or_read() -> None:
    source = random.Random(222)
    results = {"read": 0, "refused": 0}
    tracemalloc.start()
    try:
        for number in range(10_000):
            results[_in_time(_mutated(source, SEEDS[number % len(SEEDS)]))] += 1
            if number == 200:
                assert tracemalloc.get_traced_memory()[1] < MAX_BYTES
                tracemalloc.stop()
    finally:
        tracemalloc.stop()
    # Mutations that nobody notices and mutations that everything notices would both test little.
    assert min(results.values()) > 500


@pytest.mark.check(4)
@pytest.mark.parametrize(
    "text",
    [
        "(" * (1 << 20),
        "a" * (1 << 20),
        "a-" * (1 << 19),
        "1" * (1 << 20),
        "1:" * (1 << 19),
        "1." * (1 << 19),
        ":" * (1 << 20),
        "#" * (1 << 20),
        "#\n" * (1 << 19),
        "filter a at xdp {\n" + "drop if (\n" * 90_000,
        "filter a at xdp {" * 60_000,
        "let a = " + "1," * 500_000,
        'test "a" { packet ' + "IPv4/" * 200_000,
        'test "' * 170_000,
        "filter a at xdp { drop if tcp and\n" + "#\n" * 500_000,
        "filter a at xdp { drop if host " + "\\" * 1_000_000,
        "}" * (1 << 20),
        "\n" * (1 << 20),
    ],
    ids=lambda text: repr(text[:12]),
)
def test_check_04_a_mebibyte_of_anything_ends_in_time(text: str) -> None:
    begin = time.process_time()
    _outcome(text[: (1 << 20) - 100])
    assert time.process_time() - begin < 20


@pytest.mark.check(1)
def test_check_01_a_syntax_error_has_file_line_column_caret_and_suggestion() -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy(Source("edge.policy", "filter edge at xdp {\n    drop if tcp dst prot 53\n}\n"))
    shown = render(caught.value.diagnostics[0])
    assert shown.startswith("edge.policy:2:21: error[PS103]: ")
    assert "  2 |     drop if tcp dst prot 53\n    |                     ^^^^\n" in shown
    assert shown.endswith("  hint: did you mean `port`?\n")
    assert caught.value.exit_code == 1


@pytest.mark.check(5)
@pytest.mark.parametrize(
    ("text", "place", "nearest"),
    [
        ("fitler a at xdp { }", "1:1", "filter"),
        ("filter a at xpd { }", "1:13", "xdp"),
        ("filter a at xdp { defualt drop }", "1:19", "default"),
        ("filter a at xdp { on malfromed drop }", "1:22", "malformed"),
        ("filter a at xdp { dorp if tcp }", "1:19", "drop"),
        ("filter a at xdp { drop if upd }", "1:27", "udp"),
        ("filter a at xdp { drop if tcp.flgs == 1 }", "1:27", "tcp.flags"),
        ('test "a" { packte IPv4 -> drop }', "1:12", "packet"),
    ],
)
def test_check_05_an_unknown_word_has_its_place_and_the_nearest_name(
    text: str, place: str, nearest: str
) -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy(Source("edge.policy", text))
    found = caught.value.diagnostics[0]
    assert f"{found.line}:{found.column}" == place
    assert found.hint == f"did you mean `{nearest}`?"


@pytest.mark.check(6)
def test_check_06_an_undefined_constant_comes_with_the_line_that_would_define_it() -> None:
    found = check_policy(
        parse_policy(Source("edge.policy", "filter a at xdp {\n    drop if src net $office\n}\n"))
    )
    (error,) = (each for each in found if each.code == "PS111")
    assert (error.line, error.column) == (2, 21)
    assert error.hint is not None
    assert "let office = " in error.hint
