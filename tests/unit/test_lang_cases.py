"""The language by cases in data files: trees, diagnostics with their carets, canonical texts, warnings."""

from __future__ import annotations

import pytest
from tests.golden import Case, check, read_cases

from penstock.compiler.lang.check import check_policy
from penstock.compiler.lang.diagnostic import Diagnostic
from penstock.compiler.lang.dump import dump, dump_expression
from penstock.compiler.lang.format import format_policy
from penstock.compiler.lang.parser import parse_expression, parse_policy
from penstock.compiler.lang.render import render
from penstock.compiler.lang.source import Source
from penstock.errors import PolicyError


def _id(case: Case) -> str:
    return case.id


def _source(text: str) -> Source:
    return Source("edge.policy", text)


def _shown(diagnostics: tuple[Diagnostic, ...]) -> str:
    return "".join(map(render, diagnostics)) or "nothing to say\n"


def _tree(case: Case, text: str) -> str:
    if case.path.stem == "expressions":
        return dump_expression(parse_expression(Source("<expression>", text)))
    return dump(parse_policy(_source(text)))


def _errors(case: Case, text: str) -> str:
    try:
        _tree(case, text)
    except PolicyError as error:
        return _shown(error.diagnostics)
    return "no error\n"


@pytest.mark.parametrize("case", read_cases("ast"), ids=_id)
def test_tree(case: Case) -> None:
    check(case, lambda text: _tree(case, text))


@pytest.mark.parametrize("case", read_cases("errors"), ids=_id)
def test_errors(case: Case) -> None:
    check(case, lambda text: _errors(case, text))


@pytest.mark.parametrize("case", read_cases("format"), ids=_id)
def test_canonical_text(case: Case) -> None:
    check(case, lambda text: format_policy(parse_policy(_source(text))))


@pytest.mark.parametrize("case", read_cases("check"), ids=_id)
def test_findings(case: Case) -> None:
    check(case, lambda text: _shown(check_policy(parse_policy(_source(text)))))
