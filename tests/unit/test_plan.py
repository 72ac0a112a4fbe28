"""Which form rules take and why, trees of comparisons, and the pictures of diagrams."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from bench.linear import policy_text as five_tuples
from bench.rulesets import generate, policy_text
from hypothesis import given
from hypothesis import strategies as st

from penstock.cli.policy_load import load_file
from penstock.compiler.classifier import groups
from penstock.compiler.codegen import candidates
from penstock.compiler.codegen.blocks import numbered
from penstock.compiler.codegen.branching import Branch, Edge, Place, Tree, branches, tree_of
from penstock.compiler.codegen.drawing import MAX_LINES, diagram_lines, diagram_picture
from penstock.compiler.codegen.emit import emit
from penstock.compiler.codegen.nested import without_vain
from penstock.compiler.codegen.plan import (
    INLINE_SIZE,
    MAX_DIAGRAMS,
    NESTED_SIZE,
    PLAIN_SIZE,
    Choice,
    Plan,
    Wish,
    plan_of,
)
from penstock.compiler.codegen.plan_text import plan_lines
from penstock.compiler.codegen.stages import Nested, Tabled
from penstock.compiler.codegen.weigh import Form
from penstock.compiler.diagram.dump import quoted
from penstock.compiler.ir.lower import lower_filter
from penstock.compiler.ir.ops import RuleSet
from penstock.compiler.lang.parser import parse_policy
from penstock.compiler.lang.source import Source
from penstock.errors import InternalError, LimitError

GOLDEN = Path(__file__).parent.parent / "cases" / "plan"
TOP = Path(__file__).parents[2]


def rule_set(text: str, name: str = "plan.policy") -> RuleSet:
    policy = parse_policy(Source(name, text))
    return lower_filter(policy, policy.filters[0])


#: Ten rules that decide, two that count.
EDGE = Path(__file__).parents[2] / "examples" / "edge.policy"


def planned(text: str, wish: Wish | None = None) -> Plan:
    rules = rule_set(text)
    return plan_of(rules, numbered(rules), wish)


def forms(plan: Plan) -> list[Form]:
    return [choice.form for choice in plan.choices]


def chosen_size(choice: Choice) -> int:
    return next(one.size for one in choice.estimates if one.form == choice.form)


# ── comparisons ──────────────────────────────────────────────────────────────


def reached(tree: Tree, value: int) -> Place:
    while isinstance(tree, Branch):
        tree = tree.inside if tree.low <= value <= tree.high else tree.outside
    return tree


@given(st.lists(st.integers(1, 5000), unique=True, max_size=40), st.randoms(use_true_random=False))
def test_a_tree_leads_every_value_where_its_edge_does(cuts: list[int], draw: object) -> None:
    starts = [0, *sorted(cuts), 5001]
    targets = [(0, 0)]
    for _ in starts[1:-1]:
        targets.append((0, draw.choice([at for at in range(5) if at != targets[-1][1]])))  # type: ignore[attr-defined]
    edges = [
        Edge(low, after - 1, target) for (low, after), target in zip(pairwise(starts), targets, strict=True)
    ]
    tree = tree_of(edges)
    for edge in edges:
        assert {reached(tree, value) for value in (edge.low, edge.high)} == {edge.target}
    assert len(list(branches(tree))) < len(edges)


def test_a_value_among_others_costs_one_comparison() -> None:
    tree = tree_of([Edge(0, 52, (1, 0)), Edge(53, 53, (1, 1)), Edge(54, 1 << 16, (1, 0))])
    assert tree == Branch(53, 53, (1, 1), (1, 0))


def test_a_predicate_that_changes_nothing_is_not_asked() -> None:
    assert without_vain(((0, 1), (1, 2), (1, 3), (1, 0))) == ((0, 1), (1, 0))


# ── choices ──────────────────────────────────────────────────────────────────


def test_a_few_rules_are_inlined_as_they_are() -> None:
    plan = planned(five_tuples(9))
    assert (plan.inline, forms(plan)) == (True, [Form.LINEAR])
    assert str(PLAIN_SIZE) in plan.why


@pytest.mark.parametrize("count", [30, 60, 90])
def test_dozens_of_rules_are_one_inlined_diagram(count: int) -> None:
    plan = planned(five_tuples(count))
    assert (plan.inline, forms(plan)) == (True, [Form.NESTED])


def test_hundreds_are_tables_and_a_rule_that_counts_stands_between() -> None:
    lines = five_tuples(800).splitlines()
    plan = planned("\n".join([*lines[:400], "count if tcp", *lines[400:]]))
    assert (plan.inline, forms(plan)) == (False, [Form.TABLES])
    (stage,) = plan.stages
    assert isinstance(stage, Tabled)
    assert [item.slot - stage.rules[0].slot for item in stage.between] == [399]


def test_a_diagram_is_inlined_with_rules_that_count_behind_it() -> None:
    """Functions over views in memory took usual packets 2.4 times as long."""
    plan = planned(EDGE.read_text())
    assert (plan.inline, forms(plan)) == (True, [Form.NESTED, Form.LINEAR])
    assert sum(chosen_size(choice) for choice in plan.choices) > INLINE_SIZE


def with_a_set(count: int) -> str:
    lines = five_tuples(count).splitlines()
    middle = 1 + count // 2
    return "\n".join(["set some : host", *lines[:middle], "    drop if src in @some", *lines[middle:]])


def test_a_set_between_rules_of_one_diagram_leaves_them_two() -> None:
    flat, asking = planned(five_tuples(100)), planned(with_a_set(100))
    assert (flat.inline, forms(flat)) == (True, [Form.NESTED])
    assert (asking.inline, forms(asking)) == (True, [Form.NESTED, Form.LINEAR, Form.NESTED])
    assert sum(map(chosen_size, asking.choices)) <= 1.1 * chosen_size(flat.choices[0])


def test_a_set_between_rules_too_many_for_one_function_takes_no_diagram_from_them() -> None:
    plan = planned(with_a_set(150))
    assert (plan.inline, forms(plan)) == (False, [Form.NESTED, Form.LINEAR, Form.NESTED])


def test_a_set_between_rules_of_a_table_leaves_them_one_table() -> None:
    assert forms(planned(with_a_set(1000))) == [Form.TABLES]


def test_a_rule_that_asks_a_set_is_not_taken_to_decide() -> None:
    (with_set,) = planned(with_a_set(30)).choices
    (without,) = planned(five_tuples(30)).choices
    asked, flat = ({one.form: one.ns for one in choice.estimates} for choice in (with_set, without))
    assert asked[Form.LINEAR] >= flat[Form.LINEAR]


def test_what_is_compared_in_a_row_counts_together() -> None:
    """The verifier still knows in the next stretch what one has taught it; but not what a diagram has."""
    one = [line for line in policy_text(generate("acl", 60, 3)).splitlines() if " if " in line]
    parts = (["count if udp dst port 9", *one[at : at + 20]] for at in (0, 20, 40))
    plan = planned("\n".join(["filter f at xdp {", *(line for part in parts for line in part), "}"]))
    in_a_row = [choice for choice in plan.choices if choice.form == Form.LINEAR]
    assert plan.inline
    assert sum(map(chosen_size, in_a_row)) <= INLINE_SIZE < sum(map(chosen_size, plan.choices)) <= NESTED_SIZE


@pytest.mark.parametrize("count", [20, 80])
@pytest.mark.parametrize("flavour", ["acl", "fw"])
def test_the_cheapest_that_can_be_had_is_taken(flavour: str, count: int) -> None:
    plan = planned(policy_text(generate(flavour, count)))  # type: ignore[arg-type]
    limits = {Form.LINEAR: INLINE_SIZE, Form.NESTED: NESTED_SIZE, Form.TABLES: 0}
    for choice in plan.choices:
        able = [one for one in choice.estimates if not one.refused]
        if plan.inline:
            able = [one for one in able if one.size <= limits[one.form]]
        assert choice.form in {one.form for one in able}
        if plan.inline:
            assert choice.form == min(able, key=lambda one: one.ns).form


def test_many_short_stretches_are_few_functions() -> None:
    """A function for each would be more than a program can have."""
    lines = [
        f"count if tcp dst port {n}\ndrop if udp src port {n} and udp dst port 53" for n in range(1, 900)
    ]
    plan = planned("\n".join(["filter f at xdp {", *lines, "}"]))
    assert not plan.inline
    assert len(plan.stages) == 1


def test_too_many_stretches_for_diagrams_stay_linear() -> None:
    one = [line for line in five_tuples(40).splitlines() if "drop" in line]
    counted = (["count if udp", *one[at % 20 : at % 20 + 12]] for at in range(MAX_DIAGRAMS + 2))
    plan = planned("\n".join(["filter f at xdp {", *(line for part in counted for line in part), "}"]))
    assert set(forms(plan)) == {Form.LINEAR}


def test_the_same_plan_each_time() -> None:
    text = policy_text(generate("ipc", 60))
    assert emit(rule_set(text)).text == emit(rule_set(text)).text


def test_no_rules() -> None:
    assert planned("filter f at xdp {\n}\n").choices == ()


def test_a_diagram_that_is_not_of_its_rules_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that errs is handed out, whichever module is at fault."""
    right = next(stage for stage in planned(five_tuples(30)).stages if isinstance(stage, Nested))
    monkeypatch.setattr(candidates, "reduce", lambda _: right.flow.diagram)
    text = five_tuples(30).replace("drop if src host 10.0.7.1", "pass if src host 10.0.7.2")
    with pytest.raises(InternalError, match="errs about"):
        planned(text, Wish(Form.NESTED, inline=True))


