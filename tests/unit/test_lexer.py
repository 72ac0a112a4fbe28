"""Tokens: what libpcap's scanner would find, and where an expression inside a policy ends."""

from __future__ import annotations

import pytest

from penstock.compiler.lang.lexer import lex, number_value


def _kinds(text: str) -> list[tuple[str, str]]:
    return [(token.kind, token.text) for token in lex(text).tokens[:-1]]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("tcp", "word"),
        ("tcpdump", "name"),
        ("ftp-data", "name"),
        ("www.example.org", "name"),
        ("1-1", "name"),
        ("es-is", "word"),
        ("80", "number"),
        ("0x50", "number"),
        ("tcp-syn", "number"),
        ("10.1", "ipv4"),
        ("10.0.0.1", "ipv4"),
        ("1.2.3.4.5", "name"),
        ("1.2.3.4.5.6", "mac"),
        ("a:b:c:d:e:f", "mac"),
        ("aabb.ccdd.eeff", "mac"),
        ("020000000001", "mac"),
        ("0200000000011", "bad"),
        ("::", "ipv6"),
        ("2001:db8::1", "ipv6"),
        ("1:2:3:4:5:6:7:8", "ipv6"),
        ("::ffff:10.0.0.1", "ipv6"),
        ("1::2::3", "bad"),
        ("$web", "constant"),
        ("\\tcp", "escaped"),
        ("08", "bad"),
        ("@", "bad"),
        ("é", "bad"),
    ],
)
def test_the_longest_match_decides(text: str, kind: str) -> None:
    found = lex(text).tokens[0]
    assert found.kind == kind
    if kind not in {"bad", "constant"} or text == "08":
        assert found.text == text


def test_marks_and_words_are_told_apart_without_blanks() -> None:
    assert _kinds("tcp[0]&0xf!=1&&!udp") == [
        ("word", "tcp"), ("mark", "["), ("number", "0"), ("mark", "]"), ("mark", "&"), ("number", "0xf"),
        ("mark", "!="), ("number", "1"), ("word", "and"), ("word", "not"), ("word", "udp"),
    ]  # fmt: skip


def test_one_equals_sign_is_two() -> None:
    assert lex("len = 1").tokens[1].text == "=="


@pytest.mark.parametrize(
    ("text", "value"), [("10", 10), ("010", 8), ("0x10", 16), ("0", 0), ("4294967295", 2**32 - 1)]
)
def test_numbers(text: str, value: int) -> None:
    assert number_value(text) == value


@pytest.mark.parametrize("text", ["4294967296", "0x100000000", "089", "9" * 100_000, "0x" + "f" * 100_000])
def test_numbers_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"octal|32 bits"):
        number_value(text)


def test_spans_are_offsets_of_the_text() -> None:
    text = "tcp  port\n80"
    assert [text[token.span.start : token.span.end] for token in lex(text).tokens] == [
        "tcp",
        "port",
        "80",
        "",
    ]


@pytest.mark.parametrize(
    ("text", "ends_before"),
    [
        ("tcp\npass", "\npass"),
        ("tcp and\nudp\npass", "\npass"),
        ("tcp\n  and udp\npass", "\npass"),
        ("tcp\n  && udp\npass", "\npass"),
        ("port (80 or\n 443)\npass", "\npass"),
        ("tcp[0] &\n 1 = 0\npass", "\npass"),
        ("tcp[0]\n & 1 = 0\npass", "\npass"),
        ("tcp # why\n and udp\npass", "\npass"),
        ("tcp # why\npass", " # why\npass"),
        ("tcp }", " }"),
        ("tcp\n}", "\n}"),
        ("port (80\n  dns: drop if tcp", "\n  dns: drop if tcp"),
        ("port (80\n}", "\n}"),
        ("tcp\nandy: drop", "\nandy: drop"),
        ("tcp\nand-so: drop", "\nand-so: drop"),
    ],
)
def test_where_a_rule_ends(text: str, ends_before: str) -> None:
    assert text[lex(text, in_policy=True).end :] == ends_before


def test_comments_inside_a_rule_are_kept() -> None:
    found = lex("tcp # one\n # two\n and udp # three\npass", in_policy=True)
    assert [(comment.text, comment.own_line) for comment in found.comments] == [
        ("# one", False),
        ("# two", True),
    ]


def test_thousands_of_comment_lines_take_no_quadratic_time() -> None:
    text = "tcp and\n" + "#\n" * 200_000 + "udp"
    assert len(lex(text, in_policy=True).comments) == 200_000
