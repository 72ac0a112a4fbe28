"""Write a policy in its canonical form.

Formatting what was formatted changes nothing, and reading it gives the same
tree.  Columns are aligned within a block, long lines break before an operator
or behind a comma, and comments stay where they were.

    default pass

    dns: drop  if udp dst port 53 and not src net $office
         count if icmp or icmp6
         pass
"""

from __future__ import annotations

from penstock.compiler.lang.ast import (
    Expectation,
    Filter,
    Given,
    Item,
    Let,
    OnCondition,
    PacketTest,
    Policy,
    Rule,
    SetDefinition,
    Step,
    Test,
)
from penstock.compiler.lang.feeds import feed_words
from penstock.compiler.lang.layout import Layout, Surroundings, join_lines
from penstock.compiler.lang.source import Span
from penstock.compiler.lang.spelling import expression_parts, format_expression, spell_value
from penstock.model.packet import format_packet, parse_hex
from penstock.model.sets import count_text, time_text
from penstock.model.verdict import Verdict

__all__ = ["format_expression", "format_policy"]

WIDTH = 110
_INDENT = "    "
_WIDEST_STEP = 80


def format_policy(policy: Policy) -> str:
    """The canonical text of a policy, which ends with a line end unless it is empty."""
    layout = Layout(policy)
    groups: list[list[str]] = []
    apart: list[bool] = []
    before: Item | None = None
    widths = _let_widths(policy.items)
    for item in policy.items:
        lines, is_apart = _item(item, layout, widths.get(id(item), 0))
        groups.append(lines)
        alike = isinstance(item, Let | SetDefinition) and type(item) is type(before)
        apart.append(is_apart or not alike)
        before = item
    rest = list(layout.rest())
    lines = join_lines([*groups, rest] if rest else groups, [*apart, True] if rest else apart)
    return "".join(f"{line}\n" for line in lines)


def _item(item: Item, layout: Layout, width: int) -> tuple[list[str], bool]:
    match item:
        case Let():
            around = layout.around(item.span)
            return around.lines(_let(item, width)), around.is_apart
        case SetDefinition():
            around = layout.around(item.span)
            return around.lines(set_line(item)), around.is_apart
        case Filter():
            return _filter(item, layout)
        case Test():
            return _test(item, layout)


# ── let ──────────────────────────────────────────────────────────────────────


def _let_widths(items: tuple[Item, ...]) -> dict[int, int]:
    """For each `let` the longest name of the run of constants that it belongs to."""
    widths: dict[int, int] = {}
    run: list[Let] = []
    for item in (*items, None):
        if isinstance(item, Let):
            run.append(item)
            continue
        width = max((len(let.name) for let in run), default=0)
        widths.update((id(let), width) for let in run)
        run = []
    return widths


def _let(let: Let, width: int) -> str:
    head = f"let {let.name:<{width}} = "
    values = [spell_value(value) for value in let.values]
    return head + wrapped([f"{value}," for value in values[:-1]] + values[-1:], len(head))


def set_line(item: SetDefinition) -> str:
    """The definition of a set; what was left out stays so."""
    words = [f"set {item.name} : {' . '.join(item.kind)}"]
    if item.size is not None:
        words.append(f"size {count_text(item.size)}")
    if item.timeout_ns is not None:
        words.append(f"timeout {time_text(item.timeout_ns)}")
    words += ["counters"] if item.counters else []
    words += ["dynamic"] if item.dynamic else []
    words += [f"as {item.structure}"] if item.structure else []
    return " ".join([*words, *map(feed_words, item.feeds)])


def wrapped(parts: list[str], column: int) -> str:
    """The parts joined by blanks, with line ends where they would grow too wide, indented to `column`."""
    lines: list[str] = [parts[0]]
    for part in parts[1:]:
        if column + len(lines[-1]) + 1 + len(part) > WIDTH:
            lines.append(part)
        else:
            lines[-1] += f" {part}"
    return ("\n" + " " * column).join(lines)


# ── filter ───────────────────────────────────────────────────────────────────


def _filter(item: Filter, layout: Layout) -> tuple[list[str], bool]:
    opening = layout.opening(item.span.start, layout.brace(item.name_span.end, item.span.end))
    statements = _ordered(item)
    around = {id(statement): layout.around(_span(item, statement)) for statement in statements}
    closing = layout.closing(item.span.end)
    settings = [statement for statement in statements if not isinstance(statement, Rule)]
    # `default` comes first, then the conditions in the order written, then the rules.
    settings.sort(key=lambda statement: isinstance(statement, OnCondition))
    lines = [line for setting in settings for line in around[id(setting)].lines(_setting(setting), _INDENT)]
    rules = _rules(item.rules, [around[id(rule)] for rule in item.rules])
    body = [*lines, *([""] if lines and rules else []), *rules]
    return _block(f"filter {item.name} at {item.hook}", opening, body, closing), opening.is_apart


