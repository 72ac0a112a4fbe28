"""Laws of `format`: what is written reads as the same tree, and writing it again changes nothing."""

from __future__ import annotations

import re

from hypothesis import HealthCheck, given, settings
from tests.strategies import Grammar, expression_texts, policy_texts

from penstock.compiler.lang.ast import Comment, Policy
from penstock.compiler.lang.check import check_policy
from penstock.compiler.lang.diagnostic import Severity
from penstock.compiler.lang.format import format_expression, format_policy
from penstock.compiler.lang.parser import parse_expression, parse_policy
from penstock.compiler.lang.source import Source
from penstock.compiler.libpcap import LibpcapError, compile_filter

PLAIN = Grammar(depth=1)


def _policy(text: str) -> Policy:
    return parse_policy(Source("edge.policy", text))


def _understood(text: str) -> bool:
    """Whether libpcap can read the text, whatever it then thinks of it."""
    try:
        compile_filter(text)
    except LibpcapError as refusal:
        return "syntax error" not in refusal.message
    return True


@given(expression_texts())
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
def test_an_expression_survives_its_canonical_text(text: str) -> None:
    tree = parse_expression(Source("<expression>", text))
    canonical = format_expression(tree)
    again = parse_expression(Source("<expression>", canonical))
    assert again == tree
    assert format_expression(again) == canonical
    assert _understood(text)
    assert _understood(canonical)


@given(policy_texts(PLAIN))
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_policy_survives_its_canonical_text(text: str) -> None:
    """One policy for all laws: drawing it takes far longer than what they ask."""
    policy = _policy(text)
    canonical = format_policy(policy)
    again = _policy(canonical)
    assert again == policy
    assert format_policy(again) == canonical
    assert sorted(map(_words, again.comments)) == sorted(map(_words, policy.comments)), "each comment once"
    _assert_tidy(canonical)
    said = _said(policy)
    assert said == _said(again), "whatever the layout"
    assert not any(severity is Severity.ERROR for _, severity in said)


def _words(comment: Comment) -> str:
    return comment.text


def _assert_tidy(canonical: str) -> None:
    assert not re.search(r"[ \t]$|\t|\n\n\n|\A\n|\n\n\Z", canonical, re.MULTILINE) or not canonical
    assert canonical.endswith("\n")


def _said(policy: Policy) -> list[tuple[str, Severity]]:
    return sorted(((found.code, found.severity) for found in check_policy(policy)), key=str)