# ── what is printed ──────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["edge", "counted"])
@pytest.mark.parametrize("kind", ["plan", "diagram"])
def test_the_plans_and_diagrams_of_small_policies(name: str, kind: str) -> None:
    """`make golden` rewrites them."""
    policy = GOLDEN / f"{name}.policy"
    rules = rule_set(policy.read_text(), policy.name)
    lines = plan_lines(plan_of(rules, numbered(rules)), rules) if kind == "plan" else diagram_lines(rules)
    text = "\n".join(lines) + "\n"
    golden = GOLDEN / f"{name}.{kind}"
    if os.environ.get("PENSTOCK_GOLDEN") == "write":
        golden.write_text(text)
    assert text == golden.read_text()


def test_the_plan_of_tables_tells_their_bytes_and_groups() -> None:
    rules = rule_set(policy_text(generate("fw", 400)))
    text = "\n".join(plan_lines(plan_of(rules, numbered(rules)), rules))
    assert "lines 3-402, 400 rules: tables" in text
    assert " B\n" in text
    assert "bytes" in text
    assert "nested" in text


def test_rules_that_make_tables_dear_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ranges that cross in two fields, and a budget that refuses them: the widest are named by their lines."""
    monkeypatch.setattr(groups, "ENTRIES", 0)
    monkeypatch.setattr(groups, "ENTRIES_OF_A_BOX", 1)
    drawn = random.Random(1)

    def ports() -> str:
        first = drawn.randrange(50000)
        return f"{first}-{first + drawn.randrange(10000)}"

    conditions = [f"tcp and src portrange {ports()} and dst portrange {ports()}" for _ in range(400)]
    text = "\n".join(["filter f at xdp {", *(f"drop if {one}" for one in conditions), "}"])
    rules = rule_set(text)
    source = emit(rules)
    assert plan_of(rules, numbered(rules)).dear == source.dear
    blamed = source.dear[0].split("bit vectors")[1].split("the widest rules are those on lines ")[1]
    assert all(2 <= int(line) <= 401 for line in blamed.split(", "))
    policy = tmp_path / "dear.policy"
    policy.write_text(text)
    load_file(str(policy))
    assert f"warning: some rules are dear: {source.dear[0]}" in capsys.readouterr().err


def test_large_diagrams_are_cut_and_not_drawn() -> None:
    rules = rule_set(policy_text(generate("fw", 110)))
    lines = list(diagram_lines(rules))
    assert len(lines) <= MAX_LINES + 2
    assert "more lines" in lines[-1]
    with pytest.raises(LimitError, match="cannot be drawn"):
        diagram_picture(rules)


def test_a_diagram_that_cannot_be_built_is_said_to_be() -> None:
    assert "tried as one diagram" in "\n".join(diagram_lines(rule_set(policy_text(generate("acl", 900)))))


def test_what_is_quoted_stays_in_its_quotes() -> None:
    assert quoted('a"b\\N\n\x1b') == '"a\\"b\\\\N\\\\x0a\\\\x1b"'


# ── the command ──────────────────────────────────────────────────────────────


def build(*arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **({"PATH": path} if path is not None else {})}
    argv = [sys.executable, "-m", "penstock", "build", *arguments]
    return subprocess.run(argv, cwd=TOP, capture_output=True, text=True, env=environment)


def test_a_picture_needs_graphviz(tmp_path: Path) -> None:
    target = tmp_path / "edge.svg"
    done = build(str(GOLDEN / "edge.policy"), "--emit", "diagram", "-o", str(target), path=str(tmp_path))
    assert done.returncode == 2
    assert "install graphviz" in done.stderr
    assert not target.exists()


def test_a_picture_is_what_dot_makes_of_the_source(tmp_path: Path) -> None:
    """`dot` is a stand-in that gives back what it was given."""
    dot = tmp_path / "dot"
    dot.write_text('#!/bin/sh\n[ "$1" = -Tsvg ] && exec /bin/cat\n')
    dot.chmod(0o755)
    svg, source = tmp_path / "edge.svg", tmp_path / "edge.dot"
    for target in (svg, source):
        done = build(str(GOLDEN / "edge.policy"), "--emit", "diagram", "-o", str(target), path=str(tmp_path))
        assert done.returncode == 0, done.stderr
    assert svg.read_text() == source.read_text()
    assert source.read_text().startswith("digraph diagram {")


def test_a_dot_that_fails_leaves_no_picture(tmp_path: Path) -> None:
    dot = tmp_path / "dot"
    dot.write_text("#!/bin/sh\nexit 3\n")
    dot.chmod(0o755)
    target = tmp_path / "edge.svg"
    done = build(str(GOLDEN / "edge.policy"), "--emit", "diagram", "-o", str(target), path=str(tmp_path))
    assert done.returncode == 2
    assert "exit code 3" in done.stderr
    assert not target.exists()