def _ordered(item: Filter) -> list[Verdict | OnCondition | Rule]:
    """The statements of a filter in the order of the text."""
    default = [] if item.default is None else [item.default]
    statements: list[Verdict | OnCondition | Rule] = [*default, *item.conditions, *item.rules]
    return sorted(statements, key=lambda statement: _span(item, statement).start)


def _span(item: Filter, statement: Verdict | OnCondition | Rule) -> Span:
    return item.default_span if isinstance(statement, Verdict) else statement.span


def _setting(statement: Verdict | OnCondition) -> str:
    if isinstance(statement, Verdict):
        return f"default {statement.value}"
    return f"on {statement.condition.word} {statement.verdict.value if statement.verdict else 'continue'}"


def _rules(rules: tuple[Rule, ...], around: list[Surroundings]) -> list[str]:
    label_width = max((len(rule.label) + 2 for rule in rules if rule.label), default=0)
    action_width = max((len(rule.doing) for rule in rules if rule.condition is not None), default=0)
    groups = []
    for rule, surroundings in zip(rules, around, strict=True):
        label = f"{rule.label}:" if rule.label else ""
        head = f"{label:<{label_width}}{rule.doing}"
        if rule.condition is not None:
            head = f"{label:<{label_width}}{rule.doing:<{action_width}} if "
            head += wrapped(expression_parts(rule.condition), len(_INDENT) + len(head))
        groups.append(surroundings.lines(head, _INDENT))
    return join_lines(groups, [surroundings.is_apart for surroundings in around])


def _block(head: str, opening: Surroundings, body: list[str], closing: Surroundings) -> list[str]:
    inner = [*body, *(f"{_INDENT}{comment}" if comment else "" for comment in closing.before)]
    end = "}" if closing.behind is None else f"}}  {closing.behind}"
    return [*opening.lines(f"{head} {{"), *inner, end]


# ── test ─────────────────────────────────────────────────────────────────────


def _test(item: Test, layout: Layout) -> tuple[list[str], bool]:
    opening = layout.opening(item.span.start, layout.brace(item.title_span.end, item.span.end))
    around = [layout.around(step.span) for step in item.steps]
    closing = layout.closing(item.span.end)
    subjects = [_step(step) for step in item.steps]
    asking = [
        subject for subject, step in zip(subjects, item.steps, strict=True) if not isinstance(step, Given)
    ]
    width = max((len(subject) for subject in asking if len(subject) <= _WIDEST_STEP), default=0)
    groups = [
        surroundings.lines(_expecting(subject, step, width), _INDENT)
        for subject, step, surroundings in zip(subjects, item.steps, around, strict=True)
    ]
    body = join_lines(groups, [surroundings.is_apart for surroundings in around])
    target = f" for {item.filter}" if item.filter else ""
    return _block(f"test {_string(item.title)}{target}", opening, body, closing), opening.is_apart


def _expecting(subject: str, step: Step, width: int) -> str:
    """A step with what it demands in a column of its own."""
    if isinstance(step, Given):
        return subject
    return f"{subject:<{width}}  -> {_expectation(step.expect)}"


def _step(step: Step) -> str:
    if isinstance(step, Given):
        return _given(step)
    if isinstance(step, PacketTest):
        return f"packet {_packet(step)}"
    condition = "" if step.condition is None else f" '{format_expression(step.condition)}'"
    return f"pcap {_string(step.path)}{condition}"


def _given(step: Given) -> str:
    head = f"with @{step.set} "
    if step.path is not None:
        return head + _string(step.path)
    entries = [f"{entry}," for entry in step.entries]
    return head + wrapped([*entries[:-1], entries[-1][:-1]], len(_INDENT) + len(head))


def _packet(step: PacketTest) -> str:
    if not step.text.startswith("hex"):
        return format_packet(step.layers)
    return f'hex "{parse_hex(step.text.partition(chr(34))[2].rstrip(chr(34))).hex()}"'


def _expectation(expect: Expectation) -> str:
    text = expect.verdict.value
    if expect.rule is not None:
        text += f" by {expect.rule}"
    if expect.comparison is not None and expect.percent is not None:
        text += f" {expect.comparison} {expect.percent:g}%"
    return text


def _string(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
