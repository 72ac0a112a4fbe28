"""Diagnostics: how they are shown, and that each is documented."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from penstock.compiler.lang.check import check_expression
from penstock.compiler.lang.diagnostic import Diagnostic, Severity
from penstock.compiler.lang.parser import parse_expression
from penstock.compiler.lang.render import as_record, escape, render
from penstock.compiler.lang.source import Source, Span
from penstock.errors import PolicyError
from penstock.model.hook import Hook
from penstock.observe.typed.compound import Part, Struct
from penstock.observe.typed.notation import parse
from penstock.observe.typed.number import Number
from penstock.observe.typed.octets import Address
from penstock.observe.typed.shape import Writing
from penstock.pipeline.elsewhere import elsewhere
from penstock.pipeline.policy import check_text

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "diagnostics.md").read_text(encoding="utf-8")
SECTION = re.compile(r"^### (PS\d{3}): [^\n]+\n(.*?)(?=^##|\Z)", re.MULTILINE | re.DOTALL)
#: Codes for which a text that gets them would be too long for the page (test_analysis.py has some).
WITHOUT_EXAMPLE = {"PS235"}
EXAMPLE = re.compile(r"```(policy|expression|value)\n(.*?)\n```", re.DOTALL)


def _diagnostic(text: str, start: int, end: int, **more: object) -> Diagnostic:
    parts = {
        "code": "PS102",
        "severity": Severity.ERROR,
        "message": "wrong",
        "notes": (),
        "hint": None,
        **more,
    }
    return Diagnostic(source=Source("edge.policy", text), span=Span(start, end), **parts)  # type: ignore[arg-type]


def _shown(text: str, start: int, end: int) -> list[str]:
    return render(_diagnostic(text, start, end)).splitlines()[1:]


# ── showing ──────────────────────────────────────────────────────────────────


def test_everything_a_diagnostic_has() -> None:
    found = _diagnostic("a\ndrop if tpc\n", 10, 13, notes=("a note",), hint="did you mean `tcp`?")
    assert render(found) == (
        "edge.policy:2:9: error[PS102]: wrong\n"
        "  2 | drop if tpc\n"
        "    |         ^^^\n"
        "  note: a note\n"
        "  hint: did you mean `tcp`?\n"
    )


def test_a_caret_at_the_end_of_the_text() -> None:
    assert _shown("drop if", 7, 7) == ["  1 | drop if", "    |        ^"]


def test_tabs_are_shown_as_columns() -> None:
    assert _shown("\tx\ty", 3, 4) == ["  1 |         x       y", "    |                 ^"]


def test_wide_characters_take_two_columns() -> None:
    assert _shown("日本x", 1, 2) == ["  1 | 日本x", "    |   ^^"]


def test_what_a_terminal_would_obey_is_escaped() -> None:
    shown = _shown("a\x1b[31mb", 6, 7)
    assert shown == ["  1 | a\\x1b[31mb", "    |          ^"]
    assert "\x1b" not in render(_diagnostic("x", 0, 1, message="\x1b[31m", hint="\x9b"))
    assert escape("\u202e\n") == "\\u202e\\n"


def test_a_long_line_is_cut_around_the_place() -> None:
    line, caret = _shown("x" * 1000 + "Y" + "x" * 1000, 1000, 1001)
    assert len(line) < 200
    assert line[caret.index("^")] == "Y"
    assert line.endswith("…")


def test_a_place_over_several_lines_is_marked_on_the_first() -> None:
    assert _shown("drop if (a\nb)", 8, 13) == ["  1 | drop if (a", "    |         ^^"]


def test_color_is_only_used_on_demand() -> None:
    found = _diagnostic("tpc", 0, 3)
    assert "\x1b[" not in render(found)
    colored = render(found, color=True)
    assert re.sub(r"\x1b\[[0-9;]*m", "", colored) == render(found)
    assert "\x1b[1;31m" in colored


def test_record_has_both_ends_of_the_place() -> None:
    record = as_record(_diagnostic("a\ntpc", 2, 5, notes=("n",)))
    assert (record["line"], record["column"], record["end_line"], record["end_column"]) == (2, 1, 2, 4)
    assert record["severity"] == "error"
    assert record["notes"] == ["n"]


# ── the page ─────────────────────────────────────────────────────────────────


def test_every_code_is_documented_and_every_documented_code_exists() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    in_source = set(re.findall(r'"(PS\d{3})"', source))
    documented = [found[1] for found in SECTION.finditer(PAGE)]
    assert set(documented) == in_source
    assert len(documented) == len(set(documented))


def _codes(kind: str, text: str) -> set[str]:
    source = Source("example", text)
    try:
        if kind == "policy":
            there = {found.code for place in elsewhere(source, tuple(Hook)) for found in place.diagnostics}
            return there | {found.code for found in check_text(source)}
        if kind == "value":
            return _codes_of_value(source)
        return {found.code for found in check_expression(parse_expression(source), source)}
    except PolicyError as error:
        return {found.code for found in error.diagnostics}


def _codes_of_value(source: Source) -> set[str]:
    shape = Struct(8, (Part("saddr", 0, Address(4)), Part("port", 4, Number(2))))
    writing = Writing(source)
    shape.encode(parse(source), bytearray(8), 0, writing)
    return {found.code for found in writing.found}


@pytest.mark.parametrize("section", list(SECTION.finditer(PAGE)), ids=lambda found: found[1])
def test_the_example_gets_its_code(section: re.Match[str]) -> None:
    example = EXAMPLE.search(section[2])
    if section[1].startswith(("PS3", "PS4")):
        assert "```rule" in section[2]
        return
    if section[1] in WITHOUT_EXAMPLE:
        assert example is None
        return
    assert example is not None
    assert section[1] in _codes(example[1], example[2])


def test_a_brief_note_is_one_line_with_its_example() -> None:
    text = "filter f at xdp {\n    drop if arp\n}\n"
    found = next(one for one in check_text(Source("f.policy", text)) if one.code == "PS234")
    assert render(found, brief=True).splitlines() == [
        f"f.policy:1:8: note[PS234]: {found.message} ({found.notes[0]})",
    ]
    assert "filter f at xdp" in render(found)
