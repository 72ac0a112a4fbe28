"""What a set contains in a test: read such a line of a test, and check it.

with @threats 192.0.2.0/24, 2001:db8::/32
with @allowed 192.0.2.7 . tcp . 443
with @open "ports.txt"

Entries are written as for `penstock set add`, and come beside what the lines above have
given; a file is one that `penstock set import` takes, and is read where the test is run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches

from penstock.compiler.lang.ast import Given, Policy
from penstock.compiler.lang.cursor import Cursor
from penstock.compiler.lang.findings import Findings
from penstock.compiler.lang.source import Span
from penstock.model.set_text import keys_of, what_it_takes
from penstock.model.sets import SetSpec

_NAME = re.compile(r"@([A-Za-z_][A-Za-z0-9_-]*)")
_ENTRY = re.compile(r"[^\s,#{}\"](?:[^\n,#{}\"]*[^\s,#{}\"])?")
_HINT = "as in: with @threats 192.0.2.0/24, 2001:db8::/32"


def read_given(cursor: Cursor, start: Span) -> Given:
    """What stands behind `with`.

    Raises:
        SyntaxFault: it is no set and its entries.
    """
    cursor.skip_blanks()
    found = _NAME.match(cursor.text, cursor.at)
    if not found:
        raise cursor.unexpected("`@SET`", "behind `with`", hint=_HINT)
    set_span = cursor.advance(found.end() - found.start())
    cursor.skip_blanks()
    if cursor.text.startswith('"', cursor.at):
        path, span = cursor.string("the path of a file")
        given = Given(found[1], (), path, set_span, (), start.to(span))
    else:
        entries, spans = _entries(cursor)
        given = Given(found[1], entries, None, set_span, spans, start.to(spans[-1]))
    if not cursor.at_line_end():
        raise cursor.unexpected("the end of the line", "behind what a set contains")
    return given


def _entries(cursor: Cursor) -> tuple[tuple[str, ...], tuple[Span, ...]]:
    """Entries with commas between them; behind a comma they may go on in the next line."""
    texts, spans = [], []
    while True:
        cursor.skip_blanks()
        found = _ENTRY.match(cursor.text, cursor.at)
        if not found:
            raise cursor.unexpected("an entry of the set", hint=_HINT)
        cursor.spend(1)
        spans.append(cursor.advance(found.end() - found.start()))
        texts.append(" ".join(found.group().split()))
        if not cursor.take_mark(","):
            return tuple(texts), tuple(spans)
        cursor.skip_space()


def check_given(policy: Policy, findings: Findings) -> None:
    """Report sets that tests give entries and nobody defines, and what is no entry of its set."""
    specs = {item.name: item.spec for item in policy.sets}
    for test in policy.tests:
        for step in test.steps:
            if isinstance(step, Given):
                _check(step, specs, findings)


def _check(step: Given, specs: Mapping[str, SetSpec], findings: Findings) -> None:
    spec = specs.get(step.set)
    if spec is None:
        near = get_close_matches(step.set, specs, n=1, cutoff=0.6)
        hint = f"did you mean `@{near[0]}`?" if near else None
        findings.error("PS111", f"the set `@{step.set}` is not defined", step.set_span, hint=hint)
        return
    for text, span in zip(step.entries, step.entry_spans, strict=True):
        try:
            for _ in keys_of(spec, text):
                pass
        except ValueError as fault:
            findings.error("PS116", str(fault), span, hint=what_it_takes(spec))
