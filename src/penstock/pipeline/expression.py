"""A bare pcap-filter expression as a filter: what matches is kept, as tcpdump keeps it.

matcher("udp port 53")            ->  the rule set `expression: pass if udp port 53`, default drop
load_expression("udp port 53")    ->  the same, compiled for a socket

Odd packets have no verdict of their own here: the expression alone decides.
"""

from __future__ import annotations

import re
from dataclasses import replace

from penstock.compiler.ir.lower import lower_filter
from penstock.compiler.ir.ops import RuleSet
from penstock.compiler.lang import ast
from penstock.compiler.lang.parser import parse_expression
from penstock.compiler.lang.source import Source, Span
from penstock.model.hook import Hook
from penstock.model.verdict import Condition, Verdict
from penstock.pipeline.identity import Identity, counter_keys
from penstock.pipeline.policy import EXPRESSION_NAME, LoadedPolicy
from penstock.version import VERSION

#: What the filter and its only rule are called.
NAME = "expression"
_POLICY = re.compile(r"^\s*(filter\s+\S+\s+at\b|let\s|#|test\s)", re.MULTILINE)


def is_policy(text: str) -> bool:
    """Whether a text has the words of a policy at the start of a line, and is no bare expression."""
    return _POLICY.search(text) is not None


def matcher(text: str, name: str = EXPRESSION_NAME) -> RuleSet:
    """The rule set that passes what an expression matches; an empty one matches every packet.

    Raises:
        PolicyError: the text is no expression.
    """
    source = Source(name, text)
    whole = Span(0, len(text))
    rule = ast.Rule("pass", parse_expression(source), NAME, whole, whole)
    filter = ast.Filter(NAME, Hook.SOCKET.value, Verdict.DROP, (), (rule,), whole, whole, whole)
    rules = lower_filter(ast.Policy((filter,), source), filter)
    return replace(rules, conditions=tuple((condition, None) for condition in Condition))


def load_expression(text: str) -> LoadedPolicy:
    """Compile an expression for a socket.

    Raises:
        PolicyError: the text is no expression.
        ToolchainError: clang is missing or failed.
    """
    from penstock.compiler.driver import compile_rule_set

    rules = matcher(text)
    built = compile_rule_set(rules)
    counters = counter_keys(rules, (), ())
    identity = Identity(NAME, rules.hook.value, EXPRESSION_NAME, text, counters, version=VERSION)
    return LoadedPolicy(identity, built.elf, rules, (), built.dear)
