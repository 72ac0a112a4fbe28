"""docs/language.md keeps up with the language."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from penstock.compiler.codegen.classic import MAX_PROGRAMS
from penstock.compiler.ir.lower_classic import MAX_TEXT
from penstock.compiler.ir.lower_expression import MAX_NESTING, MAX_XOR
from penstock.compiler.ir.lowering import MAX_INNER, MAX_SCOPE
from penstock.compiler.lang.cursor import MAX_PIECES
from penstock.compiler.lang.parser import MAX_POLICY_BYTES
from penstock.compiler.lang.source import Source
from penstock.compiler.lang.words import ACTIONS, DECIDING, LATER_ACTIONS, LATER_TOP
from penstock.model.field import FIELDS
from penstock.model.hook import ACTION_HOOKS
from penstock.model.verdict import CONDITION_WORDS
from penstock.pipeline.policy import check_text

PAGE = (Path(__file__).parents[2] / "docs/language.md").read_text()


@pytest.mark.parametrize(
    "field", [field for field in FIELDS.values() if field.word], ids=lambda field: field.name
)
def test_every_named_field_has_its_row(field) -> None:
    assert f"| `{field.name}` | {field.bits} | {field.meaning} |" in PAGE


@pytest.mark.parametrize("word", CONDITION_WORDS)
def test_every_condition_has_a_row(word: str) -> None:
    assert f"| `{word}` |" in PAGE


@pytest.mark.parametrize("word", ACTIONS)
def test_every_action_has_a_row_with_its_hooks(word: str) -> None:
    decides = "yes" if word in DECIDING else "no"
    hooks = ", ".join(hook.value for hook in ACTION_HOOKS[word])
    assert f"| `{word}` | {decides} | {hooks} |" in PAGE


def test_the_limits_are_those_of_the_compiler() -> None:
    for name, limit in (
        ("nesting of an expression", MAX_NESTING),
        ("`xor` in one expression", MAX_XOR),
        ("encapsulations in one `and` chain", MAX_SCOPE),
        ("`inner`, one in the other", MAX_INNER),
        ('different `pcap "EXPR"` in one filter', MAX_PROGRAMS),
        ('the text of one `pcap "EXPR"`', f"{MAX_TEXT:,} characters"),
        ("a policy's text", f"{MAX_POLICY_BYTES >> 20} MiB"),
        ("statements, words, marks and comments of a policy", f"{MAX_PIECES:,}"),
    ):
        assert f"| {name} | {limit} |" in PAGE


def test_the_example_is_a_policy() -> None:
    text = PAGE.split("```\n")[1]
    faults = [
        found for found in check_text(Source("docs/language.md", text)) if found.severity.value == "error"
    ]
    assert faults == []


def test_words_of_later_versions_are_those_that_are_refused_yet() -> None:
    told = set(re.findall(r"`([^`]+)`", PAGE.partition("## Later versions")[2]))
    assert told - {"@name"} == {*LATER_TOP, *LATER_ACTIONS}
