"""What the trees of the data files cannot say: spans, limits, several faults at once, long chains."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from penstock.compiler.lang import cursor
from penstock.compiler.lang.ast import And, Cast, Encapsulation, Expr, Or, Primitive, Qualifiers, Relation
from penstock.compiler.lang.check import check_expression
from penstock.compiler.lang.dump import dump_expression
from penstock.compiler.lang.format import format_expression, format_policy
from penstock.compiler.lang.lexer import lex
from penstock.compiler.lang.parser import MAX_POLICY_BYTES, parse_expression, parse_policy
from penstock.compiler.lang.source import Source
from penstock.compiler.lang.tokens import MAX_NESTING
from penstock.errors import PolicyError
from penstock.pipeline.policy import check_text


def _expression(text: str) -> Expr | None:
    return parse_expression(Source("<expression>", text))


def _nodes(tree: object) -> Iterator[Expr]:
    if isinstance(tree, Expr):
        yield tree
    for part in ("left", "right", "operand"):
        yield from _nodes(getattr(tree, part)) if hasattr(tree, part) else ()


def _codes(text: str) -> list[str]:
    with pytest.raises(PolicyError) as caught:
        parse_policy(Source("edge.policy", text))
    return [found.code for found in caught.value.diagnostics]


def _fault(text: str) -> tuple[str, str]:
    with pytest.raises(PolicyError) as caught:
        _expression(text)
    (found,) = caught.value.diagnostics
    return found.code, text[found.span.start : found.span.end]


# ── trees ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("text", ["", " \t\r\n "])
def test_the_empty_expression_matches_everything(text: str) -> None:
    assert _expression(text) is None


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("tcp or udp and ip", "(tcp or udp) and ip"),
        ("tcp and udp or ip", "(tcp and udp) or ip"),
        ("not tcp and udp", "(not tcp) and udp"),
        ("port 80 or 443", "port 80 or port 443"),
        ("port (80 or 443)", "port 80 or port 443"),
        ("udp and port (80 or 443)", "udp and (port 80 or port 443)"),
        ("port 80 and (udp) or 443", "(port 80 and udp) or port 443"),
        ("port 80 and not 443", "port 80 and not port 443"),
        ("src port not 80", "not src port 80"),
        ("host 10.0.0.1 and (10.0.0.2 or 10.0.0.3)", "host 10.0.0.1 and (host 10.0.0.2 or host 10.0.0.3)"),
        ("dst or src host 10.0.0.1", "src or dst host 10.0.0.1"),
        ("byte 3 = 5", "ether[3] = 5"),
        ("byte 3 & 5", "ether[3] & 5 != 0"),
        ("length > 5", "len > 5"),
        ("wlan host 2:0:0:0:0:1", "ether host 02-00-00-00-00-01"),
        ("port 0120 or 0x50", "port 80 or port 80"),
        ("1 + 7 % 4 = len", "1 + (7 % 4) = len"),
        ("7 % 4 * 2 = len", "7 % (4 * 2) = len"),
        ("7 ^ 1 + 2 = len", "7 ^ (1 + 2) = len"),
        ("- 7 % 4 = len", "-(7 % 4) = len"),
        ("- 7 + 4 = len", "(-7) + 4 = len"),
        ("10 - 3 - 2 = len", "(10 - 3) - 2 = len"),
        ("1 | 2 & 3 << 4 + 5 * 6 = len", "1 | (2 & (3 << (4 + (5 * 6)))) = len"),
    ],
)
def test_two_texts_of_one_tree(text: str, same: str) -> None:
    assert _expression(text) == _expression(same)


def test_a_value_remembers_that_its_qualifiers_are_inherited() -> None:
    found = _expression("tcp dst port 80 or 443")
    assert isinstance(found, Or)
    assert isinstance(found.left, Primitive)
    assert isinstance(found.right, Primitive)
    assert (found.left.inherited, found.right.inherited) == (False, True)
    assert found.right.qualifiers == Qualifiers("tcp", "dst", "port")


@pytest.mark.parametrize("text", ["host frag and frag", "tcp and frag", "port 80 and frag", "not frag"])
def test_a_flag_word_is_a_flag_unless_a_qualifier_stands_before_it(text: str) -> None:
    assert "FieldFlag: frag" in dump_expression(_expression(text))


def test_a_field_behind_a_value_is_a_field_only_in_a_comparison() -> None:
    assert isinstance(_expression("host 10.0.0.1 and ttl < 5"), And)
    assert "host (inherited): Name \\ttl" in dump_expression(_expression("host 10.0.0.1 and ttl"))


def test_spans_cover_what_was_written() -> None:
    text = "tcp dst port 80 and not  ip[0] & 0xf  > 5 or vlan (7) or ip  multicast"
    found = _expression(text)
    assert found is not None
    spans = {type(node): text[node.span.start : node.span.end] for node in _nodes(found)}
    assert spans[Primitive] == "tcp dst port 80"
    assert spans[Relation] == "ip[0] & 0xf  > 5"
    assert spans[Encapsulation] == "vlan (7)"
    assert spans[Cast] == "ip  multicast"


# ── limits ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "text",
    [
        "(" * 10_000 + "tcp" + ")" * 10_000,
        "(" * 10_000,
        "not " * 10_000 + "tcp",
        "!" * 10_000 + "tcp",
        "ip[" * 10_000,
        "-" * 10_000 + "1 = 1",
        "(" * 10_000 + "1" + ")" * 10_000 + " = 1",
        "port " + "(" * 10_000 + "80",
        "vlan " + "(" * 10_000 + "5",
        "1 % " * 10_000 + "1 = 1",
        "1 + " * 10_000 + "1 = 1",
        "not (" * 5_000 + "tcp",
        "1 = " + "(1 + " * 10_000,
    ],
    ids=lambda text: text[:12],
)
def test_check_03_deep_nesting_is_refused_with_its_place(text: str) -> None:
    code, _ = _fault(text)
    assert code == "PS108"


@pytest.mark.parametrize(
    "text",
    [
        "(" * MAX_NESTING + "tcp" + ")" * MAX_NESTING,
        "not " * MAX_NESTING + "tcp",
        "tcp or (" * MAX_NESTING + "tcp" + ")" * MAX_NESTING,
        "udp and tcp or (" * MAX_NESTING + "tcp" + ")" * MAX_NESTING,
        "1 + " * (MAX_NESTING - 1) + "1 = 1",
        "ip[" * MAX_NESTING + "0" + "]" * MAX_NESTING + " = 1",
        "1 = " + "1 - (" * (MAX_NESTING - 1) + "1" + ")" * (MAX_NESTING - 1),
        "1 = " + "1 & (1 | " * (MAX_NESTING // 2 - 1) + "1" + ")" * (MAX_NESTING // 2 - 1),
    ],
    ids=lambda text: text[:12],
)
def test_nesting_up_to_the_limit_can_be_written_down_again(text: str) -> None:
    tree = _expression(text)
    canonical = format_expression(tree)
    assert _expression(canonical) == tree
    assert format_expression(_expression(canonical)) == canonical


@pytest.mark.parametrize(
    "text",
    [
        "port " + " or ".join(map(str, range(10_000))),
        "port (" + " or ".join(map(str, range(10_000))) + ")",
        "ip" + " and tcp or udp" * 5_000,
        "ip" + " and not tcp xor udp" * 5_000,
    ],
    ids=lambda text: text[:12],
)
def test_chains_may_be_long(text: str) -> None:
    tree = _expression(text)
    canonical = format_expression(tree)
    assert format_expression(_expression(canonical)) == canonical
    assert check_expression(tree, Source("<expression>", text)) is not None
    policy = f"filter edge at xdp {{\n    drop if {text}\n}}\n"
    formatted = format_policy(parse_policy(Source("edge.policy", policy)))
    assert format_policy(parse_policy(Source("edge.policy", formatted))) == formatted


def test_check_04_a_policy_beyond_the_limit_is_refused_by_that_limit() -> None:
    text = "# " + "x" * (20 << 20)
    with pytest.raises(PolicyError) as caught:
        parse_policy(Source("edge.policy", text))
    assert "16 MiB" in str(caught.value)
    assert _codes("é" * (MAX_POLICY_BYTES // 2 + 1)) == ["PS108"]


@pytest.mark.parametrize(
    "text",
    [
        "filter a at xdp { drop if " + "udp or " * 60 + "tcp }",
        "filter a at xdp {\n" + "drop if udp\n" * 40 + "}",
        "filter a at xdp {\n" + "count\n" * 101 + "}",
        "#\n" * 101,
        "filter a at xdp {\n  drop if udp or\n" + "#\n" * 101 + "tcp }",
        "let a = " + "1, " * 60 + "1",
        "let a = 1\n" * 40,
    ],
    ids=lambda text: repr(text[:30]),
)
def test_a_policy_has_a_bounded_number_of_pieces(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse_policy(Source("edge.policy", text)).source.text == text
    monkeypatch.setattr(cursor, "MAX_PIECES", 100)
    assert _codes(text) == ["PS108"]


def test_no_more_is_cut_than_the_limit_allows() -> None:
    found = lex("udp or " * 1000, in_policy=True, most=50)
    assert len(found.tokens) + len(found.comments) <= 60
    found = lex("udp or\n" + "#\n" * 1000 + "tcp", in_policy=True, most=50)
    assert len(found.tokens) + len(found.comments) <= 60


def test_names_have_a_limit() -> None:
    name = "a" * 65
    assert _codes(f"filter {name} at xdp {{ drop }}") == ["PS108"]
    assert _codes(f"let {name} = 5\nfilter a at xdp {{ drop }}") == ["PS108"]


@pytest.mark.parametrize("char", ["\0", "\x1b", "\x7f", "\x9b", "\u202e", "\x0b", "\udc80"])
def test_characters_that_cannot_be_seen_are_refused_with_their_place(char: str) -> None:
    assert _fault(f"tcp {char} udp") == ("PS101", char)
    assert _codes(f'test "{char}" {{ }}') == ["PS101"]


def test_there_is_an_end_to_telling_faults() -> None:
    text = "filter a at xdp {\n" + "    drop if tpc\n" * 1_000 + "}\n"
    assert len(_codes(text)) == 100


# ── several faults ───────────────────────────────────────────────────────────


def test_faults_are_told_in_the_order_of_the_text() -> None:
    text = "let a = 256.1.1.1\nfilter a at xdp {\n    drop if tpc\n    drp\n}\nlet b ="
    assert _codes(text) == ["PS104", "PS103", "PS103", "PS102"]


@pytest.mark.parametrize(
    "word",
    ['include "x"'],
)
def test_words_of_later_versions_get_one_diagnostic(word: str) -> None:
    assert _codes(f"{word}\nfilter a at xdp {{ drop }}") == ["PS107"]


@pytest.mark.parametrize(
    "rule",
    [
        "steer workers 4 by flow", "balance x", "log 1/10 if tcp", "x: steer workers 4",
        "on malformed steer", "default balance",
        "drop if rule == 1", "drop if worker = 2",
    ],
)  # fmt: skip
def test_rules_of_later_versions_get_one_diagnostic(rule: str) -> None:
    assert _codes(f"filter a at xdp {{\n    {rule}\n    drop\n}}") == ["PS107"]


@pytest.mark.parametrize("hook", ["xdp", "tc ingress", "tc  egress", "socket"])
def test_every_hook_is_known(hook: str) -> None:
    policy = parse_policy(Source("a.policy", f"filter a at {hook} {{\n    drop if tcp\n}}"))
    assert policy.filters[0].hook == " ".join(hook.split())


@pytest.mark.parametrize("hook", ["tc", "tc sideways", "ingress", "kprobe"])
def test_what_is_no_hook_gets_one_diagnostic(hook: str) -> None:
    assert _codes(f"filter a at {hook} {{\n    drop if tcp\n}}") == ["PS102" if hook == "tc" else "PS103"]


def test_strings_and_labels_are_data() -> None:
    text = "filter a at xdp {\n    pass: drop\n}\n\n"
    text += 'test "#include \\"x\\" { } \'" {\n    pcap "}{#"  -> drop by pass\n}\n'
    policy = parse_policy(Source("edge.policy", text))
    assert policy.tests[0].title == '#include "x" { } \''
    assert policy.filters[0].rules[0].label == "pass"
    assert format_policy(policy) == text


def test_faults_of_syntax_do_not_hide_those_of_names() -> None:
    text = "filter edge at xdp {\n drp if tcp\n drop if port $wbe\n drop if rule == 1\n}"
    found = [(one.code, one.line) for one in check_text(Source("edge.policy", text))]
    assert found == [("PS103", 2), ("PS111", 3), ("PS107", 4)]


def test_a_lost_constant_is_not_missed() -> None:
    text = "let web = 80,, 443\nfilter edge at xdp {\n drop if port $web\n}"
    assert [one.line for one in check_text(Source("edge.policy", text))] == [1]


def test_a_lost_constant_does_not_hide_that_another_is_missing() -> None:
    text = "let web = 80,, 443\nfilter edge at xdp {\n drop if port $web\n drop if port $wbe\n}"
    found = [(one.code, one.line) for one in check_text(Source("edge.policy", text))]
    assert found == [("PS102", 1), ("PS111", 4)]


def test_a_constant_inside_of_a_filter_is_one_fault() -> None:
    text = "filter edge at xdp {\n drop if tcp\n let web = 80\n drop if port $web\n drop if prt 5\n}"
    found = [(one.code, one.line) for one in check_text(Source("edge.policy", text))]
    assert found == [("PS102", 3), ("PS103", 5)]


def test_a_constant_behind_a_filter_that_is_not_closed_is_none() -> None:
    text = 'filter a at xdp {\n drop\nlet web = 80\nfilter b at xdp {\n drop if port $web\n}\ntest "t" {\n}'
    found = [(one.code, one.line) for one in check_text(Source("edge.policy", text))]
    assert found == [("PS102", 1)]


def test_a_rule_that_nothing_matches_is_told_once() -> None:
    lines = [
        "drop if ttl > 300",
        "drop if less 70 and greater 100",
        "drop if ip proto 300",
        "drop if tcp and udp",
    ]
    text = "filter edge at xdp {\n" + "\n".join(lines) + "\n}"
    found = [(one.code, one.line) for one in check_text(Source("edge.policy", text))]
    assert [(code, line) for code, line in found if code < "PS210"] == [
        ("PS207", 2),
        ("PS207", 3),
        ("PS205", 4),
        ("PS204", 5),
    ]
