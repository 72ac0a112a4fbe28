"""Laws of `format`: what is written reads as the same tree, and writing it again changes nothing."""

from __future__ import annotations

import re

from hypothesis import HealthCheck, given, settings
from tests.strategies import Grammar, expression_texts, policy_texts

from penstock.compiler.lang.check import check_policy
from penstock.compiler.lang.diagnostic import Severity
from penstock.compiler.lang.format import format_expression, format_policy
from penstock.compiler.lang.parser import parse_expression, parse_policy
from penstock.compiler.lang.source import Source
from penstock.compiler.libpcap import LibpcapError, compile_filter

PLAIN = Grammar(depth=1)
SLOW = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def _policy(text: str):
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
@SLOW
def test_a_policy_survives_its_canonical_text(text: str) -> None:
    policy = _policy(text)
    canonical = format_policy(policy)
    again = _policy(canonical)
    assert again == policy
    assert format_policy(again) == canonical


@given(policy_texts(PLAIN))
@SLOW
def test_every_comment_is_kept_once(text: str) -> None:
    policy = _policy(text)
    again = _policy(format_policy(policy))
    assert sorted(comment.text for comment in again.comments) == sorted(
        comment.text for comment in policy.comments
    )


@given(policy_texts(PLAIN))
@SLOW
def test_canonical_text_is_tidy(text: str) -> None:
    canonical = format_policy(_policy(text))
    assert not re.search(r"[ \t]$|\t|\n\n\n|\A\n|\n\n\Z", canonical, re.MULTILINE) or not canonical
    assert canonical.endswith("\n")


@given(policy_texts(PLAIN))
@SLOW
def test_what_is_said_about_a_policy_does_not_depend_on_its_layout(text: str) -> None:
    policy = _policy(text)
    before = [(found.code, found.severity) for found in check_policy(policy)]
    after = [(found.code, found.severity) for found in check_policy(_policy(format_policy(policy)))]
    assert sorted(before, key=str) == sorted(after, key=str)
    assert not any(severity is Severity.ERROR for _, severity in before)
